"""What learns: the parameters of S policies, their optimiser and, where needed, their critics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.policies.critic import Critic, LinearCritic
from pgcli.policies.policy import Policy
from pgcli.settings.schema import OptimizerConfig, Schedule, TrainConfig
from pgcli.updates.optimizers import Optimizer, copy_into


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate when a fraction `progress` in [0, 1] of the run's budget is spent."""
    if config.schedule is Schedule["linear"]:
        return config.lr * (1.0 - progress)
    if config.schedule is Schedule["cosine"]:
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr


class Learner:
    """S agents side by side. All state that training changes is here and fits in `arrays()`."""

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        critics: Mapping[str, Critic | LinearCritic],
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        self.policy, self.critics = policy, critics
        self.theta = policy.init(config.policy, seeds).to(device)
        how = config.optimizer
        self.optimizer = Optimizer(
            how.name, self.theta, how.momentum or 0.0, how.weight_decay or 0.0
        )
        self._config = how

    def ascend(self, gradient: Tensor, progress: ArrayLike) -> None:
        """One optimiser step up the gradient [S, P]; clipped per seed where configured.

        `progress`: spent of the budget, of all seeds or of each [S]; it sets the learning rate.
        """
        if self._config.clip_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self._config.clip_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        down = -gradient.to(self.theta)
        rates = [learning_rate(self._config, float(x)) for x in np.atleast_1d(progress)]
        if len(set(rates)) == 1:
            self.optimizer.step(down, rates[0])
            return
        for s, rate in enumerate(rates):  # each in its own step, as it is where it trains alone
            own = slice(s, s + 1)
            self.optimizer.step(down[own], rate, own)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of everything that learns, by name."""
        return {name: x.detach().cpu().numpy().copy() for name, x in self._tensors().items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave, bit for bit; KeyError or ValueError where it differs."""
        for name, x in self._tensors().items():
            copy_into(x, arrays[name])

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that learns, live."""
        found = {"theta": self.theta, **_below("optimizer", self.optimizer.state)}
        for name, critic in self.critics.items():
            found |= _below(name, critic.state())
        return found


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{key}": x for key, x in tensors.items()}
