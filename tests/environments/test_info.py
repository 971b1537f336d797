"""Entries of info that a run logs: what is made of them, and what is refused."""

import csv
import math

import gymnasium as gym
import numpy as np
import pytest
from command_line import pg

from pgcli.environments.choose import check_environment, choose_engine
from pgcli.environments.info import logged, picked
from pgcli.errors import ConfigError
from pgcli.settings.schema import Engine, EnvConfig

MODULE = """
import gymnasium as gym, numpy as np

class Told(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def __init__(self, wrong=None):
        self.wrong = wrong
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.length = 0, int(self.np_random.integers(2, 5))
        return np.zeros(2, np.float32), {"time": "none yet"}
    def step(self, action):
        self.time += 1
        info = {"time": np.int64(self.time), "length": self.length}
        if self.time == 2:
            info["second"] = True
        if self.time == self.length:
            info["is_success"] = np.bool_(self.length > 2)
        if self.wrong:
            info["time"] = self.wrong
        return np.zeros(2, np.float32), float(self.length), self.time >= self.length, False, info

gym.register("Told-v0", Told, max_episode_steps=9)
"""
ASKED = "env.info=[time,time@end,time@sum,length,second,second@sum,is_success,is_success@sum,never]"


@pytest.fixture
def user(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def train(*args, cwd):
    line = ["env=mine:Told-v0", "iterations=2", "batch_size=5", "hydra.run.dir=run", *args]
    return pg("train", *line, cwd=cwd)


def figures(run):
    with open(run / "metrics.csv") as file:
        return [{k: float(x) for k, x in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_means_over_steps_and_episodes_by_hand(engine, user):
    """An episode of L steps tells time 1..L and rewards L at each."""
    done = train(f"env.engine={engine}", "env.num_envs=2", ASKED, cwd=user)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("env.info: the first episodes' info had no never") == 1
    for row in figures(user / "run"):
        steps = row["rollout/ep_len_mean"] * 5
        squares = row["rollout/ep_rew_mean"] * 5  # Σ L²
        assert row["info/time"] == pytest.approx((squares + steps) / 2 / steps)
        assert row["info/time/sum"] == pytest.approx((squares + steps) / 2 / 5)
        assert row["info/time/end"] == pytest.approx(steps / 5)
        assert row["info/length"] == pytest.approx(squares / steps)
        assert row["info/second"] == row["info/second/sum"] == 1
        assert row["info/is_success"] == row["info/is_success/sum"]
        assert 0 <= row["info/is_success"] <= 1
        assert math.isnan(row["info/never"])


def test_slots_that_play_on_tell_the_same_of_steps_and_of_ended_episodes(user):
    line = ["collect=steps", "horizon=7", "env.num_envs=3", "estimator=gae"]
    done = train(*line, "critic.target=td_lambda", "env.info=[time,length@end]", cwd=user)
    assert done.returncode == 0, done.stderr
    for row in figures(user / "run"):
        assert row["info/length/end"] == pytest.approx(row["rollout/ep_len_mean"])
    done = train(*line, "critic.target=td_lambda", "env.info=[time@sum]", cwd=user)
    assert done.returncode == 2
    assert "env.info=time@sum: collect=steps has parts of episodes: @mean, @end" in done.stderr


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_what_is_no_number_is_the_environments_failure(engine, user):
    done = train(f"env.engine={engine}", "env.kwargs.wrong=fast", "env.info=[time]", cwd=user)
    assert done.returncode == 6
    assert 'its info["time"] is fast (str), and must be a number' in done.stderr


@pytest.mark.parametrize("x", [1, 2.5, True, np.float32(3), np.int8(1), np.array(2.0)])
def test_numbers_of_all_kinds(x):
    assert picked({"x": x}, ["x"]) == [float(x)]


@pytest.mark.parametrize("x", ["1", [1], {"r": 1}, np.zeros(1), np.array("a"), 1j])
def test_and_what_is_none(x):
    with pytest.raises(TypeError, match="must be a number"):
        picked({"x": x}, ["x"])
    with pytest.raises(TypeError, match="must be a dictionary"):
        picked([x], ["x"])


def test_what_is_not_there_is_nan():
    assert np.isnan(picked({"y": None}, ["x", "y"])).all()


def test_how_an_entry_is_read():
    found = [(one.name, one.way) for one in logged(["a", "is_success", "b@sum", "c@d@end"])]
    assert found == [("a", "mean"), ("is_success", "end"), ("b", "sum"), ("c@d", "end")]
    for wrong in (["a@all"], ["@end"], [""], ["a", "a@mean"]):
        with pytest.raises(ConfigError, match=r"env\.info="):
            logged(wrong)


@pytest.mark.parametrize("key", ["info", "wrappers"])
def test_engines_without_single_environments_are_avoided_and_refused(key):
    given = {"info": [], "wrappers": [], "workers": None}
    given[key] = {"info": ["x"], "wrappers": ["gymnasium.wrappers:TimeAwareObservation"]}[key]

    def settings(engine):
        return EnvConfig("CartPole-v1", {}, 0.0, None, Engine[engine], None, **given)

    assert "CartPole-v1" in gym.registry
    assert choose_engine(settings("auto")) == "sync"
    for engine in ("compiled", "native", "envpool"):
        with pytest.raises(ConfigError, match=f"env.{key} needs: auto, sync, async"):
            check_environment(settings(engine))
