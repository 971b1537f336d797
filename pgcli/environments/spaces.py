"""Observation and action spaces: what the policy sees, and what the environment is told.

Imports no torch, so that a configuration can be checked before it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, NamedTuple

import gymnasium as gym
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


class Affine(NamedTuple):
    """a ↦ centre + half · a, cut to [low, high]: of each dimension [n]."""

    centre: Array
    half: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class ActionAdapter:
    """How the policy's actions [E, *shape] become the environment's."""

    kind: ActionKind
    sizes: tuple[int, ...]  # of the distribution: (n,), nvec, (bits,) or (dimensions,)
    to_env: Callable[[Array], Array]
    space: spaces.Space[Any]  # what `to_env` gives is of
    bounded: tuple[bool, ...] = ()  # of a Gaussian's dimensions: whether both bounds are finite
    origin: tuple[float, ...] = ()  # where 0 lies of those with one bound; (): at 0, all of them
    affine: Affine | None = None  # of a Gaussian: what `to_env` does before it gives a shape

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
    encode: Callable[[Array], Array]  # to [E, dim], of any float type; raises on what is not ...
    space: spaces.Space[Any]  # ... of the shape, the kind or (where they count) the values of this

    def fault(self, obs: Any) -> str | None:
        """What is wrong with one observation, as far as `encode` looks; None: nothing."""
        try:
            self.encode(np.array([obs]))
        except Exception:
            return f"its observation space is {short(self.space)}, and it gave {described(obs)}"
        return None


class Spaces(NamedTuple):
    """What a policy takes and gives, in one environment."""

    obs_dim: int  # of an encoded observation
    action: ActionAdapter
    table: bool = False  # whether an observation is one of so many, and nothing else
    seen: spaces.Space[Any] | None = None  # what is encoded, where that is told

    @property
    def told(self) -> dict[str, str]:
        """In words, to be kept beside a policy."""
        sizes = " ".join(map(str, self.action.sizes))
        if self.action.origin:
            sizes += " around " + " ".join(f"{x:g}" for x in self.action.origin)
        kind = self.action.kind.name.lower().replace("_", "-")
        return {"observation": f"{self.obs_dim} inputs", "action": f"{kind} {sizes}"}


def action_adapter(space: spaces.Space[Any], env_id: str) -> ActionAdapter:
    """The policy's view of an action space; ConfigError where there is none."""
    if isinstance(space, spaces.Discrete):
        start = space.start
        shift = (lambda act: act + start) if start else (lambda act: act)
        return ActionAdapter(ActionKind.CATEGORICAL, (int(space.n),), shift, space)
    if isinstance(space, spaces.MultiDiscrete):
        shape, first = space.shape, space.start.reshape(-1)
        return ActionAdapter(
            ActionKind.MULTI_CATEGORICAL,
            tuple(int(n) for n in space.nvec.reshape(-1)),
            lambda act: (act + first).reshape(len(act), *shape).astype(space.dtype),
            space,
        )
    if isinstance(space, spaces.MultiBinary):
        bits = space.shape
        return ActionAdapter(
            ActionKind.BERNOULLI,
            (int(np.prod(bits)),),
            lambda act: act.reshape(len(act), *bits).astype(space.dtype),
            space,
        )
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return _box_adapter(space)
    raise ConfigError(
        "env", env_id, f"its action space {short(space)} is not supported: "
        "Discrete, MultiDiscrete, MultiBinary and Box of floats are"
    )  # fmt: skip


def _box_adapter(space: spaces.Box) -> ActionAdapter:
    """The policy acts in units of the half range around the centre, where both bounds are finite.

    Elsewhere in the environment's units: around 0 or, where there is one bound, around the point
    nearest to 0 that is one unit within it. Around the bound itself every other sample would be
    clipped away. What is clipped is only what the environment is told; the policy's sample is kept
    as it is.
    """
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    # Bounds that only say "any float" are none.
    below, above = low > -1e10, high < 1e10
    bounded = (np.abs(low) < 1e10) & (np.abs(high) < 1e10)
    with np.errstate(invalid="ignore", over="ignore"):
        inside = np.where(
            below, np.maximum(low + 1, 0), np.where(above, np.minimum(high - 1, 0), 0)
        )
        half = np.where(bounded, (high - low) / 2, 1.0).astype(np.float32)
        centre = np.where(bounded, (high + low) / 2, inside).astype(np.float32)
    moved = np.where(bounded, 0, centre)
    affine = Affine(centre, half, low, high)

    def to_env(act: Array) -> Array:
        clipped = np.clip(centre + half * act, low, high)
        return clipped.reshape(len(act), *space.shape).astype(space.dtype, copy=False)

    origin = tuple(moved.tolist()) if moved.any() else ()
    return ActionAdapter(
        ActionKind.GAUSSIAN, (low.size,), to_env, space, tuple(bounded.tolist()), origin, affine
    )


def as_told(adapter: ActionAdapter) -> ActionAdapter:
    """The same for one who acts in the environment's own terms already."""
    space = adapter.space
    shape: tuple[int, ...] = space.shape or ()

    def to_env(act: Array) -> Array:
        return act.reshape(len(act), *shape).astype(space.dtype, copy=False)

    return replace(adapter, to_env=to_env)


def obs_adapter(space: spaces.Space[Any], env_id: str) -> ObsAdapter:
    """The policy's input for an observation space; ConfigError where there is none."""
    if isinstance(space, spaces.Discrete):
        return ObsAdapter(int(space.n), _one_hot(space), space)
    if isinstance(space, spaces.MultiDiscrete):
        return ObsAdapter(int(space.nvec.sum()), _one_hots(space), space)
    if isinstance(space, (spaces.Box, spaces.MultiBinary)) and np.prod(space.shape) > 0:
        return ObsAdapter(int(np.prod(space.shape)), _flat(space), space)
    raise ConfigError(
        "env", env_id, f"its observation space {short(space)} is not supported: Box, Discrete, "
        "MultiDiscrete, MultiBinary, and Tuple or Dict of those are"
    )  # fmt: skip


def decoded(adapter: ObsAdapter, obs: Array) -> Array:
    """The observations [E, ...] that `adapter.encode` made these of, obs [E, dim]."""
    space = adapter.space
    if isinstance(space, spaces.Discrete):
        return np.asarray(space.start + obs.argmax(1))
    shape: tuple[int, ...] = space.shape or ()
    if isinstance(space, spaces.MultiDiscrete):
        parts = np.split(obs, np.cumsum(space.nvec.reshape(-1))[:-1], 1)
        index = np.stack([part.argmax(1) for part in parts], 1).reshape(-1, *shape)
        return np.asarray(space.start + index)
    return np.asarray(obs.reshape(-1, *shape).astype(space.dtype))


def _index(obs: Array, first: Array | np.int64, n: Array | np.uint64) -> Array:
    """Whole numbers first … first + n - 1 as indices: a negative one would count from the end."""
    if obs.dtype.kind not in "iub":
        raise TypeError(f"{obs.dtype} is no whole number")
    index: Array = np.subtract(obs, first, dtype=np.int64, casting="unsafe")
    if (index.view(np.uint64) >= n).any():  # what is negative is huge so
        raise IndexError("out of range")
    return index


def _one_hot(space: spaces.Discrete) -> Callable[[Array], Array]:
    table = np.eye(int(space.n), dtype=np.float32)
    first, n = np.int64(space.start), np.uint64(space.n)

    def encode(obs: Array) -> Array:
        if obs.ndim != 1:
            raise ValueError(f"shape {obs.shape[1:]}")
        one_hot: Array = table[_index(obs, first, n)]
        return one_hot

    return encode


def _one_hots(space: spaces.MultiDiscrete) -> Callable[[Array], Array]:
    tables = [np.eye(int(n), dtype=np.float32) for n in space.nvec.reshape(-1)]
    first, n = (x.reshape(-1).astype(np.int64) for x in (space.start, space.nvec))
    shape, n = space.shape, n.view(np.uint64)

    def encode(obs: Array) -> Array:
        if obs.shape[1:] != shape:
            raise ValueError(f"shape {obs.shape[1:]}")
        columns = _index(obs.reshape(len(obs), -1), first, n).T
        return np.concatenate([t[c] for t, c in zip(tables, columns, strict=True)], axis=1)

    return encode


def _flat(space: spaces.Box | spaces.MultiBinary) -> Callable[[Array], Array]:
    size, shape = int(np.prod(space.shape)), space.shape
    bits = isinstance(space, spaces.MultiBinary)

    def encode(obs: Array) -> Array:
        if obs.shape[1:] != shape or obs.dtype.kind not in "fiub":
            raise ValueError(f"shape {obs.shape[1:]}, type {obs.dtype}")
        if bits and not ((obs == 0) | (obs == 1)).all():
            raise ValueError("neither 0 nor 1")
        return obs.reshape(len(obs), size)

    return encode


def is_composite(space: spaces.Space[Any]) -> bool:
    """Whether Gymnasium has to flatten it first."""
    return isinstance(space, (spaces.Tuple, spaces.Dict)) and bool(space.is_np_flattenable)


class Flattened(gym.wrappers.FlattenObservation[Any, Any, Any]):
    """Tuple and Dict observations as one array; the parts that count are checked before that."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._check = checker(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """The flat array; ValueError where a part is not of its space."""
        self._check(observation)
        return super().observation(observation)


def checker(space: spaces.Space[Any]) -> Callable[[Any], None]:
    """Raises ValueError where an observation is not of that space, as far as `encode` looks."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        parts = [(key, checker(part)) for key, part in items]

        def check_parts(obs: Any) -> None:
            for key, check in parts:
                check(obs[key])

        return check_parts
    try:
        adapter = obs_adapter(space, "")
    except ConfigError:
        return lambda obs: None  # what only Gymnasium can flatten, it checks
    box = isinstance(space, spaces.Box)

    def check(obs: Any) -> None:
        known = box and isinstance(obs, np.ndarray) and obs.shape == space.shape
        if known and obs.dtype.kind in "fiub":
            return  # the usual case, in a moment
        if (fault := adapter.fault(obs)) is not None:
            raise ValueError(fault)

    return check


def described(obs: Any) -> str:
    """An observation in a few words."""
    if isinstance(obs, np.ndarray) and obs.size > 8:
        return f"an array of shape {obs.shape}, type {obs.dtype}"
    shape = f" of shape {obs.shape}" if isinstance(obs, np.ndarray) else ""
    return f"{short(obs)} ({type(obs).__name__}{shape})"


def short(thing: object) -> str:
    """Its text, on one line, cut where it is long."""
    text = " ".join(str(thing).split())
    return text if len(text) <= 80 else text[:77] + "..."
