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
from functools import cache
from typing import TypeVar

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**25  # bytes: the largest value that glibc accepts for both

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def begin() -> None:
    """Let torch compute with one thread from now on: its results depend on how many it has.

    And let the C library keep freed memory: given back, every large array would be paged in anew.
    """
    torch.set_num_threads(1)
    with suppress(OSError, AttributeError):  # other C libraries have other ways, or no need
        tune = ctypes.CDLL(None).mallopt
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            tune(parameter, KEPT)


def ordered(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """work(piece) of every piece, in their order; few are under way at any time."""
    executor = _executor()
    pending: deque[Future[Result]] = deque()
    for piece in pieces:
        pending.append(executor.submit(work, piece))
        if len(pending) > cores() + 1:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def started(pieces: Iterable[Callable[[], None]]) -> Callable[[], None]:
    """Let the cores begin with independent pieces; the function returned waits for the last.

    A piece may not wait for others itself: there might be no core left to do them.
    """
    pending = [_executor().submit(piece) for piece in pieces]

    def finish() -> None:
        for one in pending:
            one.result()

    return finish


@cache
def _executor() -> ThreadPoolExecutor:
    if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
        os.register_at_fork(after_in_child=_executor.cache_clear)
    return ThreadPoolExecutor(cores(), thread_name_prefix="pg", initializer=begin)


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
