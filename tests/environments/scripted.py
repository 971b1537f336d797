"""Environments whose every observation says where it comes from."""
# ruff: noqa: NPY002

import random

import gymnasium as gym
import numpy as np
import torch


class Scripted(gym.Env):
    """Episode k of an environment lasts `lengths[k]` steps; obs = (seed, episode, time).

    `ends` decides how: "terminated", or "truncated" by its own doing. The reward is its time + 1.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Discrete(2)
    stepped = 0  # of all of them, in this process

    def __init__(self, lengths=(3, 1, 4), ends="terminated", reuse_buffer=False, integer=False):
        self.lengths, self.ends, self.integer = lengths, ends, integer
        self.episode, self.origin, self.resets = -1, -1, []
        self.buffer = np.zeros(3) if reuse_buffer else None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets.append(seed)
        if seed is not None:
            self.origin, self.episode = seed % 2**24, -1
        self.episode, self.time = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        Scripted.stepped += 1
        self.time += 1
        over = self.time >= self.lengths[self.episode % len(self.lengths)]
        rew = int(self.time) if self.integer else float(self.time)
        terminated = over and self.ends == "terminated"
        return self.observe(), rew, terminated, over and not terminated, {}

    def observe(self):
        obs = np.array([self.origin, self.episode, self.time], np.float64)
        if self.buffer is None:
            return obs
        self.buffer[:] = obs
        return self.buffer


class Coin(gym.Env):
    """Heads: one step, return 0. Tails: `long` steps, return `long`. The truth is long / 2."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    long = 100
    stepped = 0  # of all of them, in this process

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.tails, self.time = self.np_random.random() < 0.5, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        Coin.stepped += 1
        self.time += 1
        over = not self.tails or self.time == self.long
        return np.zeros(1, np.float32), float(self.tails), over, False, {}


class Spaces(gym.Env):
    """Any spaces: random observations, and only actions that belong to the space."""

    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return self.observation_space.sample(), 1.0, False, False, {}


class Failing(Scripted):
    """Raises, dies or returns what is not a number at its third step."""

    def __init__(self, how="raise"):
        super().__init__(lengths=(5,))
        self.how = how

    def step(self, action):
        obs, rew, *rest = super().step(action)
        if self.time == 3 and self.how == "raise":
            raise ValueError("no\nmore")
        if self.time == 3 and self.how == "die":
            import os

            os._exit(1)
        if self.time == 3 and self.how == "reward":
            rew = float("nan")
        if self.time == 3 and self.how == "obs":
            obs = np.full(3, np.inf)
        return obs, rew, *rest


class Elsewhere(gym.Env):
    """Draws rewards, observations and lengths from everything but its own generator."""

    observation_space = gym.spaces.Box(-10, 10, (2,), np.float64)  # one for all copies
    action_space = gym.spaces.Discrete(2)

    def __init__(self, first_episode=0):
        self.offset, self.episode, self.first = random.random(), 0, first_episode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = 0 if seed is not None else self.episode + 1
        self.time = 0
        return np.zeros(2), {}

    def step(self, action):
        self.time += 1
        if self.episode < self.first:
            return np.zeros(2), 0.0, self.time == 3, False, {}
        drawn = np.random.rand() + np.random.randn() + float(torch.rand(())) + random.gauss(0, 1)
        obs = self.observation_space.sample()
        return obs, self.offset + drawn, bool(np.random.rand() < 0.3), False, {}


class Odd(Scripted):
    """What it looks at is given, from its `since`-th step on."""

    def __init__(self, space, obs, since=0):
        super().__init__(lengths=(5,))
        self.observation_space, self.odd, self.since = space, obs, since

    def observe(self):
        return self.odd if self.time >= self.since else self.observation_space.sample()


class OldReset(Scripted):
    """The interface before Gymnasium: the observation alone."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0][:2]


for name, maker in {
    "Scripted": Scripted,
    "Coin": Coin,
    "Spaces": Spaces,
    "Failing": Failing,
    "Elsewhere": Elsewhere,
    "Odd": Odd,
    "OldReset": OldReset,
}.items():
    gym.register(f"{name}-v0", maker, max_episode_steps=1000, disable_env_checker=True)
    gym.register(f"test/{name}-v0", maker, max_episode_steps=1000, disable_env_checker=True)
gym.register("Limited-v0", Scripted, max_episode_steps=2, disable_env_checker=True)
gym.register(
    "Learning-v0", lambda: gym.wrappers.NormalizeObservation(Scripted()), max_episode_steps=9
)
gym.register("Endless-v0", Scripted, disable_env_checker=True)
