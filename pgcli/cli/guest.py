"""A command in a process that is not its own."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from pgcli.errors import Stopped


@contextmanager
def as_it_was() -> Iterator[None]:
    """Leave it as it was: Hydra, torch's threads, logging, arguments, environment.

    A signal is raised on as KeyboardInterrupt.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hydra, config = GlobalHydra.instance(), HydraConfig.instance()
    composing, running = hydra.hydra, config.cfg
    argv, environment, threads = list(sys.argv), dict(os.environ), torch.get_num_threads()
    hydra.hydra = None
    try:
        yield
    except Stopped as stop:
        raise KeyboardInterrupt from stop
    finally:
        hydra.hydra, config.cfg = composing, running
        sys.argv[:] = argv
        torch.set_num_threads(threads)
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
