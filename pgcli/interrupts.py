"""Signals on the way to a run: raised at once, and remembered, for an import may swallow them."""

from __future__ import annotations

import signal
from types import FrameType

from pgcli.errors import Stopped

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


def _stop(signum: int, frame: FrameType | None) -> None:
    _received.append(signum)
    raise Stopped(signum)
