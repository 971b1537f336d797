"""What others have published, and how the runs of a page of results compare with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml  # type: ignore[import-untyped]

from pgcli.statistics.effects import beside
from pgcli.statistics.intervals import FEWEST

FIGURES = Path(__file__).with_suffix(".yaml")
ANY = "any"  # method
THRESHOLD = "threshold"
ALIKE = ("training", THRESHOLD)  # metrics that are measured as ours is
METRICS = {
    "training": "last 100 training episodes",
    "moving": "moving average of training",
    "best_test": "best test during training",
    "greedy": "one tuned run, greedy",
    "curve": "read off a curve",
    THRESHOLD: "threshold",
}
SAME_STEPS = 0.02  # budgets end with a batch
REACHED, ABOVE, BELOW = "reached", "above", "below"


class Published(NamedTuple):
    """A figure of others."""

    task: str  # without its version
    method: str  # as in conf/method, or any
    steps: int | None  # environment steps of training; None: as many as it takes
    value: float
    deviation: float | None  # over seeds; of one run, over episodes
    seeds: int | None
    metric: str
    body: str | None  # version of the environment; None: all are the same
    source: str

    @property
    def is_open(self) -> bool:
        """Whether it waits for a run of the method; a threshold asks for none by name."""
        return self.method != ANY


def published() -> list[Published]:
    """All figures, as the file has them."""
    found = []
    for part in yaml.safe_load(FIGURES.read_text(encoding="utf-8")):
        common = {key: part[key] for key in ("metric", "body", "source", "seeds")}
        for task, methods in part["figures"].items():
            for method, (steps, value, deviation) in methods.items():
                found.append(Published(task, method, steps, value, deviation, **common))
    return found


def task_of(environment: str) -> str:
    """Its name without namespace and version."""
    return re.sub(r"-v\d+$", "", environment.rpartition("/")[2])


def of(environment: str, method: str, known: Sequence[Published]) -> list[Published]:
    """The figures that a run of this method stands beside, those with a verdict first."""
    task = task_of(environment)
    mine = [p for p in known if p.task == task and p.method in (method, ANY)]
    return sorted(mine, key=lambda p: p.metric not in ALIKE)


def verdict(returns: np.ndarray, steps: float, other: Published) -> str:
    """How mean returns of the last 100 training episodes, [S], stand to a figure of others.

    By the 95 % interval of the difference: above or below where it leaves 0 out, else reached.
    Nothing where theirs is measured otherwise, after other steps, or there are too few seeds.
    """
    if other.metric not in ALIKE or returns.size < FEWEST:
        return ""
    if other.steps is not None and abs(steps / other.steps - 1) > SAME_STEPS:
        return ""
    difference = beside(returns, other.value, other.deviation, other.seeds)
    if difference.lower > 0:
        return ABOVE
    return BELOW if difference.upper < 0 else REACHED


def figure(other: Published) -> dict[str, Any]:
    """Its cells of a table, by what they are."""
    spread = "" if other.deviation is None else f" ± {other.deviation:g}"
    return {
        "published": f"{other.value:g}{spread}",
        "their seeds": "" if other.seeds is None else str(other.seeds),
        "after steps": "" if other.steps is None else f"{other.steps:,}",
        "measured as": METRICS[other.metric],
        "body": other.body or "",
        "source": other.source,
    }
