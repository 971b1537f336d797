"""The records of a run: metrics.csv and TensorBoard events."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams, text

from pgcli.analysis.intervals import mean_interval
from pgcli.errors import StorageFailed

Metrics = Mapping[str, np.ndarray]  # tag: [S]
KEYS = ("iteration", "seed", "env_steps")
LOWER, UPPER = "interval_lower/", "interval_upper/"  # tag prefixes of the aggregate's band
QUEUE = 1000  # events that may wait for the writer's thread


def _quiet_writers(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread dies of a full disk; the next call raises that, once is enough."""
    if type(args.thread).__module__ != EventFileWriter.__module__:
        _print_thread_error(args)


_print_thread_error, threading.excepthook = threading.excepthook, _quiet_writers


class Logbook:
    """One row and one event per iteration and seed; x is that seed's environment steps.

    One seed: its events lie in the run directory. Several: in `seed-<seed>/` each, and the run
    directory holds the mean over seeds with its 95 % t interval, drawn as a band by the Custom
    Scalars tab. Everything raises StorageFailed where it cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        seeds: Sequence[int],
        config_text: str,
        settings: Mapping[str, bool | int | float | str],
        resume_from: int | None = None,
    ) -> None:
        self._directory, self._seeds = directory, seeds
        self._settings, self._layout_due = settings, len(seeds) > 1
        path = directory / "metrics.csv"
        with _storing(path):
            last_steps = _truncate(path, resume_from, seeds)
            self._csv = open(path, "ab", buffering=0)  # noqa: SIM115
            self._header_due = path.stat().st_size == 0
        single = len(seeds) == 1
        places = [directory if single else directory / f"seed-{seed}" for seed in seeds]
        with _storing(directory):
            self._events = [
                _Events(place, last_steps.get(seed))
                for place, seed in zip(places, seeds, strict=True)
            ]
            mean_steps = round(np.mean(list(last_steps.values()))) if last_steps else None
            self._mean = None if single else _Events(directory, mean_steps)
            for events in (self._mean or self._events[0],):
                events.add(text("config", f"```yaml\n{config_text}\n```"), 0)

    def write(self, iteration: int, env_steps: np.ndarray, metrics: Metrics) -> None:
        """Record one iteration: env_steps [S] and metrics [S] each."""
        with _storing(self._directory / "metrics.csv"):
            columns = np.stack([np.asarray(x, float) for x in metrics.values()]).T.tolist()
            lines = [",".join([*KEYS, *metrics])] if self._header_due else []
            for seed, steps, row in zip(self._seeds, env_steps.tolist(), columns, strict=True):
                lines.append(f"{iteration},{seed},{steps},{','.join(map(repr, row))}")
            self._csv.write("".join(line + "\n" for line in lines).encode())  # at once, or not
            self._header_due = False
        with _storing(self._directory):
            for events, steps, row in zip(self._events, env_steps.tolist(), columns, strict=True):
                events.add_scalars(dict(zip(metrics, row, strict=True)), steps)
            if self._mean is not None:
                self._write_mean(self._mean, round(float(env_steps.mean())), metrics)

    def close(self, final: Metrics) -> None:
        """Write the hyperparameters with their final metrics [S] and close all files."""
        shown = {k: str(v) if isinstance(v, bool) else v for k, v in self._settings.items()}
        self._csv.close()
        with _storing(self._directory):
            for i, events in enumerate(self._events):
                figures = {tag: float(x[i]) for tag, x in final.items()}
                for summary in hparams({**shown, "seed": self._seeds[i]}, figures):
                    events.add(summary, 0)
                events.add_scalars(figures, events.last_step)
            for events in filter(None, [*self._events, self._mean]):
                events.close()

    def _write_mean(self, events: _Events, step: int, metrics: Metrics) -> None:
        if self._layout_due:
            charts = {
                group: {tag: ["Margin", [tag, LOWER + tag, UPPER + tag]] for tag in tags}
                for group, tags in groupby(metrics, key=lambda tag: tag.split("/")[0])
            }
            events.add(custom_scalars(charts), 0)
            self._layout_due = False
        found = mean_interval(np.stack(list(metrics.values())))
        for prefix, numbers in zip(("", LOWER, UPPER), found, strict=True):
            named = dict(zip(metrics, numbers.tolist(), strict=True))
            events.add_scalars({prefix + tag: x for tag, x in named.items()}, step)


class _Events:
    """One TensorBoard event file, all scalars of a step in a single event."""

    def __init__(self, directory: Path, resume_after: int | None) -> None:
        self._writer = EventFileWriter(str(directory), max_queue_size=QUEUE, flush_secs=5)
        self.last_step = resume_after or 0
        if resume_after is not None:  # readers drop whatever an earlier file has from here on
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(
                Event(wall_time=time.time(), step=resume_after + 1, session_log=start)
            )

    def add(self, summary: Summary, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self.add(Summary(value=values), step)
        self.last_step = step

    def close(self) -> None:
        self._writer.flush()  # raises what the writer's thread met
        self._writer.close()


def _truncate(path: Path, resume_from: int | None, seeds: Sequence[int]) -> dict[int, int]:
    """Drop rows after iteration `resume_from`; the last env_steps per seed of those that stay."""
    if resume_from is None or not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    width = len(rows[0]) if rows else 0
    kept = [r for r in rows[1:] if len(r) == width and int(r[0]) <= resume_from]
    with open(path, "w", newline="") as file:
        file.writelines(",".join(row) + "\n" for row in [*rows[:1], *kept])
    return {seed: int(row[2]) for row in kept for seed in seeds if int(row[1]) == seed}


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}") from error
