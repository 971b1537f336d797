"""Play whole episodes of a policy that stays as it is, and keep what they came to, not the steps.

For evaluation: rewards are the environment's own, nothing is learned, nothing is normalised anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pgcli.collection.rollout import among_others, check_actions, telling
from pgcli.environments.engine import Actor, Engine
from pgcli.environments.spaces import as_told, decoded
from pgcli.errors import EnvironmentFailed
from pgcli.machine.randomness import DISTINCT, Seeding

Array = np.ndarray
Watch = Callable[[Array], None]  # of how many episodes each slot had left before a row, [E]

# Iterations whose streams are used for evaluation: those of training and of pg compare lie below.
WHILE_TRAINING, AFTERWARDS = 2**40, 2**41


class Played(NamedTuple):
    """N episodes of each of S seeds, [S, N] each, those of a slot beside each other."""

    returns: Array  # float64: the undiscounted sum of rewards
    length: Array  # int64
    success: Array  # float64: 1 or 0 as the info of the last step says; NaN where it does not
    slot: Array  # int64: which of its seed's slots played it
    turn: Array  # int64: as its which episode, from 0
    # [S, N, 3, K] float64 of the entries that `env.info` names: sum over the steps at which one is
    # there, how many these are, and its value at the last step (NaN: none); K may be 0
    info: Array


@dataclass
class _Ended:
    slot: int
    turn: int
    ret: float
    length: int
    success: float
    info: Array  # [3, K]


def play(
    engine: Engine,
    actor: Actor,
    episodes: int,
    seeds: Sequence[int],
    iteration: ArrayLike,
    seeding: Seeding = DISTINCT,
) -> Played:
    """So many episodes per seed from freshly seeded resets; a function of its arguments.

    They are split over a seed's slots as evenly as can be, in advance: never "the first to end".
    `iteration`: of all seeds, or of each [S]. EnvironmentFailed where an observation or a reward
    is not finite, NonFinite where an action is not.
    """
    s, slots = len(seeds), engine.num_envs // len(seeds)
    drawn = seeding.draw(seeds, iteration, slots)
    share = np.full(slots, episodes // slots)
    share[: episodes % slots] += 1
    tell = telling(actor)

    def choose(obs: Array) -> Array:
        act = actor(obs.reshape(s, slots, -1))
        check_actions(act)
        return tell(act.reshape(engine.num_envs, *act.shape[2:]))

    def played() -> list[_Ended]:
        return _rows(engine, choose, engine.reset(drawn, seeding), np.tile(share, s))

    ended = sorted(among_others(engine, actor, played), key=lambda one: (one.slot, one.turn))
    rows = [(e.ret, e.length, e.success, e.slot % slots, e.turn) for e in ended]
    columns = [np.array(column).reshape(s, episodes) for column in zip(*rows, strict=True)]
    returns, length, success, slot, turn = columns
    info = np.array([e.info for e in ended])
    info = info.reshape(s, episodes, *info.shape[1:])
    return Played(returns, length, success, slot, turn, info)


def play_callable(
    engine: Engine,
    act: Callable[[Array], Array],
    episodes: int,
    seed: int = 0,
    iteration: int = AFTERWARDS,
) -> Played:
    """The same for any policy: act(obs [E, *shape]) gives actions as the environment takes them.

    Observations are those of the environment's space in float32 at most, so that
    `lambda obs: model.predict(obs, deterministic=True)[0]` is one of Stable-Baselines3. S is 1.
    """
    engine.action = as_told(engine.action)
    return play(engine, _Outside(engine, act), episodes, [seed], iteration)


def replay(
    engine: Engine,
    actor: Actor,
    seeds: Sequence[int],
    iteration: ArrayLike,
    slots: int,
    which: tuple[int, int, int],
    watch: Watch,
    seeding: Seeding = DISTINCT,
) -> tuple[float, int]:
    """One episode of `play` once more, alone in an engine of one slot: its return and length.

    which: (place of its seed, slot, turn). Earlier episodes of the slot are played before it, as
    its generator goes on with them. `watch` is called after every reset and step.
    """
    place, slot, turn = which
    drawn = seeding.draw(seeds, iteration, slots)[place * slots + slot]
    tell = telling(actor)
    beside = np.zeros((len(seeds), slots, engine.obs_dim), np.float32)

    def choose(obs: Array) -> Array:
        beside[place, slot] = obs[0]
        act = actor(beside.copy())[place, slot][None]
        check_actions(act)
        return tell(act)

    def played() -> list[_Ended]:
        return _rows(engine, choose, engine.reset([drawn], seeding), np.array([turn + 1]), watch)

    last = among_others(engine, actor, played)[-1]
    return last.ret, last.length


def _rows(
    engine: Engine,
    choose: Callable[[Array], Array],
    obs: Array,
    left: Array,
    watch: Watch | None = None,
) -> list[_Ended]:
    """Ask policy and environment in turn until no slot has episodes left [E]."""
    n, share = engine.num_envs, left.copy()
    ret, length, over = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, bool)
    ended: list[_Ended] = []
    entries = np.zeros((n, 3, 0 if engine.info is None else engine.info.shape[1]))
    if watch is not None:
        watch(left)
    while (active := left > 0).any():
        before = left.copy()
        obs = np.array(obs, np.float32)  # a copy: buffers are used again
        _check_finite(engine, "observation", obs, active)
        obs, rew, terminated, truncated = engine.step(choose(obs), active)
        live = active & ~over  # elsewhere it was a reset
        _check_finite(engine, "reward", rew, live)
        ret[live] += rew[live]
        length += live
        if engine.info is not None:
            told = ~np.isnan(engine.info)
            both = np.stack([np.where(told, engine.info, 0.0), told], 1)
            entries[live, :2] += both[live]
            entries[live, 2] = engine.info[live]
        over = live & (terminated | truncated)
        for e in over.nonzero()[0].tolist():
            turn = int(share[e] - left[e])
            told_at_end = float(engine.success[e]), entries[e].copy()
            ended.append(_Ended(e, turn, float(ret[e]), int(length[e]), *told_at_end))
            left[e] -= 1
            ret[e], length[e], entries[e] = 0.0, 0, 0.0
        if watch is not None:
            watch(before)
    return ended


def _check_finite(engine: Engine, what: str, x: Array, where: Array) -> None:
    """x [E, ...] of the slots that count, [E]."""
    bad = where & ~np.isfinite(x).reshape(len(x), -1).all(1)
    if bad.any():
        slot = int(bad.argmax())
        raise EnvironmentFailed(f"{engine.id}: {what} NaN or infinite (environment {slot})")


class _Outside:
    """A policy that knows neither encoded observations nor the policy's units of actions."""

    def __init__(self, engine: Engine, act: Callable[[Array], Array]) -> None:
        self._engine, self._act = engine, act

    def __call__(self, obs: Array) -> Array:
        return np.asarray(self._act(decoded(self._engine.obs, obs[0])))[None]

    def restart(self) -> None:
        """Its noise is its own."""
