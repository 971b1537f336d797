"""Gradient ascent: a first-order optimiser, with clipping and a schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.settings.schema import OptimizerConfig, Schedule
from pgcli.updates.optimizers import optimizer, part
from pgcli.updates.rule import Around


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate when a fraction `progress` in [0, 1] of the run's budget is spent."""
    if config.schedule is Schedule.linear:
        return config.lr * (1.0 - progress)
    if config.schedule is Schedule.cosine:
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr


class Ascent:
    """θ' = θ + optimiser(ĝ); see `rule.Rule`."""

    def __init__(self, config: OptimizerConfig, theta: Tensor) -> None:
        self._config = config
        self._optimizer = optimizer(config)
        self._state = self._optimizer.init(theta)

    def step(
        self, theta: Tensor, estimate: Tensor, progress: ArrayLike, around: Around | None = None
    ) -> Mapping[str, Tensor]:
        """One optimiser step up the estimate; clipped per seed where configured.

        `progress` sets the learning rate. It asks nothing of what is around, and tells nothing.
        """
        if self._config.clip_norm is not None:
            norm = estimate.norm(dim=1, keepdim=True)
            estimate = estimate * (self._config.clip_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        down = -estimate.to(theta)
        rates = [learning_rate(self._config, float(x)) for x in np.atleast_1d(progress)]
        if len(set(rates)) == 1:
            self._optimizer.update(theta, down, self._state, rates[0])
            return {}
        for s, rate in enumerate(rates):  # each in its own step, as it is where it trains alone
            own = slice(s, s + 1)
            self._optimizer.update(theta[own], down[own], part(self._state, own), rate)
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """What the optimiser remembers."""
        return self._state
