"""The estimator: Φ_t × baseline × importance, composed from the configuration.

    g_n = Σ_t ∇log π_θ(a_{n,t}|s_{n,t}) · weights_{n,t},    ĝ = (1/N) Σ_n g_n

Everything here is a pure function of one batch; nothing carries a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.estimators import baselines, importance, returns
from pgcli.estimators.phi import Episodes, Stream, given, phi, td
from pgcli.settings.schema import Baseline, CriticConfig, EstimatorConfig, Importance, Target

FITTED = (Baseline["optimal"], Baseline["optimal_per_parameter"])  # on trajectory gradients


class Terms(NamedTuple):
    """Weights on the scores of a batch, `[..., N, T]` each, zero where padded."""

    weights: Tensor  # Φ_t − b_t, weighted by importance and γ^t
    control: Tensor  # what one unit of a constant baseline would subtract from them
    importance: Tensor  # the importance weights ω_t themselves
    clamped: Tensor  # [...]: log importance weights that had to be clamped


def needs_value(config: EstimatorConfig) -> bool:
    """Whether Φ or the baseline reads V."""
    return "value" in phi(config).needs or config.baseline.name in ("value", "linear")


def needs_q(config: EstimatorConfig) -> bool:
    """Whether Φ reads Q."""
    return "q" in phi(config).needs


def terms(config: EstimatorConfig, episodes: Episodes) -> Terms:
    """Every score's weight. A baseline that is fitted on gradients is left to `control`."""
    form = phi(config)
    found = form.function(config, episodes)
    plain = found.sum() if isinstance(found, Stream) else found
    if plain.shape != episodes.rew.shape:
        allowed = f"gave the shape {list(plain.shape)} for rewards {list(episodes.rew.shape)}"
        raise ConfigError("estimator.phi", config.phi, allowed)
    omega, clamped = _importance_weights(config, episodes)
    if config.importance is not Importance["per_decision"]:
        weighted = omega * plain
    elif isinstance(found, Stream):
        weighted = found.sum(omega)
    else:
        raise ConfigError("estimator.phi", config.phi, "is registered as a stream and gave none")
    baseline = _BASELINE[config.baseline](config, episodes, plain)
    weights, control = returns.difference(weighted, omega * baseline), omega
    if config.discount_state and not form.from_start:
        discount = returns.powers(config.gamma, plain)
        weights, control = weights * discount, control * discount
    if config.normalize:
        weights = standardized(weights, episodes.mask)
    mask = episodes.mask
    return Terms(weights * mask, control * mask, omega * mask, clamped)


def weights(config: EstimatorConfig, episodes: Episodes) -> Tensor:
    """`terms(...).weights`: all there is unless the baseline is fitted on gradients."""
    return terms(config, episodes).weights


def value_target(config: EstimatorConfig, critic: CriticConfig, episodes: Episodes) -> Tensor:
    """What V(s_t) is regressed on, `[..., N, T]`: G_t, or the λ-return A_t + V(s_t) of TD(λ).

    A_t is GAE(γ, λ); λ is the critic's own, or where it has none the estimator's.
    """
    if critic.target is Target["td_lambda"]:
        lam = config.lam if critic.lam is None else critic.lam
        advantage = returns.gae(td(config, episodes), config.gamma, lam)
        return (advantage + given(episodes, "value")) * episodes.mask
    return returns.reward_to_go(episodes.rew, config.gamma)


def q_target(config: EstimatorConfig, critic: CriticConfig, episodes: Episodes) -> Tensor:
    """What Q(s_t, a_t) is regressed on: G_t, or with Q in the place of V the return of SARSA(λ).

    What follows a time limit has no action, so its value is 0.
    """
    q = given(episodes, "q")
    nothing = torch.zeros_like(q[..., 0])
    return value_target(config, critic, replace(episodes, value=q, final_value=nothing))


def standardized(x: Tensor, mask: Tensor) -> Tensor:
    """(x − mean) / std over the real steps of the batch `[..., N, T]`; one step alone gives 0."""
    count = mask.sum((-2, -1), keepdim=True)
    mean = (x * mask).sum((-2, -1), keepdim=True) / count
    centred = returns.difference(x, mean) * mask
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
    if not config.self_normalize:
        return importance.exponentiated(log_weight, e.mask, config.clip_ratio)
    if config.clip_ratio is not None:
        log_weight = log_weight.clamp(max=math.log(config.clip_ratio))
    omega = importance.self_normalized(log_weight, counted)
    return importance.Weights(omega, torch.zeros_like(e.mask.sum((-2, -1))))


_BASELINE: dict[Baseline, Callable[[EstimatorConfig, Episodes, Tensor], Tensor]] = {
    Baseline["none"]: lambda c, e, phi: torch.zeros_like(e.rew[..., :1]),
    Baseline["constant"]: lambda c, e, phi: torch.full_like(e.rew[..., :1], c.constant),
    Baseline["mean"]: lambda c, e, phi: baselines.leave_one_out_mean(phi, e.mask),
    Baseline["own_mean"]: lambda c, e, phi: baselines.own_mean(phi, e.mask),
    Baseline["time"]: lambda c, e, phi: baselines.leave_one_out_time_mean(phi, e.mask),
    Baseline["linear"]: lambda c, e, phi: given(e, "value"),
    Baseline["value"]: lambda c, e, phi: given(e, "value"),
    **{fitted: lambda c, e, phi: torch.zeros_like(e.rew[..., :1]) for fitted in FITTED},
}
