"""What an engine is, and what those who play with it and it hand each other: contracts only.

Every engine keeps Gymnasium's NEXT_STEP autoreset: the step after an episode's end ignores the
action and returns the reset observation with reward 0; that row is no transition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from pgcli.environments.ambient import Ambient
from pgcli.environments.spaces import (
    ActionAdapter,
    ObsAdapter,
)
from pgcli.machine.randomness import DISTINCT, Seeding

Array = np.ndarray
T = TypeVar("T")
Step = tuple[Array, Array, Array, Array]


class Engine(Protocol):
    """E = `num_envs` copies of an environment, stepped together."""

    id: str
    name: str
    num_envs: int
    obs: ObsAdapter
    action: ActionAdapter
    max_episode_steps: int
    exact_resume: bool  # whether reset(seeds) makes everything that follows repeatable
    renewed: str  # what is not as it was for runs of checkpoint format 1, if anything
    # [E] float64: what the info of each slot said of success when its last episode ended, 1 or 0;
    # NaN where it says nothing.
    success: Array

    @property
    def obs_dim(self) -> int:
        """D, the length of an encoded observation."""
        ...

    @property
    def info(self) -> Array | None:
        """The K entries that `env.info` names, of the last step [E, K], NaN where one is not there.

        None where it names none. The buffer is used again: copy.
        """
        ...

    @property
    def ambient(self) -> Ambient | None:
        """What is around every batch, where environments run in this process."""
        ...

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        """Start anew in every slot, seeded: obs [E, D]; by `seeding` where one seed is for all."""
        ...

    def step(self, act: Array, active: Array) -> Step:
        """obs [E, D], rew [E], terminated [E], truncated [E] for the policy's actions [E, ...].

        The rows of slots that are not active [E] mean nothing. Buffers may be reused: copy.
        """
        ...

    def notices(self) -> list[str]:
        """What the environment has shown so far, and a reader of the results must know."""
        ...

    def close(self) -> None:
        """Release processes and windows."""
        ...


class Buffer(NamedTuple):
    """The rollout buffer: what happens, slot by slot and row by row."""

    obs: Array  # [E, rows, D] float32
    act: Array  # [E, rows, A], float32 or int64
    rew: Array  # [E, rows] float64
    terminated: Array  # [E, rows] bool
    truncated: Array  # [E, rows] bool


class Actor(Protocol):
    """Chooses the actions of a rollout, step by step."""

    def __call__(self, obs: Array) -> Array:
        """Actions [S, K, ...] for obs [S, K, D] float32."""
        ...

    def restart(self) -> None:
        """Go back to the first step."""
        ...


class Share(NamedTuple):
    """Some of the slots of some of the seeds."""

    seeds: slice
    slots: slice

    def of(self, x: Array) -> Array:
        """What is of these in x [S, K, ...]."""
        found: Array = x[self.seeds, self.slots]
        return found


@runtime_checkable
class DivisibleActor(Actor, Protocol):
    """An actor of whom a part may act elsewhere."""

    def part(self, seeds: slice, slots: slice) -> Actor:
        """Of some seeds and slots; it can be sent to another process."""
        ...


@runtime_checkable
class SharedEngine(Protocol):
    """An engine whose slots are other processes': what is to be done with them is sent there."""

    shares: Sequence[Share]

    def each(
        self, function: Callable[..., T], given: Sequence[tuple[Any, ...]], again: bool
    ) -> list[T]:
        """function(engine, *given[i]) where share i is; `again`: once more where one is lost."""
        ...


class Network(Protocol):
    """What a multilayer perceptron and its action distribution come down to."""

    @property
    def sizes(self) -> Array:
        """[L + 1] int64: inputs, hidden units, outputs."""
        ...

    @property
    def weights(self) -> Array:
        """[S, n] float32: per layer W [inputs, outputs] row by row, then b."""
        ...

    @property
    def activation(self) -> str:
        """Its name."""
        ...

    @property
    def spread(self) -> Array:
        """[S, A] float32: standard deviations; A = 0 where an action is one of the outputs."""
        ...

    @property
    def normal(self) -> Array:
        """[S, 2, D] float32: inputs less the first, times the second; D = 0: as they are."""
        ...

    @property
    def clip(self) -> float:
        """And cut to plus or minus this."""
        ...


@runtime_checkable
class EmittingActor(Actor, Protocol):
    """An actor whose actions are kept in other terms than the environment is told."""

    def emitted(self, act: Array) -> Array:
        """What the environment is told for actions [E, ...] that it chose."""
        ...


@runtime_checkable
class NetworkActor(Actor, Protocol):
    """An actor that can be played without being asked step by step."""

    def network(self) -> Network | None:
        """What it computes; None where that is more than a Network can say."""
        ...

    def noise(self) -> Array:
        """The noise of the next rows, [rows, S, K, O], added to the outputs."""
        ...


@runtime_checkable
class PlayingEngine(Protocol):
    """An engine that can play many rows at once, environment and policy compiled together."""

    def plays(self, network: Network) -> bool:
        """Whether it can stand for this policy, and is worth it."""
        ...

    def play(self, network: Network, noise: Array, left: Array, buffer: Buffer, row: int) -> int:
        """Fill `buffer` from `row` on for as many rows as there is noise [rows, S, K, O].

        Slot e plays left[e] more episodes. Returns how many rows that took.
        """
        ...
