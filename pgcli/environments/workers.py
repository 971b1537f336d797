"""Processes that hold slots: each plays its share as `sync` would.

Nothing travels before all of it is done.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np

from pgcli.environments.base import Base
from pgcli.environments.engine import Array, Share, Step
from pgcli.environments.guard import FAULTS, failing, told
from pgcli.environments.looks import memories
from pgcli.environments.make import maker
from pgcli.environments.vector import METHOD, STEP_TIMEOUT, SyncEngine
from pgcli.errors import EnvironmentFailed, PgError
from pgcli.machine.cores import ROWS, begin, cores
from pgcli.machine.randomness import DISTINCT, Seeding
from pgcli.settings.schema import EnvConfig

T = TypeVar("T")
LOOK = 0.5  # seconds between looks at whether a process still lives, and whether its parent does


def shared_out(seeds: int, slots: int, count: int) -> list[Share]:
    """At most `count` shares of K slots of S seeds each, of whole blocks of ROWS slots.

    As many as make the largest one small, no more.
    """
    blocks = -(-slots // ROWS)
    grids = [(rows, min(blocks, count // rows)) for rows in range(1, min(seeds, count) + 1)]
    rows, columns = min(grids, key=lambda g: (-(-seeds // g[0]) * -(-blocks // g[1]), g[0] * g[1]))
    return [
        Share(of_seeds, slice(of_slots.start * ROWS, min(of_slots.stop * ROWS, slots)))
        for of_seeds in _evenly(seeds, rows)
        for of_slots in _evenly(blocks, columns)
    ]


def _evenly(n: int, parts: int) -> list[slice]:
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


class WorkersEngine(Base):
    """See `engine.SharedEngine`; the batches are those of `sync`, to the last bit."""

    name = "workers"

    def __init__(self, config: EnvConfig, num_envs: int, slots: int | None = None) -> None:
        slots = slots or num_envs
        with failing(config.id, "make"):
            env = maker(config)()
        super().__init__(config, num_envs, env.observation_space, env.action_space)
        self._first_look = None  # those who hold the copies have one
        self._notices += memories(env)
        with suppress(*FAULTS):
            env.close()
        self.shares = shared_out(num_envs // slots, slots, config.workers or self._room())
        places = np.arange(num_envs).reshape(-1, slots)
        self._workers = [
            self._holder(config, slots, share.of(places).reshape(-1).tolist())
            for share in self.shares
        ]
        self._told: list[str] = []  # of those that were lost
        try:
            self._begin(self._workers)
        except Lost as lost:
            self.close()
            raise EnvironmentFailed(f"{self.id}: make failed: {lost}") from lost
        except BaseException:
            self.close()
            raise

    def _room(self) -> int:
        """For how many processes, where no setting says it."""
        return cores()

    def _holder(self, config: EnvConfig, slots: int, numbers: list[int]) -> Holder:
        """One of them, not yet begun, for copies with these numbers among those of K slots."""
        return _Worker(config, slots, numbers)

    def _begin(self, workers: Sequence[Holder]) -> None:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.answer()

    def each(
        self, function: Callable[..., T], given: Sequence[tuple[Any, ...]], again: bool
    ) -> list[T]:
        """See `SharedEngine`. EnvironmentFailed where a process ends, or hangs, twice."""
        results: dict[int, T] = {}
        lost = self._ask(range(len(given)), function, given, results)
        if lost and not again:
            raise EnvironmentFailed(f"{self.id}: {next(iter(lost.values()))}")
        if lost:  # others do the same: it is a function of what they are given
            try:
                self._begin([self._workers[i] for i in lost])
                for error in self._ask(list(lost), function, given, results).values():
                    raise error
            except Lost as error:
                words = f"{self.id}: {error}, and so did another in its place"
                raise EnvironmentFailed(words) from error
            self._told += [f"{error}: its slots were played again" for error in lost.values()]
        shown = [note for worker in self._workers for note in worker.notices]
        self._notices = list(dict.fromkeys([*shown, *self._told]))
        return [results[i] for i in range(len(given))]

    def _ask(
        self, which: Sequence[int], function: Callable[..., T],
        given: Sequence[tuple[Any, ...]], results: dict[int, T],
    ) -> dict[int, Lost]:  # fmt: skip
        """Have some do their part, side by side, into `results`; which are lost."""
        lost = {}
        for i in which:
            self._workers[i].ask(function, given[i])
        for i in which:
            try:
                results[i] = self._workers[i].answer()
            except Lost as error:
                lost[i] = error
        return lost

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        """Its slots are elsewhere."""
        raise NotImplementedError

    def step(self, act: Array, active: Array) -> Step:
        """Its slots are elsewhere."""
        raise NotImplementedError

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.leave()
        for worker in self._workers:
            worker.end()


class Lost(Exception):
    """A process has ended or hangs; in words."""


class Holder:
    """One process, from the outside."""

    def __init__(self, config: EnvConfig, slots: int, numbers: list[int]) -> None:
        self._given = config, slots, numbers
        self.notices: list[str] = []

    def start(self) -> None:
        """Begin, anew where one has been; then it makes its copies, and answers."""
        raise NotImplementedError

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Send what is to be done; that it is gone is seen when it does not answer."""
        raise NotImplementedError

    def answer(self) -> Any:
        """What came of the last thing that it was asked; Lost where it is."""
        raise NotImplementedError

    def leave(self) -> None:
        """Have it close its copies, if it does nothing else; `end` waits for that."""

    def end(self) -> None:
        """Let it go."""
        raise NotImplementedError

    @property
    def who(self) -> str:
        """In words."""
        first, *_, last = *self._given[2], self._given[2][-1]
        return f"the process of environments {first} to {last}"


class _Worker(Holder):
    """On this machine."""

    _process: Any = None
    _busy = _left = False

    def start(self) -> None:
        self.end()
        context: Any = multiprocessing.get_context(METHOD)
        self._pipe, theirs = context.Pipe()
        self._steps = context.RawValue(ctypes.c_ulonglong)  # a sign of life
        process = context.Process(
            target=_serve, args=(theirs, os.getpid(), self._steps, *self._given), daemon=True,
            name="pg-worker",
        )  # fmt: skip
        try:
            process.start()
        except (AssertionError, OSError) as error:  # a daemon, or no room for another
            config, *_ = self._given
            words = f"{config.id}: a process cannot be started: {told(error)}"
            raise EnvironmentFailed(words) from error
        self._process, self._busy, self._left = process, True, False
        theirs.close()

    def leave(self) -> None:
        if self._process is None or self._busy or self._left:
            return
        self._left = True
        with suppress(OSError):
            self._pipe.send(None)

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._busy = True
        with suppress(OSError):
            self._pipe.send((function, arguments))

    def answer(self) -> Any:
        steps, since = self._steps.value, time.monotonic()
        try:
            while not self._pipe.poll(LOOK):
                if self._process.exitcode is not None and not self._pipe.poll(0):
                    raise EOFError
                if self._steps.value != steps:
                    steps, since = self._steps.value, time.monotonic()
                if time.monotonic() - since > STEP_TIMEOUT:
                    self._process.kill()
                    raise Lost(f"{self.who} has not made a step for {STEP_TIMEOUT:.0f} s")
            result, self.notices = self._pipe.recv()
            self._busy = False
        except (EOFError, OSError) as error:
            self._process.join(LOOK)
            raise Lost(f"{self.who} ended, exit code {self._process.exitcode}") from error
        if isinstance(result, BaseException):
            raise result
        return result

    def end(self) -> None:
        """Let it close its copies; one that is busy, or takes too long, is killed."""
        if self._process is None:
            return
        self.leave()
        if self._left:
            self._process.join(4 * LOOK)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process = None


class Living(SyncEngine):
    """One whose steps are counted, and which does not outlive who wants them."""

    def __init__(self, *args: Any, orphaned: Callable[[], bool], steps: Any) -> None:
        self._orphaned, self._count, self._looked = orphaned, steps, time.monotonic()
        super().__init__(*args)

    def _lives(self) -> None:
        self._count.value += 1
        if (now := time.monotonic()) > self._looked + LOOK:
            self._looked = now
            if self._orphaned():
                os._exit(1)


def _parentage(parent: int) -> Callable[[], bool]:
    """Tells whether the process that started this one has ended."""
    if os.getppid() == parent:  # forked: its brothers hold what would tell them of its end
        return lambda: os.getppid() != parent
    started = multiprocessing.parent_process()
    return lambda: started is not None and not started.is_alive()


def _serve(
    pipe: Connection, parent: int, steps: Any, config: EnvConfig, slots: int, numbers: list[int]
) -> None:
    """A process's life: make the copies, then do what is asked, until nobody is there to ask."""
    own: Any = multiprocessing.current_process()
    own._config["daemon"] = False  # it ends with its parent, and an environment may start its own
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; pg ends it
    begin()
    orphaned = _parentage(parent)
    engine: Living | None = None

    def made() -> None:
        nonlocal engine
        engine = Living(config, len(numbers), slots, numbers, orphaned=orphaned, steps=steps)

    with suppress(EOFError, OSError):
        _send(pipe, outcome(made), [])
        while engine is not None:
            while not pipe.poll(LOOK):
                if orphaned():
                    os._exit(1)
            if (asked := pipe.recv()) is None:
                break
            function, arguments = asked
            result = outcome(partial(function, engine, *arguments))
            _send(pipe, result, engine.notices())
    if engine is not None:
        engine.close()


def outcome(work: Callable[[], Any]) -> Any:
    """What it gives, or what it raises, as it can be sent."""
    try:
        return work()
    except PgError as error:
        return error
    except FAULTS as error:
        return EnvironmentFailed(told(error))


def _send(pipe: Connection, result: Any, notices: list[str]) -> None:
    pipe.send((result, notices))
