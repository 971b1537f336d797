"""How a number goes down over a run's budget: learning rates and entropy coefficients alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from pgcli.settings.schema import Schedule


def scheduled(value: float, schedule: Schedule, progress: float) -> float:
    """What is left of `value` when a fraction `progress` in [0, 1] of the budget is spent."""
    if schedule is Schedule.linear:
        return value * (1.0 - progress)
    if schedule is Schedule.cosine:
        return value * 0.5 * (1.0 + math.cos(math.pi * progress))
    return value


def scheduled_each(value: float, schedule: Schedule, progress: ArrayLike) -> list[float]:
    """The same of all seeds, or of each, where so much is spent of all or of each."""
    return [scheduled(value, schedule, float(x)) for x in np.atleast_1d(progress)]
