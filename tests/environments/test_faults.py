"""What environments do wrong is one line that says where; what the policy does is not theirs."""

import multiprocessing
import os

import gymnasium as gym
import numpy as np
import pytest
from settings import train_config

from pgcli.collection.rollout import Quota, collect
from pgcli.environments.choose import open_engine
from pgcli.errors import EnvironmentFailed, NonFinite
from pgcli.training.loop import run


class Small(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    reward = 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), self.reward, self.time >= 5, False, {}


class RewardArray(Small):
    reward = np.array([1.0])


class RewardNone(Small):
    reward = None


class RewardText(Small):
    reward = "much"


class Late(Small):
    """Its third step raises."""

    def step(self, action):
        if self.time == 2:
            raise RuntimeError("out of order")
        return super().step(action)


class EndText(Small):
    def step(self, action):
        obs, rew, _, truncated, info = super().step(action)
        return obs, rew, [True, False], truncated, info


class FragileClose(Small):
    def close(self):
        raise AttributeError("viewer is None")


class Free(Small):
    """Refuses what is no number, and pays for being near 3."""

    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def step(self, action):
        assert np.isfinite(action).all(), f"was given {action}"
        return np.zeros(2, np.float32), -((float(action[0]) - 3) ** 2), True, False, {}


class Dies(Small):
    """Takes its process with it at the third step."""

    def step(self, action):
        if self.time == 2:
            os._exit(7)
        return super().step(action)


class Diverged:
    """An actor of infinite actions."""

    def __call__(self, obs):
        return np.full((*obs.shape[:2], 1), -np.inf, np.float32)

    def restart(self):
        pass


for kind in (RewardArray, RewardNone, RewardText, Late, EndText, FragileClose, Free, Dies):
    gym.register(f"Faulty{kind.__name__}-v0", kind, max_episode_steps=20, disable_env_checker=True)


def trained(name, directory, *more, engine="sync"):
    words = [f"env=Faulty{name}-v0", f"env.engine={engine}", "iterations=3", "batch_size=4", *more]
    run(train_config(*words), directory)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RewardArray", "step 1): TypeError: its reward is [1.] (ndarray of shape (1,)), and must"),
        (
            "RewardNone",
            "step 1): TypeError: its reward is None (NoneType), and must be a number",
        ),
        ("RewardText", "step 1): TypeError: its reward is much (str), and must be a number"),
        ("Late", "step 3): RuntimeError: out of order; in iteration 1"),
        ("EndText", "its terminated is [True, False] (list), and must be true or false"),
    ],
)
def test_a_fault_is_one_line_that_says_where(name, said, tmp_path, capsys):
    with pytest.raises(EnvironmentFailed) as failure:
        trained(name, tmp_path)
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)
    assert "continue with" not in capsys.readouterr().out  # nothing is kept


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_that_dies_is_named(method, tmp_path, monkeypatch):
    context = multiprocessing.get_context(method)
    monkeypatch.setattr("gymnasium.vector.async_vector_env.multiprocessing.get_context",
                        lambda name: context)  # fmt: skip
    with pytest.raises(EnvironmentFailed) as failure:
        trained("Dies", tmp_path, engine="async")
    assert "step failed (environment 0, reset with seed " in str(failure.value)
    assert "step 3, exit code 7): its process ended; in iteration 1" in str(failure.value)


def test_a_close_that_raises_is_a_warning_and_the_run_stands(tmp_path, capsys):
    trained("FragileClose", tmp_path)
    told = capsys.readouterr().err
    assert told.count("close failed: AttributeError: viewer is None") == 1
    assert (tmp_path / "summary.json").exists()


def test_actions_are_looked_at_before_the_environment_sees_them(tmp_path):
    with pytest.raises(NonFinite):  # it goes through the roof
        trained("Free", tmp_path, "optimizer=sgd", "optimizer.lr=3", "iterations=30")

    config = train_config("env=FaultyFree-v0", "env.engine=sync").env
    engine = open_engine(config, 2)
    try:
        with pytest.raises(NonFinite, match="an action of the policy is NaN or infinite"):
            collect(engine, Diverged(), Quota(2, None), [0], 0)
    finally:
        engine.close()
