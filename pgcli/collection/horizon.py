"""Collect so many steps of every slot; what has not ended by then plays on in the next batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike

from pgcli.collection.batch import Batch
from pgcli.collection.rollout import Rollout, Sent, Span, among_others, gathered, telling, turn
from pgcli.environments.engine import Actor, Engine, SharedEngine
from pgcli.machine.randomness import DISTINCT, Seeding

Array = np.ndarray


@runtime_checkable
class Saved(Protocol):
    """An engine whose state can be kept."""

    def state(self) -> Mapping[str, Array]:
        """Copies of all that decides what follows, [E, ...] each."""
        ...

    def load(self, state: Mapping[str, Array]) -> None:
        """Go on where `state` was taken."""
        ...


@dataclass
class _Carried:
    """Where E slots are between two batches."""

    obs: Array  # [E, D]
    ended: Array  # [E] bool: their episode is over, a reset comes next
    age: Array  # [E] int64: steps of their episode so far
    so_far: Array  # [E] float64: its rewards so far

    @classmethod
    def fresh(cls, obs: Array) -> _Carried:
        n = len(obs)
        return cls(obs.copy(), np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n))


@dataclass
class _Piece:
    """A part of an episode, in one batch."""

    span: Span
    age: int  # steps before it
    before: float  # rewards before it


def _rows(
    engine: Engine, actor: Actor, seeds: int, horizon: int, obs: Array, ended: Array
) -> tuple[Rollout, Array, Array]:
    """So many steps of each slot from obs [E, D]: rows, how many of each slot, who has ended."""
    rollout, tell, ended = Rollout(engine), telling(actor), ended.copy()
    rollout.buffer.obs[:, 0] = obs
    played, last = np.zeros((2, engine.num_envs), np.int64)
    for row in count():
        active = played < horizon
        if not active.any():
            break
        done = turn(engine, actor, tell, rollout, row, active, seeds)
        played += active & ~ended
        ended = np.where(active, done, ended)
        last[active] = row + 1
    return rollout, last, ended


def horizon_of(
    engine: Engine, actor: Actor, seeds: int, horizon: int, own: tuple[Array, Array] | None,
    slot_seeds: list[int], seeding: Seeding, exchanging: bool,
) -> Sent:  # fmt: skip
    """Where slots are held: play on from `own` observations and ends; None: from resets.

    exchanging: whether copies have generators of their own, here or elsewhere. More: how many rows
    of each slot, who has ended, whether it must be played again, and whether copies have drawn.
    """

    def played() -> tuple[Rollout, Array, Array]:
        if own is not None:
            return _rows(engine, actor, seeds, horizon, *own)
        obs, none = engine.reset(slot_seeds, seeding).copy(), np.zeros(engine.num_envs, bool)
        return _rows(engine, actor, seeds, horizon, obs, none)

    again: list[bool] = []
    ambient = engine.ambient
    if ambient is None:
        rollout, last, ended = played()
    else:
        ambient.active = ambient.confirmed = exchanging
        with ambient.batch() as again:
            rollout, last, ended = played()
    drew = ambient is not None and ambient.drawn
    return rollout.sent(int(last.max()), (last, ended, bool(again), drew))


class FixedHorizon:
    """The environments of S seeds, which play on from batch to batch.

    Seeded when they begin, and never again; each slot's later episodes go on with its generator.
    """

    def __init__(self, engine: Engine, seeds: int, horizon: int) -> None:
        """`horizon`: steps of each slot in a batch, resets not counted."""
        self._engine, self._seeds, self._horizon = engine, seeds, horizon
        self._carried: _Carried | None = None
        self._exchanging = False  # where slots are elsewhere: see `environments.ambient.Ambient`

    def collect(
        self,
        actor: Actor,
        seeds: Sequence[int],
        iteration: ArrayLike,
        seeding: Seeding = DISTINCT,
    ) -> Batch:
        """The next batch: a unit is a slot, a row a part of an episode.

        From seeded resets where nothing has been played. EnvironmentFailed as in `rollout.collect`.
        """
        engine = self._engine
        if isinstance(engine, SharedEngine):
            slots = engine.num_envs // len(seeds)
            return self._elsewhere(engine, actor, seeding.draw(seeds, iteration, slots), seeding)

        def begin() -> None:
            slots = engine.num_envs // len(seeds)
            obs = engine.reset(seeding.draw(seeds, iteration, slots), seeding)
            self._carried = _Carried.fresh(obs)

        def anew() -> Batch:
            begin()
            return self._played(actor)

        goes_on = self._carried is not None
        return among_others(engine, actor, partial(self._played, actor) if goes_on else anew, anew)

    def _played(self, actor: Actor) -> Batch:
        engine, carried = self._engine, self._carried
        assert carried is not None
        own = carried.obs, carried.ended
        rollout, last, ended = _rows(engine, actor, self._seeds, self._horizon, *own)
        return self._taken(rollout, last, ended)

    def _elsewhere(
        self, engine: Any, actor: Actor, slot_seeds: Sequence[int], seeding: Seeding
    ) -> Batch:
        """The same by those who hold the slots."""
        drawn = np.array(slot_seeds).reshape(self._seeds, -1)
        places = np.arange(engine.num_envs).reshape(drawn.shape)

        def asked(fresh: bool) -> tuple[Rollout, list[tuple[Any, ...]]]:
            given = []
            for share in engine.shares:
                slots = share.of(places).reshape(-1)
                carried = None if fresh else self._carried
                own = None if carried is None else (carried.obs[slots], carried.ended[slots])
                mine = share.of(drawn).reshape(-1).tolist()
                given.append((self._horizon, own, mine, seeding, self._exchanging))
            # What was played before cannot be had again.
            rollout = gathered(engine, actor, self._seeds, horizon_of, given, again=fresh)
            return rollout, rollout.more

        fresh, confirmed = self._carried is None, self._exchanging
        rollout, more = asked(fresh)
        if any(again for *_, again, _ in more):  # to all of them, as in one process
            fresh = self._exchanging = True
            rollout, more = asked(True)
        self._exchanging = confirmed or any(drew for *_, drew in more)
        last, ended = np.zeros(engine.num_envs, np.int64), np.zeros(engine.num_envs, bool)
        for share, (lasts, ends, *_) in zip(engine.shares, more, strict=True):
            slots = share.of(places).reshape(-1)
            last[slots], ended[slots] = lasts, ends
        if fresh:
            self._carried = _Carried.fresh(rollout.buffer.obs[:, 0])
        return self._taken(rollout, last, ended)

    def _taken(self, rollout: Rollout, last: Array, ended: Array) -> Batch:
        """Rows [0, last[e]) of each slot as a batch; who has ended by then is known."""
        engine, carried = self._engine, self._carried
        assert carried is not None
        pieces = [self._cut(rollout, e, int(last[e]), carried) for e in range(engine.num_envs)]
        self._carried = self._after(rollout, last, ended, pieces)
        return self._batch(rollout, pieces)

    def _cut(self, rollout: Rollout, e: int, last: int, carried: _Carried) -> list[_Piece]:
        """The parts of episodes in rows [0, last) of a slot."""
        buffer, pieces = rollout.buffer, []
        start, age, before = int(carried.ended[e]), int(carried.age[e]), float(carried.so_far[e])
        done = buffer.terminated[e, :last] | buffer.truncated[e, :last]
        for row in done.nonzero()[0].tolist():
            pieces.append(_Piece(Span(e, start, row + 1), age, before))
            start, age, before = row + 2, 0, 0.0  # the row between is the reset, no transition
        if start < last:
            pieces.append(_Piece(Span(e, start, last), age, before))
        return pieces

    def _after(
        self, rollout: Rollout, last: Array, ended: Array, pieces: list[list[_Piece]]
    ) -> _Carried:
        slots = np.arange(len(last))
        carried = _Carried.fresh(rollout.buffer.obs[slots, last])
        carried.ended = ended
        for e in (~ended).nonzero()[0].tolist():
            piece = pieces[e][-1]
            span = piece.span
            carried.age[e] = piece.age + span.stop - span.start
            rewards = rollout.buffer.rew[e, span.start : span.stop]
            carried.so_far[e] = piece.before + rewards.sum()
        return carried

    def _batch(self, rollout: Rollout, pieces: list[list[_Piece]]) -> Batch:
        slots = self._engine.num_envs // self._seeds
        of_seeds = [
            [piece for own in pieces[s * slots : (s + 1) * slots] for piece in own]
            for s in range(self._seeds)
        ]
        batch = rollout.cut([[piece.span for piece in own] for own in of_seeds], self._seeds)
        unit, age = torch.zeros((2, *batch.length.shape), dtype=torch.int64)
        before = torch.zeros(batch.length.shape, dtype=torch.float64)
        for s, own in enumerate(of_seeds):
            for n, piece in enumerate(own):
                unit[s, n], age[s, n] = piece.span.slot - s * slots, piece.age
                before[s, n] = piece.before
        cut = (batch.length > 0) & ~batch.terminated & ~batch.truncated
        return replace(batch, unit=unit, age=age, before=before, cut=cut)

    def arrays(self) -> dict[str, Array]:
        """Where the slots are, [S, K, ...] each; nothing where the engine cannot give its state."""
        carried, engine = self._carried, self._engine
        if carried is None or not isinstance(engine, Saved):
            return {}
        own = {"obs": carried.obs, "ended": carried.ended, "age": carried.age}
        all_ = {**own, "so_far": carried.so_far}
        all_ |= {f"engine/{name}": x for name, x in engine.state().items()}
        shape = self._seeds, engine.num_envs // self._seeds
        return {f"carried/{name}": x.reshape(*shape, *x.shape[1:]) for name, x in all_.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Take over what `arrays()` gave; where it gave nothing, new episodes begin."""
        engine = self._engine
        found = {
            name.removeprefix("carried/"): x.reshape(-1, *x.shape[2:]).copy()
            for name, x in arrays.items()
            if name.startswith("carried/")
        }
        if not found or not isinstance(engine, Saved):
            return
        state = {
            name.removeprefix("engine/"): found.pop(name)
            for name in list(found)
            if name.startswith("engine/")
        }
        engine.load(state)
        self._carried = _Carried(**found)
