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
        count = config.workers or cores()
        self.shares = shared_out(num_envs // slots, slots, count)
        places = np.arange(num_envs).reshape(-1, slots)
        self._workers = [
            _Worker(config, slots, share.of(places).reshape(-1).tolist()) for share in self.shares
        ]
        try:
            for worker in self._workers:
                worker.start()
            for worker in self._workers:
                worker.answer()
        except BaseException:
            self.close()
            raise

    def each(
        self, function: Callable[..., T], given: Sequence[tuple[Any, ...]], again: bool
    ) -> list[T]:
        """See `SharedEngine`. EnvironmentFailed where a process ends, or hangs, twice."""
        for worker, arguments in zip(self._workers, given, strict=True):
            worker.ask(function, arguments)
        results: list[T] = []
        for worker, arguments in zip(self._workers, given, strict=True):
            try:
                results.append(worker.answer())
            except _Lost as lost:
                if not again:
                    raise EnvironmentFailed(f"{self.id}: {lost}") from lost
                results.append(self._once_more(worker, function, arguments))
        self._notices = list(dict.fromkeys(n for worker in self._workers for n in worker.notices))
        return results

    def _once_more(
        self, worker: _Worker, function: Callable[..., T], arguments: tuple[Any, ...]
    ) -> T:
        """What a process was to do, by a new one: it is a function of what it was given."""
        try:
            worker.start()
            worker.answer()
            worker.ask(function, arguments)
            result: T = worker.answer()
            return result
        except _Lost as lost:
            raise EnvironmentFailed(f"{self.id}: {lost}, and so did another in its place") from lost

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        """Its slots are elsewhere."""
        raise NotImplementedError

    def step(self, act: Array, active: Array) -> Step:
        """Its slots are elsewhere."""
        raise NotImplementedError

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()


class _Lost(Exception):
    """A process has ended or hangs; in words."""


class _Worker:
    """One process, from the outside."""

    def __init__(self, config: EnvConfig, slots: int, numbers: list[int]) -> None:
        self._given = config, slots, numbers
        self._process: Any = None
        self._busy = False
        self.notices: list[str] = []

    def start(self) -> None:
        """Begin, anew where one has been; then it makes its copies, and answers."""
        self.end()
        context: Any = multiprocessing.get_context(METHOD)
        self._pipe, theirs = context.Pipe()
        self._steps = context.RawValue(ctypes.c_ulonglong)  # a sign of life
        self._process = context.Process(
            target=_serve, args=(theirs, os.getpid(), self._steps, *self._given), daemon=True,
            name="pg-worker",
        )  # fmt: skip
        self._process.start()
        theirs.close()

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Send what is to be done; that it is gone is seen when it does not answer."""
        self._busy = True
        with suppress(OSError):
            self._pipe.send((function, arguments))

    def answer(self) -> Any:
        """What came of the last thing that it was asked; _Lost where it is."""
        steps, since = self._steps.value, time.monotonic()
        try:
            while not self._pipe.poll(LOOK):
                if self._process.exitcode is not None and not self._pipe.poll(0):
                    raise EOFError
                if self._steps.value != steps:
                    steps, since = self._steps.value, time.monotonic()
                if time.monotonic() - since > STEP_TIMEOUT:
                    self._process.kill()
                    raise _Lost(f"{self._who} has not made a step for {STEP_TIMEOUT:.0f} s")
            result, self.notices = self._pipe.recv()
            self._busy = False
        except (EOFError, OSError) as error:
            self._process.join(LOOK)
            raise _Lost(f"{self._who} ended, exit code {self._process.exitcode}") from error
        if isinstance(result, BaseException):
            raise result
        return result

    @property
    def _who(self) -> str:
        first, *_, last = *self._given[2], self._given[2][-1]
        return f"the process of environments {first} to {last}"

    def end(self) -> None:
        """Let it close its copies; one that is busy, or takes too long, is killed."""
        if self._process is None:
            return
        if not self._busy:
            with suppress(OSError):
                self._pipe.send(None)
            self._process.join(4 * LOOK)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process, self._busy = None, False


class _Living(SyncEngine):
    """One whose steps are counted, and which does not outlive who wants them."""

    def __init__(self, *args: Any, orphaned: Callable[[], bool], steps: Any) -> None:
        self._orphaned, self._count, self._looked = orphaned, steps, time.monotonic()
        super().__init__(*args)

    def step(self, act: Array, active: Array) -> Step:
        self._count.value += 1
        if (now := time.monotonic()) > self._looked + LOOK:
            self._looked = now
            if self._orphaned():
                os._exit(1)
        return super().step(act, active)


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
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; pg ends it
    begin()
    orphaned = _parentage(parent)
    engine: _Living | None = None

    def made() -> None:
        nonlocal engine
        engine = _Living(config, len(numbers), slots, numbers, orphaned=orphaned, steps=steps)

    with suppress(EOFError, OSError):
        _send(pipe, _outcome(made), [])
        while engine is not None:
            while not pipe.poll(LOOK):
                if orphaned():
                    os._exit(1)
            if (asked := pipe.recv()) is None:
                break
            function, arguments = asked
            result = _outcome(partial(function, engine, *arguments))
            _send(pipe, result, engine.notices())
    if engine is not None:
        engine.close()


def _outcome(work: Callable[[], Any]) -> Any:
    """What it gives, or what it raises, as it can be sent."""
    try:
        return work()
    except PgError as error:
        return error
    except FAULTS as error:
        return EnvironmentFailed(told(error))


def _send(pipe: Connection, result: Any, notices: list[str]) -> None:
    pipe.send((result, notices))
