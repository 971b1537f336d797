"""What a page of results rests on: runs made small enough to be kept beside it, and evaluations."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from pgcli.runs.directory import EVALUATION, content, write_atomically
from pgcli.runs.saved import HYDRAS, MEASURED, NEEDED, SETTINGS, WHOLE, Run
from pgcli.runs.summary import NAME
from pgcli.runs.tags import EPISODES, RECENT, RETURN

LETTERS = 8  # of a name
ROWS = 200  # of a seed before its last RECENT episodes, which are kept batch by batch
COPIED = (SETTINGS, NAME, f"{HYDRAS}/config.yaml", f"{HYDRAS}/overrides.yaml")
CHOICES = f"{HYDRAS}/hydra.yaml"  # and of that what was chosen: the rest is of the machine
Evaluations = Mapping[str, Sequence[Mapping[str, Any]]]  # of runs, by their real path


def evaluations(paths: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """What `pg eval` found, at any depth below the paths, by the run's directory.

    An eval.json that lies in a run's own directory is that run's, wherever it was made.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    files = {os.path.realpath(file) for path in paths for file in path.rglob(EVALUATION)}
    for file in sorted(map(Path, files), key=os.path.getmtime):
        try:
            runs = json.loads(content(file))["runs"]
            for one in runs:
                own = (file.parent / "metrics.csv").exists()
                place = file.parent if own else Path(one["run"])
                found.setdefault(os.path.realpath(place), []).append(one)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not what `pg eval` writes
    return found


def played(run: Run, found: Evaluations, acting: str) -> dict[int, float]:
    """Mean return of the newest evaluation of each seed that counts, by seed."""
    newest: dict[int, float] = {}
    for one in found.get(os.path.realpath(run.directory), ()):
        for figures in one.get("seeds", ()):
            if acting in figures and figures["seed"] in run.records:
                newest[figures["seed"]] = float(figures[acting]["mean"])
    return newest


def keep(run: Run, folder: Path, place: Sequence[str], found: Evaluations) -> None:
    """Write what a page needs of a run below `folder/<place>`: no checkpoints, few rows.

    It is called by what it recorded, so that the same run is kept once. One that lies in the folder
    is kept already.
    """
    source = os.path.realpath(run.directory)
    if Path(os.path.realpath(folder)) in Path(source).parents:
        return
    name = hashlib.sha256(content(run.directory / "metrics.csv")).hexdigest()[:LETTERS]
    directory = folder.joinpath(*place, name)
    (directory / HYDRAS).mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        is_told = name == f"{HYDRAS}/{SETTINGS}" and (directory / SETTINGS).exists()
        with suppress(OSError):  # not there, or no file
            if not is_told:
                write_atomically(directory / name, content(run.directory / name))
    if run.choices:
        runtime = {"cwd": ".", "config_sources": [], "choices": dict(run.choices)}
        note = {"hydra": {"job": {"name": "train"}, "runtime": runtime}}
        write_atomically(directory / CHOICES, yaml.safe_dump(note).encode())
    write_atomically(directory / "metrics.csv", _rows(run).encode())
    if mine := found.get(source):
        facts = [{**one, "run": ".", "notices": one.get("notices", [])} for one in mine]
        write_atomically(directory / EVALUATION, json.dumps({"runs": facts}, indent=1).encode())


def thinned(rows: np.ndarray, most: int = ROWS) -> np.ndarray:
    """Rows [R] of saved.ROW in groups of consecutive ones, so that about `most` are left.

    Of a group: its last counts, the sum of its episodes, the mean of their returns, and means of
    what was measured. The last RECENT episodes stay as they are.
    """
    before = np.cumsum(rows[EPISODES][::-1])[::-1] >= RECENT
    head = int(before.sum()) - 1 if before.any() else 0
    size = -(-head // most) if head else 1
    groups = [rows[i : min(i + size, head)] for i in range(0, head, size)]
    short = np.array([_joined(group) for group in groups], rows.dtype)
    return np.concatenate([short, rows[head:]])


def _joined(rows: np.ndarray) -> np.void:
    one: np.void = rows[-1].copy()
    weights = rows[EPISODES]
    one[EPISODES] = weights.sum()
    if one[EPISODES] > 0:
        told = weights > 0
        one[RETURN] = (rows[RETURN] * weights)[told].sum() / one[EPISODES]
    for name in MEASURED:
        one[name] = rows[name].mean()
    return one


def _rows(run: Run) -> str:
    names = [*NEEDED, *MEASURED]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    short = [thinned(rows) for _, rows in sorted(run.records.items())]
    for row in np.concatenate(short):
        writer.writerow([int(row[n]) if n in WHOLE else f"{row[n]:.6g}" for n in names])
    return text.getvalue()
