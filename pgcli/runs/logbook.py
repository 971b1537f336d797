"""The records of a run: metrics.csv and TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from torch.utils.tensorboard.summary import custom_scalars, hparams, text

from pgcli.analysis.intervals import mean_interval
from pgcli.errors import StorageFailed
from pgcli.runs.directory import write_atomically
from pgcli.runs.events import Appended, Events

Metrics = Mapping[str, np.ndarray]  # tag: [S]
KEYS = ("iteration", "seed", "env_steps")
LOWER, UPPER = "interval_lower/", "interval_upper/"  # tag prefixes of the aggregate's band


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
        self._seeds, self._settings = seeds, settings
        path = directory / "metrics.csv"
        last_steps = {} if resume_from is None else _drop_rows_after(path, resume_from)
        self._csv = Appended(path)
        self._header_due = self._csv.empty
        self._layout_due = len(seeds) > 1

        places = [directory / f"seed-{s}" for s in seeds] if len(seeds) > 1 else [directory]
        self._events = [
            Events(place, last_steps.get(seed)) for place, seed in zip(places, seeds, strict=True)
        ]
        self._mean = None
        if len(seeds) > 1:
            mean_steps = round(np.mean(list(last_steps.values()))) if last_steps else None
            self._mean = Events(directory, mean_steps)
        (self._mean or self._events[0]).add(text("config", f"```yaml\n{config_text}\n```"), 0)

    def write(self, iteration: int, env_steps: np.ndarray, metrics: Metrics) -> None:
        """Record one iteration: env_steps [S] and metrics [S] each; integers stay integers."""
        rows = list(zip(*(x.tolist() for x in metrics.values()), strict=True))
        steps = env_steps.tolist()
        lines = [",".join([*KEYS, *metrics])] if self._header_due else []
        for seed, x, row in zip(self._seeds, steps, rows, strict=True):
            lines.append(f"{iteration},{seed},{x},{','.join(map(repr, row))}")
        self._csv.write("".join(line + "\n" for line in lines).encode())
        self._header_due = False
        for events, x, row in zip(self._events, steps, rows, strict=True):
            events.add_scalars(zip(metrics, row, strict=True), x)
        if self._mean is not None:
            self._write_mean(self._mean, round(float(env_steps.mean())), metrics)

    def close(self, final: Metrics) -> None:
        """Write the hyperparameters with their final metrics [S] and close all files."""
        shown = {k: str(v) if isinstance(v, bool) else v for k, v in self._settings.items()}
        try:
            for i, events in enumerate(self._events):
                figures = {tag: float(x[i]) for tag, x in final.items()}
                for summary in hparams({**shown, "seed": self._seeds[i]}, figures):
                    events.add(summary, 0)
                events.add_scalars(figures.items(), events.last_step)
        finally:
            self._csv.close()
            for events in filter(None, [*self._events, self._mean]):
                events.close()

    def _write_mean(self, events: Events, step: int, metrics: Metrics) -> None:
        if self._layout_due:  # TensorBoard shows the charts of a group last to first
            charts = {
                group: {t: ["Margin", [t, LOWER + t, UPPER + t]] for t in reversed(list(tags))}
                for group, tags in groupby(metrics, key=lambda tag: tag.split("/")[0])
            }
            events.add(custom_scalars(charts), 0)
            self._layout_due = False
        found = mean_interval(np.array(list(metrics.values()), float))
        for prefix, numbers in zip(("", LOWER, UPPER), found, strict=True):
            tags = (prefix + tag for tag in metrics)
            events.add_scalars(zip(tags, numbers.tolist(), strict=True), step)


def _drop_rows_after(path: Path, iteration: int) -> dict[int, int]:
    """Cut metrics.csv back to `iteration`; the last env_steps of each seed in what stays."""
    if not path.exists():
        return {}
    try:
        header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error
    last_steps, kept = {}, [header]
    for row in rows:
        if row.endswith(b"\n"):  # a killed process may leave half a row
            number, seed, steps = map(int, row.split(b",", 3)[:3])
            if number <= iteration:
                kept.append(row)
                last_steps[seed] = steps
    write_atomically(path, b"".join(kept))
    return last_steps
