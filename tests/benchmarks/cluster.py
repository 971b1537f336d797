"""What a step costs to send: `workers` and `ray` with one process beside `sync`, by its size.

    pip install -e '.[ray]'
    python tests/benchmarks/cluster.py [result.json]

The environment does nothing but show numbers that it has, so what `sync` does not need is for the
message: on one machine, without a network. Whole batches of a fresh policy, in turn.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import partial

import gymnasium as gym
import numpy as np
from pairing import interleaved, report
from workers import rate

from pgcli.machine.cores import begin

STEPS, EPISODES, REPETITIONS = 200, 16, 5
SIZES = (17, 784, 7056)  # HalfCheetah's, two small images
ENGINES = ("sync", "workers", "ray")


class Blank(gym.Env):
    """An observation of so many numbers."""

    action_space = gym.spaces.Box(-1, 1, (6,))

    def __init__(self, size: int) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (size,))
        self._seen = np.linspace(-1, 1, size, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        """Show them."""
        super().reset(seed=seed)
        return self._seen, {}

    def step(self, action):
        """Again."""
        return self._seen, 1.0, False, False, {}


def cost(env: str, engine: str) -> float:
    """Microseconds per environment step."""
    more = "" if engine == "sync" else " env.workers=1"
    return 1e6 / rate(env, EPISODES, engine + more)


if __name__ == "__main__":
    begin()
    here = ENGINES if importlib.util.find_spec("ray") else ENGINES[:2]
    if here == ENGINES:  # once for all, where every run would begin one
        importlib.import_module("ray").init(include_dashboard=False, log_to_driver=False)
    for size in SIZES:
        env = f"Blank{size}-v0"
        gym.register(env, partial(Blank, size), max_episode_steps=STEPS)
        found = interleaved({name: partial(cost, env, name) for name in here}, REPETITIONS)
        title = f"{size} numbers a step, {EPISODES * STEPS} steps a batch"
        report(title, "microseconds per step", found, "sync")
