"""What learns: the parameters of S policies, their optimiser and, where needed, their critics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgcli.agents.critic import Critic, LinearCritic
from pgcli.agents.policy import Policy
from pgcli.config.schema import OptimizerConfig, OptimizerName, Schedule, TrainConfig

_OPTIMIZERS: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {
    OptimizerName["adam"]: torch.optim.Adam,
    OptimizerName["adamw"]: torch.optim.AdamW,
    OptimizerName["sgd"]: torch.optim.SGD,
    OptimizerName["rmsprop"]: torch.optim.RMSprop,
}


def make_optimizer(config: OptimizerConfig, theta: torch.nn.Parameter) -> torch.optim.Optimizer:
    """The torch optimiser of that name; what the configuration leaves null is torch's own."""
    given = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    options = {key: value for key, value in given.items() if value is not None}
    return _OPTIMIZERS[config.name]([theta], lr=config.lr, **options)


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
        self.theta = torch.nn.Parameter(policy.init(config.policy, seeds).to(device))
        self.optimizer = make_optimizer(config.optimizer, self.theta)
        self._config = config.optimizer

    def ascend(self, gradient: Tensor, progress: float) -> None:
        """One optimiser step up the gradient [S, P]; clipped per seed where configured."""
        if self._config.clip_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self._config.clip_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self._config, progress)
        self.theta.grad = -gradient.to(self.theta)  # torch descends
        self.optimizer.step()

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of everything that learns, by name."""
        found = {"theta": self.theta, **_optimizer_state("optimizer", self.optimizer)}
        for name, critic in self.critics.items():
            found |= {f"{name}/{key}": value for key, value in critic.state().items()}
            if isinstance(critic, Critic):
                found |= _optimizer_state(f"{name}/optimizer", critic.optimizer)
        return {key: value.detach().cpu().numpy().copy() for key, value in found.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave, bit for bit; KeyError or ValueError where it differs."""
        with torch.no_grad():
            self.theta.copy_(_like(self.theta, arrays["theta"]))
            _load_optimizer("optimizer", self.optimizer, arrays)
            for name, critic in self.critics.items():
                for key, value in critic.state().items():
                    value.copy_(_like(value, arrays[f"{name}/{key}"]))
                if isinstance(critic, Critic):
                    _load_optimizer(f"{name}/optimizer", critic.optimizer, arrays)


def _like(old: Tensor, new: np.ndarray) -> Tensor:
    if tuple(new.shape) != tuple(old.shape):
        raise ValueError(f"shape {tuple(new.shape)} where {tuple(old.shape)} is needed")
    return torch.from_numpy(new).to(old)


def _optimizer_state(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser of one parameter, flat."""
    state: dict[str, Any] = optimizer.state_dict()["state"].get(0, {})
    return {f"{prefix}/{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}


def _load_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]
) -> None:
    start = prefix + "/"
    state = {
        key.removeprefix(start): torch.from_numpy(value.copy())
        for key, value in arrays.items()
        if key.startswith(start)
    }
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": {0: state} if state else {}})
