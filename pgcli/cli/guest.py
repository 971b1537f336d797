"""A command in a process that is not its own: what it must change there, and for how long.

Hydra keeps what it composes in globals of the process, reads the arguments from there and sets up
logging. So there are windows: on the way to a run the process is as Hydra wants it; while the run
itself is under way, and afterwards, it is as its host has it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf.basecontainer import BaseContainer

from pgcli.cli.commands import schemas
from pgcli.cli.sources import forget, name_jobs, register
from pgcli.machine.guest import visit, visiting

ONE_AT_A_TIME = threading.RLock()  # calls of several threads; a callback may call again

HYDRAS = "HYDRA_"  # variables that Hydra, or `pg` for it, sets

Logger = tuple[list[logging.Handler], int, bool, bool]


class _Globals(NamedTuple):
    """What Hydra changes of a process, and what it is handed there."""

    hydra: Any
    running: Any
    resolvers: dict[str, Any]
    arguments: list[str]
    environment: dict[str, str]
    logging: dict[str | None, Logger]  # by the logger's name; None: the root's

    @classmethod
    def now(cls) -> _Globals:
        """As they are."""
        there = logging.Logger.manager.loggerDict.items()
        loggers: dict[str | None, logging.Logger] = {None: logging.getLogger()}
        loggers |= {name: one for name, one in there if isinstance(one, logging.Logger)}
        return cls(
            GlobalHydra.instance().hydra,
            HydraConfig.instance().cfg,
            dict(BaseContainer._resolvers),
            list(sys.argv),
            {name: x for name, x in os.environ.items() if name.startswith(HYDRAS)},
            {name: _state(one) for name, one in loggers.items()},
        )

    def restore(self) -> None:
        """Have them so again; a logger that has come since is as it was born."""
        GlobalHydra.instance().hydra = self.hydra
        HydraConfig.instance().cfg = self.running
        BaseContainer._resolvers = dict(self.resolvers)
        sys.argv[:] = self.arguments
        for name in [name for name in os.environ if name.startswith(HYDRAS)]:
            if name not in self.environment:
                del os.environ[name]
        for name, value in self.environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        for name, one in list(logging.Logger.manager.loggerDict.items()):
            if isinstance(one, logging.Logger):
                _set(one, self.logging.get(name, ([], logging.NOTSET, True, False)))
        _set(logging.getLogger(), self.logging[None])


def _state(logger: logging.Logger) -> Logger:
    return list(logger.handlers), logger.level, logger.propagate, logger.disabled


def _set(logger: logging.Logger, state: Logger) -> None:
    handlers, level, logger.propagate, logger.disabled = state
    logger.handlers[:] = handlers
    if logger.level != level:
        logger.setLevel(level)


class _Window:
    """Open while the process is as Hydra wants it; `host`: as it was before."""

    def __init__(self) -> None:
        self.host = _Globals.now()

    @contextmanager
    def open(self) -> Iterator[None]:
        GlobalHydra.instance().hydra = None
        try:
            yield
        finally:
            forget(schemas())
            self.host.restore()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """As the host has it, and may change it."""
        ours = _Globals.now()
        forget(schemas())
        self.host.restore()
        try:
            yield
        finally:
            self.host = _Globals.now()
            register(schemas())
            ours.restore()
            name_jobs()


_window: ContextVar[_Window | None] = ContextVar("window", default=None)


@contextmanager
def _within(window: _Window | None) -> Iterator[None]:
    token = _window.set(window)
    try:
        yield
    finally:
        _window.reset(token)


@contextmanager
def at_host() -> Iterator[None]:
    """A run in here finds the process as its host has it; nothing where the process is `pg`'s."""
    window = _window.get()
    if window is None:
        yield
        return
    with _within(None), window.shut():  # what the run itself calls opens its own
        yield


@contextmanager
def composing() -> Iterator[None]:
    """Hydra may compose in here, at a host's as well."""
    if not visiting() or _window.get() is not None:
        yield
        return
    window = _Window()
    with _within(window), window.open():
        yield


@contextmanager
def as_guest() -> Iterator[None]:
    """Run commands in here, those of other threads later; the process stays its host's.

    What torch computes with while they last is theirs: one thread, float32, gradients on request.
    """
    with ONE_AT_A_TIME, visit(), _torch(), composing():
        yield


@contextmanager
def _torch() -> Iterator[None]:
    import torch  # not before: a bad value is told sooner than that is imported

    threads, kind = torch.get_num_threads(), torch.get_default_dtype()
    elsewhere = torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            if elsewhere:
                with torch.device("cpu"):
                    yield
            else:
                yield
    finally:
        torch.set_default_dtype(kind)
        torch.set_num_threads(threads)
