"""How noisy is the gradient? Unbiased figures from the sums over one batch of trajectories.

Σ = Cov(g_n) is the covariance of one trajectory's gradient, G = E[g_n]. The unit of replication is
the trajectory, never the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pgcli.gradients.trajectory import Sums


@dataclass(frozen=True)
class Measurement:
    """The gradient estimate of each of S seeds and how uncertain it is."""

    gradient: Tensor  # [S, P] float64: ĝ, an ascent direction on J
    norm: Tensor  # [S]: ‖ĝ‖
    trace_cov: Tensor  # [S]: tr Σ̂, unbiased; NaN where there is only one group
    variance: Tensor  # [S]: tr Σ̂ / N, the variance of ĝ itself
    norm_sq: Tensor  # [S]: ‖ĝ‖² − tr Σ̂/N, unbiased for ‖G‖²; may be negative


def measure(sums: Sums) -> Measurement:
    """Mean and spread of the trajectory gradients.

    tr Σ̂ = (Σ_k ‖G_k‖²/m_k − N ‖ĝ‖²) / (K − 1) over K groups is unbiased for any sizes m_k; with
    every trajectory by itself it is Σ_n ‖g_n − ĝ‖² / (N − 1).
    """
    n = sums.episodes.clamp(min=1)
    gradient = sums.gradient / n.unsqueeze(-1)
    square = gradient.square().sum(-1)
    freedom = torch.where(sums.groups > 1, sums.groups - 1.0, torch.nan)
    spread = sums.square - n * square
    # Where all trajectories agree, rounding leaves a hair, of either sign.
    spread = torch.where(spread <= 4 * sums.eps * sums.square, 0.0, spread)
    trace_cov = spread / freedom
    variance = trace_cov / n
    return Measurement(gradient, square.sqrt(), trace_cov, variance, square - variance)


@dataclass
class NoiseScale:
    """Signal and noise smoothed over iterations: a ratio of noisy numbers would be biased.

    Exponential means with `smoothing` as the decay, corrected for their start. The simple noise
    scale B = tr Σ/‖G‖² is the batch size at which signal equals noise; SNR = N/B
    (McCandlish et al. 2018, eq. 2.9).
    """

    smoothing: float
    trace_cov: Tensor  # [S] float64
    norm_sq: Tensor  # [S] float64
    weight: Tensor  # [S] float64: what the start leaves to correct for

    @classmethod
    def start(cls, smoothing: float, seeds: int) -> NoiseScale:
        """Nothing seen yet."""
        return cls(smoothing, *(torch.zeros(seeds, dtype=torch.float64) for _ in range(3)))

    def update(self, measurement: Measurement) -> None:
        """Take in one iteration; a seed without a measurement keeps what it had."""
        seen = measurement.trace_cov.isfinite()
        for mean, new in (
            (self.trace_cov, measurement.trace_cov.cpu()),
            (self.norm_sq, measurement.norm_sq.cpu()),
            (self.weight, torch.ones_like(self.weight)),
        ):
            mean.copy_(torch.where(seen.cpu(), torch.lerp(new, mean, self.smoothing), mean))

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the state, by name."""
        return {f"noise/{key}": value.numpy().copy() for key, value in self._state.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave."""
        for key, value in self._state.items():
            value.copy_(torch.from_numpy(arrays[f"noise/{key}"]))

    @property
    def _state(self) -> dict[str, Tensor]:
        return {"trace_cov": self.trace_cov, "norm_sq": self.norm_sq, "weight": self.weight}

    @property
    def noise_scale(self) -> Tensor:
        """B [S]; negative while the squared norm is not resolved from zero."""
        return self.trace_cov / self.norm_sq

    def snr(self, episodes: Tensor) -> Tensor:
        """‖G‖² / (tr Σ/N) of an estimate from N `episodes` [S]."""
        return episodes * self.norm_sq / self.trace_cov
