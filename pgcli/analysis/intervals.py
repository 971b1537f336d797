"""Confidence intervals over seeds."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """Means and their confidence limits, [...] each."""

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def mean_interval(x: np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean over the last axis, x [..., S].

    The limits are NaN where S is 1: one number says nothing of its spread.
    """
    seeds = x.shape[-1]
    with np.errstate(invalid="ignore"):  # an infinite number has NaN limits
        mean = x.mean(-1)
        if seeds < 2:
            return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
        half = t_quantile(0.5 + level / 2, seeds - 1) * x.std(-1, ddof=1) / math.sqrt(seeds)
        return Interval(mean, mean - half, mean + half)


@lru_cache
def t_quantile(p: float, freedom: int) -> float:
    """The p-quantile (p ≥ 1/2) of Student's t distribution with ν degrees of freedom.

    Newton's method on the distribution function, which for a whole ν is a finite sum
    (Abramowitz & Stegun 1964, eqs. 26.7.3 and 26.7.4).
    """
    t = 0.0
    for _ in range(200):
        step = (_t_cdf(t, freedom) - p) / _t_density(t, freedom)
        t -= step
        if abs(step) < 1e-12 * max(1.0, abs(t)):
            break
    return t


def _t_density(t: float, freedom: int) -> float:
    log_constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    constant = math.exp(log_constant) / math.sqrt(freedom * math.pi)
    return constant * math.pow(1 + t * t / freedom, -(freedom + 1) / 2)


def _t_cdf(t: float, freedom: int) -> float:
    angle = math.atan(t / math.sqrt(freedom))
    cos, sin = math.cos(angle), math.sin(angle)
    total, term = 0.0, 1.0 if freedom % 2 == 0 else cos
    for k in range(1 if freedom % 2 == 0 else 2, freedom, 2):
        total += term
        term *= cos * cos * k / (k + 1)
    inside = sin * total  # P(|T| ≤ t)
    if freedom % 2:
        inside = 2 / math.pi * (angle + inside)
    return 0.5 + inside / 2
