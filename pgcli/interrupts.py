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


def received() -> bool:
    """Whether a signal came."""
    return bool(_received)


def remember(signum: int) -> None:
    """Let `raise_swallowed` know of a signal, should what is raised for it go lost."""
    _received.append(signum)


def _stop(signum: int, frame: FrameType | None) -> None:
    remember(signum)
    raise Stopped(signum)
