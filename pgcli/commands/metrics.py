"""What one training iteration logs: tags and one number per seed, [S]."""

from __future__ import annotations

from torch import Tensor

from pgcli.agents.policy import Policy
from pgcli.environments.batch import Batch
from pgcli.gradients.statistics import Measurement, NoiseScale

KL_STEPS = 2048  # steps over which the divergence of an update is averaged


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


def critic(value: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How well V, as it was BEFORE this batch's fit, predicts the targets; all [S, N, T]."""
    error = target - value
    return {
        "critic/loss": _mean(error.square(), mask),
        "critic/explained_variance": 1 - _variance(error, mask) / _variance(target, mask),
    }


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum((1, 2)) / mask.sum((1, 2))


def _variance(x: Tensor, mask: Tensor) -> Tensor:
    return _mean((x - _mean(x, mask)[:, None, None]).square(), mask)


def mean_kl(policy: Policy, old: Tensor, new: Tensor, batch: Batch) -> Tensor:
    """KL(π_old‖π_new) in nats over about KL_STEPS states of the batch, evenly spaced, [S]."""
    mask = batch.mask.flatten(1)
    stride = max(1, mask.shape[1] // KL_STEPS)
    real = mask[:, ::stride]
    kl = policy.kl(old, new, batch.obs.flatten(1, 2)[:, ::stride])
    return (kl * real).sum(1) / real.sum(1).clamp(min=1)
