"""First-order optimisers of one tensor theta [S, P], as their papers have them.

Each is a pair of functions, made from its own settings by a function that is registered by name; a
module of your own adds more.

    # my_optimizers.py: pg train optimizer.name=my_optimizers:sign
    from pgcli.updates.optimizers import Optimizer, register

    @register("sign")
    def sign() -> Optimizer:
        def update(theta, g, state, lr):
            theta.sub_(lr * g.sign())
        return Optimizer(lambda theta: {}, update)

Written here because constructing one of torch's takes longer than importing Gymnasium.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgcli.errors import ConfigError
from pgcli.settings.registry import Registry
from pgcli.settings.schema import OptimizerConfig

State = dict[str, Tensor]  # by torch's names: [S, ...] each


class Constants(NamedTuple):
    """Of Adam's update, and of AdamW's."""

    beta1: float
    beta2: float
    eps: float
    penalty: float = 0.0  # L2
    decay: float = 0.0  # of the weights, beside it


class Adam(NamedTuple):
    """That update of one seed, for compiled code: its numbers, and what is remembered, live."""

    numbers: np.ndarray  # [7]: the rate, Constants, the limit of the gradient's norm
    exp_avg: np.ndarray  # [P]
    exp_avg_sq: np.ndarray  # [P]
    step: np.ndarray  # [1]

    @classmethod
    def of(
        cls, constants: Constants, state: State, seed: int, rate: float, limit: float | None = None
    ) -> Adam:
        """Of a row of what `adam` remembers."""
        numbers = np.array([rate, *constants, np.inf if limit is None else limit])
        return cls(numbers, *(state[name][seed].numpy() for name in cls._fields[1:]))


class Optimizer(NamedTuple):
    """How S seeds descend, each by its own gradient alone."""

    init: Callable[[Tensor], State]  # theta [S, P] to what is remembered of it
    # Moves theta [S, P] and its state, in place, down a gradient [S, P] at a learning rate.
    update: Callable[[Tensor, Tensor, State, Any], None]
    by_seed: bool = False  # whether it takes a rate of each seed as well, [S, 1] float64
    constants: Constants | None = None  # where it is Adam: compiled code knows that update


Maker = Callable[..., Optimizer]  # from settings of `optimizer` by name; what is null is not given
OPTIMIZERS: Registry[Maker] = Registry("optimizer.name", __name__)
OF_ALL = ("name", "lr", "schedule", "clip_norm")  # settings that are no optimiser's own


def register(name: str) -> Callable[[Maker], Maker]:
    """Register what makes an optimiser under a name; its parameters are the settings it has."""

    def add(maker: Maker) -> Maker:
        OPTIMIZERS.add(name, maker, maker.__module__)
        return maker

    return add


def optimizer(config: OptimizerConfig) -> Optimizer:
    """The optimiser that `config` names; ConfigError where it is none, or has no such setting."""
    maker = OPTIMIZERS.find(config.name)
    names = [f.name for f in fields(config) if f.name not in OF_ALL]
    given = {name: x for name in names if (x := getattr(config, name)) is not None}
    for name, value in given.items():
        if name not in inspect.signature(maker).parameters:
            having = [
                other
                for other in OPTIMIZERS.names
                if name in inspect.signature(OPTIMIZERS.find(other)).parameters
            ]
            allowed = f"null: {config.name} has none, only {' and '.join(having)}"
            raise ConfigError(f"optimizer.{name}", value, allowed)
    try:
        made = maker(**given)
        if not isinstance(made, Optimizer):
            raise TypeError(f"a {type(made).__name__} is no Optimizer(init, update)")
        return made
    except ConfigError:
        raise
    except Exception as error:
        allowed = f"it cannot be made: {type(error).__name__}: {error}"
        raise ConfigError("optimizer.name", config.name, allowed) from error


def part(state: State, rows: slice) -> State:
    """What is remembered of some seeds, live."""
    return {key: x[rows] for key, x in state.items()}


def _remembered(theta: Tensor, *names: str) -> State:
    zeros = {name: torch.zeros_like(theta) for name in names}
    return {**zeros, "step": torch.zeros(len(theta), 1, dtype=torch.float64)}


@register("sgd")
def sgd(momentum: float = 0.0, weight_decay: float = 0.0) -> Optimizer:
    """Steps along the gradient, with Polyak's momentum; weight decay is an L2 penalty."""

    def init(theta: Tensor) -> State:
        return _remembered(theta, *(["momentum_buffer"] if momentum else []))

    def update(theta: Tensor, g: Tensor, state: State, lr: float) -> None:
        state["step"].add_(1)
        if weight_decay:
            g = g + weight_decay * theta
        if momentum:
            g = state["momentum_buffer"].mul_(momentum).add_(g)
        theta.add_(g, alpha=-lr)

    return Optimizer(init, update)


@register("rmsprop")
def rmsprop(momentum: float = 0.0, weight_decay: float = 0.0) -> Optimizer:
    """Hinton 2012, lecture 6e: the gradient over the root of its mean square."""
    alpha, eps = 0.99, 1e-8
    descent = sgd(momentum)

    def init(theta: Tensor) -> State:
        return {**descent.init(theta), **_remembered(theta, "square_avg")}

    def update(theta: Tensor, g: Tensor, state: State, lr: float) -> None:
        if weight_decay:
            g = g + weight_decay * theta
        v = state["square_avg"].mul_(alpha).addcmul_(g, g, value=1 - alpha)
        descent.update(theta, g / v.sqrt().add_(eps), state, lr)

    return Optimizer(init, update)


@register("adam")
def adam(
    betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """Kingma and Ba 2015, algorithm 1; weight decay is an L2 penalty."""
    if len(betas) != 2:
        raise ConfigError("optimizer.betas", list(betas), "two numbers, of both moments")
    beta1, beta2 = betas

    def init(theta: Tensor) -> State:
        return _remembered(theta, "exp_avg", "exp_avg_sq")

    def update(theta: Tensor, g: Tensor, state: State, lr: float | Tensor) -> None:
        t = state["step"].add_(1)
        if weight_decay:
            g = g + weight_decay * theta
        m = state["exp_avg"].lerp_(g, 1 - beta1)
        v = state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        root = (v / (1 - beta2**t).to(v)).sqrt_().add_(eps)
        theta.sub_((lr / (1 - beta1**t)).to(m) * m / root)

    return Optimizer(init, update, True, Constants(beta1, beta2, eps, weight_decay))


@register("adamw")
def adamw(
    betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """Loshchilov and Hutter 2019, algorithm 2: Adam, with weights that decay beside it."""
    plain = adam(betas, eps)

    def update(theta: Tensor, g: Tensor, state: State, lr: float | Tensor) -> None:
        theta.mul_(torch.as_tensor(1 - lr * weight_decay, dtype=torch.float64).to(theta))
        plain.update(theta, g, state, lr)

    beta1, beta2 = betas
    return Optimizer(plain.init, update, True, Constants(beta1, beta2, eps, decay=weight_decay))


def copy_into(old: Tensor, new: np.ndarray) -> None:
    """Overwrite `old` with an array of its shape; ValueError where it has another."""
    if tuple(new.shape) != tuple(old.shape):
        raise ValueError(f"shape {tuple(new.shape)} where {tuple(old.shape)} is needed")
    old.copy_(torch.from_numpy(new))
