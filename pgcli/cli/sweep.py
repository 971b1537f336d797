"""A sweep from the outside: where it lies, what is left to do, and what became of its jobs."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from pgcli.cli.commands import COMMANDS
from pgcli.cli.job import FAILURES
from pgcli.errors import PgError, RunDirectoryError, Stopped, StorageFailed
from pgcli.machine import signals
from pgcli.reports.results import at_end
from pgcli.runs import summary
from pgcli.runs.checkpoint import MAY_CHANGE
from pgcli.runs.directory import content, holds_run, is_held, lock, write_atomically
from pgcli.runs.progress import Progress, Series, fitting, series, short, table
from pgcli.runs.saved import HYDRAS, Run, limits, natural, overrides, read, recent_return
from pgcli.runs.tags import RECENT, VARIANCE
from pgcli.settings.schema import Role, TrainConfig, having, role_of

NOTE = "sweep.json"
LIMITS = having(Role.BUDGET)
FINISHED, NOT_BEGUN = "finished", "not begun"
TICKED = 40  # runs that TensorBoard shows without being asked
LOOK = 1.0  # seconds between looks at jobs that run elsewhere
FAREWELL = 20  # seconds that stopped jobs have to save what they are
TURNS = 5.0  # seconds for the jobs of an earlier process to see that it is gone


@dataclass(frozen=True)
class Plan:
    """What a sweep is asked to do."""

    command: str
    flags: list[str]  # where its configuration comes from
    fixed: list[str]  # overrides that all jobs share
    swept: dict[str, str]  # what is swept over, by key
    jobs: list[str] | None  # names of their directories; None: a sweeper's own choice
    # Iterations and total_steps of every job; None where they differ, or were not noted.
    budget: tuple[int | None, int | None] | None = field(default=None, compare=False)

    def fits(self, other: Plan) -> bool:
        """Whether both differ in budget and in swept values at most: jobs of one name are alike."""
        return _settings(self) == _settings(other)


def _settings(plan: Plan) -> tuple[str, list[str], list[str], set[str]]:
    lines = [line for line in plan.fixed if not _may_change(line)]
    return plan.command, plan.flags, sorted(lines), set(plan.swept)


def _may_change(line: str) -> bool:
    """Whether an override is of a setting that jobs may have otherwise when they go on."""
    return role_of(line.lstrip("+~").partition("=")[0]) in MAY_CHANGE


def common_budget(
    configs: Sequence[Any], swept: Mapping[str, str]
) -> tuple[int | None, int | None] | None:
    """Iterations and total_steps, where all jobs are known to have the same."""
    if not all(isinstance(config, TrainConfig) for config in configs) or set(LIMITS) & set(swept):
        return None
    budgets = {(config.iterations, config.total_steps) for config in configs}
    return budgets.pop() if len(budgets) == 1 else None


def to_continue(plan: Plan, directory: Path, named: bool) -> Path | None:
    """The directory of an earlier sweep that this one goes on with, if there is one.

    RunDirectoryError where `directory`, `named` by the user, holds something else.
    """
    if not named and plan.jobs is None:
        return None  # a sweeper that chooses would choose others
    if not named:  # directory is <root>/<date>/<time>
        notes = sorted(directory.parent.parent.glob(f"*/*/{NOTE}"), key=_newest, reverse=True)
        same = (path.parent for path in notes if _noted(path.parent) == plan)
        last = next(same, None)
        if last is None or is_held(last):
            return None
        return None if all(_is_finished(plan, last / name) for name in plan.jobs or ()) else last
    earlier = _noted(directory)
    if earlier is None:
        if holds_sweep(directory) or any(map(holds_run, _job_directories(directory))):
            raise RunDirectoryError(f"{directory} holds a sweep: choose another hydra.sweep.dir")
        return None
    if not plan.fits(earlier):
        was = " ".join([*earlier.fixed, *(f"{k}={v}" for k, v in earlier.swept.items())])
        raise RunDirectoryError(
            f"{directory} holds another sweep ({was}): choose another hydra.sweep.dir"
        )
    return directory


def holds_sweep(directory: Path) -> bool:
    """Whether Hydra swept here."""
    return (directory / "multirun.yaml").exists()


def is_bare(directory: Path) -> bool:
    """Whether no job has left anything in it."""
    jobs = _job_directories(directory)
    return not any(map(holds_run, jobs)) and not (directory / FAILURES).exists()


def run(
    plan: Plan,
    directory: Path,
    launch: Callable[[list[str] | None], None],
    interval: float,
    here: bool,
) -> int:
    """Let `launch(names)` run the jobs of these names (None: all) in `directory`; an exit code.

    However it ends, the table of all jobs is shown, once any has begun. `interval`: seconds between
    lines where there is no terminal; `here`: whether jobs run in this process, which shows them.
    """
    progress = Progress(interval)
    with _held(directory) as release:
        before = sum(_is_finished(plan, directory / name) for name in _names(plan, directory))
        start = time.time()
        if before:
            progress.say(f"{directory}: {before} jobs are finished already")
        write_atomically(directory / NOTE, json.dumps(asdict(plan), indent=1).encode())
        (directory / FAILURES).unlink(missing_ok=True)
        try:
            left = None if plan.jobs is None else len(plan.jobs) - before
            with (
                _stopping(directory, release),
                series(Series(left)) if here else _watched(plan, directory, progress),
            ):
                _in_turns(plan, directory, launch, progress)
        finally:
            failures = _failures(directory)
            names = _names(plan, directory, start)
            rows = [_row(plan, directory / name, name, failures.get(name)) for name in names]
            if any(row[1] != NOT_BEGUN for row in rows):
                progress.say(_shown(rows))
                if COMMANDS[plan.command].reported:
                    progress.say(f"pg report {directory}")
                progress.say(_board(directory))
    if all(row[1] == NOT_BEGUN for row in rows):
        raise PgError(f"no job has begun: their processes must see {directory.resolve()}")
    return 0 if rows and all(row[1] == FINISHED for row in rows) else 1


def _board(directory: Path) -> str:
    """How to look at it: beyond so many runs TensorBoard begins with none of them."""
    count = len({path.parent for path in directory.rglob("events.out.tfevents.*")})
    if count > TICKED:
        return (
            f"of {count} runs TensorBoard draws all in a chart or, in Scalars and Custom Scalars, "
            "none: the folder that pg report writes has a mean and band for each group"
        )
    return f"tensorboard --logdir {directory}"


@contextmanager
def _watched(plan: Plan, directory: Path, progress: Progress) -> Iterator[None]:
    """Show how many jobs are finished, and what they have to say, which run elsewhere."""
    names = list(plan.jobs or ())
    waiting = [name for name in names if not _is_finished(plan, directory / name)]
    asked, said, over = len(waiting), set[str](), Event()

    def look() -> None:
        for name in [one for one in waiting if _is_finished(plan, directory / one)]:
            waiting.remove(name)
            for text in summary.remarks(summary.read(directory / name)):
                if text not in said:
                    said.add(text)
                    progress.say(f"{name}: {text}")
        if asked:
            done = asked - len(waiting)
            progress.advance(done / asked, [f"{done} of {asked} jobs"])

    def go_on_looking() -> None:
        while not over.wait(LOOK):
            look()

    thread = Thread(target=go_on_looking, name="pg-sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
        progress.close()


def _in_turns(
    plan: Plan, directory: Path, launch: Callable[[list[str] | None], None], progress: Progress
) -> None:
    """Launch all jobs; where a worker died, the lost ones again, those that may kill it alone."""
    turns: list[list[str] | None] = [None]
    while turns:
        names, start = turns.pop(0), time.time()
        try:
            launch(names)
        except PgError:
            raise
        except OSError as error:  # Hydra's, where it makes the directories
            raise StorageFailed(f"{error.filename or directory}: {error.strerror}") from error
        except Exception as error:  # the launcher's: a worker of it was killed
            failures = _failures(directory)
            lost = [
                name
                for name in plan.jobs or ()
                if (names is None or name in names)
                and name not in failures
                and not _is_finished(plan, directory / name)
            ]
            begun = [name for name in lost if _begun(directory / name) >= start]
            if not begun:
                raise PgError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
            if names is not None and len(names) == 1:
                continue  # it was alone, so it is to blame; the table tells
            waiting = [name for name in lost if name not in begun]
            progress.say(f"a worker died; {len(lost)} jobs are started again")
            turns = [*([waiting] if waiting else []), *turns, *([name] for name in begun)]


@contextmanager
def _held(directory: Path) -> Iterator[Callable[[], None]]:
    """Hold the sweep; its jobs end when it is let go of, by the function or by death."""
    until = time.monotonic() + TURNS
    while is_held(directory) and time.monotonic() < until:
        time.sleep(0.1)
    holding = lock(directory)
    holding.__enter__()
    is_open = True

    def release() -> None:
        nonlocal is_open
        if is_open:
            is_open = False
            holding.__exit__(None, None, None)

    try:
        yield release
    finally:
        release()


def _stopping(directory: Path, release: Callable[[], None]) -> AbstractContextManager[None]:
    """On SIGINT and SIGTERM let the jobs of other processes save what they are, then raise."""

    def farewell() -> None:
        release()
        until = time.monotonic() + FAREWELL
        while any(map(is_held, _job_directories(directory))) and time.monotonic() < until:
            time.sleep(0.1)

    return signals.answered(farewell)


def _noted(directory: Path) -> Plan | None:
    try:
        plan = Plan(**json.loads(content(directory / NOTE)))
        _settings(plan)
    except (OSError, ValueError, TypeError, AttributeError):  # none, or a hand has been at it
        return None
    return plan


def _names(plan: Plan, directory: Path, since: float = -math.inf) -> list[str]:
    """All jobs, whether they are there or not; of a sweeper's own choice those begun since."""
    if plan.jobs is not None:
        return plan.jobs
    there = (job for job in _job_directories(directory) if _begun(job) >= since)
    return [os.path.relpath(job, directory) for job in there]


def _job_directories(directory: Path) -> list[Path]:
    return sorted((path.parent for path in directory.rglob(HYDRAS)), key=natural)


def _is_finished(plan: Plan, job: Path) -> bool:
    """Whether it came to its end, and that end is the one that is asked for."""
    if summary.read(job).get("status") != FINISHED:
        result = COMMANDS[plan.command].result
        return bool(result) and (job / result).exists()
    if plan.budget is not None:
        return limits(job) == plan.budget
    done = {k: v for k, v in _budget(overrides(job)).items() if k not in plan.swept}
    return done == _budget(plan.fixed)  # a swept one is in the job's name


def _budget(lines: Sequence[str]) -> dict[str, float | str]:
    """Those overrides that say how long to train."""
    pairs = (line.lstrip("+~").partition("=") for line in lines)
    return {key: _number(value) for key, _, value in pairs if key in LIMITS}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _failures(directory: Path) -> dict[str, dict[str, str]]:
    """What the jobs that ended early said, by their names."""
    try:
        lines = content(directory / FAILURES).decode(errors="replace").splitlines()
    except OSError:
        return {}
    notes = []
    for line in lines:
        with suppress(ValueError):  # a full disk may leave half a line
            notes.append(json.loads(line))
    return {note["job"]: note for note in notes}


def _newest(path: Path) -> float:
    return path.stat().st_mtime


def _begun(job: Path) -> float:
    """When it was last begun; Hydra writes its configuration then."""
    try:
        return (job / HYDRAS / "config.yaml").stat().st_mtime
    except OSError:
        return -math.inf


def _row(plan: Plan, job: Path, name: str, failure: Mapping[str, str] | None) -> list[str]:
    """Name, state, mean return and variance over its seeds; the reason where it failed."""
    outcome = read(job)
    if failure is not None:
        state = "stopped" if failure["error"] == Stopped.__name__ else "failed"
        reason = failure["reason"]
    elif _is_finished(plan, job):
        state, reason = FINISHED, ""
    elif (job / HYDRAS).exists():
        state, reason = "lost", outcome.reason
    else:
        state, reason = NOT_BEGUN, ""
    return [name, state, *_figures(outcome), reason]


def _figures(run: Run) -> list[str]:
    seeds = list(run.records.values())
    if not seeds:
        return ["—", "—"]
    final = np.mean([recent_return(rows)[-1] for rows in seeds])
    return [short(float(final)), f"{np.mean([at_end(rows, VARIANCE) for rows in seeds]):.3g}"]


def _shown(rows: Sequence[Sequence[str]]) -> str:
    """The table of all jobs, then why some are not finished."""
    headers = ["job", "state", f"return (last {RECENT})", "variance"]
    width = max(len(row[0]) for row in rows)
    cells = [[row[0].ljust(width), *row[1:4]] for row in rows]
    count = fitting(headers, cells)
    lines = [table([row[:count] for row in cells], headers[:count])]
    count = sum(row[1] == FINISHED for row in rows)
    lines.append(f"{count} of {len(rows)} jobs finished")
    return "\n".join([*lines, *(f"{row[0]}: {row[4]}" for row in rows if row[4])])
