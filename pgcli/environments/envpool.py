"""The engine of envpool's threads."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from pgcli.environments.base import Base
from pgcli.environments.guard import failing, quiet
from pgcli.environments.vector import VectorEngine
from pgcli.machine.randomness import Seeding
from pgcli.settings.schema import EnvConfig


class EnvpoolEngine(VectorEngine):
    """envpool's C++ threads. It can be seeded only when made, so a resume is not bit-exact."""

    name = "envpool"
    exact_resume = False

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        envpool = importlib.import_module("envpool")
        kwargs = dict(config.kwargs)
        if config.max_episode_steps is not None:
            kwargs["max_episode_steps"] = config.max_episode_steps
        if "num_threads" not in kwargs and _takes_all_cores(num_envs):
            # Left to the scheduler, two workers may share a core for seconds while another idles.
            kwargs.setdefault("thread_affinity_offset", 0)
        with failing(config.id, "make"), quiet():
            self._make = partial(envpool.make_gymnasium, config.id, num_envs=num_envs, **kwargs)
            self._envs = self._make(seed=0)
            spaces = self._envs.observation_space, self._envs.action_space
        self._seeded = False
        Base.__init__(self, config, num_envs, *spaces)

    def _reset(self, seeds: Sequence[int], seeding: Seeding) -> Any:
        with quiet():
            if not self._seeded:
                self._envs.close()
                self._envs, self._seeded = self._make(seed=seeding.single(seeds) % 2**31), True
            return self._envs.reset()


def _takes_all_cores(threads: int) -> bool:
    """Whether so many threads are one for each core of this machine, or more."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    return usable == os.cpu_count() and threads >= usable
