"""The records of a run: metrics.csv and TensorBoard events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch.utils.tensorboard.summary import custom_scalars, hparams, text

from pgcli.errors import StorageFailed
from pgcli.machine.randomness import per_seed
from pgcli.runs.directory import content, write_atomically
from pgcli.runs.events import Appended, Events
from pgcli.runs.tags import EVALUATED, KEYS
from pgcli.statistics.intervals import mean_interval

Metrics = Mapping[str, np.ndarray]  # tag: [n]
Places = Sequence[int] | np.ndarray | None  # of n of a run's seeds; None: all

LOWER, UPPER = "interval_lower/", "interval_upper/"  # tag prefixes of the aggregate's band


class Logbook:
    """One row and one event per iteration and seed; x is that seed's environment steps.

    One seed: its events lie in the run directory. Several: that holds the mean over seeds with its
    95 % t interval, drawn as a band by the Custom Scalars tab; a seed that has ended stays there
    with its last figures. With `each`, a seed's own lie in `seed-<seed>/` too. A resumed
    metrics.csv keeps its columns. Everything raises StorageFailed where it cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        seeds: Sequence[int],
        config_text: str,
        settings: Mapping[str, bool | int | float | str],
        resume_from: ArrayLike | None = None,
        each: bool = True,
        also: Sequence[str] = (),
    ) -> None:
        """`resume_from`: iterations that stay, of all seeds or of each [S]; None: a new run.

        `settings`: what a table of runs is sorted by. `also`: columns that a resumed metrics.csv
        gets where it does not have them.
        """
        self._seeds, self._settings = seeds, settings
        path = directory / "metrics.csv"
        self._columns: list[str] = []
        last: dict[int, list[str]] = {}
        if resume_from is not None:
            kept = dict(zip(seeds, per_seed(resume_from, len(seeds)), strict=True))
            self._columns, last = _drop_rows_after(path, kept, also)
        last_steps = {seed: int(row[2]) for seed, row in last.items()}
        self.last = _figures(self._columns, [last.get(seed, []) for seed in seeds])
        self._csv = Appended(path)
        self._layout_due = len(seeds) > 1

        places = {s: directory / f"seed-{s}" for s in seeds if each}
        if len(seeds) == 1:
            places = {seeds[0]: directory}
        self._events = [Events(place, last_steps.get(seed)) for seed, place in places.items()]
        self._mean = None
        if len(seeds) > 1:
            mean_steps = round(np.mean(list(last_steps.values()))) if last_steps else None
            self._mean = Events(directory, mean_steps)
        (self._mean or self._events[0]).add(text("config", f"```yaml\n{config_text}\n```"), 0)

    def write(
        self, iteration: ArrayLike, env_steps: np.ndarray, metrics: Metrics, ran: Places = None
    ) -> None:
        """Record an iteration of the seeds at the places `ran` [n]; None: of all.

        Their numbers and env_steps, of all seeds [S]; metrics [n] each; integers stay integers.
        """
        places = range(len(self._seeds)) if ran is None else ran
        iterations = per_seed(iteration, len(self._seeds))
        steps = env_steps.tolist()
        lines = []
        if self._csv.empty:
            self._columns = list(metrics)
            lines.append(",".join([*KEYS, *metrics]))
        none = np.full(len(places), np.nan)
        cells = zip(*(metrics.get(tag, none).tolist() for tag in self._columns), strict=True)
        for i, row in zip(places, cells, strict=True):
            numbers = f"{iterations[i]},{self._seeds[i]},{steps[i]}"
            lines.append(f"{numbers},{','.join(map(repr, row))}")
        self._csv.write("".join(line + "\n" for line in lines).encode())
        self._keep(metrics, places)
        rows = zip(*(x.tolist() for x in metrics.values()), strict=True)
        for i, row in zip(places, rows, strict=True) if self._events else ():
            self._events[i].add_scalars(_told(zip(metrics, row, strict=True)), steps[i])
        if self._mean is not None:
            self._write_mean(self._mean, round(float(env_steps.mean())), metrics)

    @property
    def size(self) -> int:
        """Of metrics.csv, in bytes."""
        return self._csv.size

    def cut(self, size: int) -> None:
        """Take the last rows of metrics.csv away, which were not to be."""
        self._csv.cut(size)

    def close(self, final: Metrics) -> None:
        """Write the hyperparameters with their final metrics [S] and close all files."""
        try:
            for i, events in enumerate(self._events):
                own = {tag: x[i] for tag, x in final.items()}
                self._end(events, own, seed=self._seeds[i])
            if self._mean is not None and not self._events:
                mean, *_ = mean_interval(np.array(list(final.values()), float))
                self._end(self._mean, dict(zip(final, mean, strict=True)), seeds=len(self._seeds))
        finally:
            self._csv.close()
            for events in filter(None, [*self._events, self._mean]):
                events.close()

    def _end(self, events: Events, figures: Mapping[str, float], **which: int) -> None:
        """The final figures, beside what they were come to by."""
        shown = {k: str(v) if isinstance(v, bool) else v for k, v in self._settings.items()}
        numbers = {tag: float(x) for tag, x in figures.items()}
        for summary in hparams({**shown, **which}, numbers):
            events.add(summary, 0)
        events.add_scalars(numbers.items(), events.last_step)

    def _keep(self, metrics: Metrics, places: Sequence[int] | np.ndarray) -> None:
        """Take note of the last figures of each seed."""
        none = np.full(len(self._seeds), np.nan)
        last = dict(metrics)
        for tag, x in metrics.items():
            if tag in EVALUATED:  # the iterations between have none
                before = self.last.get(tag, none)
                last[tag] = before.copy()
                last[tag][places] = np.where(np.isnan(x), before[places], x)
            elif len(places) < len(self._seeds):
                last[tag] = self.last.get(tag, none).copy()
                last[tag][places] = x
        self.last = last

    def _write_mean(self, events: Events, step: int, metrics: Metrics) -> None:
        if self._layout_due:  # TensorBoard shows the charts of a group last to first
            charts = {
                group: {t: ["Margin", [t, LOWER + t, UPPER + t]] for t in reversed(list(tags))}
                for group, tags in groupby(metrics, key=lambda tag: tag.split("/")[0])
            }
            events.add(custom_scalars(charts), 0)
            self._layout_due = False
        there = {
            tag: self.last[tag]
            for tag, x in metrics.items()
            if tag not in EVALUATED or not np.isnan(x).all()
        }
        interval = mean_interval(np.array(list(there.values()), float))
        for prefix, numbers in zip(("", LOWER, UPPER), interval, strict=True):
            tags = (prefix + tag for tag in there)
            events.add_scalars(zip(tags, numbers.tolist(), strict=True), step)


def _told(scalars: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """Without the evaluations that an iteration did not have."""
    return ((tag, x) for tag, x in scalars if tag not in EVALUATED or not math.isnan(x))


def _drop_rows_after(
    path: Path, kept: Mapping[int, int], also: Sequence[str]
) -> tuple[list[str], dict[int, list[str]]]:
    """Cut metrics.csv back to the iterations that are kept of each seed, with columns `also`.

    Its metrics' tags, and the last row of each seed in what stays.
    """
    if not path.exists():
        return [], {}
    try:
        header, *rows = content(path).splitlines(keepends=True) or [b""]
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error
    new = [tag for tag in also if tag not in header.decode().strip().split(",")]
    header = b",".join([header.rstrip(b"\n"), *(tag.encode() for tag in new)]) + b"\n"
    last, lines = {}, [header]
    for row in rows:
        if row.endswith(b"\n"):  # a killed process may leave half a row
            number, seed, _ = map(int, row.split(b",", 3)[:3])
            if number <= kept.get(seed, 0):
                row = row.rstrip(b"\n") + b",nan" * len(new) + b"\n"
                lines.append(row)
                last[seed] = row
    write_atomically(path, b"".join(lines))
    tags = header.decode().strip().split(",")[len(KEYS) :]
    return tags, {seed: row.decode().strip().split(",") for seed, row in last.items()}


def _figures(tags: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """The metrics in rows of metrics.csv, [S] each; NaN where a row does not have one."""
    figures = np.full((len(tags), len(rows)), np.nan)
    for s, row in enumerate(rows):
        for k, cell in enumerate(row[len(KEYS) : len(KEYS) + len(tags)]):
            with suppress(ValueError):
                figures[k, s] = float(cell)
    return dict(zip(tags, figures, strict=True))
