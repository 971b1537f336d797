"""What one training iteration logs: tags and one number per seed, [S]."""

from __future__ import annotations

import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.estimators.estimator import Terms
from pgcli.estimators.importance import effective_sample_size, log_prefix
from pgcli.estimators.returns import difference
from pgcli.gradients.statistics import Measurement, NoiseScale

KL_STEPS = 1024  # steps over which the divergence of an update is averaged


def rollout(batch: Batch, returns: Tensor) -> dict[str, Tensor]:
    """Means over the batch's episodes, for returns [S, N]."""
    return {
        "rollout/ep_rew_mean": returns.sum(1) / batch.episodes,
        "rollout/ep_len_mean": batch.steps / batch.episodes,
        "rollout/episodes": batch.episodes,
    }


def gradient(found: Measurement, noise: NoiseScale, episodes: Tensor) -> dict[str, Tensor]:
    """The estimate and its noise; the ratios from smoothed signal and noise."""
    return {
        "gradient/norm": found.norm,
        "gradient/norm_sq_unbiased": found.norm_sq,
        "gradient/trace_cov": found.trace_cov,
        "gradient/variance": found.variance,
        "gradient/snr": noise.snr(episodes.cpu()),
        "gradient/noise_scale": noise.noise_scale,
    }


def critic(name: str, value: Tensor | None, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How well a critic, as it was BEFORE this batch's fit, predicts the targets; all [S, N, T]."""
    assert value is not None
    error = target - value
    spread = _variance(target, mask)
    explained = torch.where(spread > 0, 1 - _variance(error, mask) / spread, 0.0)
    return {f"{name}/loss": _mean(error.square(), mask), f"{name}/explained_variance": explained}


def importance(terms: Terms, log_ratio: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How far the data's policy is, whatever form the weights have; log_ratio, mask [S, N, T].

    Effective sample sizes, in episodes, of ρ_{0:t} for prefixes of so many steps (an ended episode
    keeps its weight), the largest weight that the estimate used, and how many had to be clamped.
    """
    drawn = mask.any(-1, keepdim=True).expand_as(mask)
    ess = effective_sample_size(log_prefix(log_ratio), drawn)  # [S, T]
    last = mask.shape[-1] - 1
    prefixes = {"1": 0, "10": 9, "100": 99, "whole": last}
    return {
        **{f"importance/ess_{name}": ess[:, min(t, last)] for name, t in prefixes.items()},
        "importance/max_weight": terms.importance.amax((1, 2)),
        "importance/clamped": terms.clamped,
    }


def score(found: Measurement) -> dict[str, Tensor]:
    """‖(1/N) Σ_n S_n‖, zero in expectation (the EGLP lemma), and its standard error."""
    return {"score/norm": found.norm, "score/standard_error": found.variance.sqrt()}


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum((1, 2)) / mask.sum((1, 2))


def _variance(x: Tensor, mask: Tensor) -> Tensor:
    return _mean(difference(x, _mean(x, mask)[:, None, None]).square(), mask)
