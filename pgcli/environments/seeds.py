"""Whether an environment heeds the seed that its reset is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np

from pgcli.environments.ambient import seeded, spaces_of
from pgcli.environments.guard import FAULTS, quiet
from pgcli.environments.looks import memories

SEED = 1
STEPS = 5


def forgetting(make: Callable[[], gym.Env[Any, Any]], steps: int = STEPS) -> list[str]:
    """What to say of an environment that begins otherwise where the same seed is given twice.

    It is played on a copy of its own, so many steps of it. What fails there is told by the run,
    which meets it again.
    """
    with suppress(*FAULTS), quiet():
        env = make()
        try:
            if not memories(env) and not _same(_begin(env, steps), _begin(env, steps)):
                return [
                    "reset(seed=…) does not repeat: the same seed and actions gave other "
                    "observations or rewards, so neither resuming nor comparing is exact; "
                    "give the seed to super().reset and draw from "
                    "self.np_random"
                ]
        finally:
            env.close()
    return []


def _begin(env: gym.Env[Any, Any], steps: int) -> list[Any]:
    """What is seen of the first steps of an episode with that seed."""
    spaces = spaces_of(env)
    with seeded(SEED, spaces):
        obs, _ = env.reset(seed=SEED)
        seen: list[Any] = [np.array(obs)]
        for _ in range(steps):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            seen += [np.array(obs), float(reward), terminated, truncated]
            if terminated or truncated:
                break
    return seen


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(x, y, equal_nan=np.issubdtype(np.asarray(x).dtype, np.inexact))
        for x, y in zip(one, other, strict=True)
    )
