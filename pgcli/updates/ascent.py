"""Gradient ascent: a first-order optimiser, with clipping and a schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.settings.schema import OptimizerConfig, Schedule
from pgcli.updates.optimizers import optimizer, part
from pgcli.updates.rule import Around, Start, register


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate when a fraction `progress` in [0, 1] of the run's budget is spent."""
    if config.schedule is Schedule.linear:
        return config.lr * (1.0 - progress)
    if config.schedule is Schedule.cosine:
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr


def learning_rates(config: OptimizerConfig, progress: ArrayLike) -> list[float]:
    """The rate of all seeds, or of each, where so much is spent of all or of each."""
    return [learning_rate(config, float(x)) for x in np.atleast_1d(progress)]


@register("ascent", optimizer=True)
class Ascent:
    """θ' = θ + optimiser(ĝ); see `rule.Rule`."""

    def __init__(self, start: Start) -> None:
        self._config = start.optimizer
        self._optimizer = optimizer(start.optimizer)
        self._state = self._optimizer.init(start.theta)
        for name, x in self._state.items():
            if not isinstance(x, Tensor) or x.shape[:1] != start.theta.shape[:1]:
                allowed = f"it remembers {name}, which is no tensor with a row for each seed"
                raise ConfigError("optimizer.name", self._config.name, allowed)

    def step(
        self, theta: Tensor, estimate: Tensor, progress: ArrayLike, around: Around | None = None
    ) -> Mapping[str, Tensor]:
        """One optimiser step up the estimate; clipped per seed where configured.

        `progress` sets the learning rate. It asks nothing of what is around, and tells nothing.
        """
        self.move(theta, estimate, progress)
        return {}

    def move(
        self, theta: Tensor, gradient: Tensor, progress: ArrayLike, which: Tensor | None = None
    ) -> None:
        """One step of theta [S, P], in place, up a gradient [S, P]; `which` [S] bool: of these."""
        if self._config.clip_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self._config.clip_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        down = -gradient.to(theta)
        rates = learning_rates(self._config, progress)
        everyone = which is None or bool(which.all())
        if len(set(rates)) == 1 and everyone:
            self._optimizer.update(theta, down, self._state, rates[0])
            return
        rates = rates * len(theta) if len(rates) == 1 else rates
        for s, rate in enumerate(rates):  # each in its own step, as it is where it trains alone
            if which is None or bool(which[s]):
                own = slice(s, s + 1)
                state = part(self._state, own)
                self._optimizer.update(theta[own], down[own], state, rate)
                for name, x in state.items():  # where it was bound anew
                    self._state[name][own] = x

    def state(self) -> Mapping[str, Tensor]:
        """What the optimiser remembers."""
        return self._state
