"""What all engines share: the adapters, the first look, and errors that name the environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from pgcli.environments.ambient import Ambient
from pgcli.environments.engine import Array
from pgcli.environments.guard import failed, failure, place
from pgcli.environments.info import Entries, names
from pgcli.environments.looks import FirstLook
from pgcli.environments.make import time_limit
from pgcli.environments.spaces import (
    action_adapter,
    obs_adapter,
)
from pgcli.errors import EnvironmentFailed
from pgcli.settings.schema import EnvConfig


class Base:
    """What all engines share: the adapters, and errors that name the environment."""

    name: str
    exact_resume = True
    renewed = ""
    ambient: Ambient | None = None

    def __init__(self, config: EnvConfig, num_envs: int, obs: Any, act: Any) -> None:
        self.id, self.num_envs = config.id, num_envs
        self.obs, self.action = obs_adapter(obs, config.id), action_adapter(act, config.id)
        self.max_episode_steps = time_limit(config)
        self._first_look = FirstLook(obs) if isinstance(obs, spaces.Box) else None
        self.success = np.full(num_envs, np.nan)
        self._batches = 0
        self._seeds: Sequence[int] = ()
        self._steps = 0  # since the reset of all slots
        self._notices: list[str] = []
        self.numbers: Sequence[int] = range(num_envs)  # of its slots, as they are told
        asked = names(config.info)
        self._entries = Entries(asked, num_envs) if asked else None

    @property
    def obs_dim(self) -> int:
        return self.obs.dim

    @property
    def info(self) -> Array | None:
        return None if self._entries is None else self._entries.values

    def notices(self) -> list[str]:
        notices = list(self._notices)
        if self._entries is not None:
            notices += self._entries.notices()
        if self._first_look is not None:
            notices += self._first_look.notices()
        if self.ambient is not None and self.ambient.confirmed:
            notices.append(
                "the environment draws from random, numpy.random, torch or a space's sample() "
                "beside its np_random: each copy has seeded ones of its own, which takes time; "
                "the first batch was played twice for that, and counts once"
            )
        return notices

    def _begun(self, seeds: Sequence[int]) -> None:
        """A batch begins: the first look is over after the first one."""
        if self._batches == 1 and self._first_look is not None:
            self._notices += self._first_look.notices()
            self._first_look = None
        self._batches += 1
        self._seeds, self._steps = seeds, 0
        if self.ambient is not None:
            self.ambient.seed(seeds)

    def _place(self, slot: int) -> str:
        seed = self._seeds[slot] if slot < len(self._seeds) else None
        return place(self.numbers[slot], seed, self._steps)

    def _encoded(self, obs: Any, what: str) -> Array:
        """Observations of all slots as [E, D]; EnvironmentFailed where one is none of its space."""
        try:
            array = np.asarray(obs)
            encoded = self.obs.encode(array)
        except Exception as error:
            for slot, one in enumerate(obs):
                if (fault := self.obs.fault(one)) is not None:
                    raise EnvironmentFailed(
                        failed(self.id, what, fault, self._place(slot))
                    ) from error
            raise failure(self.id, what, error) from error
        if self._first_look is not None:
            self._first_look.at(array)
        return encoded
