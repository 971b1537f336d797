"""A model that an environment exposes is read where it counts, and held against what is seen."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

from pgcli.collection.rollout import Quota, collect
from pgcli.collection.trial import Trial
from pgcli.environments.choose import open_engine
from pgcli.environments.tabular import hidden_model, tabular_model
from pgcli.settings.schema import Engine, EnvConfig


class Scaled(gym.Wrapper):
    """Rewards times ten, and not a word."""

    def step(self, action):
        obs, rew, *rest = self.env.step(action)
        return obs, 10 * rew, *rest


class Honest(Scaled):
    """The same, and says so."""

    def __init__(self, env):
        super().__init__(env)
        self.P = {
            s: {a: [(p, n, 10 * r, t) for p, n, r, t in row] for a, row in rows.items()}
            for s, rows in env.unwrapped.P.items()
        }


class Forwarding(Scaled):
    """Passes what it is asked for on."""

    def __getattr__(self, name):
        return getattr(self.env, name)


class Tenfold(FrozenLakeEnv):
    def step(self, action):
        obs, rew, *rest = super().step(action)
        return obs, 10 * rew, *rest


class Drifting(FrozenLakeEnv):
    """Slips less often than it says: the right states with the wrong chances."""

    def reset(self, **given):
        self.said = self.P
        return super().reset(**given)

    def step(self, action):
        self.P = {
            s: {a: [(p, *x) for p, (_, *x) in zip(self.chances(row), row, strict=True)]
                for a, row in rows.items()} for s, rows in self.said.items()
        }  # fmt: skip
        try:
            return super().step(action)
        finally:
            self.P = self.said

    def chances(self, row):
        return (0.2, 0.6, 0.2) if len(row) == 3 else (1.0,)


class Elsewhere(FrozenLakeEnv):
    def reset(self, **given):
        _, info = super().reset(**given)
        self.s = 1
        return 1, info


class Cutting(FrozenLakeEnv):
    def reset(self, **given):
        self.time = 0
        return super().reset(**given)

    def step(self, action):
        obs, rew, over, _, info = super().step(action)
        self.time += 1
        return obs, rew, over, self.time == 4, info


class Lottery(gym.Env):
    """Begins in one of three states, less often in the last than it says."""

    observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(1)
    initial_state_distrib = np.array([0.5, 0.25, 0.25])

    def __init__(self):
        self.P = {s: {0: [(1.0, s, 0.0, True)]} for s in range(3)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(self.np_random.choice(3, p=[0.5, 0.4, 0.1])), {}

    def step(self, action):
        return 0, 0.0, True, False, {}


LAKE = "gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv"
for wrapper in (Scaled, Honest, Forwarding):
    gym.register(
        f"{wrapper.__name__}Lake-v0", lambda w=wrapper: w(FrozenLakeEnv()), max_episode_steps=100
    )
for kind in (Tenfold, Drifting, Elsewhere, Cutting, Lottery):
    gym.register(f"{kind.__name__}Lake-v0", kind, max_episode_steps=100)


class Uniform:
    def __init__(self, actions, iteration):
        self.actions, self.rng = actions, np.random.default_rng(iteration)

    def __call__(self, obs):
        return self.rng.integers(0, self.actions, obs.shape[:2])


def settings(env_id, **kwargs):
    return EnvConfig(env_id, kwargs, 0.0, None, Engine["sync"], None, [], [], None)


def judged(env_id, episodes=1024, batches=4, **kwargs):
    """What is said of the model after so many episodes, if anything."""
    config = settings(env_id, **kwargs)
    engine, trial = open_engine(config, 16), Trial(tabular_model(config))
    for i in range(batches):
        actor = Uniform(engine.action.sizes[0], i)
        quota = Quota(episodes // batches, None)
        if (fault := trial.add(collect(engine, actor, quota, [0], i))) is not None:
            return fault
    return None


@pytest.mark.parametrize("name", ["Scaled", "Forwarding"])
def test_a_wrapper_without_a_model_of_its_own_hides_that_within(name):
    assert tabular_model(settings(f"{name}Lake-v0")) is None
    assert hidden_model(settings(f"{name}Lake-v0")) == name


def test_the_outermost_model_counts():
    model, inner = (tabular_model(settings(x)) for x in ("HonestLake-v0", "FrozenLake-v1"))
    assert float(model.reward.max()) == 10 * float(inner.reward.max()) == 10
    assert hidden_model(settings("FrozenLake-v1")) is None
    assert hidden_model(settings("CartPole-v1")) is None


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("FrozenLake-v1", {}),
        ("HonestLake-v0", {}),
        ("Taxi-v4", {}),
        ("Taxi-v4", {"is_rainy": True}),
        ("pg/RareReward-v0", {}),
    ],
)
def test_a_true_model_is_not_doubted(env_id, kwargs):
    assert judged(env_id, 256, **kwargs) is None


LIES = {
    "TenfoldLake-v0": "in state 14 action . led to the end with reward 10, where P gives reward 1$",
    "DriftingLake-v0": r"in state \d+ action \d led to .* \d+ of \d+ times, and P says 0\.3333",
    "ElsewhereLake-v0": "began in state 1, which initial_state_distrib excludes",
    "CuttingLake-v0": "cut after 4 steps, and the limit is 100",
    "LotteryLake-v0": "times an episode began in state ., to which initial_state_distrib gives",
}


@pytest.mark.parametrize("env_id", LIES)
def test_what_contradicts_a_model_is_told_with_an_example(env_id):
    fault = judged(env_id, 2048)
    assert fault is not None
    assert re.search(LIES[env_id], fault), fault


class Paying(gym.Env):
    """Two rewards that only the seventh digit tells apart, paid in float32."""

    observation_space, action_space = gym.spaces.Discrete(1), gym.spaces.Discrete(1)
    initial_state_distrib = np.array([1.0])

    def __init__(self):
        self.P = {0: {0: [(0.5, 0, 1.0, True), (0.5, 0, 1.0000005, True)]}}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, np.float32((1.0, 1.0000005)[self.np_random.integers(2)]), True, False, {}


gym.register("Paying-v0", Paying, max_episode_steps=5)


def test_rewards_are_told_apart_by_the_nearest():
    assert judged("Paying-v0") is None


def test_the_reward_told_is_the_environments_own():
    assert "with reward 10, where P gives reward 1" in judged("TenfoldLake-v0", 2048)


def test_options_that_change_the_dynamics_beside_the_model_are_found():
    assert "which P excludes" in judged("Taxi-v4", fickle_passenger=True)


def test_a_true_model_is_doubted_no_more_often_than_allowed():
    """At 5 %, looked at eight times each: the chance is of ever saying so."""
    config = settings("FrozenLake-v1")
    engine, model = open_engine(config, 16), tabular_model(config)
    batches = [collect(engine, Uniform(4, i), Quota(32, None), [0], i) for i in range(480)]
    doubted = 0
    for first in range(0, len(batches), 8):
        trial = Trial(model, level=0.05)
        doubted += any(trial.add(batch) is not None for batch in batches[first : first + 8])
    assert doubted <= 8  # of 60; chance 5e-3 or less of more, were it as bad as 5 %
