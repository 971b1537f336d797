"""An environment that does what it is told to: dies, hangs, raises. Processes import it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import gymnasium as gym
import numpy as np


class Moody(gym.Env):
    """Does what `mood` says at a step of copy `copy`, once if there is a file for it."""

    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, mood="", file=None, drawing=0.0):
        self.mood, self.file, self.drawing = mood, file, drawing
        if mood == "starts":
            multiprocessing.Process(target=int).start()
        elif mood == "dies at once":
            os.kill(os.getpid(), signal.SIGKILL)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length = int(self.np_random.integers(2, 9))
        self.steps = 0
        return self.seen(), {}

    def seen(self):
        rng = np.random if self.np_random.random() < self.drawing else self.np_random
        return rng.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):
        self.steps += 1
        if self.steps == 2 and (self.file is None or not os.path.exists(self.file)):
            if self.file is not None and not self.mood.startswith("waits"):
                Path(self.file).touch()
            if self.mood == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.mood == "hangs":
                time.sleep(60)
            elif self.mood.startswith("waits on ") and _node() == self.mood.split()[-1]:
                Path(self.file).touch()
                time.sleep(60)
            elif self.mood == "raises":
                raise RuntimeError("no more")
        reward = float(action[0])
        over = self.steps >= self.length
        return self.seen(), reward, over, False, {"first": reward}


def _node():
    """Where a process of Ray is."""
    import ray

    return ray.get_runtime_context().get_node_id()


gym.register("Moody-v0", Moody, max_episode_steps=8)
