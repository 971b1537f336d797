"""Collect whole episodes with quotas that are fixed before collection begins.

Every slot (one environment of one seed) is reset with its own seed, plays, and is cut into episodes
afterwards. "The first N episodes to finish" is never the rule: it would favour short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch

from pgcli.environments.batch import Batch
from pgcli.environments.engines import Engine
from pgcli.errors import EnvironmentFailed
from pgcli.streams import Purpose, sequence

Array = np.ndarray


class Actor(Protocol):
    """Chooses the actions of a rollout, step by step."""

    def __call__(self, obs: Array) -> Array:
        """Actions [S, K, ...] for obs [S, K, D] float32."""
        ...


@dataclass(frozen=True)
class Quota:
    """What one seed collects: so many episodes, or episodes until so many steps. One is None."""

    episodes: int | None
    steps: int | None


def collect(
    engine: Engine,
    actor: Actor,
    quota: Quota,
    seeds: Sequence[int],
    iteration: int,
    reward_shift: float = 0.0,
) -> Batch:
    """Play from freshly seeded resets until every seed has its quota; a function of its arguments.

    Raises EnvironmentFailed where an observation or a reward is not finite.
    """
    slots = engine.num_envs // len(seeds)
    if quota.episodes is not None:
        plan: _Plan = _EpisodePlan(len(seeds), slots, quota.episodes)
    else:
        plan = _StepPlan(len(seeds), slots, quota.steps or 0)
    tape = _Tape(engine)
    obs = engine.reset(_slot_seeds(seeds, iteration, slots))
    shape = (len(seeds), slots, engine.obs_dim)
    while True:
        row = tape.next_row()
        tape.obs[row] = obs
        act = actor(tape.obs[row].reshape(shape))
        tape.act[row] = act = act.reshape(engine.num_envs, *act.shape[2:])
        obs, tape.rew[row], terminated, truncated = engine.step(act, plan.active)
        tape.terminated[row], tape.truncated[row] = terminated, truncated
        done = terminated | truncated
        if done.any() and plan.finished(row, done):
            break
    tape.obs[tape.next_row()] = obs  # the observation after the last step
    return tape.cut(plan.episodes(), len(seeds), reward_shift)


def _slot_seeds(seeds: Sequence[int], iteration: int, slots: int) -> list[int]:
    """One seed per slot, never shared between slots, seeds or iterations."""
    states = [sequence(seed, iteration, Purpose.ENVIRONMENT) for seed in seeds]
    return [int(x) for state in states for x in state.generate_state(slots)]


@dataclass(frozen=True)
class _Span:
    """One episode on the tape: rows [start, stop) of a slot. Row `stop` shows its final obs."""

    slot: int
    start: int
    stop: int


class _Plan(Protocol):
    """Which slots still play, and which spans become the batch."""

    active: Array  # [E] bool

    def finished(self, row: int, done: Array) -> bool:
        """Note the episodes that ended in this row, done [E]; whether all quotas are met."""
        ...

    def episodes(self) -> list[list[_Span]]:
        """The spans of each seed."""
        ...


class _EpisodePlan:
    """`quota` episodes per seed, split over its slots as evenly as can be, in advance."""

    def __init__(self, seeds: int, slots: int, quota: int) -> None:
        share = np.full(slots, quota // slots)
        share[: quota % slots] += 1
        self._left = np.tile(share, seeds)
        self.active = self._left > 0
        self._start = np.zeros(seeds * slots, np.int64)
        self._spans: list[list[_Span]] = [[] for _ in range(seeds * slots)]
        self._slots = slots

    def finished(self, row: int, done: Array) -> bool:
        for slot in (done & self.active).nonzero()[0].tolist():
            self._spans[slot].append(_Span(slot, int(self._start[slot]), row + 1))
            self._start[slot] = row + 2  # the row between is the reset, no transition
            self._left[slot] -= 1
        np.greater(self._left, 0, out=self.active)
        return not self.active.any()

    def episodes(self) -> list[list[_Span]]:
        per_seed = range(0, len(self._spans), self._slots)
        return [list(chain(*self._spans[i : i + self._slots])) for i in per_seed]


class _StepPlan:
    """Episodes in the order in which they STARTED: the first prefix that reaches `quota` steps.

    The rule looks at lengths in that order only, so it is a stopping time and Wald's identity
    holds: the prefix's sum of g_n has expectation E[count] · ∇J.
    """

    def __init__(self, seeds: int, slots: int, quota: int) -> None:
        self.active = np.ones(seeds * slots, bool)
        self._quota, self._slots = quota, slots
        self._stop: dict[tuple[int, int], int] = {}  # (start, slot) of an ended episode: its stop
        starts = [[(0, seed * slots + k) for k in range(slots)] for seed in range(seeds)]
        self._order, self._open = starts, {s: 0 for row in starts for _, s in row}
        self._prefix: list[list[_Span]] = [[] for _ in range(seeds)]
        self._steps = [0] * seeds

    def finished(self, row: int, done: Array) -> bool:
        for slot in (done & self.active).nonzero()[0].tolist():
            self._stop[self._open[slot], slot] = row + 1
            self._open[slot] = row + 2  # the row between is the reset, no transition
            self._order[slot // self._slots].append((row + 2, slot))
        for seed, prefix in enumerate(self._prefix):
            order = self._order[seed]
            while self._steps[seed] < self._quota and order[len(prefix)] in self._stop:
                start, slot = order[len(prefix)]
                prefix.append(_Span(slot, start, self._stop[start, slot]))
                self._steps[seed] += prefix[-1].stop - start
            if self._steps[seed] >= self._quota:
                self.active[seed * self._slots : (seed + 1) * self._slots] = False
        return not self.active.any()

    def episodes(self) -> list[list[_Span]]:
        return self._prefix


class _Tape:
    """Everything that happened, row by row, in buffers that double when they are full."""

    def __init__(self, engine: Engine) -> None:
        e = engine.num_envs
        self._engine, self._rows, self._capacity = engine, 0, 512
        self.obs = np.empty((self._capacity, e, engine.obs_dim), np.float32)
        self.act: Array = np.empty((self._capacity, e, *engine.action.shape), engine.action.dtype)
        self.rew = np.empty((self._capacity, e), np.float64)
        self.terminated = np.empty((self._capacity, e), bool)
        self.truncated = np.empty((self._capacity, e), bool)

    def next_row(self) -> int:
        """Room for one more row."""
        if self._rows == self._capacity:
            for name in ("obs", "act", "rew", "terminated", "truncated"):
                old = getattr(self, name)
                new = np.empty((2 * self._capacity, *old.shape[1:]), old.dtype)
                new[: self._capacity] = old
                setattr(self, name, new)
            self._capacity *= 2
        self._rows += 1
        return self._rows - 1

    def cut(self, spans: list[list[_Span]], seeds: int, reward_shift: float) -> Batch:
        """The spans of each seed as a batch, padded with zeros to the longest."""
        n = max(map(len, spans))
        table = np.zeros((3, seeds, n), np.int64)  # slot, start, stop; an absent episode is empty
        for seed, episodes in enumerate(spans):
            for i, span in enumerate(episodes):
                table[:, seed, i] = span.slot, span.start, span.stop
        slot, start, stop = table
        length = stop - start
        steps = np.arange(length.max())
        mask = steps < length[..., None]  # [S, N, T]
        row = np.where(mask, start[..., None] + steps, start[..., None])
        column = slot[..., None]
        obs = np.where(mask[..., None], self.obs[row, column], 0)
        rew = np.where(mask, self.rew[row, column] + reward_shift, 0.0)
        final_obs = self.obs[stop, slot]
        self._check_finite(obs, "observation")
        self._check_finite(rew, "reward")
        self._check_finite(final_obs, "observation")
        act = self.act[row, column]
        act[~mask] = 0
        terminated = self.terminated[stop - 1, slot] & (length > 0)
        truncated = self.truncated[stop - 1, slot] & (length > 0) & ~terminated
        arrays = (obs, act, rew, mask, terminated, truncated, final_obs, length)
        return Batch(*(torch.from_numpy(x) for x in arrays))

    def _check_finite(self, x: Array, what: str) -> None:
        if not np.isfinite(x).all():
            raise EnvironmentFailed(f"{self._engine.id}: {what} NaN or infinite")
