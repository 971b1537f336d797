"""What one training iteration logs: tags and one number per seed, [S]."""

from __future__ import annotations

import torch
from torch import Tensor

from pgcli.agents.critic import packed
from pgcli.agents.policy import Policy
from pgcli.environments.batch import Batch
from pgcli.estimators.estimator import Terms
from pgcli.estimators.importance import effective_sample_size
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


def critic(name: str, value: Tensor | None, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How well a critic, as it was BEFORE this batch's fit, predicts the targets; all [S, N, T]."""
    assert value is not None
    error = target - value
    spread = _variance(target, mask)
    explained = torch.where(spread > 0, 1 - _variance(error, mask) / spread, 0.0)
    return {f"{name}/loss": _mean(error.square(), mask), f"{name}/explained_variance": explained}


def importance(terms: Terms, mask: Tensor) -> dict[str, Tensor]:
    """Effective sample sizes, in episodes, and the extremes of the last update's weights."""
    drawn = mask.any(-1, keepdim=True)  # [S, N, 1]: an ended episode keeps its weight
    weight = terms.importance
    last = mask.shape[-1] - 1
    length = mask.sum(-1, keepdim=True)
    found = {}
    for name, step in {"1": 0, "10": 9, "100": 99, "whole": last}.items():
        column = torch.minimum(length - 1, length.new_tensor(min(step, last))).clamp(min=0)
        at = weight.gather(-1, column)  # [S, N, 1]
        found[f"importance/ess_{name}"] = effective_sample_size(at, drawn)[..., 0]
    found["importance/max_weight"] = weight.amax((1, 2))
    found["importance/clamped"] = terms.clamped
    return found


def score(found: Measurement) -> dict[str, Tensor]:
    """‖(1/N) Σ_n S_n‖, zero in expectation (the EGLP lemma), and its standard error."""
    return {"score/norm": found.norm, "score/standard_error": found.variance.sqrt()}


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum((1, 2)) / mask.sum((1, 2))


def _variance(x: Tensor, mask: Tensor) -> Tensor:
    return _mean((x - _mean(x, mask)[:, None, None]).square(), mask)


def mean_kl(policy: Policy, old: Tensor, new: Tensor, batch: Batch) -> Tensor:
    """KL(π_old‖π_new) in nats over at most KL_STEPS real steps, evenly spread, [S]."""
    rows, valid = packed(batch.mask)
    count = valid.sum(1, keepdim=True)  # [S, 1]
    most = min(KL_STEPS, rows.shape[1])
    chosen = torch.arange(most, device=rows.device) * count // most  # [S, most]
    seed = torch.arange(len(rows), device=rows.device).unsqueeze(1)
    obs = batch.obs.flatten(1, 2)[seed, rows.gather(1, chosen)]
    return policy.kl(old, new, obs).mean(1)
