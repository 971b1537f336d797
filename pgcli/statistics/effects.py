"""How two settings differ, in intervals over their seeds; and which of several do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from pgcli.statistics.intervals import FEWEST, Centre, Estimate, iqm_centre, mean, t_quantiles

NORMAL = NormalDist()


def effect(
    x: np.ndarray,
    y: np.ndarray,
    *,
    ratio: bool,
    paired: bool,
    robust: bool,
    level: float = 0.95,
) -> Estimate:
    """IQM (`robust`) or mean of x [..., S] over that of y [..., S'] (`ratio`), or less it.

    `paired`: x_s and y_s belong together, S = S'. Unpaired, the degrees of freedom are Welch's
    (1947). The limits of a difference are Student's. Those of a ratio are Fieller's (1954): all
    reals where y's own interval holds 0; but of means of positive numbers they lie on the scale
    of logarithms. The limits are NaN where either holds one number only.
    """
    centre = iqm_centre if robust else mean
    a, b = centre(x), centre(y)
    with np.errstate(all="ignore"):
        value = a.value / b.value if ratio else a.value - b.value
        if min(x.shape[-1], y.shape[-1]) < 2:
            return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
        if not ratio:
            half = _half(*_variance(a, b, paired), level)
            return Estimate(value, value - half, value + half)
        lower, upper = _fieller(a, b, value, paired, level)
        if not robust:
            positive = (x > 0).all(-1) & (y > 0).all(-1)
            factor = np.exp(_half(*_log_variance(x, y, paired), level))
            lower = np.where(positive, value / factor, lower)
            upper = np.where(positive, value * factor, upper)
        return Estimate(value, lower, upper)


def beside(
    x: np.ndarray, other: float, deviation: float | None, count: int | None, level: float = 0.95
) -> Estimate:
    """Mean of x [..., S] less a published mean of `count` seeds, with its limits.

    `deviation`: theirs over the seeds; None, or fewer than two seeds: the mean is taken as exact.
    The degrees of freedom are Welch's (1947). The limits are NaN where x holds one number only.
    """
    ours = mean(x)
    value = np.asarray(ours.value - other)
    if x.shape[-1] < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    variance, freedom = 0.0, 1
    if deviation is not None and count is not None and count > 1:
        variance, freedom = deviation**2 / count, count - 1
    with np.errstate(all="ignore"):
        half = _half(*_welch(ours.variance, np.asarray(variance), ours.freedom, freedom), level)
    return Estimate(value, value - half, value + half)


def seeds_for(
    x: np.ndarray, y: np.ndarray, power: float = 0.8, alpha: float = 0.05, level: float = 0.95
) -> Estimate:
    """Seeds on each side with which Student's test tells means as far apart as those of x and y.

    Normal approximation with Guenther's (1981) correction, n = 2(z_α + z_β)²/d² + z_α²/4, d the
    difference in pooled standard deviations; ∞ where d = 0. The limits are n at those of d, whose
    variance is 1/S + 1/S' + d²/(2(S + S')) (Hedges & Olkin 1985): ∞ where they hold 0. NaN where
    either side has one number only, or where no seed differs from another.
    """
    s, other = x.size, y.size
    pooled = math.nan
    if min(s, other) > 1:
        squares = ((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()
        pooled = math.sqrt(squares / (s + other - 2)) or math.nan
    d = abs(float(x.mean() - y.mean())) / pooled
    half = NORMAL.inv_cdf(0.5 + level / 2) * math.sqrt(1 / s + 1 / other + d**2 / (2 * (s + other)))
    z, also = NORMAL.inv_cdf(1 - alpha / 2), NORMAL.inv_cdf(power)

    def needed(size: float) -> np.ndarray:
        if math.isnan(size):
            return np.array(math.nan)
        if size <= 0:
            return np.array(math.inf)
        return np.array(max(2.0, math.ceil(2 * ((z + also) / size) ** 2 + z**2 / 4)))

    return Estimate(needed(d), needed(d + half), needed(d - half))


def improvement(x: np.ndarray, y: np.ndarray, level: float = 0.95) -> Estimate:
    """P(X > Y) + P(X = Y)/2 for x [..., S] and y [..., S'], as Mann and Whitney count it.

    Its limits are the p with |p̂ − p| = z √var(p), the variance that of exponential X and Y
    (Hanley & McNeil 1982; method 5 of Newcombe 2006): they stay within 0 and 1, and at p̂ = 1
    they still are apart. The limits are NaN where either holds one number only.
    """
    s, other = x.shape[-1], y.shape[-1]
    left, right = x[..., :, None], y[..., None, :]
    value = np.asarray(((left > right) + 0.5 * (left == right)).mean((-2, -1)))
    if min(s, other) < 2:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    z = NORMAL.inv_cdf(0.5 + level / 2)
    limits = []
    for end in (0.0, 1.0):
        inside, outside = value, np.full_like(value, end)
        for _ in range(50):
            middle = (inside + outside) / 2
            within = np.abs(value - middle) <= z * np.sqrt(_win_variance(middle, s, other))
            inside, outside = np.where(within, (middle, outside), (inside, middle))
        limits.append(np.where(value == end, end, inside))
    return Estimate(value, *limits)


def p_value(probability: float, s: int, other: int) -> float:
    """Of P(X > Y) = 1/2, two-sided, where S and S' numbers have `probability`.

    At 1/2 the variance of `improvement` is (S + S' + 1)/(12SS'), Mann and Whitney's: this is their
    test, and it rejects where the interval leaves 1/2 out.
    """
    error = float(np.sqrt(_win_variance(np.array(0.5), s, other)))
    return 2 * (1 - NORMAL.cdf(abs(probability - 0.5) / error))


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Which hypotheses to reject so that with 1 − α none of them is true (Holm 1979)."""
    rejected = [False] * len(p_values)
    for k, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > alpha / (len(p_values) - k):
            break
        rejected[i] = True
    return rejected


def _half(variance: np.ndarray, freedom: np.ndarray, level: float) -> np.ndarray:
    freedom = np.where(np.isfinite(freedom), freedom, 1)  # 0/0: no spread on either side
    return np.asarray(t_quantiles(0.5 + level / 2, freedom) * np.sqrt(variance))


def _variance(
    a: Centre, b: Centre, paired: bool, factor: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Of a − factor·b, with its degrees of freedom."""
    factor = np.asarray(factor)
    if paired:
        variance = ((a.scores - factor[..., None] * b.scores) ** 2).sum(-1)
        return variance, np.full(variance.shape, a.freedom)
    return _welch(a.variance, factor**2 * b.variance, a.freedom, b.freedom)


def _welch(a: np.ndarray, b: np.ndarray, of_a: float, of_b: float) -> tuple[np.ndarray, np.ndarray]:
    return a + b, (a + b) ** 2 / (a**2 / of_a + b**2 / of_b)


def _fieller(
    a: Centre, b: Centre, ratio: np.ndarray, paired: bool, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """The ρ at which a − ρb is not told from 0; its degrees of freedom are those at a/b."""
    freedom = _variance(a, b, paired, ratio)[1]
    t2 = _half(np.ones_like(ratio), freedom, level) ** 2
    shared = (a.scores * b.scores).sum(-1) if paired else 0.0
    first = b.value**2 - t2 * b.variance
    middle = a.value * b.value - t2 * shared
    last = a.value**2 - t2 * a.variance
    root = np.sqrt(np.maximum(middle**2 - first * last, 0))
    bounded = first > 0
    lower = np.where(bounded, (middle - root) / first, -np.inf)
    return lower, np.where(bounded, (middle + root) / first, np.inf)


def _log_variance(x: np.ndarray, y: np.ndarray, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of the logarithm of mean x over mean y, with its degrees of freedom."""
    s, other = x.shape[-1], y.shape[-1]
    a, b = (mean(z / z.mean(-1, keepdims=True)) for z in (x, y))
    p, q = np.log(x), np.log(y)
    of_p, of_q = p.var(-1, ddof=1), q.var(-1, ddof=1)
    if not paired:
        left = _drawn(_log_mean(of_p, s), a.variance, s)
        right = _drawn(_log_mean(of_q, other), b.variance, other)
        return _welch(left, right, a.freedom, b.freedom)
    shared = (of_p + of_q - (p - q).var(-1, ddof=1)) / 2
    model = _log_mean(of_p, s) + _log_mean(of_q, s) - 2 * _log_mean(shared, s)
    delta, freedom = _variance(a, b, True)
    return _drawn(model, delta, s), freedom


def _log_mean(variance: np.ndarray, s: int) -> np.ndarray:
    """The variance of the logarithm of a mean of S log-normal numbers (Fenton 1960)."""
    return np.asarray(np.log1p(np.expm1(variance) / s))


def _drawn(model: np.ndarray, delta: np.ndarray, s: int) -> np.ndarray:
    """The delta method's variance: few skewed numbers make it too small.

    So it is taken no smaller than if they were log-normal, and drawn towards that with the weight
    of FEWEST seeds.
    """
    weight = min(1.0, FEWEST / s)
    return np.maximum(weight * model + (1 - weight) * np.maximum(model, delta), 0)


def _win_variance(p: np.ndarray, s: int, other: int) -> np.ndarray:
    """Of p̂ where x has S numbers and y S' (Newcombe 2006, method 5: both for their mean)."""
    n = (s + other) / 2 - 1
    return np.asarray(p * (1 - p) * (1 + n * (1 - p) / (2 - p) + n * p / (1 + p)) / (s * other))
