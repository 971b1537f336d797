"""The estimator: Φ_t × baseline × importance, composed from the configuration.

    ĝ = (1/N) Σ_n Σ_t ∇log π(a_{n,t}|s_{n,t}) · weights_{n,t}

Everything here is a pure function of one batch; nothing carries a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pgcli.config.schema import Baseline, EstimatorConfig, Phi, Target
from pgcli.estimators import baselines, returns


@dataclass(frozen=True)
class Episodes:
    """What an estimator may look at: N whole episodes per leading index."""

    rew: Tensor  # [..., N, T], zero where padded
    mask: Tensor  # [..., N, T] bool
    truncated: Tensor  # [..., N] bool: cut by a time limit
    value: Tensor | None = None  # [..., N, T]: V(s_t), from a critic fitted on EARLIER batches
    final_value: Tensor | None = None  # [..., N]: V(final_obs)


def needs_value(config: EstimatorConfig) -> bool:
    """Whether Φ or the baseline reads a critic."""
    return config.phi is Phi["gae"] or config.baseline is Baseline["value"]


def weights(config: EstimatorConfig, episodes: Episodes) -> Tensor:
    """The weight of every score ∇log π(a_t|s_t), `[..., N, T]`, zero where padded."""
    phi = _PHI[config.phi](config, episodes)
    phi = phi - _BASELINE[config.baseline](phi, episodes)
    if config.discount_state and config.phi is not Phi["total_return"]:
        # R(τ) counts its discount from the start already; the others count theirs from t.
        steps = torch.arange(phi.shape[-1], dtype=phi.dtype, device=phi.device)
        phi = phi * config.gamma**steps
    if config.normalize:
        phi = standardized(phi, episodes.mask)
    return phi * episodes.mask


def advantages(config: EstimatorConfig, episodes: Episodes) -> Tensor:
    """GAE(γ, λ) of the episodes, `[..., N, T]`; `value` and `final_value` must be there."""
    value, mask = _value(episodes) * episodes.mask, episodes.mask
    last = _final_value(episodes) * episodes.truncated * config.bootstrap
    delta = returns.td_residual(
        episodes.rew, value, returns.next_values(value, last, mask), config.gamma
    )
    return returns.gae(delta, config.gamma, config.lam)


def value_target(config: EstimatorConfig, target: Target, episodes: Episodes) -> Tensor:
    """What V(s_t) is regressed on, `[..., N, T]`: G_t, or the λ-return A_t + V(s_t) of TD(λ)."""
    if target is Target["td_lambda"]:
        return (advantages(config, episodes) + _value(episodes)) * episodes.mask
    return returns.reward_to_go(episodes.rew, config.gamma)


def standardized(phi: Tensor, mask: Tensor) -> Tensor:
    """(Φ − mean) / std over the real steps of the batch `[..., N, T]`; one step alone gives 0."""
    count = mask.sum((-2, -1), keepdim=True)
    mean = (phi * mask).sum((-2, -1), keepdim=True) / count
    centred = (phi - mean) * mask
    std = (centred.square().sum((-2, -1), keepdim=True) / count).sqrt()
    return centred / (std + 1e-8)


def _value(episodes: Episodes) -> Tensor:
    if episodes.value is None:
        raise ValueError("this estimator needs Episodes.value")
    return episodes.value


def _final_value(episodes: Episodes) -> Tensor:
    if episodes.final_value is None:
        raise ValueError("this estimator needs Episodes.final_value")
    return episodes.final_value


_PHI: dict[Phi, Callable[[EstimatorConfig, Episodes], Tensor]] = {
    Phi["total_return"]: lambda c, e: returns.total_return(e.rew, c.gamma),
    Phi["reward_to_go"]: lambda c, e: returns.reward_to_go(e.rew, c.gamma),
    Phi["gae"]: advantages,
}

_BASELINE: dict[Baseline, Callable[[Tensor, Episodes], Tensor]] = {
    Baseline["none"]: lambda phi, e: torch.zeros_like(phi[..., :1]),
    Baseline["mean"]: lambda phi, e: baselines.leave_one_out_mean(phi, e.mask),
    Baseline["value"]: lambda phi, e: _value(e),
}
