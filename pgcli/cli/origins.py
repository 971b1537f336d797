"""What a command line takes from the runs that it names, each job of a sweep from its own.

`pg compare checkpoint=<run>` has the policy and the environment of that run, and a
`behaviour.checkpoint` or `init.checkpoint` is pinned to where it lies and to the iteration that it
had, so that a resumed run, or a sweep typed again, finds the same policy although its source
trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pgcli.cli.compose import Again, Brought, literal, parse
from pgcli.cli.precedence import taken_back
from pgcli.errors import NoCheckpoint, PgError
from pgcli.runs import checkpoint, saved
from pgcli.settings.schema import (
    CompareConfig,
    EvalConfig,
    Role,
    TrainConfig,
    before,
    having,
)

SOURCES = ("behaviour", "init")  # sections that name a run, and one of its iterations
PINNED = tuple(f"{name}.{key}" for name in SOURCES for key in ("checkpoint", "iteration"))


Known = dict[tuple[str, str], int]


def names_runs(config: Any) -> bool:
    """Whether a configuration takes anything from a run that it names."""
    if isinstance(config, EvalConfig):  # which reads them itself: they may be many
        return False
    compared = config.checkpoint if isinstance(config, CompareConfig) else None
    return compared is not None or any(True for _ in _sources(config))


def _sources(config: Any) -> Iterator[tuple[str, Any]]:
    """The sections of a configuration, or of a node, that name a run; `pg compare` has no init."""
    for name in SOURCES:
        section = getattr(config, name, None)
        if section is not None and section.checkpoint is not None:
            yield name, section


def as_trained(lines: Sequence[str], node: DictConfig) -> list[str]:
    """The policy and the environment of the run that `checkpoint=` names, as overrides.

    To stand before `lines`, which `node` is composed of, each of one value; what they choose as a
    group is not taken from the run. NoCheckpoint where there is no such run.
    """
    given = {override.key_or_group for override in parse(lines)}
    run = OmegaConf.select(node, "checkpoint")
    # pg train has a section of that name, and pg eval no policy of its own.
    if "checkpoint" not in given or not isinstance(run, str) or "policy" not in node:
        return []
    checkpoint.load(Path(run))
    try:
        tree = saved.settings(Path(run))
        sections = {name: dict(tree[name]) for name in ("policy", "env") if name not in given}
    except (saved.Unreadable, KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise NoCheckpoint(f"{run}: no settings of a run there: {text}") from error
    env_id = sections.get("env", {}).pop("id", None)
    overrides = _overrides(sections)
    return overrides if env_id is None else [f"env={literal(env_id)}", *overrides]


def brought(lines: Sequence[str], node: DictConfig, again: Again) -> Brought:
    """All that stands before `lines`, which `node` is composed of; NoCheckpoint."""
    back = taken_back(lines, node, again)
    return Brought([*as_trained(lines, node), *back.overrides], back.says)


def as_told(run: Path) -> list[str]:
    """Every setting of a run that no command line began, as overrides; NoCheckpoint."""
    try:
        return _overrides({**saved.settings(run), "resume": None})
    except saved.Unreadable as error:
        raise NoCheckpoint(f"{run}: {error}") from error


def as_begun(run: Path, new: Collection[str]) -> list[str]:
    """What a run is, as overrides, but for the keys and groups that are typed `new`."""
    try:
        tree = saved.settings(run)
    except saved.Unreadable:
        return []  # who reads its checkpoint says it
    free = [*having(Role.BOOKKEEPING, Role.MACHINE), *new]
    if tree.get("total_steps") is not None and not (run / saved.SETTINGS).exists():
        free.append("iterations")  # of a version that noted its default beside a typed total_steps
    kept = {name: x for name, x in tree.items() if name not in free}
    known = {f.name for f in fields(TrainConfig)}
    earlier = {k: x for k, x in before(TrainConfig).items() if k.split(".")[0] not in tree}
    earlier = {k: x for k, x in earlier.items() if k.split(".")[0] not in free}
    lines = _overrides({**{k: x for k, x in kept.items() if k in known}, **earlier})
    out = {*new, *PINNED}  # what is pinned is among a run's own overrides already
    return [line for line in lines if line.partition("=")[0].lstrip("+") not in out]


def _overrides(sections: dict[str, Any]) -> list[str]:
    """A tree's sections and values as overrides that win over whatever is composed."""
    overrides = []
    for name, section in sections.items():
        if isinstance(section, dict):
            overrides += [f"++{name}.{key}={literal(value)}" for key, value in section.items()]
        else:
            overrides.append(f"++{name}={literal(section)}")
    return overrides


def pins(config: Any, known: Known | None = None) -> list[str]:
    """Where the policies that a configuration takes lie, and of which iteration, as overrides.

    `known` has the iterations that are settled already, by section and directory.
    """
    pinned = []
    for name, section in _sources(config):
        place = Path(section.checkpoint).absolute()
        iteration = section.iteration or (known or {}).get((name, str(place)))
        ckpt = checkpoint.load(Path(section.checkpoint), iteration)
        where = f"{name}.checkpoint={literal(str(place))}"
        pinned += [where, f"{name}.iteration={ckpt.iteration}"]
    return pinned


@contextmanager
def brought_along(directory: Path) -> Iterator[None]:
    """Let each job of a sweep in `directory` have what it takes from the runs that it names.

    Hydra has no place for that, but every job of every sweeper passes through a launcher.
    """
    known = _settled(directory)
    make = Plugins.instantiate_launcher

    def instantiate_launcher(self: Plugins, **given: Any) -> Launcher:
        return _Completing(make(self, **given), given, known)

    Plugins.instantiate_launcher = instantiate_launcher  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Plugins.instantiate_launcher = make  # type: ignore[method-assign]


class _Completing(Launcher):
    """Completes jobs, then hands them to another launcher."""

    def __init__(self, launcher: Launcher, given: dict[str, Any], known: Known) -> None:
        self._launcher, self._known = launcher, known
        self.setup(**given)

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Remember what jobs are composed with."""
        self._loader, self._config = hydra_context.config_loader, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs."""
        jobs = [
            self._completed(list(lines), number)
            for number, lines in enumerate(job_overrides, initial_job_idx)
        ]
        return self._launcher.launch(jobs, initial_job_idx)

    def _completed(self, lines: list[str], number: int) -> list[str]:
        def again(more: Sequence[str]) -> DictConfig:
            node: DictConfig = self._loader.load_sweep_config(self._config, [*lines, *more])
            return node

        try:
            node = again([])
            with open_dict(node):
                node.hydra.job.id = node.hydra.job.num = number
            place = str(node.hydra.sweep.subdir)  # a name may not change with what is brought
            job = Path(node.hydra.sweep.dir) / place
            after = [] if _begun_unpinned(job) else pins(node, self._known)
            return [
                *brought(lines, node, again).overrides,
                *lines,
                *after,
                f"hydra.sweep.subdir={literal(place)}",
            ]
        except (PgError, OmegaConfBaseException):
            return lines  # the job says it, and no other has to suffer


def _settled(sweep: Path) -> Known:
    """The iterations that were newest to a sweep's jobs, by section and directory of the run."""
    newest: Known = {}
    for job in sorted(path.parent for path in sweep.rglob(saved.HYDRAS)):
        for name in SOURCES:
            where, iterations = _noted(job, name)
            *typed, last = iterations or [None]
            if where and last is not None and not any(typed):
                newest.setdefault((name, where[-1]), last)
    return newest


def _begun_unpinned(job: Path) -> bool:
    """Whether a job goes on that took its behaviour's newest policy, as sweeps once did."""
    where, iterations = _noted(job, "behaviour")
    return bool(where) and not any(iterations) and bool(checkpoint.iterations(job))


def _noted(job: Path, name: str) -> tuple[list[Any], list[Any]]:
    """What a job was given as the checkpoint and iteration of a section, one after the other."""
    given = [(o.key_or_group, o.value()) for o in parse(saved.overrides(job))]
    keys = f"{name}.checkpoint", f"{name}.iteration"
    where, iterations = ([value for k, value in given if k == key] for key in keys)
    return where, iterations
