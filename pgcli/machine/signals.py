"""SIGINT and SIGTERM, whoever is in force: on the way to a run, during one, around a sweep."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from pgcli.errors import Stopped
from pgcli.machine.guest import visiting

BOTH = (signal.SIGINT, signal.SIGTERM)

_received: list[int] = []


def listen() -> None:
    """Let SIGTERM and SIGINT raise Stopped; a shell's background jobs go on ignoring SIGINT."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def raise_swallowed() -> None:
    """Raise Stopped for a signal that came earlier and went lost on its way."""
    if _received:
        raise Stopped(_received[0])


@contextmanager
def noted() -> Iterator[list[int]]:
    """Note them in the list while a piece of work becomes whole; a second one raises Stopped."""
    signums: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if signums:
            raise Stopped(signum)
        signums.append(signum)

    with _handled(note, BOTH):
        yield signums


class Shield:
    """Lets them raise Stopped at once, but where it is raised: then once it is lowered."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._is_raised = False

    @contextmanager
    def in_force(self) -> Iterator[Shield]:
        """Have them until the end of the block."""
        with _handled(self._on_signal, BOTH):
            yield self

    def up(self) -> None:
        """From now on they wait."""
        self._is_raised = True

    def down(self) -> None:
        """Raise Stopped if one has come."""
        self._is_raised = False
        if self._signum is not None:
            raise Stopped(self._signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        if not self._is_raised:
            raise Stopped(signum)


@contextmanager
def answered(farewell: Callable[[], None]) -> Iterator[None]:
    """Call `farewell`, then raise Stopped; who asks twice does not want to wait for it."""

    def stop(signum: int, frame: FrameType | None) -> None:
        if not _received:
            _received.append(signum)
            farewell()
        raise Stopped(signum)

    with _handled(stop, [s for s in BOTH if signal.getsignal(s) is not signal.SIG_IGN]):
        yield


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], signums: Sequence[signal.Signals]
) -> Iterator[None]:
    """Let `handler` have them, in a main thread that is ours; others get none."""
    if visiting() or threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        raise_swallowed()
        yield
    finally:
        for signum, before in old.items():
            signal.signal(signum, before)


def _stop(signum: int, frame: FrameType | None) -> None:
    _received.append(signum)
    raise Stopped(signum)
