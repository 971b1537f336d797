"""Signals that wait until a piece of work is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pgcli.errors import Stopped
from pgcli.interrupts import raise_swallowed


@contextmanager
def noted() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM in the list; a second one raises Stopped at once."""
    found: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if found:
            raise Stopped(signum)
        found.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    raise_swallowed()
    old = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield found
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
