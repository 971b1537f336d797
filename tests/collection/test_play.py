"""Whole episodes of a frozen policy: the same as a batch has, and again when played again."""

import gymnasium as gym
import numpy as np
import pytest
from scripted import Scripted, Spaces
from settings import train_config

from pgcli.collection.play import play, play_callable, replay
from pgcli.collection.rollout import Quota, collect
from pgcli.environments.choose import open_engine
from pgcli.environments.vector import AsyncEngine, SyncEngine
from pgcli.errors import EnvironmentFailed
from pgcli.machine.randomness import DISTINCT
from pgcli.policies.actor import GreedyActor, PolicyActor
from pgcli.policies.build import build_policy

SEEDS, SLOTS, ITERATION = [3, 8], 3, 2**40


class Telling(Scripted):
    """Says at the end whether its episode was an even one."""

    def __init__(self, key="is_success"):
        super().__init__(lengths=(3, 1, 4))
        self.key = key

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {self.key: self.episode % 2 == 0} if rest[2] else {}


class Noted(Spaces):
    """Notes what it is told and what it showed."""

    def __init__(self, observation, action):
        super().__init__(observation, action)
        self.told, self.shown = [], []

    def reset(self, **given):
        obs, info = super().reset(**given)
        self.shown.append(obs)
        return obs, info

    def step(self, action):
        self.told.append(action)
        obs, *rest = super().step(action)
        self.shown.append(obs)
        return obs, *rest


gym.register("Told-v0", Telling, max_episode_steps=50)
gym.register("Plain-v0", Scripted, max_episode_steps=50)


def made(env, actor=PolicyActor, slots=SLOTS):
    config = train_config(f"env={env}", "env.max_episode_steps=60", "policy.normalize_obs=true")
    engine = open_engine(config.env, len(SEEDS) * slots, slots)
    policy = build_policy(config.policy, config.behaviour, engine)
    theta = policy.init(config.policy, SEEDS)
    return config, engine, policy, theta, actor(policy, theta, SEEDS, ITERATION, slots)


@pytest.mark.parametrize("env", ["FrozenLake-v1", "Pendulum-v1"])
def test_episodes_are_those_of_a_batch(env):
    """Seeded alike, the returns of single steps' rewards."""
    _, engine, policy, theta, actor = made(f"{env}")
    played = play(engine, actor, 7, SEEDS, ITERATION)
    again = PolicyActor(policy, theta, SEEDS, ITERATION, SLOTS)
    batch = collect(engine, again, Quota(7, None), SEEDS, ITERATION)
    np.testing.assert_array_equal(played.length, batch.length)
    np.testing.assert_allclose(played.returns, batch.rew.sum(-1), rtol=1e-6)
    assert np.isnan(played.success).all()


def test_greedy_episodes_are_those_of_a_plain_loop():
    """Gymnasium's environment with the likeliest action, from the slot's seed on."""
    _, engine, policy, theta, actor = made("CartPole-v1", GreedyActor)
    played = play(engine, actor, 6, SEEDS, ITERATION)
    env, weights = gym.make("CartPole-v1", max_episode_steps=60), policy.net.unpack(theta[1:])
    drawn = DISTINCT.draw(SEEDS, ITERATION, SLOTS)[SLOTS]
    for turn in range(2):
        obs, _ = env.reset(seed=drawn) if turn == 0 else env.reset()
        ret, over = 0.0, False
        while not over:
            x = obs
            for i, (w, b) in enumerate(weights):
                x = (np.tanh(x) if i else x) @ w[0].numpy() + b[0, 0].numpy()
            obs, rew, terminated, truncated, _ = env.step(int(x.argmax()))
            ret, over = ret + rew, terminated or truncated
        (place,) = np.flatnonzero((played.slot[1] == 0) & (played.turn[1] == turn))
        assert played.returns[1, place] == ret


def watched(rows, left):
    rows.append(left[0])


@pytest.mark.parametrize("actor", [PolicyActor, GreedyActor])
@pytest.mark.parametrize("env", ["CartPole-v1", "FrozenLake-v1"])  # compiled, and sync
def test_an_episode_is_played_again_from_its_seed(env, actor):
    config, engine, policy, theta, first = made(env, actor)
    played = play(engine, first, 8, SEEDS, ITERATION)
    alone = SyncEngine(config.env, 1)
    for seed, episode in ((0, 0), (1, 7), (1, 2)):
        at = seed, int(played.slot[seed, episode]), int(played.turn[seed, episode])
        rows = []
        again = actor(policy, theta, SEEDS, ITERATION, SLOTS)
        found = replay(
            alone, again, SEEDS, ITERATION, SLOTS, at, lambda x, to=rows: to.append(x[0])
        )
        assert found == (played.returns[seed, episode], played.length[seed, episode])
        assert rows.count(1) == 1 + found[1]  # its reset, and its steps


def test_nothing_that_it_learned_moves():
    _, engine, _, theta, actor = made("CartPole-v1")
    before = theta.clone()
    play(engine, actor, 5, SEEDS, ITERATION)
    assert (theta == before).all()


@pytest.mark.parametrize("key", ["is_success", "success"])
@pytest.mark.parametrize("engine", [SyncEngine, AsyncEngine])
def test_success_is_what_the_last_step_tells(engine, key):
    config = train_config("env=Told-v0", f"+env.kwargs.key={key}", "env.engine=sync")
    told = engine(config.env, 2)
    policy = build_policy(config.policy, config.behaviour, told)
    actor = PolicyActor(policy, policy.init(config.policy, [0]), [0], 1, 2)
    played = play(told, actor, 5, [0], 1)
    told.close()
    np.testing.assert_array_equal(played.turn[0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(played.success[0], [1, 0, 1, 1, 0])
    np.testing.assert_array_equal(played.length[0], [3, 1, 4, 3, 1])


@pytest.mark.parametrize(
    ("seen", "acted"),
    [
        (gym.spaces.Box(-1, 1, (2, 3), np.float32), gym.spaces.Box(-3, 5, (2, 1), np.float32)),
        (gym.spaces.Discrete(4, start=2), gym.spaces.Discrete(3, start=5)),
        (gym.spaces.MultiDiscrete([2, 3]), gym.spaces.MultiDiscrete([3, 2], start=[1, 4])),
    ],
)
def test_any_callable_acts_in_the_environments_own_terms(seen, acted):
    """As a policy of another library does: it sees raw observations, and what it says is done."""
    gym.register("Noted-v0", Noted, max_episode_steps=4)
    try:
        config = train_config("env=Plain-v0", "env.engine=sync").env
        config.id, config.kwargs = "Noted-v0", {"observation": seen, "action": acted}
        config.max_episode_steps = 4
        engine = SyncEngine(config, 1)
    finally:
        del gym.registry["Noted-v0"]
    acts, sights = [], []

    def act(obs):
        sights.append(obs[0])
        acts.append(acted.sample())
        return np.stack([acts[-1]])

    played = play_callable(engine, act, 1)
    env = engine._envs[0].unwrapped
    assert played.returns.tolist() == [[4.0]]
    np.testing.assert_array_equal(env.told[-4:], acts[-4:])  # its space draws: it is played twice
    np.testing.assert_array_equal(env.shown[-5:-1], sights[-4:])


def test_numbers_that_are_none_stop_it():
    class Broken(Scripted):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, np.nan, *rest

    gym.register("Broken-v0", Broken, max_episode_steps=9)
    engine = SyncEngine(train_config("env=Broken-v0").env, 1)
    with pytest.raises(EnvironmentFailed, match="reward NaN or infinite"):
        play_callable(engine, lambda obs: np.zeros(len(obs), int), 1)
