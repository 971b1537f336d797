"""What can go wrong, each with the exit code it ends `pg` with and one line for the user."""

import difflib
from collections.abc import Collection, Iterable
from enum import Enum
from signal import Signals
from typing import Self


class PgError(Exception):
    """A failure that is told in one line, without a traceback."""

    exit_code = 1

    def add(self, more: str) -> None:
        """Say more of it, at the end of the line."""
        self.args = (f"{self}; {more}",)


class PartFailed(PgError):
    """A part that the user has brought raised, or gave what is none."""


class ConfigError(PgError):
    """A setting that cannot be used: its key, its value and what is allowed."""

    exit_code = 2

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={_shown(value)}: {allowed}")
        self._given = key, value, allowed

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), self._given  # from a launcher's process back to its parent


class RunDirectoryError(PgError):
    """The run directory is in use, or holds a run that this one does not fit."""

    exit_code = 3


class NoCheckpoint(PgError):
    """There is no usable checkpoint where one is needed."""

    exit_code = 4


class NonFinite(PgError):
    """A number that training needs is NaN or infinite."""

    exit_code = 5


class EnvironmentFailed(PgError):
    """The environment raised, died, or broke its contract."""

    exit_code = 6


class StorageFailed(PgError):
    """A file of the run could not be written."""

    exit_code = 7


class Stopped(BaseException):
    """A signal ended the run; everything up to the last whole iteration is kept.

    Not an Exception, so that no `except Exception` on the way takes it for a failure.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {Signals(signum).name}")
        self.exit_code = 128 + signum


def one_of(value: str, options: Collection[str]) -> str:
    """What is allowed, in words, with the option that `value` may have meant."""
    if not options:
        return "there is none to choose from"
    return f"must be one of {', '.join(sorted(options))}{did_you_mean(value, options)}"


def did_you_mean(value: str, options: Iterable[str]) -> str:
    """A close match as a question, or nothing."""
    options = list(options)
    within = [option for option in options if option.endswith(f".{value}")]
    if within:
        return f"; did you mean {' or '.join(within)}?"
    near = difflib.get_close_matches(value, options, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, Enum):
        return value.name
    return str(value).lower() if isinstance(value, bool) else str(value)
