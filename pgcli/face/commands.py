"""What `pg` does, as functions: the same words, the same files, nothing left changed behind."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from pgcli.cli.guest import ONE_AT_A_TIME, as_guest
from pgcli.errors import PgError, Stopped
from pgcli.face.runs import Result, Run, load
from pgcli.runs.directory import EVALUATION

Path_ = str | os.PathLike[str]


@overload
def train(
    first: Literal["-m", "--multirun"],
    *words: str,
    dir: Path_ | None = None,
    verbose: bool = False,
    **settings: Any,
) -> list[Run]: ...
@overload
def train(*words: str, dir: Path_ | None = None, verbose: bool = False, **settings: Any) -> Run: ...
def train(
    *words: str, dir: Path_ | None = None, verbose: bool = False, **settings: Any
) -> Run | list[Run]:
    """Train as `pg train <words>` does; a Run, or for `-m` the list of them.

    Settings may also be keyword arguments, with two underscores for a dot, or a dictionary for a
    section: `optimizer__lr=0.1`, `optimizer={"lr": 0.1}`. `dir`: where it is to lie. `verbose`:
    print what the command prints. What is given and has no effect is a UserWarning. Raises the
    errors of `pgcli.errors`, ConfigError before anything is written; KeyboardInterrupt once the run
    has kept what it had.
    """
    return load(_launched("train", words, dir, settings, verbose))


def compare(
    *words: str, dir: Path_ | None = None, verbose: bool = False, **settings: Any
) -> Result:
    """Compare estimators as `pg compare <words>` does; a run may be given as `checkpoint`."""
    place = _launched("compare", words, dir, settings, verbose)
    return Result(place, "compare.json", "estimators")


def evaluate(
    *words: str, dir: Path_ | None = None, verbose: bool = False, **settings: Any
) -> Result:
    """Evaluate policies as `pg eval <words>` does; a run may be given as `checkpoint`."""
    return Result(_launched("eval", words, dir, settings, verbose), EVALUATION, "runs")


def report(
    *paths: Path_ | Run,
    out: Path_ | None = None,
    threshold: float | None = None,
    unfinished: bool = False,
    verbose: bool = False,
) -> Path:
    """Report on runs as `pg report <paths>` does; the directory with tables and pictures.

    threshold: the mean return to reach; `unfinished`: let runs count that have not finished.
    """
    from pgcli.reports.report import WHERE
    from pgcli.reports.report import report as reported

    place = Path(datetime.now().strftime(WHERE) if out is None else out)
    words = [str(path.path if isinstance(path, Run) else path) for path in paths]
    if threshold is not None:
        words += ["--threshold", str(threshold)]
    words += ["--unfinished"] if unfinished else []
    with as_guest(), _shown(verbose):
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
    from pgcli.environments.choose import open_engine, slots_per_seed
    from pgcli.evaluation.figures import of_episodes
    from pgcli.evaluation.subject import repeatable

    with ONE_AT_A_TIME:
        with as_guest():
            (one,) = compose_all(
                "train", [f"env={env}", "method=none", *words], None, multirun=False
            )
            config = repeatable(one.config.env)
            engine = open_engine(config, slots_per_seed(config, episodes), stopping=True)
        try:  # `act` finds everything as its own program has it
            played = play_callable(engine, act, episodes, 0, AFTERWARDS + seed)
        finally:
            engine.close()
    return of_episodes(played.returns[0], played.length[0], played.success[0], level)


def _launched(
    command: str,
    words: Sequence[str],
    directory: Path_ | None,
    settings: Mapping[str, Any],
    verbose: bool,
) -> Path:
    from pgcli.cli.launch import launch
    from pgcli.face.words import line

    lines = line(command, words, directory, settings)
    places: list[Path] = []
    idle: list[str] = []
    with _interruptible(), as_guest(), _shown(verbose):
        code = launch(command, lines, places.append, idle.extend)
    for text in idle:
        warnings.warn(text, UserWarning, stacklevel=3)
    if code != 0:
        raise PgError(f"not all jobs of {places[-1]} have finished; its failures.jsonl says why")
    return places[-1].absolute()


@contextmanager
def _interruptible() -> Iterator[None]:
    """An end by a signal is one by the user, where it reaches a program of theirs."""
    try:
        yield
    except Stopped as stop:
        raise KeyboardInterrupt from stop


@contextmanager
def _shown(verbose: bool) -> Iterator[None]:
    from pgcli.runs.progress import Series, series

    with nullcontext() if verbose else series(Series(None, silent=True)):
        yield
