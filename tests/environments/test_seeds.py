"""Whether reset's seed is heeded is tried out, and said where it is not."""

import gymnasium as gym
import numpy as np
import pytest
from settings import train_config

from pgcli.environments.seeds import forgetting
from pgcli.training.loop import run


class Heeds(gym.Env):
    """Draws from where it should."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.draw(), {}

    def draw(self):
        return self.np_random.random(2, np.float32)

    def step(self, action):
        return self.draw(), 1.0, False, False, {}


class Ignores(Heeds):
    """Its start is its own affair."""

    def draw(self):
        return np.random.default_rng().random(2, np.float32)


class Noisy(Heeds):
    """Only its rewards do not repeat."""

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float(np.random.default_rng().random()), *rest


class Samples(Heeds):
    """Draws from its space and NumPy's global generator, which are seeded for it."""

    def draw(self):
        drawn = np.random.random(2)  # noqa: NPY002
        return (self.observation_space.sample() + drawn.astype(np.float32)) / 2


class Breaks(Heeds):
    """What fails is the run's to tell."""

    def reset(self, *, seed=None, options=None):
        raise RuntimeError


@pytest.mark.parametrize("kind", [Ignores, Noisy])
def test_what_does_not_repeat_is_said(kind):
    (text,) = forgetting(kind)
    assert text.startswith("reset(seed=…) does not repeat")


@pytest.mark.parametrize("kind", [Heeds, Samples, Breaks])
def test_else_nothing_is(kind):
    assert forgetting(kind) == []


gym.register("Ignores-v0", Ignores, max_episode_steps=9, disable_env_checker=True)


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_a_run_says_it_once(engine, tmp_path, capsys):
    run(
        train_config("env=Ignores-v0", f"env.engine={engine}", "iterations=2", "batch_size=2"),
        tmp_path,
    )
    assert capsys.readouterr().out.count("does not repeat") == 1
