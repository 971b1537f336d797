"""Φ_t: what a score is weighted by. Each is registered by name; a module of your own adds more.

    # my_phi.py: pg train estimator.phi=my_phi:late
    from pgcli.estimators.phi import Stream, register

    @register("late", stream=True)
    def late(config, episodes):
        return Stream(episodes.rew, config.gamma)

A function that is registered without `stream=True` returns any tensor [..., N, T].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.estimators import importance, returns
from pgcli.settings.registry import Registry
from pgcli.settings.schema import EstimatorConfig


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
    # [..., N, T]: ψ(s_t, a_t)ᵀw, w fitted on the other half of the batch
    compatible: Tensor | None = None
    # Of parts of episodes; None: they are whole.
    cut: Tensor | None = None  # [..., N] bool: it goes on in another batch, and Φ with V
    age: Tensor | None = None  # [..., N]: steps before it


class Stream(NamedTuple):
    """Φ_t = Σ_{0≤l<n} discount^l x_{t+l}; with `whole`, also what came before t.

    Per-decision importance puts a weight on each of its terms.
    """

    x: Tensor  # [..., N, T], zero where padded
    discount: float
    n: int | None = None  # None: to the end
    whole: bool = False

    def sum(self, omega: Tensor | None = None) -> Tensor:
        """The sum, with weights ω on its terms; on those before t, where a_t is not, ω_t."""
        weighted = self.x if omega is None else omega * self.x
        if self.n is not None:
            return returns.windowed_sum(weighted, self.discount, self.n)
        future = returns.discounted_sum(weighted, self.discount)
        if not self.whole:
            return future
        discount = returns.powers(self.discount, self.x)
        past = (discount * self.x).cumsum(-1) - discount * self.x
        return (past if omega is None else omega * past) + discount * future


Function = Callable[[EstimatorConfig, Episodes], Stream | Tensor]


Leaning = Callable[[EstimatorConfig], int | None]
NEEDS = ("value", "q", "compatible")


class Phi(NamedTuple):
    """A registered Φ and what must be known about it."""

    function: Function
    needs: tuple[str, ...]  # critics that it reads: see NEEDS
    bias: Callable[[EstimatorConfig], str | None]  # beside that of the critics that it leans on
    leans: Leaning  # steps after which it goes on with a critic; None: never
    from_start: bool  # rewards are discounted from the episode's start, so that γ^t is in it
    stream: bool  # a sum whose terms can be weighted one by one
    subtracts_value: bool  # V is its baseline: it takes no other
    couples: bool  # whether other trajectories of the batch may enter it

    def looks_ahead(self, config: EstimatorConfig) -> bool:
        """Whether it depends on rewards after the step that it weighs."""
        if not self.stream:
            return True  # who knows
        one = torch.ones(1, 1)
        nothing = torch.zeros(1, 1)
        step = Episodes(
            one, one.bool(), one[0].bool(), nothing, nothing[0], nothing, compatible=nothing
        )
        stream = self.function(config, step)
        assert isinstance(stream, Stream)
        return stream.discount != 0 and stream.n != 1


PHIS: Registry[Phi] = Registry("estimator.phi", __name__)


def register(
    name: str,
    *,
    needs: tuple[str, ...] = (),
    bias: str | Callable[[EstimatorConfig], str | None] | None = None,
    leans: int | Leaning | None = None,
    from_start: bool = False,
    stream: bool = False,
    subtracts_value: bool = False,
    couples: bool = True,
) -> Callable[[Function], Function]:
    """Register Φ(config, episodes), a Stream or a tensor `[..., N, T]`, under a name.

    `needs`: the critics that it reads, "value" (`episodes.value`, `final_value`), "q", or
    "compatible", which is fitted within the batch.
    `bias`: where its bias comes from, told to the user; None claims that there is none but the
    error of the critic on which it leans. `leans`: after how many steps it goes on with V, or with
    Q from the start (0); None: a critic is no more than its baseline. `from_start`: it discounts
    rewards from the start of the episode, not from t. `stream`: it returns a Stream, so
    per-decision importance can weigh its terms. `subtracts_value`: V is its baseline already.
    `couples`: False promises that it looks at no other trajectory. ValueError for a name that is
    taken, or needs that cannot be met.
    """
    if not set(needs) <= set(NEEDS):
        raise ValueError(f"Φ {name} needs {needs}: only {', '.join(NEEDS)} can be had")
    told = bias if callable(bias) else lambda config: bias
    leaning = leans if callable(leans) else lambda config: leans

    def add(function: Function) -> Function:
        facts = (needs, told, leaning, from_start, stream, subtracts_value, couples)
        PHIS.add(name, Phi(function, *facts), function.__module__)
        return function

    return add


def phi(config: EstimatorConfig) -> Phi:
    """The Φ that `config` names; `module:name` imports the module, which registers the name.

    Raises ConfigError where there is none, or where it does not fit the importance weights.
    """
    form = PHIS.find(config.phi)
    if importance.importance(config).terms and not form.stream:
        allowed = f"{config.importance} weighs the terms of a sum, and {config.phi} is no stream"
        raise ConfigError("estimator.importance", config.importance, allowed)
    return form


def given(episodes: Episodes, name: str) -> Tensor:
    """The field of that name; ValueError where it was not given."""
    field: Tensor | None = getattr(episodes, name)
    if field is None:
        raise ValueError(f"this estimator needs Episodes.{name}")
    return field


def td(config: EstimatorConfig, e: Episodes) -> Tensor:
    """δ_t = r_t + γ V(s_{t+1}) − V(s_t), `[..., N, T]`."""
    value = given(e, "value") * e.mask
    goes_on = e.truncated & config.bootstrap
    goes_on = goes_on if e.cut is None else goes_on | e.cut
    last = given(e, "final_value") * goes_on
    following = returns.next_values(value, last, e.mask)
    return returns.td_residual(e.rew, value, following, config.gamma)


@register("total_return", from_start=True, stream=True, couples=False)
def _total_return(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream(e.rew, c.gamma, whole=True)


@register("reward_to_go", stream=True, couples=False)
def _reward_to_go(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream(e.rew, c.gamma)


@register("q", needs=("q",), leans=0, stream=True, couples=False)
def _q(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream(given(e, "q") * e.mask, 0.0)


@register(
    "advantage", needs=("q", "value"), leans=0, stream=True, subtracts_value=True, couples=False
)
def _advantage(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream((given(e, "q") - given(e, "value")) * e.mask, 0.0)


@register(
    "compatible",
    needs=("value", "compatible"),
    bias="compatible advantage: fitted on the other half of the batch, exact only in the limit",
    stream=True,
    subtracts_value=True,
)
def _compatible(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream(given(e, "compatible") * e.mask, 0.0)


@register("td", needs=("value",), leans=1, stream=True, subtracts_value=True, couples=False)
def _td(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream(td(c, e), 0.0)


@register(
    "n_step",
    needs=("value",),
    leans=lambda c: c.n,
    stream=True,
    subtracts_value=True,
    couples=False,
)
def _n_step(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream(td(c, e), c.gamma, n=c.n)


@register(
    "gae",
    needs=("value",),
    leans=lambda c: 1 if c.lam < 1 else None,
    stream=True,
    subtracts_value=True,
    couples=False,
)
def _gae(c: EstimatorConfig, e: Episodes) -> Stream:
    return Stream(td(c, e), c.gamma * c.lam)
