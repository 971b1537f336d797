"""Robust figures over seeds with percentile bootstrap intervals (Agarwal et al. 2021)."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """Estimates and their confidence limits, [...] each."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def iqm(x: np.ndarray) -> np.ndarray:
    """Interquartile mean over the last axis: x [..., S] without its ⌊S/4⌋ smallest and largest.

    NaN where any of the S numbers is.
    """
    seeds = x.shape[-1]
    cut = seeds // 4
    middle = np.sort(x, -1)[..., cut : seeds - cut].mean(-1)
    return np.where(np.isnan(x).any(-1), np.nan, middle)


def iqm_interval(
    x: np.ndarray,
    rng: np.random.Generator,
    strata: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """IQM of finite x [..., S] with its bootstrap interval; the limits are NaN where S is 1.

    `strata` [S] numbers the stratum (the task) of each column: a resample draws as many columns
    from each as it has. None: one stratum.
    """
    value = iqm(x)
    if x.shape[-1] < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    one = strata is None
    counts = _counts(np.zeros(x.shape[-1], int) if strata is None else strata, resamples, rng)
    if one:  # columns are exchangeable, so let each draw say how often each RANK occurs
        # einsum: these are too small for the threads of a matrix product.
        drawn = np.einsum("...s,bs->...b", np.sort(x, -1), _iqm_weights(counts))
    else:
        order = np.argsort(x, -1)
        weights = np.moveaxis(_iqm_weights(counts[:, order]), 0, -2)  # [..., resamples, S]
        drawn = (weights @ np.take_along_axis(x, order, -1)[..., None])[..., 0]
    return Estimate(value, *_limits(drawn, level))


def improvement(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """P(X > Y) + P(X = Y)/2 for x [S] and y [S'], as Mann and Whitney count it, with its interval.

    Both are resampled by themselves. The limits are NaN where either holds one number only.
    """
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)  # [S, S']
    value = wins.mean()
    if min(x.size, y.size) < 2:
        return Estimate(value, np.array(np.nan), np.array(np.nan))
    of_x, of_y = (_counts(np.zeros(z.size, int), resamples, rng) for z in (x, y))
    drawn = ((of_x @ wins) * of_y).sum(-1) / wins.size
    return Estimate(value, *_limits(drawn, level))


def effect(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    *,
    ratio: bool,
    paired: bool,
    robust: bool,
    level: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """IQM (`robust`) or mean of x [S] over that of y [S'] (`ratio`), or less it, with its interval.

    `paired`: x_s and y_s belong together and are drawn together. The limits are NaN where either
    holds one number only.
    """
    centre = iqm if robust else partial(np.mean, axis=-1)
    value = np.asarray(centre(x) / centre(y) if ratio else centre(x) - centre(y))
    if min(x.size, y.size) < 2:
        return Estimate(value, np.array(np.nan), np.array(np.nan))
    of_x = rng.integers(x.size, size=(resamples, x.size))
    of_y = of_x if paired else rng.integers(y.size, size=(resamples, y.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = centre(x[of_x]), centre(y[of_y])
        return Estimate(value, *_limits(np.asarray(a / b if ratio else a - b), level))


def _counts(strata: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of S columns occurs in a resample, [resamples, S]."""
    counts = np.empty((resamples, strata.size), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        cells = resamples, members.size
        drawn = rng.integers(members.size, size=cells)
        drawn += members.size * np.arange(resamples)[:, None]  # each row has its own bins
        counts[:, members] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(cells)
    return counts


def _iqm_weights(counts: np.ndarray) -> np.ndarray:
    """The weight of each rank in the IQM of a sample that holds it counts [..., S] times."""
    size = counts.shape[-1]
    cut = size // 4
    kept = np.clip(counts.cumsum(-1), cut, size - cut)
    return np.diff(kept, prepend=cut, axis=-1) / (size - 2 * cut)


def _limits(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of drawn [..., resamples], as np.quantile has them: a sort is faster."""
    ordered = np.sort(drawn, -1)
    limits = []
    for p in ((1 - level) / 2, (1 + level) / 2):
        share, below = math.modf(p * (drawn.shape[-1] - 1))
        i = int(below)
        limits.append((1 - share) * ordered[..., i] + share * ordered[..., i + 1])
    return limits[0], limits[1]
