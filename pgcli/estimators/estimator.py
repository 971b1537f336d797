"""The estimator: Φ_t × baseline × importance, composed from the configuration.

    g_n = Σ_t ∇log π_θ(a_{n,t}|s_{n,t}) · weights_{n,t},    ĝ = (1/N) Σ_n g_n

Everything here is a pure function of one batch; nothing carries a gradient.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.estimators import importance, returns
from pgcli.estimators.baselines import baseline
from pgcli.estimators.phi import Episodes, Stream, given, phi, td
from pgcli.settings.registry import blamed
from pgcli.settings.schema import NONE, CriticConfig, EstimatorConfig, Target


class Terms(NamedTuple):
    """Weights on the scores of a batch, `[..., N, T]` each, zero where padded."""

    weights: Tensor  # Φ_t − b_t, weighted by importance and γ^t
    control: Tensor  # what one unit of a constant baseline would subtract from them
    importance: Tensor  # the importance weights ω_t themselves
    clamped: Tensor  # [...]: log importance weights that had to be clamped


def critics(config: EstimatorConfig) -> frozenset[str]:
    """Which critics Φ and the baseline read: "value", "linear" (in features), "q", "compatible".

    V is one of them where it is both in Φ and the baseline: that of the baseline.
    """
    needs, own = phi(config).needs, baseline(config).critic
    return frozenset(needs if own is None else (own, *(kind for kind in needs if kind != "value")))


def couples(config: EstimatorConfig) -> bool:
    """Whether the trajectories of a batch may enter each other's gradients."""
    return (
        baseline(config).couples
        or config.normalize
        or (config.weighted and config.self_normalize)
        or phi(config).couples
    )


def check_estimator(config: EstimatorConfig, batch_size: int | None = None) -> None:
    """Raise ConfigError where there is no such part, or where parts contradict each other.

    batch_size: episodes of every batch, where that is fixed.
    """
    form, base = phi(config), baseline(config)
    importance.importance(config)
    key, name = "estimator.baseline", config.baseline
    if form.subtracts_value and name != NONE:
        allowed = f"estimator.phi={config.phi} already subtracts V: only none is allowed"
        raise ConfigError(key, name, allowed)
    if base.fitted is not None and config.normalize:
        allowed = f"{key}={name} is fitted to the scale of Φ: only false"
        raise ConfigError("estimator.normalize", True, allowed)
    if batch_size is not None and batch_size < base.fewest:
        allowed = f"{key}={name} needs at least {base.fewest} episodes"
        raise ConfigError("batch_size", batch_size, allowed)


def check_parts(config: EstimatorConfig) -> None:
    """Raise ConfigError where an estimator is not made for parts of episodes.

    Only what goes on with V where a part ends is: a Φ of TD residuals, with weights of its own
    steps.
    """
    form, weight = phi(config), importance.importance(config)
    if form.needs != ("value",) or not form.subtracts_value:
        allowed = "collect=steps has parts of episodes: td, n_step, gae; or collect=episodes"
        raise ConfigError("estimator.phi", config.phi, allowed)
    if config.weighted and (weight.before or weight.terms):
        allowed = "collect=steps does not know what was before a part: first_order"
        raise ConfigError("estimator.importance", config.importance, allowed)


def terms(config: EstimatorConfig, episodes: Episodes) -> Terms:
    """Every score's weight. A baseline that is fitted on gradients is left to `control`."""
    form = phi(config)
    with blamed("estimator.phi", config.phi):
        raw = form.function(config, episodes)
    plain = raw.sum() if isinstance(raw, Stream) else raw
    if not isinstance(plain, Tensor) or plain.shape != episodes.rew.shape:
        allowed = f"gave {_shape(plain)} for rewards {list(episodes.rew.shape)}"
        raise ConfigError("estimator.phi", config.phi, allowed)
    omega, clamped = _importance_weights(config, episodes)
    if not importance.importance(config).terms:
        weighted = omega * plain
    elif isinstance(raw, Stream):
        weighted = raw.sum(omega)
    else:
        raise ConfigError("estimator.phi", config.phi, "is registered as a stream and gave none")
    with blamed("estimator.baseline", config.baseline):
        b = baseline(config).function(config, episodes, plain)
    if not _broadcasts(b, plain):
        allowed = f"gave {_shape(b)} for the shape {list(plain.shape)}"
        raise ConfigError("estimator.baseline", config.baseline, allowed)
    weights, control = returns.difference(weighted, omega * b), omega
    if config.discount_state and not form.from_start:
        discount = returns.powers(config.gamma, plain)
        if episodes.age is not None:
            discount = discount * config.gamma ** episodes.age.unsqueeze(-1)
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

    A_t is GAE(γ, λ); λ is the critic's own, or where it has none the estimator's. The λ-return of
    expected SARSA is the same one: r_t + γ((1 − λ) V(s_{t+1}) + λ · its own at t + 1).
    """
    if critic.target is not Target.monte_carlo:
        lam = config.lam if critic.lam is None else critic.lam
        advantage = returns.gae(td(config, episodes), config.gamma, lam)
        return (advantage + given(episodes, "value")) * episodes.mask
    return returns.reward_to_go(episodes.rew, config.gamma)


def q_target(config: EstimatorConfig, critic: CriticConfig, episodes: Episodes) -> Tensor:
    """What Q(s_t, a_t) is regressed on, `[..., N, T]`.

    G_t; of expected SARSA(λ), with V = Σ_a π Q at the next state (van Seijen et al. 2009); or of
    SARSA(λ), with Q in the place of V. To the last what follows a time limit has no action, so its
    value is 0.
    """
    if critic.target is Target.td_lambda:
        q = given(episodes, "q")
        nothing = torch.zeros_like(q[..., 0])
        episodes = replace(episodes, value=q, final_value=nothing)
    return value_target(config, critic, episodes)


def standardized(x: Tensor, mask: Tensor) -> Tensor:
    """(x − mean) / std over the real steps of the batch `[..., N, T]`; one step alone gives 0."""
    count = mask.sum((-2, -1), keepdim=True)
    mean = (x * mask).sum((-2, -1), keepdim=True) / count
    centred = returns.difference(x, mean) * mask
    std = (centred.square().sum((-2, -1), keepdim=True) / count).sqrt()
    return centred / (std + 1e-8)


def _shape(x: object) -> str:
    return f"the shape {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"


def _broadcasts(x: object, like: Tensor) -> bool:
    """Whether x stands for a tensor of that shape."""
    if not isinstance(x, Tensor) or x.ndim > like.ndim:
        return False
    # torch.broadcast_shapes would import SymPy: half a second of a start.
    sizes = zip(reversed(x.shape), reversed(like.shape), strict=False)
    return all(own in (1, size) for own, size in sizes)


def _importance_weights(config: EstimatorConfig, e: Episodes) -> importance.Weights:
    form, log_ratio = importance.importance(config), e.log_ratio
    if form.log_weight is None or log_ratio is None:
        return importance.Weights(torch.ones_like(e.rew), torch.zeros_like(e.mask.sum((-2, -1))))
    with blamed("estimator.importance", config.importance):
        log_weight = form.log_weight(log_ratio)
    if not isinstance(log_weight, Tensor) or log_weight.shape != log_ratio.shape:
        allowed = f"gave {_shape(log_weight)} for the shape {list(log_ratio.shape)}"
        raise ConfigError("estimator.importance", config.importance, allowed)
    if not config.self_normalize:
        return importance.exponentiated(log_weight, e.mask, config.clip_ratio)
    if config.clip_ratio is not None:
        log_weight = log_weight.clamp(max=math.log(config.clip_ratio))
    ended = (e.mask.sum(-1, keepdim=True) > 0).expand_as(e.mask)  # they keep their weight
    omega = importance.self_normalized(log_weight, ended if form.before else e.mask)
    return importance.Weights(omega, torch.zeros_like(e.mask.sum((-2, -1))))
