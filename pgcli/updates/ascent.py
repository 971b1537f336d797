"""Gradient ascent: a first-order optimiser, with clipping and a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.settings.registry import blamed
from pgcli.settings.schema import OptimizerConfig
from pgcli.updates.optimizers import Adam, optimizer
from pgcli.updates.rule import Around, Start, register
from pgcli.updates.schedules import scheduled_each


def learning_rates(config: OptimizerConfig, progress: ArrayLike) -> list[float]:
    """The rate of all seeds, or of each, where so much is spent of all or of each."""
    return scheduled_each(config.lr, config.schedule, progress)


def _rate(rates: Sequence[float]) -> float | Tensor:
    """As an optimiser takes it: a number, or where they differ [S, 1]."""
    if len(set(rates)) == 1:
        return rates[0]
    return torch.tensor(rates, dtype=torch.float64).unsqueeze(1)


@register("ascent", optimizer=True)
class Ascent:
    """θ' = θ + optimiser(ĝ); see `rule.Rule`."""

    def __init__(self, start: Start) -> None:
        self._config = start.optimizer
        self._optimizer = optimizer(start.optimizer)
        with blamed("optimizer.name", self._config.name):
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
        self.move(theta, estimate, self.rates(progress))
        return {}

    def rates(self, progress: ArrayLike) -> list[float]:
        """The learning rate of each seed, or one where it is that of all."""
        rates = learning_rates(self._config, progress)
        return rates[:1] if len(set(rates)) == 1 else rates

    def move(
        self,
        theta: Tensor,
        gradient: Tensor,
        rates: Sequence[float],
        which: Sequence[int] | None = None,
    ) -> None:
        """One step of theta [S, P], in place, up a gradient [S, P]; `which`: of these seeds."""
        if self._config.clip_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self._config.clip_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        with blamed("optimizer.name", self._config.name):
            self._moved(theta, -gradient.to(theta), rates, which)

    def _moved(
        self, theta: Tensor, down: Tensor, rates: Sequence[float], which: Sequence[int] | None
    ) -> None:
        if which is None and (len(rates) == 1 or self._optimizer.by_seed):
            self._optimizer.update(theta, down, self._state, _rate(rates))
            return
        seeds = list(range(len(theta)) if which is None else which)
        rates = [*rates] * len(theta) if len(rates) == 1 else rates
        together = [seeds] if self._optimizer.by_seed else [[s] for s in seeds]
        for some in together:  # in a step of their own, as where they train alone
            moved, state = theta[some], {name: x[some] for name, x in self._state.items()}
            self._optimizer.update(moved, down[some], state, _rate([rates[s] for s in some]))
            theta[some] = moved
            for name, x in state.items():
                self._state[name][some] = x

    def adam(self, rates: Sequence[float]) -> list[Adam] | None:
        """What makes `move` of each seed, where its optimiser is Adam, on the CPU."""
        constants, limit = self._optimizer.constants, self._config.clip_norm
        if constants is None or self._state["exp_avg"].device.type != "cpu":
            return None
        count = len(self._state["step"])
        each = rates if len(rates) > 1 else [*rates] * count
        return [Adam.of(constants, self._state, s, each[s], limit) for s in range(count)]

    def state(self) -> Mapping[str, Tensor]:
        """What the optimiser remembers."""
        return self._state
