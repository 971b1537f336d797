"""What an update rule is: from an estimate, which is measured before, to the next parameters.

Each stands in a file of this folder and is registered by name; a module of your own adds more.

    # my_rules.py: pg train update.name=my_rules:twice
    from pgcli.updates.rule import register

    @register("twice")
    class Twice:
        def __init__(self, start): ...
        def step(self, theta, estimate, progress, around): ...
        def state(self): return {}
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.settings.registry import Registry
from pgcli.settings.schema import OptimizerConfig, UpdateConfig
from pgcli.updates.optimizers import Adam

USUAL = "adam"  # optimizer.name where nobody says another
PACKAGE = __name__.rpartition(".")[0]

Product = Callable[[Tensor], Tensor]  # v [S, P] to A v [S, P]


class Minibatch(NamedTuple):
    """Some rows of a batch, each seed's its own."""

    rows: Tensor  # [S, m] int64: of N·T; −1 after a seed's last
    share: Tensor  # [S, m] float64: what each counts for, M/(m·N) or one over its episodes; 0 there
    weights: Tensor  # [S, m] float64: w times that
    seeds: Sequence[int] | None  # that have any; None: all of them


class Minibatches(NamedTuple):
    """One pass over a batch: K minibatches."""

    rows: Tensor  # [K, S, m]
    share: Tensor  # [K, S, m]
    weights: Tensor  # [K, S, m]
    sizes: np.ndarray  # [K, S]: how many rows each has

    def each(self) -> Iterator[Minibatch]:
        """In turn, no wider than they must be; one without any row is left out."""
        for k in np.flatnonzero(self.sizes.any(1)):
            own = self.sizes[k]
            seeds = None if own.all() else np.flatnonzero(own).tolist()
            rows, share, weights = (x[k, :, : own.max()] for x in self[:3])
            yield Minibatch(rows, share, weights, seeds)


class Clipped(NamedTuple):
    """The gradient of a clipped surrogate on a minibatch."""

    gradient: Tensor  # [S, P]
    beyond: Tensor  # [S]: how many of its ratios are clipped


class Around(Protocol):
    """The objective around the parameters θ [S, P] at which a batch was estimated."""

    def surrogate(self, theta: Tensor) -> Tensor:
        """L(θ') = (1/N) Σ_n Σ_t (ρ'_t − 1) w_{n,t} [S], ρ' = π_θ'/π_θ: ∇L(θ) is the estimate ĝ.

        w are the final weights at θ: Φ less its baseline, times importance and γ^t. ValueError
        where no weight of a step makes that estimate (a baseline fitted on gradients).
        """
        ...

    @property
    def has_surrogate(self) -> bool:
        """Whether weights of single steps make the estimate, so that there is an L."""
        ...

    @property
    def length(self) -> Tensor:
        """Steps per episode, the mean over the batch [S]."""
        ...

    def fisher(self, *, sampled: bool) -> Product:
        """v ↦ F v at θ, in the unit of ĝ: see `gradients.fisher`."""
        ...

    def minibatches(
        self,
        count: int,
        *,
        of_steps: bool,
        normalize: bool = False,
        among: Sequence[bool] | None = None,
    ) -> Minibatches:
        """One pass over the batch: every row of a seed in one of so many.

        `normalize`: w less their mean in the minibatch, over their deviation. `among` [S]: the
        others have no rows.
        """
        ...

    def clipped(self, theta: Tensor, minibatch: Minibatch, clip: float) -> Clipped:
        """∇_θ' of M/(m·N) Σ_rows min(ρ'w, clip(ρ', 1 ± ε)w) at θ' (Schulman et al. 2017, eq. 7).

        Of a minibatch of m of M rows; of whole episodes the mean over them. So the mean over one
        pass at θ' = θ is ĝ.
        """
        ...

    def climbed(
        self, theta: Tensor, minibatches: Minibatches, clip: float, adam: Sequence[Adam]
    ) -> Tensor | None:
        """Step up that gradient of each minibatch in turn, in one compiled call, theta in place.

        How many ratios of each seed were clipped [S]; None, and nothing is done, where there is no
        compiled code for this policy.
        """
        ...

    def divergence(self, theta: Tensor) -> Tensor:
        """D(θ') [S]: KL(π_θ‖π_θ') in nats per state, the mean over the batch's states."""
        ...


class Rule(Protocol):
    """How S seeds step, each for itself; what it remembers belongs to their state."""

    def step(
        self, theta: Tensor, estimate: Tensor, progress: ArrayLike, around: Around
    ) -> Mapping[str, Tensor]:
        """Move theta [S, P], in place, by the estimate [S, P] of the gradient.

        `progress`: spent of the budget, of all seeds or of each [S]. Returns what it has to tell,
        by name and by seed [S]: it becomes `update/<name>`.
        """
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What it remembers, by name, live: [S, ...] each."""
        ...


@dataclass(frozen=True)
class Start:
    """What a rule may look at when it is made."""

    theta: Tensor  # [S, P]
    optimizer: OptimizerConfig  # with the learning rate and its schedule
    seeds: Sequence[int]


Notes = Callable[[UpdateConfig], list[str]]
Rated = Callable[[UpdateConfig], bool]


class Registered(NamedTuple):
    """A rule and what must be known of it."""

    make: Callable[..., Rule]  # of a Start, then its own settings of `update` by name
    surrogate: bool  # it moves by L, not by ĝ alone: L must be there, and new at each update
    optimizer: bool  # it steps by `optimizer`; else of that only lr and schedule can matter
    rated: Rated  # whether these two do, with these settings
    notes: Notes  # what a reader of the results must know of its steps, with these settings


RULES: Registry[Registered] = Registry("update.name", PACKAGE)
Made = TypeVar("Made", bound=Callable[..., Any])


def register(
    name: str,
    *,
    surrogate: bool = False,
    optimizer: bool = False,
    rated: Rated = lambda config: True,
    notes: Notes = lambda config: [],
) -> Callable[[Made], Made]:
    """Register what makes a rule under a name; its keyword parameters are the settings it has."""

    def add(maker: Made) -> Made:
        facts = (surrogate, optimizer, rated, notes)
        RULES.add(name, Registered(maker, *facts), maker.__module__)
        return maker

    return add


def rule(config: UpdateConfig, start: Start) -> Rule:
    """The rule that `config` names, to begin with; ConfigError as `registered` has it."""
    return registered(config).make(start, **_given(config))


def check(config: UpdateConfig, optimizer: OptimizerConfig) -> Registered:
    """The rule that `config` names; ConfigError where it cannot be made."""
    one = registered(config)
    try:
        rule(config, Start(torch.zeros(1, 1), optimizer, [0]))
    except ConfigError:
        raise
    except Exception as error:
        allowed = f"it cannot be made: {type(error).__name__}: {error}"
        raise ConfigError("update.name", config.name, allowed) from error
    return one


def check_unused(optimizer: OptimizerConfig, who: str) -> None:
    """Raise ConfigError for a setting of an optimiser by which nobody steps."""
    free = ("lr", "schedule")
    for f in fields(optimizer):
        value = getattr(optimizer, f.name)
        if f.name not in free and value not in (None, USUAL):
            allowed = f"{who} takes no optimiser's step: it has no effect"
            raise ConfigError(f"optimizer.{f.name}", value, allowed)


def registered(config: UpdateConfig) -> Registered:
    """The rule that `config` names; ConfigError where it lacks a setting, or has none such."""
    one = _found(config.name)
    known, given = _parameters(one), _given(config)
    for name, value in given.items():
        if name not in known:
            having = [other for other in RULES.names if name in _parameters(RULES.find(other))]
            allowed = f"null: {config.name} has none, only {' and '.join(having)}"
            raise ConfigError(f"update.{name}", value, allowed)
    asked = [name for name in known if name not in {f.name for f in fields(UpdateConfig)}]
    if asked:
        allowed = f"it asks for {asked[0]}, which is no setting of update"
        raise ConfigError("update.name", config.name, allowed)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            allowed = f"{config.name} needs one; update={config.name} sets them all"
            raise ConfigError(f"update.{name}", "null", allowed)
    return one


def settings_of(name: str) -> frozenset[str]:
    """The settings of `update` that a rule has; ConfigError where there is no such rule."""
    return frozenset(_parameters(_found(name)))


def _found(name: str) -> Registered:
    for module in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__):
        importlib.import_module(f"{PACKAGE}.{module.name}")  # which registers what it has
    return RULES.find(name)


def _parameters(one: Registered) -> dict[str, inspect.Parameter]:
    """The settings that a rule has, by name."""
    return dict(list(inspect.signature(one.make).parameters.items())[1:])


def _given(config: UpdateConfig) -> dict[str, Any]:
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "name"}
    return {name: value for name, value in values.items() if value is not None}
