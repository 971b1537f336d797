"""Signal, noise, bias and direction of estimators, with bootstrap intervals over trajectories.

The units of a sample are independent, so inner products of DIFFERENT units have no noise of their
own in their mean: E⟨u_i, u_j⟩ = ‖G‖² for i ≠ j. Every figure is made from such means and from the
mean square E‖g_n‖². A resample draws units with replacement; pairs of a unit with itself stay out.
Intervals are percentiles, but for variances and their ratios, which few large terms may rule: there
they are studentised, on the logarithm (Davison & Hinkley 1997, section 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgcli.comparison.paired import Sample

Array = np.ndarray


class Figure(NamedTuple):
    """An estimate with its confidence limits."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Verdict:
    """What is known about one estimator. Gradients are per trajectory, ‖G‖² = ‖E[ĝ]‖²."""

    mean: Tensor  # [P]: of all trajectories
    grad_norm: float  # its norm, noise included
    signal: Figure  # ‖G‖², unbiased; may be negative
    trace_cov: Figure  # N · tr Var(ĝ); tr Cov(g_n) where the trajectories are independent
    nsr: Figure  # trace_cov / ‖G‖²: the batch size at which signal equals noise
    snr: Figure  # ‖G‖² over tr Var(ĝ), at the batch size
    cos_between: Figure  # mean cosine of two independent batches; one without gradient counts 0
    cos_to_true: Figure  # mean cosine of a batch and ∇J; likewise
    zero_batches: int  # batches without any gradient, which has no direction
    variance_ratio: Figure  # trace_cov over the reference's, paired
    bias: Figure  # ‖E[ĝ] − ∇J‖ / ‖∇J‖; negative where it is below what its noise explains
    along: float  # ⟨E[ĝ], ∇J⟩ / ‖∇J‖; NaN where ∇J is not known
    truth_square: float  # ‖∇J‖²; NaN where it is not known

    def alignment_at(self, batch_size: int) -> float:
        """⟨E[ĝ], ∇J⟩/(‖∇J‖ √E‖ĝ‖²) of a batch of that size, were its noise tr Σ/N.

        A ratio of moments: it ranks batch sizes as the mean cosine does, and is another number.
        """
        return self.along / math.sqrt(
            max(1e-300, self.signal.value + self.trace_cov.value / batch_size)
        )


class Resamples:
    """Bootstrap weights over R batches of u units, drawn once and shared by all estimators."""

    def __init__(self, batches: int, units: int, draws: int, rng: np.random.Generator) -> None:
        total = batches * units
        by_unit = rng.multinomial(total, np.full(total, 1 / total), draws)
        by_batch = rng.multinomial(batches, np.full(batches, 1 / batches), draws)
        # The first row is the sample itself.
        self.by_unit = np.concatenate([np.ones((1, total)), by_unit])
        self.by_batch = np.concatenate([np.ones((1, batches)), by_batch])


class Comparison:
    """Samples of many estimators on the same trajectories, paired."""

    def __init__(
        self,
        samples: Mapping[str, Sample],
        batch_size: int,
        resamples: Resamples,
        level: float = 0.95,
    ) -> None:
        self._samples, self._n, self._level = samples, batch_size, level
        self._resamples = resamples
        self._double = {name: sample.mean.double() for name, sample in samples.items()}
        self._known: dict[tuple[str, str, bool], _Products] = {}

    def verdict(
        self, name: str, reference: str, truth: Tensor | str | None, *, unbiased: bool
    ) -> Verdict:
        """The figures of one estimator.

        `truth`: ∇J [P] itself, the name of an unbiased estimator of it, or None. `unbiased`: the
        theory says so, and no bias is estimated.
        """
        signal = self._signal(name, name)
        spread = self._spread(name)
        trace, noise = spread.value, spread.value / self._n
        with np.errstate(divide="ignore", invalid="ignore"):
            nsr = np.where(signal > 0, trace / signal, np.inf)
            snr = signal / noise
            along, bias, square = self._against(name, truth, signal, unbiased)
            norm = np.sqrt(square[0])
        by_batch = self._coarse(name) or self._coarse(reference)
        ratio = self._spread(name, by_batch).over(self._spread(reference, by_batch))
        mean = self._double[name].mean((0, 1))
        direction = self._direction(name)
        return Verdict(
            mean,
            float(mean.norm()),
            self._percentiles(signal),
            self._studentised(spread),
            self._percentiles(nsr),
            self._percentiles(snr),
            self._percentiles(self._between(direction, direction)),
            self._percentiles(self._cosine(direction, truth)),
            int((direction == 0).all(-1).sum()),
            self._studentised(ratio),
            self._percentiles(bias),
            float(along[0] / norm),
            float(square[0]),
        )

    def aligned(self, steps: Tensor, truth: Tensor | str | None) -> Figure:
        """Mean cosine of one step per batch [R, P] and a direction; no step at all counts 0.

        `truth`: the direction [P], unbiased estimates of it from each batch [R, P], the name of an
        unbiased estimator, or None.
        """
        return self._percentiles(self._cosine(_directions(steps.double()), truth))

    def mean_of(self, x: Tensor) -> Figure:
        """Mean of one number per batch [R]."""
        w = self._resamples.by_batch
        return self._percentiles((w @ x.double().numpy()) / w.sum(1))

    def batch_means(self, name: str) -> Tensor:
        """The estimate of each batch, [R, P] float64."""
        return self._double[name].mean(1)

    def noise(self, name: str) -> float:
        """trace_cov itself, without its interval."""
        return float(self._spread(name).value[0])

    def errors(self, name: str, truth: Tensor | str | None, size: int, *, unbiased: bool) -> Errors:
        """Squared bias and variance of an estimate from `size` episodes; see `verdict`."""
        signal = self._signal(name, name)
        squared = np.zeros_like(signal)
        if not (unbiased or name == truth or truth is None):
            own, along, square = self._beside(name, truth, signal)
            squared = own - 2 * along + square
        return Errors(squared, self._spread(name), size)

    def figures(self, errors: Errors) -> tuple[Figure, Figure, Figure]:
        """Squared bias, variance and their sum, with limits."""
        spread = self._studentised(errors.spread)
        variance = Figure(*(x / errors.size for x in spread))
        return self._percentiles(errors.bias), variance, self._percentiles(errors.mse)

    def limits(self, draws: Array) -> tuple[float, float]:
        """Between which so many of these lie."""
        return self._limits(draws) if len(draws) else (np.nan, np.nan)

    def variances(self, name: str, sizes: list[int]) -> list[tuple[int, float]]:
        """(N, tr Var(ĝ)) measured between disjoint groups of N trajectories, where there are 4.

        For estimators that do not couple trajectories.
        """
        per_unit = self._n // self._samples[name].mean.shape[1]
        gram = self._products(name, name, by_batch=False).gram
        variances = []
        for size in sizes:
            group, rest = divmod(size, per_unit)
            count = 0 if rest else len(gram) // group
            if count >= 4:
                cut = gram[: count * group, : count * group]
                means = cut.reshape(count, group, count, group).mean((1, 3))  # their products
                spread = (means.diagonal().sum() - means.sum() / count) / (count - 1)
                variances.append((size, float(spread)))
        return variances

    def _against(
        self, name: str, truth: Tensor | str | None, signal: Array, unbiased: bool
    ) -> tuple[Array, Array, Array]:
        """⟨E[ĝ], ∇J⟩, relative bias and ‖∇J‖² (NaN: not resolved from 0), each with its draws."""
        none = np.full_like(signal, np.nan)
        if truth is None:
            return none, none, none
        own, along, square = self._beside(name, truth, signal)
        square = np.where(square > 0, square, np.nan)
        if unbiased or name == truth:
            return along, none, square
        excess = (own - 2 * along + square) / square
        return along, np.sign(excess) * np.sqrt(np.abs(excess)), square

    def _beside(self, name: str, truth: Tensor | str, signal: Array) -> tuple[Array, Array, Array]:
        """‖E[ĝ]‖², ⟨E[ĝ], ∇J⟩ and ‖∇J‖², each with its draws and without the noise of estimates."""
        if isinstance(truth, str):
            square, along = self._signal(truth, truth), self._signal(name, truth)
            if self._coarse(name) == self._coarse(truth):
                return signal, along, square
            own = self._signal(name, name, by_batch=True)
            return own, along, self._signal(truth, truth, by_batch=True)
        g = truth.double()
        along = self._mean(name, (self._double[name] @ g).flatten())
        return signal, along, np.full_like(signal, float(g.square().sum()))

    def _direction(self, name: str) -> Tensor:
        """ĝ/‖ĝ‖ of every batch [R, P]; 0 where there is no gradient."""
        return _directions(self.batch_means(name))

    def _between(self, a: Tensor, b: Tensor) -> Array:
        """Mean of ⟨a_r, b_s⟩ over different batches r ≠ s, for every resample; a, b [R, P]."""
        gram = a @ b.T
        w = torch.from_numpy(self._resamples.by_batch)
        return _different(self._resamples.by_batch, _Products(gram.numpy(), (w @ gram).numpy()))

    def _cosine(self, direction: Tensor, truth: Tensor | str | None) -> Array:
        """Mean cosine of a batch's direction [R, P] and ∇J, for every resample.

        Where ∇J is an estimate, its mean over the OTHER batches stands for it, and its length is
        the unbiased one: so its noise takes nothing away.
        """
        w = self._resamples.by_batch
        if truth is None:
            return np.full(len(w), np.nan)
        if isinstance(truth, str):
            along = self._between(direction, self.batch_means(truth))
            square = self._signal(truth, truth, by_batch=True)
        elif truth.ndim == 2:
            along, square = self._between(direction, truth), self._between(truth, truth)
        else:
            along = (w @ (direction @ truth.double()).numpy()) / w.sum(1)
            square = np.full(len(w), float(truth.double().square().sum()))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.clip(along / np.sqrt(np.where(square > 0, square, np.nan)), -1, 1)

    def _coarse(self, name: str) -> bool:
        """Whether only whole batches are independent."""
        return self._samples[name].size > 1

    def _weights(self, by_batch: bool) -> Array:
        return self._resamples.by_batch if by_batch else self._resamples.by_unit

    def _units(self, name: str, by_batch: bool) -> Tensor:
        mean = self._double[name]
        return mean.mean(1) if by_batch else mean.flatten(0, 1)

    def _signal(self, a: str, b: str, by_batch: bool = False) -> Array:
        """Mean of ⟨u_i, v_j⟩ over different units i ≠ j, for every resample."""
        by_batch = by_batch or self._coarse(a) or self._coarse(b)
        return _different(self._weights(by_batch), self._products(a, b, by_batch))

    def _products(self, a: str, b: str, by_batch: bool) -> _Products:
        key = a, b, by_batch
        if key not in self._known:
            gram = self._units(a, by_batch) @ self._units(b, by_batch).T
            # Torch, not NumPy: its one thread does not wait for others by spinning.
            w = torch.from_numpy(self._weights(by_batch))
            self._known[key] = _Products(gram.numpy(), (w @ gram).numpy())
        return self._known[key]

    def _mean(self, name: str, x: Tensor) -> Array:
        """Mean of one number per unit of this sample, for every resample."""
        w = self._weights(self._coarse(name))
        return (w @ x.numpy()) / w.sum(1)

    def _spread(self, name: str, by_batch: bool = False) -> _Positive:
        """trace_cov = size · (E‖u‖² − ‖G‖²), and how far each unit moves it."""
        sample = self._samples[name]
        by_batch = by_batch or self._coarse(name)
        w = self._weights(by_batch)
        square = (sample.square.mean(1) if by_batch else sample.square.flatten()).numpy()
        count = w.sum(1, keepdims=True)
        along = self._products(name, name, by_batch).sums / count  # [draws, units]: ⟨u_i, ḡ⟩
        signal = self._signal(name, name, by_batch)
        total = (w @ square) / count[:, 0]
        resolved = 4 * torch.finfo(sample.mean.dtype).eps * total  # less is rounding
        trace = np.where(total - signal > resolved, total - signal, 0.0)
        influence = square - 2 * along
        influence -= (w * influence).sum(1, keepdims=True) / count
        return _Positive(sample.size * trace, sample.size * influence, w)

    def _percentiles(self, draws: Array) -> Figure:
        value, rest = float(draws[0]), draws[1:]
        rest = rest[~np.isnan(rest)]
        if np.isnan(value) or not len(rest):
            return Figure(value, np.nan, np.nan)
        return Figure(value, *self._limits(rest))

    def _studentised(self, x: _Positive) -> Figure:
        value, rounding = float(x.value[0]), 1e-9
        if not value > 0:
            return Figure(value, np.nan, np.nan)
        if x.error[0] < rounding * value:  # a ratio of the same numbers
            return Figure(value, value, value)
        with np.errstate(divide="ignore", invalid="ignore"):
            log, error = np.log(x.value), x.error / x.value
            t = (log[1:] - log[0]) / error[1:]
        t[x.value[1:] <= 0] = -np.inf  # all that varies was left out: how much there is, is open
        t = t[~np.isnan(t)]
        if not len(t):
            return Figure(value, np.nan, np.nan)
        low, high = self._limits(t)
        with np.errstate(over="ignore"):  # so few batches leave it open upwards
            return Figure(value, *(float(np.exp(log[0] - z * error[0])) for z in (high, low)))

    def _limits(self, draws: Array) -> tuple[float, float]:
        tail = (1 - self._level) / 2
        low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
        return float(low), float(high)


class Errors(NamedTuple):
    """Of one estimator at one batch size, on every resample."""

    bias: Array  # [draws]: ‖E ĝ − ∇J‖², its noise taken out
    spread: _Positive  # of single trajectories
    size: int  # of a batch

    @property
    def mse(self) -> Array:
        """Squared bias and variance of a batch's estimate, [draws]."""
        total: Array = self.bias + self.spread.value / self.size
        return total


def _directions(x: Tensor) -> Tensor:
    """Each row of x [R, P] over its length; 0 where it has none."""
    norm = x.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, x / torch.where(norm > 0, norm, 1.0), 0.0)


class _Products(NamedTuple):
    """Inner products of the units of two estimators."""

    gram: Array  # [units, units]: ⟨u_i, v_j⟩
    sums: Array  # [draws, units]: Σ_i w_i ⟨u_i, v_j⟩


def _different(w: Array, products: _Products) -> Array:
    """Mean of ⟨u_i, v_j⟩ over different units i ≠ j, for every resample w [draws, units]."""
    own = w**2
    pairs = w.sum(1) ** 2 - own.sum(1)
    with np.errstate(invalid="ignore"):  # a resample of one unit alone has no pairs
        return ((products.sums * w).sum(1) - own @ products.gram.diagonal()) / pairs


class _Positive(NamedTuple):
    """A positive figure on every resample, with the influence of each unit on it."""

    value: Array  # [draws]
    influence: Array  # [draws, units]
    weight: Array  # [draws, units]

    @property
    def error(self) -> Array:
        """Its standard error, [draws]."""
        with np.errstate(invalid="ignore"):  # a ratio to nothing has an infinite influence
            square: Array = (self.weight * self.influence**2).sum(1)
        return np.sqrt(square) / self.weight.sum(1)

    def over(self, other: _Positive) -> _Positive:
        """The ratio of two figures of the same units."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._over(other)

    def _over(self, other: _Positive) -> _Positive:
        ratio = self.value / other.value
        relative = (self.influence - ratio[:, None] * other.influence) / other.value[:, None]
        return _Positive(ratio, relative, self.weight)
