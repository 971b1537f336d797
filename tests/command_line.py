"""The installed `pg` command, and what it leaves."""

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

PG = shutil.which("pg", path=sysconfig.get_path("scripts"))


SHORT = ["iterations=3", "batch_size=4"]


TRAIN = [*SHORT, "env=CartPole-v1"]


def pg(*args, cwd, **kwargs):
    env = {**os.environ, "OMP_NUM_THREADS": "1", **kwargs.pop("env", {})}
    return subprocess.run(
        [PG, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, **kwargs
    )


def rows(run: Path) -> list[list[str]]:
    return [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]


def only_run(cwd: Path) -> Path:
    (found,) = (cwd / "outputs").glob("*/*")
    return found


MODULE = """
import gymnasium as gym, numpy as np

class Mine(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def __init__(self, rew=1.0, crash=0):
        self.rew, self.crash, self.steps = rew, crash, 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.random(2, np.float32), {}
    def step(self, action):
        self.time += 1
        self.steps += 1
        if self.steps == self.crash:
            raise RuntimeError("out of order")
        return self.np_random.random(2, np.float32), self.rew, self.time > 4, False, {}

gym.register("Mine-v0", Mine, max_episode_steps=9)
"""


def sweeps(cwd: Path) -> list[Path]:
    return sorted((cwd / "outputs" / "multirun").glob("*/*"))


def status(job: Path) -> str:
    return json.loads((job / "summary.json").read_text())["status"]
