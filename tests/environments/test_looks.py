"""What an environment observes is held against what it declares."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from pgcli.collection.rollout import Quota, collect
from pgcli.environments.choose import open_engine
from pgcli.environments.looks import FirstLook, memories
from pgcli.environments.spaces import obs_adapter
from pgcli.errors import EnvironmentFailed
from pgcli.settings.schema import Engine, EnvConfig

FIVE, PAIR = spaces.Discrete(5), spaces.Box(-1, 1, (2,), np.float32)
ODD = {
    "below": (FIVE, -1, "-1 (int)"),  # an index of -1 would be state 4
    "above": (FIVE, 5, "5 (int)"),
    "far": (FIVE, np.int64(2**63 - 1), "9223372036854775807"),
    "start": (spaces.Discrete(5, start=2), 1, "1 (int)"),
    "fraction": (FIVE, 2.0, "2.0 (float)"),
    "text": (FIVE, "2", "2 (str)"),
    "nothing": (FIVE, None, "None (NoneType)"),
    "array": (FIVE, np.array([2]), "[2] (ndarray of shape (1,))"),
    "multi": (spaces.MultiDiscrete([2, 3], start=[1, 1]), np.array([1, 0]), "[1 0]"),
    "bits": (spaces.MultiBinary(2), np.array([0, 2]), "[0 2]"),
    "three": (PAIR, np.zeros(3, np.float32), "[0. 0. 0.] (ndarray of shape (3,))"),
    "column": (PAIR, np.zeros((2, 1)), "(ndarray of shape (2, 1))"),
    "scalar": (PAIR, 0.5, "0.5 (float)"),
    "no box": (PAIR, None, "None (NoneType)"),
    "words": (PAIR, "ab", "ab (str)"),
    "numeral": (spaces.Box(-1, 1, ()), "0.5", "0.5 (str)"),
    "in a dict": (spaces.Dict(a=FIVE, b=PAIR), {"a": -1, "b": np.zeros(2)}, "-1 (int)"),
    "in a tuple": (spaces.Tuple([PAIR, FIVE]), (np.zeros(3), 1), "shape (3,)"),
}


class Zeros:
    def __call__(self, obs):
        return np.zeros(obs.shape[:2], np.int64)

    def restart(self):
        pass


def collected(env_id, engine="sync", copies=2, **kwargs):
    config = EnvConfig(env_id, kwargs, 0.0, None, Engine[engine], None, [], [], None)
    made = open_engine(config, copies)
    try:
        for i in range(2):
            collect(made, Zeros(), Quota(2 * copies, None), [0], i)
        return made.notices()
    finally:
        made.close()


@pytest.mark.parametrize("since", [0, 2])
@pytest.mark.parametrize("name", ODD)
def test_what_is_not_of_its_space_is_refused_at_any_step(name, since):
    space, obs, told = ODD[name]
    with pytest.raises(EnvironmentFailed) as failure:
        collected("scripted:Odd-v0", space=space, obs=obs, since=since)
    text = str(failure.value)
    assert f"Odd-v0: {'step' if since else 'reset'} failed (environment 0, reset with seed " in text
    assert f", step {since}): " in text
    assert told in text
    assert "its observation space is" in text


@pytest.mark.parametrize("name", ["below", "three", "nothing", "in a dict"])
def test_nor_in_a_process_of_its_own(name):
    space, obs, told = ODD[name]
    with pytest.raises(EnvironmentFailed) as failure:
        collected("scripted:Odd-v0", "async", space=space, obs=obs, since=2)
    where = r"Odd-v0: step failed \(environment \d+, reset with seed \d+, step 2\): "
    assert re.search(where, str(failure.value))
    assert told in str(failure.value)


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_a_reset_of_the_older_interface_is_told(engine):
    with pytest.raises(EnvironmentFailed, match=r"reset failed .*instead of \(observation, info\)"):
        collected("scripted:OldReset-v0", engine)


def test_every_member_of_a_space_is_taken():
    for space in [*(space for space, *_ in ODD.values()), spaces.Discrete(3, start=-1)]:
        if isinstance(space, (spaces.Dict, spaces.Tuple)):
            continue
        adapter = obs_adapter(space, "")
        space.seed(0)
        samples = [space.sample() for _ in range(50)]
        assert [adapter.fault(sample) for sample in samples] == [None] * 50
        assert adapter.encode(np.array(samples)).shape == (50, adapter.dim)


def look(space, *observations):
    first = FirstLook(space)
    for obs in observations:
        first.at(np.asarray(obs))
    return first.notices()


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_leaving_a_box_is_said(engine):
    wide = {"space": PAIR, "obs": np.array([0.5, -3.0], np.float32), "since": 1}
    notices = collected("scripted:Odd-v0", engine, **wide)
    assert notices[0] == "observations leave their space: number 1 reached -3, and its bound is -1"


def test_rounding_is_no_leaving():
    assert look(PAIR, [[1 + 1e-7, -1 - 1e-7]]) == []


def test_what_float32_cannot_tell_apart_is_said():
    box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    clock = [[[1.7e9 + t, 0.1 * t]] for t in range(6)]
    (text,) = look(box, *clock)
    assert "number 0 was 1.7e+09 and varied by 5" in text
    integers = spaces.Box(0, 2**40, (2,), np.int64)
    assert "number 1" in look(integers, *([[t, 2**30 + t]] for t in range(6)))[0]
    for steady in (
        [[0.1 * t, 1e9 * t] for t in range(6)],  # as wide as it is large
        [[0.1, 1.7e9 + 0.3]] * 6,  # constant
        [[1 + 1e-16 * t, 1e-17 * t] for t in range(6)],  # float64's own noise
    ):
        assert look(box, *([row] for row in steady)) == []


@pytest.mark.parametrize("env_id", ["MountainCarContinuous-v0", "FrozenLake-v1", "Acrobot-v1"])
def test_of_sound_environments_nothing_is_said(env_id):
    config = EnvConfig(env_id, {}, 0.0, 50, Engine["sync"], None, [], [], None)
    made = open_engine(config, 2)
    shape = made.action.shape

    class Some:
        def __call__(self, obs):
            return np.zeros((*obs.shape[:2], *shape), made.action.dtype)

    for i in range(2):
        collect(made, Some(), Quota(4, None), [0], i)
    assert made.notices() == []


class Mine(gym.wrappers.NormalizeReward):
    """A kind of Gymnasium's."""


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_statistics_that_outlive_an_episode_are_said(engine):
    (text,) = collected("scripted:Learning-v0", engine)
    assert text.startswith("NormalizeObservation goes on learning its statistics")
    assert "neither resuming nor comparing is exact" in text


def test_wherever_in_the_chain_they_are():
    inner = Mine(gym.make("CartPole-v1"))
    env = gym.wrappers.FrameStackObservation(inner, 2)
    assert [text.split()[0] for text in memories(env)] == ["NormalizeReward"]
    inner.update_running_mean = False  # what is frozen is no memory
    assert memories(env) == []
