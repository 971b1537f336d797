"""`pg eval` against episodes played by hand, and what it refuses."""

import hashlib
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from command_line import pg

from pgcli.cli.compose import compose_all
from pgcli.cli.evaluated import trained
from pgcli.collection.play import AFTERWARDS, play_callable
from pgcli.environments.choose import open_engine
from pgcli.evaluation import study
from pgcli.evaluation.figures import of_episodes, over_seeds
from pgcli.machine.randomness import DISTINCT
from pgcli.runs.checkpoint import load
from pgcli.settings.schema import Engine, EnvConfig
from pgcli.statistics.intervals import iqm_interval, mean_interval

CART = ["env=CartPole-v1", "estimator=rtg", "seeds=2", "iterations=4", "checkpoint.every=2"]


class Reaching(gym.Env):
    """Pays 1 a step; its info says at the end whether the last action was a one."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.random(2, np.float32), {}

    def step(self, action):
        self.time += 1
        obs = self.np_random.random(2, np.float32)
        return obs, 1.0, self.time == 3, False, {"is_success": bool(action)}


gym.register("Reaching-v0", Reaching, max_episode_steps=5, disable_env_checker=True)


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A folder with a run of two seeds and a sweep of two jobs."""
    cwd = tmp_path_factory.mktemp("user")
    assert pg("train", *CART, "eval.every=2", "hydra.run.dir=r", cwd=cwd).returncode == 0
    line = ["-m", "env=CartPole-v1", "estimator=rtg,gae", "iterations=2", "batch_size=4"]
    assert pg("train", *line, "hydra.sweep.dir=s", cwd=cwd).returncode == 0
    return cwd


def found(cwd, place="e"):
    return json.loads((cwd / place / "eval.json").read_text())


def network(theta):
    """The greedy policy of a run's row of theta: two hidden layers of 64 tanh."""
    parts, shapes = [], [(4, 64), (64, 64), (64, 2)]
    for inputs, outputs in shapes:
        weight, theta = (
            theta[: inputs * outputs].reshape(inputs, outputs),
            theta[inputs * outputs :],
        )
        bias, theta = theta[:outputs], theta[outputs:]
        parts.append((weight, bias))

    def act(obs):
        x = obs
        for i, (weight, bias) in enumerate(parts):
            x = x @ weight + bias
            x = np.tanh(x) if i < 2 else x
        return int(x.argmax())

    return act


def test_greedy_returns_are_those_of_episodes_played_by_hand(user):
    there = [path for path in (user / "r").rglob("*") if path.is_file()]
    files = {path: hashlib.sha256(path.read_bytes()).digest() for path in there}
    line = ["checkpoint=r", "episodes=5", "env.num_envs=2", "hydra.run.dir=e"]
    done = pg("eval", *line, cwd=user)
    assert done.returncode == 0, done.stderr
    (run,) = found(user)["runs"]
    theta = load(user / "r").arrays["theta"].astype(np.float64)
    drawn = np.array(DISTINCT.draw([0, 1], AFTERWARDS, 2)).reshape(2, 2)
    for s, told in enumerate(run["seeds"]):
        act, returns = network(theta[s]), []
        for slot, share in enumerate((3, 2)):  # five episodes over two slots
            env = gym.make("CartPole-v1")
            for turn in range(share):
                obs, _ = env.reset(seed=int(drawn[s, slot])) if turn == 0 else env.reset()
                ret, over = 0.0, False
                while not over:
                    obs, rew, terminated, truncated, _ = env.step(act(obs))
                    ret, over = ret + rew, terminated or truncated
                returns.append(ret)
        assert told["greedy"]["returns"] == returns
        assert (told["seed"], told["iteration"]) == (s, 4)
        assert told["greedy"]["mean"] == pytest.approx(np.mean(returns))
    assert files == {p: hashlib.sha256(p.read_bytes()).digest() for p in files}  # only looked at
    assert all(len(text) <= 80 for text in done.stdout.splitlines() if "greedy" in text)


def test_figures_are_those_of_the_textbook():
    returns, length = np.array([1.0, 2.0, 3.0, 10.0]), np.array([1, 2, 3, 4])
    told = of_episodes(returns, length, np.array([1.0, 0.0, np.nan, 1.0]), 0.9)
    assert told["success_rate"] == pytest.approx(2 / 3)
    assert (told["median"], told["min"], told["max"]) == (2.5, 1, 10)
    for name, of in (("mean", mean_interval), ("iqm", iqm_interval)):
        value = of(returns, 0.9)
        assert (told[name], told[f"{name}_lo"], told[f"{name}_hi"]) == tuple(map(float, value))
    told |= {"info": {"x": 1.0, "y": None}}
    other = {**told, "mean": 6.0, "success_rate": None, "info": {"x": 3.0, "y": None}}
    both = over_seeds([told, other], 0.95)
    assert both["info"] == {"x": 2.0, "y": None}
    assert both["mean"] == pytest.approx(5.0)
    assert both["success_rate"] == pytest.approx(2 / 3)


def test_a_sweep_is_a_line_for_each_run(user):
    done = pg("eval", "checkpoint=s", "episodes=4", "hydra.run.dir=f", cwd=user)
    assert done.returncode == 0, done.stderr
    lines = [text.split() for text in done.stdout.splitlines() if "greedy" in text]
    assert [words[0] for words in lines if words[1] == "greedy"] == [
        "estimator@gae",
        "estimator@rtg",
    ]
    assert len(found(user, "f")["runs"]) == 2


def test_the_best_iteration_is_each_seeds_own(user):
    best = load(user / "r", "best")
    assert set(best.arrays["iteration"].tolist()) <= {2, 4}
    line = ["checkpoint=r", "iteration=best", "episodes=4", "hydra.run.dir=b"]
    assert pg("eval", *line, cwd=user).returncode == 0
    told = [seed["iteration"] for seed in found(user, "b")["runs"][0]["seeds"]]
    assert told == best.arrays["iteration"].tolist()
    compared = ["checkpoint=r", "iteration=best", "estimators=[rtg]", "episodes=16", "batch_size=4"]
    assert pg("compare", *compared, cwd=user).returncode == 0


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("", 2, "checkpoint=null: names what is to be evaluated"),
        ("checkpoint=nowhere", 4, "no run with a checkpoint there"),
        ("checkpoint=r iteration=3", 4, "no checkpoint of iteration 3; saved: 2, 4"),
        ("checkpoint=r iteration=soon", 2, "must be a whole number >= 1, best or null"),
        ("checkpoint=s iteration=best", 4, "best"),
        ("checkpoint=r env=Acrobot-v1", 2, "its observation space is 6 inputs"),
        ("checkpoint=r episodes=1", 2, "episodes=1: must be finite and >= 2"),
        ("checkpoint=r video=gif env.engine=native", 2, "cannot play one of its episodes again"),
        ("checkpoint=r export=pickle", 2, "export=pickle"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(line, code, said, user):
    done = pg("eval", *line.split(), "hydra.run.dir=refused", cwd=user)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (user / "refused").exists()


def test_success_is_what_the_last_info_says(tmp_path):
    engine = open_engine(
        EnvConfig("Reaching-v0", {}, 0.0, None, Engine["sync"], None, [], [], None), 3
    )
    turns = np.array([0, 1, 1])
    played = play_callable(engine, lambda obs: turns, 6)
    assert played.returns.tolist() == [[3.0] * 6]
    assert played.success.tolist() == [[0, 0, 1, 1, 1, 1]]
    assert played.turn.tolist() == [[0, 1] * 3]


def test_entries_of_info_are_told(tmp_path):
    (tmp_path / "told.py").write_text(
        "import gymnasium as gym, numpy as np\n"
        "class Told(gym.Env):\n"
        "    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)\n"
        "    action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        self.time = 0\n"
        "        return np.zeros(1, np.float32), {}\n"
        "    def step(self, action):\n"
        "        self.time += 1\n"
        "        info = {'time': self.time} | ({'odd': 7.0} if self.time == 2 else {})\n"
        "        return np.zeros(1, np.float32), 1.0, self.time == 3, False, info\n"
        "gym.register('Told-v0', Told, max_episode_steps=9)\n"
    )
    line = ["env=told:Told-v0", "iterations=1", "batch_size=2", "env.info=[time]"]
    assert pg("train", *line, "hydra.run.dir=r", cwd=tmp_path).returncode == 0
    for engine in ("sync", "async"):
        asked = "env.info=[time,time@end,time@sum,odd,none]"
        words = ["checkpoint=r", "episodes=3", asked, f"env.engine={engine}"]
        done = pg("eval", *words, f"hydra.run.dir={engine}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = found(tmp_path, engine)["runs"][0]["seeds"][0]["greedy"]["info"]
        assert told == {"time": 2.0, "time@end": 3.0, "time@sum": 6.0, "odd": 7.0, "none": None}
        assert "time@sum" in done.stdout
    assert pg("eval", "checkpoint=r", "hydra.run.dir=own", cwd=tmp_path).returncode == 0
    assert found(tmp_path, "own")["runs"][0]["seeds"][0]["sampled"]["info"] == {"time": 2.0}


def test_a_policy_of_anybodys_sees_the_environments_observations():
    engine = open_engine(
        EnvConfig("Pendulum-v1", {}, 0.0, None, Engine["sync"], None, [], [], None), 2
    )
    seen = []

    def act(obs):
        seen.append(obs)
        return np.full((2, 1), 1.5, np.float32)  # torque, as the environment takes it

    played = play_callable(engine, act, 2, seed=3)
    assert seen[0].shape == (2, 3)
    env, returns = gym.make("Pendulum-v1"), []
    for drawn in DISTINCT.draw([3], AFTERWARDS, 2):
        env.reset(seed=int(drawn))
        returns.append(sum(float(env.step(np.array([1.5], np.float32))[1]) for _ in range(200)))
    np.testing.assert_allclose(played.returns[0], returns, rtol=1e-6)


def test_normalising_figures_stay_as_they_were(tmp_path):
    line = ["env=Pendulum-v1", "method=none", "policy.normalize_obs=true", "iterations=2"]
    assert pg("train", *line, "batch_size=2", "hydra.run.dir=r", cwd=tmp_path).returncode == 0
    (one,) = compose_all("eval", [f"checkpoint={tmp_path / 'r'}", "episodes=2"], None, False)
    (run,) = trained(one.config)
    before = study.load(run, None).theta.clone()
    study.run(one.config, [run], tmp_path / "e")
    assert torch.equal(study.load(run, None).theta, before)
