"""Runs that lie on disk: where they are, what they were told, what they recorded, how they ended.

Everything that reads a run does so from here; its checkpoints are `checkpoint`'s matter.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml  # type: ignore[import-untyped]

from pgcli.runs import summary
from pgcli.runs.checkpoint import Checkpoint
from pgcli.runs.directory import content, text_lines, write_atomically
from pgcli.runs.tags import EPISODES, KEYS, NORM_SQ, RECENT, RETURN, TRACE_COV, VARIANCE
from pgcli.settings.schema import TrainConfig, before, budget
from pgcli.statistics.curves import running_mean

T = TypeVar("T")


class State(Enum):
    """How a run ended."""

    finished = auto()
    unfinished = auto()
    empty = auto()
    broken = auto()


SETTINGS = "config.yaml"
NEEDED = (*KEYS, RETURN, EPISODES)
MEASURED = (VARIANCE, TRACE_COV, NORM_SQ)  # or NaN
WHOLE = KEYS  # numbers without a fraction
ROW = np.dtype([(c, np.int64 if c in WHOLE else np.float64) for c in (*NEEDED, *MEASURED)])

HYDRAS = ".hydra"
INSIDE = (HYDRAS, "checkpoint")  # hold no runs
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is built


@dataclass(frozen=True)
class Run:
    """A run directory as it was found. Nothing wrong with one is an error: `state` tells it."""

    directory: Path
    state: State
    reason: str  # why it is not finished
    settings: dict[str, Any] | None  # as `settings` reads them; None: not readable
    records: dict[int, np.ndarray]  # rows [R] of ROW by seed, env_steps increasing

    @cached_property
    def config(self) -> dict[str, str] | None:
        """Its settings as text by dotted key, a budget as what it comes to; None: not readable.

        Those that it does not know by what it did in their place: see `settings.schema.since`.
        """
        if self.settings is None:
            return None
        tree = dict(self.settings)
        if "iterations" in tree:
            tree["iterations"], _ = budget(tree["iterations"], tree.get("total_steps"))
        told = dict(_flat(tree))
        return told | {key: _text(x) for key, x in before(TrainConfig).items() if key not in told}

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """What it set out to show."""
        claims = (self.settings or {}).get("claims")
        return [c for c in claims if isinstance(c, dict)] if isinstance(claims, list) else []

    @cached_property
    def choices(self) -> dict[str, str]:
        """The option chosen in each group; nothing where no command line was there to choose."""
        try:
            chosen = _yaml(self.directory / HYDRAS / "hydra.yaml")["hydra"]["runtime"]["choices"]
            options = chosen.items()
        except (Unreadable, KeyError, TypeError, AttributeError):
            return {}  # they only make labels shorter
        return {k: str(v) for k, v in options if not k.startswith("hydra/") and v is not None}

    @cached_property
    def typed(self) -> set[str]:
        """The keys that its user typed."""
        return {line.partition("=")[0].lstrip("+~") for line in overrides(self.directory)}

    def column(self, seed: int, name: str) -> np.ndarray:
        """Any column of metrics.csv for one seed, [R]; a single NaN where it cannot be read."""
        try:
            rows = csv.DictReader(text_lines(self.directory / "metrics.csv"))
            cells = [row[name] for row in rows if row["seed"] == str(seed)]
            return np.array(cells, float)
        except (OSError, KeyError, TypeError, ValueError):
            return np.full(1, np.nan)


def find(paths: Sequence[Path]) -> list[Path]:
    """Every run directory at or below the paths, once, in natural order for each path."""
    runs: dict[str, Path] = {}
    for path in paths:
        for directory in sorted(_below(path), key=natural):
            runs.setdefault(os.path.realpath(directory), directory)
    return list(runs.values())


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts job 2 of a sweep before job 10."""
    words = re.split(r"(\d+)", str(path))
    return [(0, int(w), "") if w.isdecimal() else (1, 0, w) for w in words]


def read(directory: Path) -> Run:
    """What there is to know of a run."""
    tree, told = None, ""
    try:
        tree = settings(directory)
    except Unreadable as error:
        told = str(error)
    try:
        records = _records(directory / "metrics.csv")
    except Unreadable as error:
        return Run(directory, State.broken, str(error), tree, {})
    state, reason = _ending(directory / "summary.json", records)
    if tree is None and records:
        state, reason = State.broken, told
    return Run(directory, state, reason, tree, records)


def recent_return(rows: np.ndarray) -> np.ndarray:
    """Mean return of the last RECENT episodes after each row [R] of a seed, [R]."""
    return running_mean(rows[RETURN], rows[EPISODES], RECENT)


def as_composed(directory: Path) -> str | None:
    """What Hydra composed for a run that a command line begins here, interpolations unresolved."""
    try:
        return content(directory / HYDRAS / SETTINGS).decode()
    except (OSError, ValueError):
        return None


def write_settings(directory: Path, config: Any, text: str | None = None) -> str:
    """Write the whole configuration of a run, a dataclass, beside its records; its text.

    `text`: the same with interpolations, and so secrets, unresolved, where a command line gave it.
    """
    if text is None:
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
    write_atomically(directory / SETTINGS, text.encode())
    return text


def plain(config: TrainConfig) -> dict[str, Any]:
    """Its settings by section, as YAML has them."""
    tree: dict[str, Any] = _plain(asdict(config))
    return tree


def settings(directory: Path) -> dict[str, Any]:
    """What a run was told, by section, interpolations unresolved; Unreadable.

    Older runs have only what Hydra notes, and so has one that has not begun.
    """
    path = directory / SETTINGS
    tree = _yaml(path if path.exists() else directory / HYDRAS / SETTINGS)
    if not isinstance(tree, dict):
        raise Unreadable(f"{path.name}: no settings there")
    return tree


def unknown(directory: Path) -> dict[str, Any]:
    """What a run that is here did in the place of settings that it does not know, by dotted key.

    Nothing where there is no run, or its settings cannot be read.
    """
    try:
        told = dict(_flat(settings(directory)))
    except Unreadable:
        return {}
    sections = {key.split(".")[0] for key in told}
    earlier = before(TrainConfig)
    return {
        key: value
        for key, value in earlier.items()
        if key not in told and key.split(".")[0] in sections
    }


def overrides(directory: Path) -> list[str]:
    """What was typed to start a run; nothing where that cannot be read."""
    try:
        return [str(line) for line in _yaml(directory / HYDRAS / "overrides.yaml") or []]
    except (Unreadable, TypeError):
        return []


def telling(directory: Path, settings: Mapping[str, T]) -> dict[str, T | str]:
    """Of a run's settings those that its user gave, a group by what was chosen in it.

    So runs of one sweep have the same ones. All, where no command line began it.
    """
    run = Run(directory, State.empty, "", None, {})
    if not run.choices:
        return dict(settings)
    typed = run.typed | {"env", "estimator"}
    chosen = {group: option for group, option in run.choices.items() if group in typed}
    return {**chosen, **{key: value for key, value in settings.items() if key in typed}}


def limits(directory: Path) -> tuple[int | None, int | None] | None:
    """Iterations and total_steps that a run was last begun with; None where that is not told."""
    try:
        tree = settings(directory)
        return budget(tree["iterations"], tree["total_steps"])
    except (Unreadable, KeyError):
        return None


def is_complete(directory: Path, newest: Checkpoint, config: TrainConfig) -> bool:
    """Whether a run has come to the end of this budget: there is nothing to go on with."""
    told = summary.read(directory)
    return (
        (told.get("status"), told.get("reason")) == ("finished", None)
        and told.get("iterations") == newest.iteration
        and limits(directory) == budget(config.iterations, config.total_steps)
    )


class Unreadable(Exception):
    """A file cannot be used; the message says which and why."""


def _below(root: Path) -> Iterator[Path]:
    """Run directories at or below `root`; a directory that cannot be listed may be one."""
    places = [os.fspath(root)]
    while places:
        place = places.pop()
        names = set()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    names.add(entry.name)
                    if entry.name not in INSIDE and entry.is_dir(follow_symlinks=False):
                        places.append(entry.path)
        except OSError:
            yield Path(place)
            continue
        if "metrics.csv" in names or (HYDRAS in names and _is_training(Path(place))):
            yield Path(place)


def _is_training(directory: Path) -> bool:
    """Whether Hydra started `pg train` here, which has not left a row yet."""
    try:
        return bool(_yaml(directory / HYDRAS / "hydra.yaml")["hydra"]["job"]["name"] == "train")
    except (Unreadable, KeyError, TypeError):
        return False


def _records(path: Path) -> dict[int, np.ndarray]:
    try:
        whole = content(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Unreadable(f"{path.name}: {error.strerror}") from error
    header, _, body = whole.partition(b"\n")
    body = body[: body.rfind(b"\n") + 1]  # a killed process may leave half a row
    if not body.strip():
        return {}
    names = header.decode(errors="replace").strip().split(",")
    missing = [c for c in NEEDED if c not in names]
    if missing:
        raise Unreadable(f"{path.name}: no column {missing[0]}")
    there = [c for c in (*NEEDED, *MEASURED) if c in names]
    try:
        table = np.loadtxt(
            io.BytesIO(body),
            dtype=np.dtype([(c, ROW[c]) for c in there]),
            delimiter=",",
            comments=None,
            usecols=[names.index(c) for c in there],
        )
    except ValueError as error:
        raise Unreadable(f"{path.name}: {' '.join(str(error).split())}") from error
    rows = np.zeros(table.size, ROW)
    for column in (*NEEDED, *MEASURED):
        rows[column] = table[column] if column in there else np.nan
    records = {int(seed): rows[rows["seed"] == seed] for seed in np.unique(rows["seed"])}
    for seed, mine in records.items():
        if not (np.diff(mine["env_steps"]) > 0).all():
            raise Unreadable(f"{path.name}: env_steps of seed {seed} do not increase")
    return records


def _ending(path: Path, records: dict[int, np.ndarray]) -> tuple[State, str]:
    """How a run ended, by its summary.json and by what it recorded."""
    rows = min((int(r["iteration"][-1]) for r in records.values()), default=0)
    unfinished = State.unfinished if rows else State.empty
    try:
        summary = json.loads(content(path))
        status, reason = summary["status"], summary.get("reason")
        iterations = _iterations(summary)
    except FileNotFoundError:
        return unfinished, f"no {path.name}, {rows} iterations: running or killed"
    except OSError as error:
        return unfinished, f"{path.name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return unfinished, f"{path.name} is not what pg writes"
    if status != "finished":
        return unfinished, " ".join(f"{status}: {reason}".split())
    counts = {seed: int(r["iteration"][-1]) for seed, r in records.items()}
    beyond = max((n - iterations(seed) for seed, n in counts.items()), default=0)
    if beyond > 0:
        return unfinished, f"{beyond} iterations after its end: running or killed"
    for seed, n in counts.items() if counts else [(None, 0)]:
        if n < iterations(seed):
            return unfinished, f"metrics.csv holds {n} of {iterations(seed)} iterations"
    return State.finished, ""


def _iterations(summary: dict[str, Any]) -> Callable[[int | None], int]:
    """How many each seed has had, by its number; KeyError, TypeError, ValueError where untold."""
    most = int(summary["iterations"])
    each = summary.get("seed_iterations")
    own = {} if each is None else dict(zip(summary["seeds"], map(int, each), strict=True))
    return lambda seed: own.get(seed, most)


def _plain(value: Any) -> Any:
    """As YAML has it."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return value.name if isinstance(value, Enum) else value


def _yaml(path: Path) -> Any:
    try:
        text = content(path)
        if b"*" in text and any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text, LOADER)):
            raise Unreadable(f"{path.name}: aliases, which pg never writes")  # small, and endless
        return yaml.load(text, LOADER)
    except OSError as error:
        raise Unreadable(f"{path.name}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise Unreadable(f"{path.name}, line {line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(f"{path.name}: {str(error).splitlines()[0]}") from error


def _flat(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
