"""Baselines: what is subtracted from Φ_t without changing the mean of the estimate.

Each is registered by name with what must be known of it; a module of your own adds more.

    # my_baselines.py: pg train estimator=rtg estimator.baseline=my_baselines:median
    from pgcli.estimators.baselines import register

    @register("median", bias="the median includes the own return")
    def median(config, episodes, phi):
        return phi.median(-2, keepdim=True).values

They look across the trajectories of one batch, so their last two axes are `[..., N, T]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pgcli.estimators.phi import Episodes, given
from pgcli.settings.registry import Registry
from pgcli.settings.schema import EstimatorConfig

Fitted = Literal["constant", "per_parameter", "time"]
Programme = Literal["state", "mean", "own_mean", "time", "fitted"]
Function = Callable[[EstimatorConfig, Episodes, Tensor], Tensor]
CRITICS = ("value", "linear")


@dataclass(frozen=True)
class Baseline:
    """A registered baseline and what must be known about it."""

    function: Function
    critic: str | None  # that it reads as `episodes.value`: "value", or "linear" in features
    couples: bool  # whether other trajectories of the batch enter it
    fewest: int  # episodes in a batch for which it is meant
    fitted: Fitted | None  # on the trajectories' gradients, by `gradients.control`
    bias: str | None  # where its bias comes from; None claims that there is none
    exact: Programme | None  # by which programme of `comparison.exact` its effect is known


BASELINES: Registry[Baseline] = Registry("estimator.baseline", __name__)


def register(
    name: str,
    *,
    critic: str | None = None,
    couples: bool = True,
    fewest: int = 1,
    fitted: Fitted | None = None,
    bias: str | None = None,
    exact: Programme | None = None,
) -> Callable[[Function], Function]:
    """Register b(config, episodes, Φ) under a name.

    It returns anything that broadcasts to Φ [..., N, T], and may depend on all but the own action
    and what follows it. For its facts see `Baseline`; `couples=False` promises that it looks at no
    other trajectory. `exact` serves those that come with `pg`: "state" says that b_{n,t} is a
    function of s_t and t alone. ValueError for a critic that cannot be had, a name that is taken.
    """
    facts = [(critic, CRITICS), (fitted, get_args(Fitted)), (exact, get_args(Programme))]
    for fact, known in facts:
        if fact is not None and fact not in known:
            raise ValueError(f"baseline {name} says {fact}: only {', '.join(known)} can be had")
    if fitted and not couples:
        raise ValueError(f"baseline {name} is fitted on other trajectories, so it couples them")

    def add(function: Function) -> Function:
        part = Baseline(function, critic, couples, fewest, fitted, bias, exact)
        BASELINES.add(name, part, function.__module__)
        return function

    return add


def baseline(config: EstimatorConfig) -> Baseline:
    """The baseline that `config` names; ConfigError where there is none."""
    return BASELINES.find(config.baseline)


def leave_one_out_mean(phi: Tensor, mask: Tensor) -> Tensor:
    """b_n: the mean over the OTHER trajectories of the time average of Φ.

    `[..., N, T]` to `[..., N, 1]`. Independent of trajectory n, hence unbiased at every N ≥ 2; a
    mean that includes n itself shrinks the gradient of the total return by 1 − 1/N. Where there is
    no other trajectory, 0.
    """
    length = mask.sum(-1)  # [..., N]
    average = (phi * mask).sum(-1) / length.clamp(min=1)
    others = (length > 0).sum(-1, keepdim=True) - 1  # [..., 1]
    return sum_of_others(average.unsqueeze(-1)) / others.clamp(min=1).unsqueeze(-1)


def own_mean(phi: Tensor, mask: Tensor) -> Tensor:
    """The batch mean that includes the own trajectory, `[..., 1, 1]`: biased, for teaching."""
    length = mask.sum(-1)  # [..., N]
    average = (phi * mask).sum(-1) / length.clamp(min=1)
    mean = average.sum(-1) / (length > 0).sum(-1).clamp(min=1)
    return mean[..., None, None]


def leave_one_out_time_mean(phi: Tensor, mask: Tensor) -> Tensor:
    """b_{n,t}: the mean of Φ_t over the OTHER trajectories that still run at t, `[..., N, T]`.

    Where none runs, 0.
    """
    real = phi * mask
    others = mask.sum(-2, keepdim=True) - mask.to(torch.int64)
    return sum_of_others(real) / others.clamp(min=1)


def sum_of_others(x: Tensor) -> Tensor:
    """Σ_{m≠n} x_m along the axis of trajectories, [..., N, ·]; 0 where there are none.

    From both ends: the total minus the own would cancel where the own is large.
    """
    before = torch.nn.functional.pad(x[..., :-1, :].cumsum(-2), (0, 0, 1, 0))
    after = torch.nn.functional.pad(x[..., 1:, :].flip(-2).cumsum(-2).flip(-2), (0, 0, 0, 1))
    return before + after


@register("none", couples=False, exact="state")
def _none(c: EstimatorConfig, e: Episodes, phi: Tensor) -> Tensor:
    return torch.zeros_like(e.rew[..., :1])


@register("constant", couples=False, exact="state")
def _constant(c: EstimatorConfig, e: Episodes, phi: Tensor) -> Tensor:
    return torch.full_like(e.rew[..., :1], c.constant)


@register("mean", couples=True, fewest=2, exact="mean")
def _mean(c: EstimatorConfig, e: Episodes, phi: Tensor) -> Tensor:
    return leave_one_out_mean(phi, e.mask)


@register(
    "own_mean",
    couples=True,
    bias="own mean: a batch mean that includes the own return shrinks the gradient by 1 − 1/N; "
    "estimator.baseline=mean leaves it out",
    exact="own_mean",
)
def _own_mean(c: EstimatorConfig, e: Episodes, phi: Tensor) -> Tensor:
    return own_mean(phi, e.mask)


@register("time", couples=True, fewest=2, exact="time")
def _time(c: EstimatorConfig, e: Episodes, phi: Tensor) -> Tensor:
    return leave_one_out_time_mean(phi, e.mask)


# Fitted where the trajectories' gradients are known: nothing is subtracted here.
register("optimal", couples=True, fewest=2, fitted="constant", exact="fitted")(_none)
register("optimal_time", couples=True, fewest=2, fitted="time", exact="fitted")(_none)
register("optimal_per_parameter", couples=True, fewest=2, fitted="per_parameter", exact="fitted")(
    _none
)


@register("linear", critic="linear", couples=False, exact="state")
@register("value", critic="value", couples=False, exact="state")
def _value(c: EstimatorConfig, e: Episodes, phi: Tensor) -> Tensor:
    return given(e, "value")
