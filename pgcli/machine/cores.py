"""Work shared out over the cores, the result the same whatever their number.

Torch's own threads wait by spinning: two runs on one machine then hold each other up, ten times
over. Here each core takes whole pieces instead, and torch computes every piece with one thread.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import Generic, TypeVar

from pgcli.machine.guest import visiting

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Slots about which a policy is asked in one product: those of float32 depend on how many rows they
# have, so this is the same whoever holds them.
ROWS = 4
KEPT = 2**25  # bytes: the largest value that glibc accepts for both

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def begin() -> None:
    """Let torch compute with one thread from now on: its results depend on how many it has.

    And, in a process of its own, let the C library keep freed memory: given back, every large array
    would be paged in anew.
    """
    _one_thread()
    if visiting():
        return
    with suppress(OSError, AttributeError):  # other C libraries have other ways, or no need
        tune = ctypes.CDLL(None).mallopt
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            tune(parameter, KEPT)


def _one_thread() -> None:
    import torch  # not before: who only counts cores has no need of it

    torch.set_num_threads(1)


def ordered(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """work(piece) of every piece, in their order; few are under way at any time.

    The caller works as well: it takes what no other core has begun.
    """
    tasks: deque[_Task[Result]] = deque()
    others = cores() - 1
    for piece in pieces:
        task = _Task(partial(work, piece))
        tasks.append(task)
        if sum(one.is_out for one in tasks) < 2 * others:  # the next lies ready
            task.send()
        else:
            task.result()
        while tasks and (tasks[0].is_done or len(tasks) > cores() + 1):
            yield tasks.popleft().result()
    for task in tasks:
        task.claim()
    while tasks:
        yield tasks.popleft().result()


def started(pieces: Iterable[Callable[[], None]]) -> Callable[[], None]:
    """Let the other cores begin with independent pieces; the function returned does the rest.

    A piece may not share out work itself: there might be no core left to do it.
    """
    tasks = [_Task(piece) for piece in pieces]
    if cores() > 1:
        for task in tasks:
            task.send()

    def finish() -> None:
        for task in tasks:
            task.result()

    return finish


class _Task(Generic[Result]):
    """Done by another core if it was sent to one that has begun with it, else by who asks."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._future: Future[Result] | None = None

    def send(self) -> None:
        self._future = _executor().submit(self._work)

    @property
    def is_done(self) -> bool:
        return self._future is not None and self._future.done()

    @property
    def is_out(self) -> bool:
        return self._future is not None and not self._future.done()

    def claim(self) -> None:
        """Do it here, if no core has begun with it."""
        if self._future is None or self._future.cancel():
            self._future = Future()
            self._future.set_result(self._work())

    def result(self) -> Result:
        self.claim()
        assert self._future is not None
        return self._future.result()


@cache
def _executor() -> ThreadPoolExecutor:
    if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
        os.register_at_fork(after_in_child=_executor.cache_clear)
    return ThreadPoolExecutor(cores() - 1, thread_name_prefix="pg", initializer=_one_thread)


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
