"""`pg eval`: play the policies of runs, greedy and sampled, and tell what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgcli.collection.play import AFTERWARDS, Played, play
from pgcli.environments.choose import open_engine, slots_per_seed
from pgcli.evaluation import export, video
from pgcli.evaluation.figures import of_episodes, of_info, over_seeds
from pgcli.evaluation.results import Evaluated, write
from pgcli.evaluation.subject import Trained, load, repeatable
from pgcli.machine import cores
from pgcli.policies.actor import ACTORS
from pgcli.runs.directory import lock
from pgcli.runs.progress import Progress, short
from pgcli.settings.schema import Acting, EvalConfig


def check(config: EvalConfig, runs: Sequence[Trained]) -> None:
    """Raise what would be raised later: a run that is not there, spaces that do not fit, ..."""
    if config.export is not None:
        export.check(config.export)
    if config.video is not None:
        video.check(config.video)
    for trained in runs:
        load(trained, config.iteration)
        if config.video is not None:
            video.check_environment(config.video, repeatable(trained.env))


def unused(config: EvalConfig) -> dict[str, str]:
    """The settings that can have no effect, whatever their values: why, by key."""
    idle = dict.fromkeys(("log.seeds", "log.wandb", "log.recorder"), "it is for pg train")
    if config.video is None:
        idle["video_episode"] = "video is null"
    return idle


def run(config: EvalConfig, runs: Sequence[Trained], directory: Path) -> None:
    """Evaluate them; the table, eval.json, videos and exported policies lie in `directory`."""
    cores.begin()
    if config.video is not None:
        video.headless()
    with lock(directory):
        progress = Progress(config.log.interval)
        try:
            found = [
                _evaluated(config, trained, directory, progress, (i, len(runs)))
                for i, trained in enumerate(runs)
            ]
        finally:
            progress.close()
        write(directory, config, found, progress)


def _evaluated(
    config: EvalConfig,
    trained: Trained,
    directory: Path,
    progress: Progress,
    part: tuple[int, int],
) -> Evaluated:
    subject = load(trained, config.iteration)
    env = repeatable(trained.env)
    slots = slots_per_seed(env, config.episodes)
    seeds, iteration = subject.seeds, AFTERWARDS + config.seed
    engine = open_engine(env, len(seeds) * slots, slots)
    played: dict[Acting, Played] = {}
    try:
        for j, acting in enumerate(Acting):
            spent = (part[0] + j / len(Acting)) / part[1]
            progress.advance(spent, [f"{trained.label or trained.directory} {acting.name}"])
            actor = ACTORS[acting](subject.policy, subject.theta, seeds, iteration, slots)
            played[acting] = play(engine, actor, config.episodes, seeds, iteration)
    finally:
        engine.close()
    each = {
        acting: [_figures(x, s, config.level, env.info) for s in range(len(seeds))]
        for acting, x in played.items()
    }
    place = directory / trained.label
    film: dict[str, Any] | None = None
    if config.video is not None:
        progress.advance(spent, [f"{trained.label or trained.directory} drawn"])
        film = video.record(
            config.video, config.video_episode, place, subject, env, slots, iteration,
            played[Acting.greedy],
        )  # fmt: skip
        if film["return"] != film["evaluated_return"]:
            progress.say(
                f"note: {place / film['file']}: played again the episode came to "
                f"{film['return']:g}, and it was {film['evaluated_return']:g}: the environment "
                "does not repeat itself from its seed"
            )
    exported: list[str] = []
    if config.export is not None:
        exported = export.write(config.export, place, subject)
    mean = short(float(played[Acting.greedy].returns.mean()))
    progress.advance((part[0] + 1) / part[1], [f"{trained.label or trained.directory} {mean}"])
    return Evaluated(
        trained,
        subject.iterations,
        seeds,
        engine.name,
        each,
        {a: over_seeds(x, config.level) for a, x in each.items()} if len(seeds) > 1 else None,
        engine.notices(),
        film,
        exported,
    )


def _figures(played: Played, s: int, level: float, entries: Sequence[str]) -> dict[str, Any]:
    own = of_episodes(played.returns[s], played.length[s], played.success[s], level)
    return {**own, "info": of_info(entries, played.info[s])}
