"""What an environment does wrong, told as its failure; what it prints, kept quiet."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pgcli.errors import ConfigError, EnvironmentFailed


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
def failing(env_id: str, what: str, slot: int | None = None) -> Iterator[None]:
    """Whatever is raised here is EnvironmentFailed: what it was doing, and which copy."""
    try:
        yield
    except (ConfigError, EnvironmentFailed):
        raise
    except Exception as error:
        raise failure(env_id, what, error, slot) from error


def failure(env_id: str, what: str, error: Exception, slot: int | None = None) -> EnvironmentFailed:
    """An error, told as the environment's."""
    if isinstance(error, InCopy):
        return EnvironmentFailed(f"{env_id}: {what} failed {error}")
    return EnvironmentFailed(failed(env_id, what, told(error), slot))


def failed(env_id: str, what: str, text: str, slot: int | None) -> str:
    """The line that tells it."""
    where = "" if slot is None else f" (environment {slot})"
    return f"{env_id}: {what} failed{where}: {text}"


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class InCopy(Exception):
    """What went wrong in one copy, in words; it can be sent to another process."""
