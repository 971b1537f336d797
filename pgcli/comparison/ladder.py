"""Bias, variance and error of estimators over the values of a setting, for several batch sizes.

MSE(N, x) = ‖E ĝ − ∇J‖² + tr Σ(x)/N: what a setting saves in variance counts less the larger the
batch, what it costs in bias stays; so the best value depends on N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pgcli.comparison.exact import Exact
from pgcli.comparison.resampled import Comparison, Figure
from pgcli.settings.ladders import Rung


class Point(NamedTuple):
    """One value of the setting, at one batch size."""

    estimator: str  # that all points of the ladder share
    setting: str
    value: float
    size: int  # episodes of a batch
    kl: float | None  # KL(behaviour‖policy), where that is configured
    bias: Figure  # ‖E ĝ − ∇J‖², its noise taken out: may be negative
    variance: Figure  # tr Var(ĝ)
    mse: Figure
    share: float  # of resamples in which it has the least error of its ladder
    bias_exact: float  # NaN where not known, as the next
    variance_exact: float


class Best(NamedTuple):
    """The value of least error, at one batch size."""

    estimator: str
    setting: str
    size: int
    kl: float | None
    value: Figure  # with the values between which the least lies in so many resamples
    share: float
    exact: float  # by the model; NaN


class Laddered(NamedTuple):
    """All ladders."""

    points: list[Point]
    best: list[Best]


def climbed(
    rungs: Mapping[str, Rung],
    comparison: Comparison,
    truth: Tensor | str | None,
    unbiased: Mapping[str, bool],
    sizes: Mapping[str, Sequence[int]],
    exact: Mapping[str, Exact],
    gradient: Tensor | None,
    kl: float | None,
) -> Laddered:
    """Every ladder that the estimators, by name, make.

    `truth`: see `Comparison.verdict`; `sizes`: batch sizes at which an estimator's variance is
    known; `gradient`: ∇J by the model.
    """
    ladders: dict[tuple[str, str], dict[str, float]] = {}
    for name, rung in rungs.items():
        for key, value in rung.values.items():
            ladders.setdefault((rung.without(key), key), {})[name] = value
    points, best = [], []
    for (estimator, key), ladder in ladders.items():
        common = [n for n in sizes[next(iter(ladder))] if all(n in sizes[one] for one in ladder)]
        for size in common:
            errors = {
                name: comparison.errors(name, truth, size, unbiased=unbiased[name])
                for name in ladder
            }
            known = {name: _exact(exact.get(name), gradient, size) for name in ladder}
            values = np.array(list(ladder.values()))
            least = np.stack([one.mse for one in errors.values()]).argmin(0)  # [1 + draws]
            shares = np.bincount(least[1:], minlength=len(values)) / max(1, len(least) - 1)
            for i, (name, value) in enumerate(ladder.items()):
                figures = comparison.figures(errors[name])
                points.append(
                    Point(estimator, key, value, size, kl, *figures, shares[i], *known[name])
                )
            limits = comparison.limits(values[least[1:]])
            found = float(values[least[0]])
            exactly = [sum(known[name]) for name in ladder]
            best_exact = math.nan if any(map(math.isnan, exactly)) else values[np.argmin(exactly)]
            figure = Figure(found, *limits)
            best.append(Best(estimator, key, size, kl, figure, shares[least[0]], float(best_exact)))
    return Laddered(points, best)


def _exact(exact: Exact | None, gradient: Tensor | None, size: int) -> tuple[float, float]:
    """‖E ĝ − ∇J‖² and tr Var(ĝ) by the model."""
    if exact is None or gradient is None or exact.trace_cov is None:
        return math.nan, math.nan
    return float((exact.mean - gradient).square().sum()), exact.trace_cov / size
