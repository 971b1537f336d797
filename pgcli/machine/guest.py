"""Whether the process is somebody else's: what it answers signals with, and how, is then theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_visiting: ContextVar[bool] = ContextVar("visiting", default=False)


def visiting() -> bool:
    """Whether this thread runs a command for a program that goes on afterwards."""
    return _visiting.get()


@contextmanager
def visit() -> Iterator[None]:
    """Run one in here."""
    token = _visiting.set(True)
    try:
        yield
    finally:
        _visiting.reset(token)
