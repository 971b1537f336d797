"""What `pg` does, as functions: the same words, the same files, nothing left changed behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pgcli.cli.guest import as_it_was
from pgcli.errors import ConfigError, PgError
from pgcli.face.runs import Result, Run, load


def train(*words: str, verbose: bool = False, **settings: Any) -> Run | list[Run]:
    """Train as `pg train <words>` does; a Run, or for `-m` the list of them.

    Settings may also be keyword arguments, with two underscores for a dot: `optimizer__lr=0.1`.
    `verbose`: print what the command prints. Raises the errors of `pgcli.errors`, ConfigError
    before anything is written; KeyboardInterrupt once the run has kept what it had.
    """
    place = _launched("train", words, settings, verbose)
    return load(place)


def compare(*words: str, verbose: bool = False, **settings: Any) -> Result:
    """Compare estimators as `pg compare <words>` does; a run may be given as `checkpoint`."""
    return Result(_launched("compare", words, settings, verbose), "compare.json", "estimators")


def evaluate(*words: str, verbose: bool = False, **settings: Any) -> Result:
    """Evaluate policies as `pg eval <words>` does; a run may be given as `checkpoint`."""
    return Result(_launched("eval", words, settings, verbose), "eval.json", "runs")


def report(
    *paths: str | os.PathLike[str] | Run,
    out: str | os.PathLike[str] | None = None,
    verbose: bool = False,
) -> Path:
    """Report on runs as `pg report <paths>` does; the directory with tables and pictures."""
    from pgcli.reports.report import WHERE
    from pgcli.reports.report import report as reported

    place = Path(datetime.now().strftime(WHERE) if out is None else out)
    words = [str(path.path if isinstance(path, Run) else path) for path in paths]
    with as_it_was(), _shown(verbose):
        reported([*words, "--out", str(place)])
    return place


def play(
    env: str,
    act: Callable[[np.ndarray], np.ndarray],
    *words: str,
    episodes: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Figures of whole episodes of any policy, as `pg eval` has them of its own.

    act: observations [E, *shape] of so many copies side by side to their actions, as the
    environment takes them; `words`: further settings of `env.`, as typed. From the same starts as
    `pg.evaluate` of a run's seed 0, where there are as many copies.
    """
    from pgcli.cli.compose import compose_all
    from pgcli.collection.play import AFTERWARDS, play_callable
    from pgcli.environments.choose import open_engine, slots_per_seed, stopping
    from pgcli.evaluation.figures import of_episodes

    with as_it_was():
        (one,) = compose_all("train", [f"env={env}", "method=none", *words], None, multirun=False)
        config = stopping(one.config.env)
        engine = open_engine(config, slots_per_seed(config, episodes))
        try:
            played = play_callable(engine, act, episodes, 0, AFTERWARDS + seed)
        finally:
            engine.close()
    return of_episodes(played.returns[0], played.length[0], played.success[0], level)


def _launched(
    command: str, words: tuple[str, ...], settings: dict[str, Any], verbose: bool
) -> Path:
    from pgcli.cli.compose import literal
    from pgcli.cli.launch import launch

    lines = list(words)
    for name, value in settings.items():
        key = name.replace("__", ".")
        text = str(value.path) if isinstance(value, Run) else value
        if isinstance(text, os.PathLike):
            text = os.fspath(text)
        if isinstance(text, (list, tuple)):
            text = list(text)
        lines.append(f"{key}={literal(text)}")
    if any(word in ("-h", "--help", "--hydra-help", "--info", "--cfg") for word in lines):
        raise ConfigError("words", " ".join(words), "settings, and -m; help is the command line's")
    places: list[Path] = []
    with as_it_was(), _shown(verbose):
        code = launch(command, lines, places.append)
    if code != 0:
        raise PgError(f"not all jobs of {places[-1]} have finished; its failures.jsonl says why")
    return places[-1].absolute()


@contextmanager
def _shown(verbose: bool) -> Iterator[None]:
    from pgcli.runs.progress import Series, series

    with nullcontext() if verbose else series(Series(None, silent=True)):
        yield
