"""Collect whole episodes with quotas that are fixed before collection begins.

Every slot (one environment of one seed) is reset with its own seed, plays, and is cut into episodes
afterwards. "The first N episodes to finish" is never the rule: it would favour short ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from pgcli.collection.batch import Batch
from pgcli.environments.engine import (
    Actor,
    Buffer,
    DivisibleActor,
    EmittingActor,
    Engine,
    NetworkActor,
    PlayingEngine,
    SharedEngine,
)
from pgcli.errors import EnvironmentFailed, NonFinite
from pgcli.machine.randomness import DISTINCT, Seeding

Array = np.ndarray
T = TypeVar("T")

SPARED = 0.1  # of the steps of a batch that is counted by steps: so many may be thrown away


@dataclass(frozen=True)
class Quota:
    """What one seed collects: so many episodes, or episodes until so many steps. One is None."""

    episodes: int | None
    steps: int | None
    slots: Array | None = None  # [S]: with steps, how many of a seed's slots play; None: all


def few_slots(steps: int, length: Array) -> Array:
    """How many slots [S] to play so many steps with, for episodes of mean length [S].

    All but the slot that ends last have about an episode at the end that is thrown away: with
    these less than a tenth of the steps.
    """
    return 1 + (SPARED * steps / length).astype(np.int64)


def collect(
    engine: Engine,
    actor: Actor,
    quota: Quota,
    seeds: Sequence[int],
    iteration: ArrayLike,
    seeding: Seeding = DISTINCT,
) -> Batch:
    """Play from freshly seeded resets until every seed has its quota; a function of its arguments.

    `iteration`: of all seeds, or of each [S]. Steps count where a slot plays for its seed; copies
    that native, async and envpool step along though they are idle are their engine's padding.
    Raises EnvironmentFailed where an observation or a reward is not finite.
    """
    slot_seeds = seeding.draw(seeds, iteration, engine.num_envs // len(seeds))
    if isinstance(engine, SharedEngine):
        return _elsewhere(engine, actor, quota, slot_seeds, seeding, len(seeds))

    def played() -> Batch:
        obs = engine.reset(slot_seeds, seeding)
        return _played(engine, actor, quota, obs, len(seeds))

    return among_others(engine, actor, played)


def _elsewhere(
    engine: Any, actor: Actor, quota: Quota, slot_seeds: Sequence[int], seeding: Seeding, seeds: int
) -> Batch:
    """The same by those who hold the slots: with a quota of episodes no slot looks at another."""
    assert quota.episodes is not None, "the settings refuse it"
    plan = _EpisodePlan(seeds, engine.num_envs // seeds, quota.episodes)
    left, drawn = plan.left.reshape(seeds, -1), np.array(slot_seeds).reshape(seeds, -1)
    given = [
        (share.of(left).reshape(-1), share.of(drawn).reshape(-1).tolist(), seeding)
        for share in engine.shares
    ]
    rollout = gathered(engine, actor, seeds, episodes_of, given, again=True)
    buffer = rollout.buffer
    done = buffer.terminated | buffer.truncated
    for row in done.any(0).nonzero()[0].tolist():
        plan.finished(row, done[:, row])
    return rollout.cut(plan.episodes(), seeds)


def episodes_of(
    engine: Engine, actor: Actor, seeds: int, left: Array, slot_seeds: list[int], seeding: Seeding
) -> Sent:
    """Where slots are held: play left[e] episodes of each, from seeded resets."""

    def played() -> Sent:
        rollout, tell, own = Rollout(engine), telling(actor), left.copy()
        rollout.buffer.obs[:, 0] = engine.reset(slot_seeds, seeding)
        row = 0
        while (active := own > 0).any():
            own -= turn(engine, actor, tell, rollout, row, active, seeds) & active
            row += 1
        return rollout.sent(row)

    return among_others(engine, actor, played)


class Sent(NamedTuple):
    """What slots have played, on its way to who asked for it."""

    buffer: Buffer
    info: Array | None
    success: Array
    more: Any = None  # what else is to be known


def gathered(
    engine: Any, actor: Actor, seeds: int, function: Callable[..., Sent],
    given: Sequence[tuple[Any, ...]], again: bool,
) -> Rollout:  # fmt: skip
    """The rows of all slots, from function(their engine, their part of the actor, seeds, *given).

    `more` of each in `rollout.more`.
    """
    assert isinstance(actor, DivisibleActor)
    parts = [actor.part(*share) for share in engine.shares]
    own = [share.seeds.stop - share.seeds.start for share in engine.shares]
    tasks = [(part, n, *rest) for part, n, rest in zip(parts, own, given, strict=True)]
    found = engine.each(function, tasks, again)
    rollout = Rollout(engine)
    rollout.reaching(max(one.buffer.obs.shape[1] for one in found) - 1)
    places = np.arange(engine.num_envs).reshape(seeds, -1)
    for share, one in zip(engine.shares, found, strict=True):
        slots = share.of(places).reshape(-1)
        for whole, part in zip(rollout.buffer, one.buffer, strict=True):
            whole[slots, : part.shape[1]] = part
        if rollout.info is not None and one.info is not None:
            rollout.info[slots, : one.info.shape[1]] = one.info
        engine.success[slots] = one.success
    rollout.more = [one.more for one in found]
    return rollout


def among_others(
    engine: Engine, actor: Actor, played: Callable[[], T], anew: Callable[[], T] | None = None
) -> T:
    """What `played` gives, whatever else than their generators the environments draw from.

    Where it has to be played again, `anew` is: the same from resets; None: it begins with them.
    """
    if engine.ambient is None:
        return played()
    with engine.ambient.batch() as again:
        result = played()
    if again:  # what the environments drew elsewhere was not theirs: now it is
        actor.restart()
        with engine.ambient.batch():
            result = (anew or played)()
    return result


def _played(engine: Engine, actor: Actor, quota: Quota, obs: Array, seeds: int) -> Batch:
    """One batch, from the first observations [E, D] on."""
    slots = engine.num_envs // seeds
    if quota.episodes is not None:
        plan: _Plan = _EpisodePlan(seeds, slots, quota.episodes)
    else:
        plan = _StepPlan(seeds, slots, quota.steps or 0, quota.slots)
    rollout = Rollout(engine)
    rollout.buffer.obs[:, 0] = obs
    if not _play(engine, actor, plan, rollout):
        _step(engine, actor, plan, rollout, seeds)
    batch = rollout.cut(plan.episodes(), seeds)
    if plan.played is None:
        return batch
    simulated = rollout.transitions(plan.played).reshape(seeds, slots).sum(1)
    return replace(batch, discarded=torch.from_numpy(simulated) - batch.steps)


def _step(engine: Engine, actor: Actor, plan: _Plan, rollout: Rollout, seeds: int) -> None:
    """Ask policy and environment in turn, row by row."""
    tell = telling(actor)
    for row in count():
        active = plan.left > 0
        if plan.played is not None:
            plan.played[:] += active
        done = turn(engine, actor, tell, rollout, row, active, seeds)
        if done.any() and plan.finished(row, done):
            return


def check_actions(act: Array) -> None:
    """Before the environment sees them: NonFinite blames the policy, not it."""
    if act.dtype.kind == "f" and not np.isfinite(act).all():
        raise NonFinite(
            "an action of the policy is NaN or infinite; a smaller optimizer.lr may help"
        )


def telling(actor: Actor) -> Callable[[Array], Array]:
    """What makes of an actor's actions those that the environment is told."""
    return actor.emitted if isinstance(actor, EmittingActor) else lambda act: act


def turn(
    engine: Engine, actor: Actor, tell: Callable[[Array], Array], rollout: Rollout, row: int,
    active: Array, seeds: int,
) -> Array:  # fmt: skip
    """Fill a row of the buffer: the policy acts, active [E] slots step; which end there, [E]."""
    buffer, e = rollout.reaching(row + 1), engine.num_envs
    act = actor(buffer.obs[:, row].reshape(seeds, e // seeds, engine.obs_dim))
    act = act.reshape(e, *act.shape[2:])
    check_actions(act)
    obs, rew, terminated, truncated = engine.step(tell(act), active)
    with np.errstate(over="ignore"):  # what is infinite is told by whoever looks at it
        buffer.obs[:, row + 1] = obs
    buffer.rew[:, row], rollout.act[:, row] = rew, act
    buffer.terminated[:, row], buffer.truncated[:, row] = terminated, truncated
    if rollout.info is not None:
        rollout.info[:, row] = engine.info
    done: Array = terminated | truncated
    return done


def _play(engine: Engine, actor: Actor, plan: _Plan, rollout: Rollout) -> bool:
    """Let the engine play many rows at a time; whether it can."""
    if not (isinstance(engine, PlayingEngine) and isinstance(actor, NetworkActor)):
        return False
    network = actor.network()
    if network is None or not engine.plays(network):
        return False
    start, noise = 0, np.empty(0)
    while True:
        noise = noise if len(noise) else actor.noise()
        size = min(plan.blind(start) or len(noise), len(noise))
        buffer = rollout.reaching(start + size)
        rows = engine.play(network, noise[:size], plan.left, buffer, start)
        window = slice(start, start + rows)
        done = buffer.terminated[:, window] | buffer.truncated[:, window]
        if plan.played is not None:  # a slot stops at the last episode that is left to it
            plan.played[:] += (done.cumsum(1) - done < plan.left[:, None]).sum(1)
        for row in done.any(0).nonzero()[0].tolist():
            if plan.finished(start + row, done[:, row]):
                return True
        start, noise = start + rows, noise[size:]


@dataclass(frozen=True)
class Span:
    """One episode in the buffer: rows [start, stop) of a slot. Row `stop` shows its final obs."""

    slot: int
    start: int
    stop: int


class _Plan(Protocol):
    """Which slots still play, and which spans become the batch."""

    left: Array  # [E] int64: how many more episodes a slot plays, at most

    @property
    def played(self) -> Array | None:
        """[E] int64: rows that a slot has played; None where every transition is kept."""
        ...

    def blind(self, row: int) -> int | None:
        """How many rows may be played from this one on without a look at the quotas; None: any.

        The same whoever plays, so that a seed stops at the same look beside others as alone.
        """
        ...

    def finished(self, row: int, done: Array) -> bool:
        """Note the episodes that ended in this row, done [E]; whether all quotas are met."""
        ...

    def episodes(self) -> list[list[Span]]:
        """The spans of each seed."""
        ...


class _EpisodePlan:
    """`quota` episodes per seed, split over its slots as evenly as can be, in advance.

    A slot stops when its share is done: nothing is thrown away.
    """

    played = None

    def __init__(self, seeds: int, slots: int, quota: int) -> None:
        share = np.full(slots, quota // slots)
        share[: quota % slots] += 1
        self.left = np.tile(share, seeds)
        self._start = np.zeros(seeds * slots, np.int64)
        self._spans: list[list[Span]] = [[] for _ in range(seeds * slots)]
        self._slots = slots

    def blind(self, row: int) -> int | None:
        return None

    def finished(self, row: int, done: Array) -> bool:
        for slot in (done & (self.left > 0)).nonzero()[0].tolist():
            self._spans[slot].append(Span(slot, int(self._start[slot]), row + 1))
            self._start[slot] = row + 2  # the row between is the reset, no transition
            self.left[slot] -= 1
        return not self.left.any()

    def episodes(self) -> list[list[Span]]:
        per_seed = range(0, len(self._spans), self._slots)
        return [list(chain(*self._spans[i : i + self._slots])) for i in per_seed]


class _StepPlan:
    """Episodes in the order in which they STARTED: the first prefix that reaches `quota` steps.

    The rule looks at lengths in that order only, so it is a stopping time and Wald's identity
    holds: the prefix's sum of g_n has expectation E[count] · ∇J. What the slots have played
    beyond the prefix by then is thrown away.
    """

    LOOK = 32  # rows of a compiled engine; looking more often would take longer

    def __init__(self, seeds: int, slots: int, quota: int, playing: Array | None) -> None:
        few = np.full(seeds, slots) if playing is None else np.minimum(playing, slots)
        active = np.arange(slots) < few[:, None]  # [S, K]
        self.left = np.where(active, quota, 0).reshape(-1)  # an episode has at least one step
        # Where few play, what a look costs is less than the steps that it may save.
        self._often, self._least = (8, self.LOOK) if playing is None else (32, self.LOOK // 4)
        self.played = np.zeros(seeds * slots, np.int64)
        self._quota, self._slots = quota, slots
        self._stop: dict[tuple[int, int], int] = {}  # (start, slot) of an ended episode: its stop
        starts = [[(0, seed * slots + k) for k in range(n)] for seed, n in enumerate(few.tolist())]
        self._order, self._open = starts, {s: 0 for row in starts for _, s in row}
        self._prefix: list[list[Span]] = [[] for _ in range(seeds)]
        self._steps = [0] * seeds

    def blind(self, row: int) -> int | None:
        """Up to where a quota can be met at the earliest, then a share of it: at least LOOK."""
        return max(self._quota // self._slots - row, row // self._often, self._least)

    def finished(self, row: int, done: Array) -> bool:
        for slot in (done & (self.left > 0)).nonzero()[0].tolist():
            self._stop[self._open[slot], slot] = row + 1
            self._open[slot] = row + 2  # the row between is the reset, no transition
            self.left[slot] -= 1
            self._order[slot // self._slots].append((row + 2, slot))
        for seed, prefix in enumerate(self._prefix):
            order = self._order[seed]
            while self._steps[seed] < self._quota and order[len(prefix)] in self._stop:
                start, slot = order[len(prefix)]
                prefix.append(Span(slot, start, self._stop[start, slot]))
                self._steps[seed] += prefix[-1].stop - start
            if self._steps[seed] >= self._quota:
                self.left[seed * self._slots : (seed + 1) * self._slots] = 0
        return not self.left.any()

    def episodes(self) -> list[list[Span]]:
        return self._prefix


class Rollout:
    """The rollout buffer of one collection, longer whenever it is full."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.buffer = self._blank(513)
        self.act = self._actions()
        self.info = self._unsaid(513)
        self.more: list[Any] = []

    def reaching(self, row: int) -> Buffer:
        """The buffer, long enough that this row exists."""
        rows = self.buffer.obs.shape[1]
        if row >= rows:
            longer = self._blank(max(2 * rows - 1, row + 1))
            for new, old in zip(longer, self.buffer, strict=True):
                new[:, :rows] = old
            self.buffer = longer
            self.act = self._actions()
            if self.info is not None and (more := self._unsaid(longer.obs.shape[1])) is not None:
                more[:, :rows] = self.info
                self.info = more
        return self.buffer

    def _blank(self, rows: int) -> Buffer:
        e, action = self._engine.num_envs, self._engine.action
        return Buffer(
            np.empty((e, rows, self._engine.obs_dim), np.float32),
            np.empty((e, rows, math.prod(action.shape)), action.dtype),
            np.empty((e, rows), np.float64),
            np.zeros((e, rows), bool),
            np.zeros((e, rows), bool),
        )

    def _unsaid(self, rows: int) -> Array | None:
        """Entries of info [E, rows, K]; None where none is asked for."""
        said = self._engine.info
        return None if said is None else np.full((len(said), rows, said.shape[1]), np.nan)

    def _actions(self) -> Array:
        """The buffer's actions in their own shape."""
        return self.buffer.act.reshape(*self.buffer.rew.shape, *self._engine.action.shape)

    def sent(self, rows: int, more: Any = None) -> Sent:
        """So many rows of it, and the observation after them."""
        obs, *others = self.buffer
        info = None if self.info is None else self.info[:, :rows]
        buffer = Buffer(obs[:, : rows + 1], *(x[:, :rows] for x in others))
        return Sent(buffer, info, self._engine.success, more)

    def cut(self, spans: list[list[Span]], seeds: int) -> Batch:
        """The spans of each seed as a batch, padded with zeros to the longest."""
        n = max(map(len, spans))
        table = np.zeros((3, seeds, n), np.int64)  # slot, start, stop; an absent episode is empty
        for seed, episodes in enumerate(spans):
            for i, span in enumerate(episodes):
                table[:, seed, i] = span.slot, span.start, span.stop
        slot, start, stop = table
        buffer = self.buffer
        length = stop - start
        steps = np.arange(length.max())
        mask = steps < length[..., None]  # [S, N, T]
        row = np.where(mask, start[..., None] + steps, start[..., None])
        place = slot[..., None] * buffer.rew.shape[1] + row  # among the rows of all slots
        padding = None if mask.all() else ~mask

        def taken(x: Array) -> Array:
            """Of x [E, rows, ...], zero where padded."""
            found: Array = x.reshape(-1, *x.shape[2:]).take(place, 0)
            if padding is not None:
                found[padding] = 0
            return found

        obs, rew, act = taken(buffer.obs), taken(buffer.rew), taken(self.act)
        final_obs = buffer.obs[slot, stop]
        check_actions(act)  # of compiled code, which asks no one between
        self._check_finite(obs, "observation", slot, start)
        self._check_finite(rew, "reward", slot, start + 1)
        self._check_finite(final_obs, "observation", slot, stop)
        terminated = buffer.terminated[slot, stop - 1] & (length > 0)
        truncated = buffer.truncated[slot, stop - 1] & (length > 0) & ~terminated
        arrays = (obs, act, rew, mask, terminated, truncated, final_obs, length)
        batch = Batch(*(torch.from_numpy(x) for x in arrays))
        if self.info is None:
            return batch
        info = taken(self.info)
        info[~mask] = np.nan
        return replace(batch, info=torch.from_numpy(info))

    def transitions(self, played: Array) -> Array:
        """How many of the rows [0, played[e]) of each slot are no resets, [E]."""
        before = np.arange(1, played.max()) < played[:, None]  # rows with one before them
        buffer, rows = self.buffer, slice(0, before.shape[1])
        done = buffer.terminated[:, rows] | buffer.truncated[:, rows]
        return np.asarray(played - (done & before).sum(1))

    def _check_finite(self, x: Array, what: str, slot: Array, first: Array) -> None:
        """x [S, N, ...] of these slots [S, N], time after it where it has one, from `first` on."""
        finite = np.isfinite(x)
        if not finite.all():
            seed, n, *later = np.argwhere(~finite)[0]
            step = int(first[seed, n]) + (int(later[0]) if what == "reward" or x.ndim > 3 else 0)
            where = f"environment {slot[seed, n]}, step {step}"
            raise EnvironmentFailed(f"{self._engine.id}: {what} NaN or infinite ({where})")
