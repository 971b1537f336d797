"""Observation and action spaces: what the policy sees, and what the environment is told.

Imports no torch, so that a configuration can be checked before it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from pgcli.errors import ConfigError

Array = np.ndarray


class ActionKind(Enum):
    """The distributions that a policy can have."""

    CATEGORICAL = auto()
    MULTI_CATEGORICAL = auto()
    BERNOULLI = auto()
    GAUSSIAN = auto()


@dataclass(frozen=True)
class ActionAdapter:
    """How the policy's actions [E, *shape] become the environment's."""

    kind: ActionKind
    sizes: tuple[int, ...]  # of the distribution: (n,), nvec, (bits,) or (dimensions,)
    to_env: Callable[[Array], Array]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action as the policy samples it."""
        if self.kind is ActionKind.CATEGORICAL:
            return ()
        return (len(self.sizes),) if self.kind is ActionKind.MULTI_CATEGORICAL else self.sizes

    @property
    def dtype(self) -> type:
        """Type in which the policy samples."""
        return np.float32 if self.kind is ActionKind.GAUSSIAN else np.int64


@dataclass(frozen=True)
class ObsAdapter:
    """How a batch of the environment's observations becomes the policy's input [E, dim]."""

    dim: int
    encode: Callable[[Array], Array]  # to [E, dim], of any float type


class Spaces(NamedTuple):
    """What a policy takes and gives, in one environment."""

    obs_dim: int  # of an encoded observation
    action: ActionAdapter

    @property
    def told(self) -> dict[str, str]:
        """In words, to be kept beside a policy."""
        sizes = " ".join(map(str, self.action.sizes))
        kind = self.action.kind.name.lower().replace("_", "-")
        return {"observation": f"{self.obs_dim} inputs", "action": f"{kind} {sizes}"}


def action_adapter(space: spaces.Space[Any], env_id: str) -> ActionAdapter:
    """The policy's view of an action space; ConfigError where there is none."""
    if isinstance(space, spaces.Discrete):
        start = space.start
        shift = (lambda act: act + start) if start else (lambda act: act)
        return ActionAdapter(ActionKind.CATEGORICAL, (int(space.n),), shift)
    if isinstance(space, spaces.MultiDiscrete):
        shape, first = space.shape, space.start.reshape(-1)
        return ActionAdapter(
            ActionKind.MULTI_CATEGORICAL,
            tuple(int(n) for n in space.nvec.reshape(-1)),
            lambda act: (act + first).reshape(len(act), *shape).astype(space.dtype),
        )
    if isinstance(space, spaces.MultiBinary):
        bits = space.shape
        return ActionAdapter(
            ActionKind.BERNOULLI,
            (int(np.prod(bits)),),
            lambda act: act.reshape(len(act), *bits).astype(space.dtype),
        )
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return _box_adapter(space)
    raise ConfigError(
        "env", env_id, f"its action space {_short(space)} is not supported: "
        "Discrete, MultiDiscrete, MultiBinary and Box of floats are"
    )  # fmt: skip


def _box_adapter(space: spaces.Box) -> ActionAdapter:
    """The policy acts in units of the half range around the centre, where both are finite.

    What is clipped is only what the environment is told; the policy's sample is kept as it is.
    """
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    # Bounds that only say "any float" are none.
    bounded = (np.abs(low) < 1e10) & (np.abs(high) < 1e10)
    with np.errstate(invalid="ignore", over="ignore"):
        half = np.where(bounded, (high - low) / 2, 1.0).astype(np.float32)
        centre = np.where(bounded, (high + low) / 2, 0.0).astype(np.float32)

    def to_env(act: Array) -> Array:
        clipped = np.clip(centre + half * act, low, high)
        return clipped.reshape(len(act), *space.shape).astype(space.dtype, copy=False)

    return ActionAdapter(ActionKind.GAUSSIAN, (low.size,), to_env)


def obs_adapter(space: spaces.Space[Any], env_id: str) -> ObsAdapter:
    """The policy's input for an observation space; ConfigError where there is none."""
    if isinstance(space, spaces.Discrete):
        table, first = np.eye(int(space.n), dtype=np.float32), space.start
        return ObsAdapter(int(space.n), lambda obs: table[obs - first])
    if isinstance(space, spaces.MultiDiscrete):
        tables = [np.eye(int(n), dtype=np.float32) for n in space.nvec.reshape(-1)]
        offset = space.start.reshape(-1)

        def one_hots(obs: Array) -> Array:
            columns = (obs.reshape(len(obs), -1) - offset).T
            return np.concatenate([t[c] for t, c in zip(tables, columns, strict=True)], axis=1)

        return ObsAdapter(sum(len(t) for t in tables), one_hots)
    if isinstance(space, (spaces.Box, spaces.MultiBinary)) and np.prod(space.shape) > 0:
        size = int(np.prod(space.shape))
        return ObsAdapter(size, lambda obs: obs.reshape(len(obs), size))
    raise ConfigError(
        "env", env_id, f"its observation space {_short(space)} is not supported: Box, Discrete, "
        "MultiDiscrete, MultiBinary, and Tuple or Dict of those are"
    )  # fmt: skip


def is_composite(space: spaces.Space[Any]) -> bool:
    """Whether Gymnasium has to flatten it first."""
    return isinstance(space, (spaces.Tuple, spaces.Dict)) and bool(space.is_np_flattenable)


def _short(space: spaces.Space[Any]) -> str:
    text = str(space)
    return text if len(text) <= 80 else text[:77] + "..."
