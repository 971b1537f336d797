"""What can be seen of an environment that a result must not be read without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

Array = np.ndarray

LEARNING = ("NormalizeObservation", "NormalizeReward")  # Gymnasium's, with running statistics
SLACK = 1e-6  # of a bound, for rounding
LOST = 0.01  # of the range that a number was seen to have
NOISE = 1e-12  # of a number: below is what arithmetic in float64 leaves


def layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """An environment's wrappers from the outermost on, then itself."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def memories(env: gym.Env[Any, Any]) -> list[str]:
    """What to say of wrappers whose statistics outlive an episode, and so a batch."""
    names = [
        name
        for layer in layers(env)
        for name in LEARNING
        if any(kind.__name__ == name for kind in type(layer).__mro__)
        and getattr(layer, "update_running_mean", True)
    ]
    return [
        f"{name} goes on learning its statistics, in each copy of the environment, and no "
        "checkpoint holds them: neither resuming nor comparing is exact"
        for name in names
    ]


class FirstLook:
    """The range of every number in the observations of a first batch, against what was declared."""

    def __init__(self, space: spaces.Box) -> None:
        self._space = space
        self._low = np.full(space.shape, np.inf)
        self._high = np.full(space.shape, -np.inf)
        self._error = np.zeros(space.shape)  # of rounding to float32, the largest

    def at(self, obs: Array) -> None:
        """Take in observations [E, ...]."""
        np.minimum(self._low, obs.min(0), out=self._low)
        np.maximum(self._high, obs.max(0), out=self._high)
        if not np.can_cast(obs.dtype, np.float32):
            with np.errstate(over="ignore", invalid="ignore"):
                error = np.abs(obs - obs.astype(np.float32))
            np.maximum(self._error, error.max(0), out=self._error)

    def notices(self) -> list[str]:
        """What it has shown."""
        return [text for text in (self._outside(), self._blurred()) if text]

    def _outside(self) -> str:
        low, high = self._space.low.astype(float), self._space.high.astype(float)
        with np.errstate(invalid="ignore", over="ignore"):
            under = self._low < low - SLACK * (1 + np.abs(low))
            over = self._high > high + SLACK * (1 + np.abs(high))
        if not (outside := under | over).any():
            return ""
        at = _first(outside)
        seen, bound = (self._low, low) if under[at] else (self._high, high)
        return (
            f"observations leave their space: {_name(at)} reached {seen[at]:g}, and its bound is "
            f"{bound[at]:g}{_others(outside)}"
        )

    def _blurred(self) -> str:
        with np.errstate(invalid="ignore", over="ignore"):
            span = self._high - self._low
            size = np.maximum(np.abs(self._low), np.abs(self._high))
            lost = (self._error > LOST * span) & (span > NOISE * size)
        if not lost.any():
            return ""
        at = _first(lost)
        return (
            f"the policy sees float32, which blurs observations: {_name(at)} was {size[at]:g} and "
            f"varied by {span[at]:g}; shift or scale it in the environment{_others(lost)}"
        )


def _first(where: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(where)[0])


def _name(at: tuple[int, ...]) -> str:
    return f"number {', '.join(map(str, at))}" if at else "the number"


def _others(where: Array) -> str:
    count = int(where.sum())
    return f" ({count} of {where.size} numbers like that)" if count > 1 else ""
