"""Runs with Gaussian policies: told what they tell, resumed, refused."""

import numpy as np
import pytest
from command_line import pg

from pgcli.collection.rollout import Quota, collect
from pgcli.runs import checkpoint

GIVEN = ("policy.squash=true", "policy.state_std=true", "policy.min_std=0.1")
SHORT = ("env=Pendulum-v1", "batch_size=2", "policy.hidden=[8]", "optimizer.schedule=constant")


class Told:
    """Acts by what it keeps, and tells another thing."""

    def __call__(self, obs):
        return np.full((*obs.shape[:2], 1), 3.0, np.float32)

    def emitted(self, act):
        return np.tanh(act)

    def restart(self):
        pass


class Engine:
    """One step to an episode; keeps what it was told."""

    id, num_envs, obs_dim, ambient, info = "told", 2, 1, None, None

    class action:
        shape, dtype = (1,), np.float32

    def reset(self, seeds, seeding):
        return np.zeros((2, 1), np.float32)

    def step(self, act, active):
        self.told = act.copy()
        done = np.ones(2, bool)
        return np.zeros((2, 1), np.float32), np.zeros(2), done, ~done


def test_the_environment_is_told_what_is_emitted_and_the_batch_keeps_the_sample():
    engine = Engine()
    batch = collect(engine, Told(), Quota(2, None), [0], 0)
    np.testing.assert_array_equal(engine.told, np.tanh(np.full((2, 1), 3.0, np.float32)))
    assert (batch.act == 3.0).all()


@pytest.mark.parametrize("more", [(), ("method=ppo", "policy.entropy_coef=0.01")])
def test_a_run_with_every_option_goes_on_bit_for_bit(more, tmp_path):
    line = (*SHORT, *GIVEN, *more)
    for name, count in {"whole": 3, "half": 2}.items():
        done = pg("train", *line, f"iterations={count}", f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = pg("train", "resume=half", "iterations=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole, half = (checkpoint.load(tmp_path / name).arrays["theta"] for name in ("whole", "half"))
    np.testing.assert_array_equal(whole, half)
    for other in ("squash=false", "state_std=false", "min_std=0.2", "max_std=2"):
        done = pg("train", "resume=half", f"policy.{other}", "iterations=4", cwd=tmp_path)
        said = f"another policy.{other.partition('=')[0]}"
        assert (done.returncode, said in done.stderr) == (3, True), done.stderr


def test_a_policy_of_another_kind_is_not_taken(tmp_path):
    done = pg("train", *SHORT, "iterations=1", "hydra.run.dir=plain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sizes = ("episodes=32", "batch_size=8", "estimators=[total,rtg]", "pictures=false")
    for other in ("squash=true", "max_std=2", "state_std=true"):
        line = ("checkpoint=plain", "env=Pendulum-v1", f"policy.{other}", *sizes)
        done = pg("compare", *line, cwd=tmp_path)
        said = f"another policy.{other.partition('=')[0]}"
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    {
        "policy.squash=true": "policy.squash=true: the actions are not continuous",
        "policy.state_std=true": "policy.state_std=true: the actions are not continuous",
        "policy.min_std=0.1": "policy.min_std=0.1: the actions are not continuous",
        "policy.max_std=3": "policy.max_std=3.0: the actions are not continuous",
        "policy.min_std=0": "policy.min_std=0.0: must be finite and > 0",
        "env=Pendulum-v1 policy.max_std=1": "policy.log_std=0.0",
        "env=Pendulum-v1 behaviour.epsilon=0.1": "behaviour.epsilon=0.1: only 0",
        "env=unbounded:Free-v0 policy.squash=true": "policy.squash=true: no dimension",
    }.items(),
)
def test_what_does_not_go_with_the_actions_is_one_line_and_leaves_nothing(line, said, tmp_path):
    (tmp_path / "unbounded.py").write_text(FREE)
    for command in ("train", "compare"):
        done = pg(command, *line.split(), cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"unbounded.py", "__pycache__"}


FREE = """
import gymnasium
import numpy as np


class Free(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(0, np.inf, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, True, False, {}


gymnasium.register("Free-v0", Free, max_episode_steps=5)
"""
