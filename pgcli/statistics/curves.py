"""Learning curves of one seed, and of many on a common grid of environment steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pgcli.statistics.intervals import iqm_interval


class Band(NamedTuple):
    """A curve over seeds with its confidence limits, [P] each; NaN where too few seeds are."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    seeds: np.ndarray  # how many have a number there


def running_mean(ret: np.ndarray, episodes: np.ndarray, window: int) -> np.ndarray:
    """Mean return of the last `window` episodes after each of R batches, [R].

    `ret` [R] is a batch's mean return and stands for each of its `episodes` [R]. Before there are
    `window` episodes, the mean of those there are; NaN while there is none.
    """
    count = np.concatenate([[0.0], np.cumsum(episodes)])
    total = np.concatenate([[0.0], np.cumsum(np.where(episodes > 0, ret, 0.0) * episodes)])
    start = np.maximum(count[1:] - window, 0)
    seen, none = count[1:] - start, np.full(len(ret), np.nan)
    return np.divide(total[1:] - np.interp(start, count, total), seen, out=none, where=seen > 0)


def steps_to(steps: np.ndarray, value: np.ndarray, threshold: float) -> float:
    """The first of steps [R] at which value [R] is at least the threshold; ∞ where it never is."""
    reached = np.flatnonzero(value >= threshold)
    return float(steps[reached[0]]) if reached.size else np.inf


def area(steps: np.ndarray, value: np.ndarray, start: float, stop: float) -> float:
    """Area under value [R] over steps [R] from start to stop, per step: its mean height there.

    NaN where the curve does not cover that range or the range is empty; rows without a value count
    nowhere.
    """
    steps, value = steps[~np.isnan(value)], value[~np.isnan(value)]
    if not len(steps) or not steps[0] <= start < stop <= steps[-1]:
        return np.nan
    inside = (steps > start) & (steps < stop)
    x = np.concatenate([[start], steps[inside], [stop]])
    y = np.interp(x, steps, value)
    return float(np.trapezoid(y, x) / (stop - start))


def interpolate(
    steps: Sequence[np.ndarray], values: Sequence[np.ndarray], grid: np.ndarray
) -> np.ndarray:
    """S curves, values [R_s] at increasing steps [R_s], at the steps of grid [P]: [S, P].

    NaN before a curve's first step and after its last: nothing is extrapolated.
    """
    curves = zip(steps, values, strict=True)
    return np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves])


def band(y: np.ndarray, positive: bool = False) -> Band:
    """IQM over the seeds of y [S, P] with its 95 % interval at each point by itself.

    `positive`: as `iqm_interval` has it. A NaN is a seed that has no number there. Where fewer than
    half of the seeds have one, there is no curve; one seed alone has no interval.
    """
    ordered = np.sort(y.T, -1)  # [P, S]: NaN last
    seeds = (~np.isnan(y)).sum(0)
    estimate = np.full((3, seeds.size), np.nan)
    for count in np.unique(seeds[2 * seeds >= len(y)]):
        if count > 0:
            points = seeds == count
            estimate[:, points] = iqm_interval(ordered[points, :count], positive=positive)
    value, lower, upper = estimate
    return Band(value, lower, upper, seeds)
