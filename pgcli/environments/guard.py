"""What an environment does wrong, told as its failure; what it prints, kept quiet."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgcli.errors import ConfigError, EnvironmentFailed

FAULTS = (Exception, SystemExit)  # of others' code, which may try to end the process too


@contextmanager
def quiet(mujoco: bool = False) -> Iterator[None]:
    """Without the warnings that environments, and what they import, give as they are made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not mujoco or importlib.util.find_spec("mujoco") is None:
            yield
            return
        set_handler = importlib.import_module("mujoco").set_mju_user_warning
        set_handler(lambda text: None)  # else it writes to the terminal and a log file
        try:
            yield
        finally:
            set_handler(None)


@contextmanager
def failing(env_id: str, what: str, where: str = "") -> Iterator[None]:
    """Whatever is raised here is EnvironmentFailed: what it was doing, and `place`."""
    try:
        yield
    except (ConfigError, EnvironmentFailed):
        raise
    except FAULTS as error:
        raise failure(env_id, what, error, where) from error


def let_go(env_id: str, *closes: Callable[[], None]) -> None:
    """Close environments; where one raises, that is said once: what they were for is done."""
    errors: list[BaseException] = []
    for close in closes:
        try:
            close()
        except FAULTS as error:
            errors.append(error)
    if errors:
        print(f"pg: warning: {env_id}: close failed: {told(errors[0])}", file=sys.stderr)


def failure(env_id: str, what: str, error: BaseException, where: str = "") -> EnvironmentFailed:
    """An error, told as the environment's."""
    if isinstance(error, InCopy):
        return EnvironmentFailed(f"{env_id}: {what} failed {error}")
    return EnvironmentFailed(failed(env_id, what, told(error), where))


def failed(env_id: str, what: str, text: str, where: str = "") -> str:
    """The line that tells it; `where` as `place` gives it."""
    return f"{env_id}: {what} failed{where and f' ({where})'}: {text}"


def place(slot: int, seed: int | None, step: int) -> str:
    """Which copy, with which seed it was reset, and at which of its steps since then."""
    return f"environment {slot}, reset with seed {seed}, step {step}"


def told(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class InCopy(Exception):
    """What went wrong in one copy, in words; it can be sent to another process."""
