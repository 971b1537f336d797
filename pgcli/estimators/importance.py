"""Importance weights: data from a behaviour policy θ̄, an estimate for the target policy θ.

Everything stays in log space until the last step. `log_ratio` is log π_θ(a_t|s_t) minus
log π_θ̄(a_t|s_t) at times [0, T), zero where padded: the product over an ended episode stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.settings.registry import Registry
from pgcli.settings.schema import EstimatorConfig

LOG_LIMIT = 30.0  # |log weight| beyond which it is clamped: e^30 squared still fits a float32


class Weights(NamedTuple):
    """Importance weights and how often their logarithm had to be clamped."""

    weight: Tensor  # [..., N, T]
    clamped: Tensor  # [...]: how many of the real steps


def log_prefix(log_ratio: Tensor) -> Tensor:
    """log ρ_{0:t} = Σ_{k≤t} log ρ_k, `[..., T]`."""
    return log_ratio.cumsum(-1)


def log_whole(log_ratio: Tensor) -> Tensor:
    """log ρ_{0:T−1}, the same at every t, `[..., T]`."""
    return log_ratio.sum(-1, keepdim=True).expand_as(log_ratio)


def exponentiated(log_weight: Tensor, mask: Tensor, clip: float | None = None) -> Weights:
    """exp of the log weights, finite at any log-ratio; above `clip` they are cut (biased)."""
    clamped = (log_weight.abs() > LOG_LIMIT) & mask
    weight = log_weight.clamp(-LOG_LIMIT, LOG_LIMIT).exp()
    if clip is not None:
        weight = weight.clamp(max=clip)
    return Weights(weight, clamped.sum((-2, -1)))


def self_normalized(log_weight: Tensor, counted: Tensor) -> Tensor:
    """exp of log weights [..., N, T] over its mean at the same t among those counted: bias O(1/N).

    Needs no clamp: only differences of logarithms matter.
    """
    shown = log_weight.masked_fill(~counted, -torch.inf)
    share = torch.where(counted.any(-2, keepdim=True), shown, 0.0).softmax(-2)
    return share * counted.sum(-2, keepdim=True) * counted


def effective_sample_size(log_weight: Tensor, counted: Tensor) -> Tensor:
    """ESS = (Σ w)² / Σ w² over the trajectories counted, at each t: `[..., N, T]` to `[..., T]`."""
    shown = log_weight.masked_fill(~counted, -torch.inf)
    ess = (2 * shown.logsumexp(-2) - (2 * shown).logsumexp(-2)).exp()
    return torch.where(counted.any(-2), ess, 0.0)


@dataclass(frozen=True)
class Importance:
    """A registered form of importance weights and what must be known about it."""

    log_weight: Function | None  # of log ratios, [..., T] each, at times [0, T); None: no weights
    terms: bool  # it weighs the terms of Φ one by one, and so needs a Stream
    before: bool  # the ratios of the steps before t are in ω_t: the states are the target's
    after: bool  # what follows a step is weighed as well
    bias: str | None  # beside what is left out of the ratios
    exact: bool  # what `before` and `after` say is all there is to it: see `comparison.exact`


Function = Callable[[Tensor], Tensor]
IMPORTANCES: Registry[Importance] = Registry("estimator.importance", __name__)


def register(
    name: str,
    *,
    terms: bool = False,
    before: bool = False,
    after: bool = False,
    bias: str | None = None,
    exact: bool = False,
) -> Callable[[Function], Function]:
    """Register log ω_t, a function of the log ratios [..., T], under a name: see `Importance`."""

    def add(function: Function) -> Function:
        form = Importance(function, terms, before, after, bias, exact)
        IMPORTANCES.add(name, form, function.__module__)
        return function

    return add


def importance(config: EstimatorConfig) -> Importance:
    """The form that `config` names; ConfigError where there is none."""
    return IMPORTANCES.find(config.importance)


IMPORTANCES.add("none", Importance(None, False, False, False, None, True), __name__)
register("trajectory", before=True, after=True, exact=True)(log_whole)
register("per_decision", terms=True, before=True, after=True, exact=True)(log_prefix)
register("truncated", before=True, exact=True)(log_prefix)


@register("first_order", exact=True)
def _first_order(log_ratio: Tensor) -> Tensor:
    return log_ratio
