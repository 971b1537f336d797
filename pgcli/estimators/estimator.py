"""The estimator: Φ_t × baseline × importance, composed from the configuration.

    g_n = Σ_t ∇log π_θ(a_{n,t}|s_{n,t}) · weights_{n,t},    ĝ = (1/N) Σ_n g_n

Everything here is a pure function of one batch; nothing carries a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.config.schema import Baseline, EstimatorConfig, Importance, Phi, Target
from pgcli.estimators import baselines, importance, returns

FITTED = (Baseline["optimal"], Baseline["optimal_per_parameter"])  # on trajectory gradients


@dataclass(frozen=True)
class Episodes:
    """What an estimator may look at: N whole episodes per leading index."""

    rew: Tensor  # [..., N, T], zero where padded
    mask: Tensor  # [..., N, T] bool
    truncated: Tensor  # [..., N] bool: cut by a time limit
    value: Tensor | None = None  # [..., N, T]: V(s_t), from a critic fitted on EARLIER batches
    final_value: Tensor | None = None  # [..., N]: V(final_obs)
    q: Tensor | None = None  # [..., N, T]: Q(s_t, a_t), likewise
    log_ratio: Tensor | None = None  # [..., N, T]: log π_θ/π_θ̄, zero where padded; None: on-policy


class Terms(NamedTuple):
    """Weights on the scores of a batch, `[..., N, T]` each, zero where padded."""

    weights: Tensor  # Φ_t − b_t, weighted by importance and γ^t
    control: Tensor  # what one unit of a constant baseline would subtract from them
    importance: Tensor  # the importance weights ω_t themselves
    clamped: Tensor  # [...]: log importance weights that had to be clamped


def needs_value(config: EstimatorConfig) -> bool:
    """Whether Φ or the baseline reads V."""
    of_phi = config.phi.name in ("advantage", "td", "n_step", "gae")
    return of_phi or config.baseline.name in ("value", "linear")


def needs_q(config: EstimatorConfig) -> bool:
    """Whether Φ reads Q."""
    return config.phi.name in ("q", "advantage")


def terms(config: EstimatorConfig, episodes: Episodes) -> Terms:
    """Every score's weight. A baseline that is fitted on gradients is left to `control`."""
    stream = PHI[config.phi](config, episodes)
    omega, clamped = _importance_weights(config, episodes)
    if config.importance is Importance["per_decision"]:
        phi = stream.sum(omega)
    else:
        phi = omega * stream.sum(torch.ones_like(omega))
    baseline = _BASELINE[config.baseline](config, episodes, stream)
    weights, control = phi - omega * baseline, omega
    if config.discount_state and config.phi is not Phi["total_return"]:
        # R(τ) counts its discount from the start already; the others count theirs from t.
        discount = returns.powers(config.gamma, phi)
        weights, control = weights * discount, control * discount
    if config.normalize:
        weights = standardized(weights, episodes.mask)
    mask = episodes.mask
    return Terms(weights * mask, control * mask, omega * mask, clamped)


def weights(config: EstimatorConfig, episodes: Episodes) -> Tensor:
    """`terms(...).weights`: all there is unless the baseline is fitted on gradients."""
    return terms(config, episodes).weights


class Stream(NamedTuple):
    """Φ_t = Σ_{0≤l<n} discount^l x_{t+l}; with `whole`, also what came before t.

    Every Φ is such a sum. Per-decision importance puts a weight on each of its terms.
    """

    x: Tensor  # [..., N, T], zero where padded
    discount: float
    n: int | None = None  # None: to the end
    whole: bool = False

    def sum(self, omega: Tensor) -> Tensor:
        """The sum with weights ω on its terms; on those before t, where a_t is not, ω_t."""
        weighted = omega * self.x
        if self.n is not None:
            return returns.windowed_sum(weighted, self.discount, self.n)
        future = returns.discounted_sum(weighted, self.discount)
        if not self.whole:
            return future
        discount = returns.powers(self.discount, self.x)
        past = (discount * self.x).cumsum(-1) - discount * self.x
        return omega * past + discount * future


def advantages(config: EstimatorConfig, episodes: Episodes) -> Tensor:
    """GAE(γ, λ) of the episodes, `[..., N, T]`; `value` and `final_value` must be there."""
    return returns.gae(_td(config, episodes), config.gamma, config.lam)


def value_target(config: EstimatorConfig, target: Target, episodes: Episodes) -> Tensor:
    """What V(s_t) is regressed on, `[..., N, T]`: G_t, or the λ-return A_t + V(s_t) of TD(λ)."""
    if target is Target["td_lambda"]:
        return (advantages(config, episodes) + _given(episodes, "value")) * episodes.mask
    return returns.reward_to_go(episodes.rew, config.gamma)


def q_target(config: EstimatorConfig, target: Target, episodes: Episodes) -> Tensor:
    """What Q(s_t, a_t) is regressed on: G_t, or with Q in the place of V the return of SARSA(λ).

    What follows a time limit has no action, so its value is 0.
    """
    q = _given(episodes, "q")
    nothing = torch.zeros_like(q[..., 0])
    return value_target(config, target, replace(episodes, value=q, final_value=nothing))


def standardized(phi: Tensor, mask: Tensor) -> Tensor:
    """(Φ − mean) / std over the real steps of the batch `[..., N, T]`; one step alone gives 0."""
    count = mask.sum((-2, -1), keepdim=True)
    mean = (phi * mask).sum((-2, -1), keepdim=True) / count
    centred = (phi - mean) * mask
    std = (centred.square().sum((-2, -1), keepdim=True) / count).sqrt()
    return centred / (std + 1e-8)


def _importance_weights(config: EstimatorConfig, e: Episodes) -> importance.Weights:
    form, log_ratio = config.importance, e.log_ratio
    if form is Importance["none"] or log_ratio is None:
        return importance.Weights(torch.ones_like(e.rew), torch.zeros_like(e.mask.sum((-2, -1))))
    counted = (e.mask.sum(-1, keepdim=True) > 0).expand_as(e.mask)  # ended ones keep their weight
    if form is Importance["first_order"]:
        log_weight, counted = log_ratio, e.mask
    elif form is Importance["trajectory"]:
        log_weight = importance.log_whole(log_ratio)
    else:
        log_weight = importance.log_prefix(log_ratio)
    omega, clamped = importance.exponentiated(log_weight, e.mask, config.clip_ratio)
    if config.self_normalize:
        omega = importance.self_normalized(omega, counted)
    return importance.Weights(omega, clamped)


def _given(episodes: Episodes, name: str) -> Tensor:
    found: Tensor | None = getattr(episodes, name)
    if found is None:
        raise ValueError(f"this estimator needs Episodes.{name}")
    return found


def _td(config: EstimatorConfig, e: Episodes) -> Tensor:
    value = _given(e, "value") * e.mask
    last = _given(e, "final_value") * e.truncated * config.bootstrap
    following = returns.next_values(value, last, e.mask)
    return returns.td_residual(e.rew, value, following, config.gamma)


PHI: dict[Phi, Callable[[EstimatorConfig, Episodes], Stream]] = {
    Phi["total_return"]: lambda c, e: Stream(e.rew, c.gamma, whole=True),
    Phi["reward_to_go"]: lambda c, e: Stream(e.rew, c.gamma),
    Phi["q"]: lambda c, e: Stream(_given(e, "q") * e.mask, 0.0),
    Phi["advantage"]: lambda c, e: Stream((_given(e, "q") - _given(e, "value")) * e.mask, 0.0),
    Phi["td"]: lambda c, e: Stream(_td(c, e), 0.0),
    Phi["n_step"]: lambda c, e: Stream(_td(c, e), c.gamma, n=c.n),
    Phi["gae"]: lambda c, e: Stream(_td(c, e), c.gamma * c.lam),
}

_BASELINE: dict[Baseline, Callable[[EstimatorConfig, Episodes, Stream], Tensor]] = {
    Baseline["none"]: lambda c, e, s: torch.zeros_like(e.rew[..., :1]),
    Baseline["constant"]: lambda c, e, s: torch.full_like(e.rew[..., :1], c.constant),
    Baseline["mean"]: lambda c, e, s: baselines.leave_one_out_mean(_unweighted(s), e.mask),
    Baseline["own_mean"]: lambda c, e, s: baselines.own_mean(_unweighted(s), e.mask),
    Baseline["time"]: lambda c, e, s: baselines.leave_one_out_time_mean(_unweighted(s), e.mask),
    Baseline["linear"]: lambda c, e, s: _given(e, "value"),
    Baseline["value"]: lambda c, e, s: _given(e, "value"),
    **{fitted: lambda c, e, s: torch.zeros_like(e.rew[..., :1]) for fitted in FITTED},
}


def _unweighted(stream: Stream) -> Tensor:
    return stream.sum(torch.ones_like(stream.x))
