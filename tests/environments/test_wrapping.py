"""Wrappers that a user names: in order, around each copy."""

import pytest
import yaml
from command_line import pg, rows

MODULE = """
import gymnasium as gym

class Plus(gym.RewardWrapper):
    def __init__(self, env, more=1.0):
        super().__init__(env)
        self.more = more
    def reward(self, reward):
        return reward + self.more

class Times(gym.RewardWrapper):
    def reward(self, reward):
        return 3 * reward

def nothing(env):
    return None
"""
CART = ["iterations=2", "batch_size=4", "env=CartPole-v1", "policy.hidden=[]", "hydra.run.dir=run"]


@pytest.fixture
def user(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_they_are_applied_in_order(engine, user):
    """(1 + 2) · 3 for every step, not 1 · 3 + 2."""
    wrappers = "env.wrappers=[{wrapper:mine:Plus,more:2},mine:Times]"
    done = pg("train", *CART, wrappers, f"env.engine={engine}", "env.num_envs=2", cwd=user)
    assert done.returncode == 0, done.stderr
    head, *body = rows(user / "run")
    ret, length = head.index("rollout/ep_rew_mean"), head.index("rollout/ep_len_mean")
    assert all(float(row[ret]) == 9 * float(row[length]) for row in body)


def test_of_gymnasium_with_spaces_of_their_own_and_a_resume(user):
    wrappers = "[gymnasium.wrappers:TimeAwareObservation,{wrapper:mine:Plus,more:1}]"
    done = pg("train", *CART, f"env.wrappers={wrappers}", cwd=user)
    assert done.returncode == 0, done.stderr
    told = yaml.safe_load((user / "run" / "config.yaml").read_text())["env"]["wrappers"]
    assert told == ["gymnasium.wrappers:TimeAwareObservation", {"wrapper": "mine:Plus", "more": 1}]
    done = pg("train", "resume=run", "iterations=3", cwd=user)
    assert done.returncode == 0, done.stderr
    assert len(rows(user / "run")) == 4
    done = pg("train", "resume=run", "iterations=4", "env.wrappers=[]", cwd=user)
    assert done.returncode == 3
    assert "another env.wrappers" in done.stderr
    compared = pg("compare", "checkpoint=run", "episodes=32", "batch_size=8", "fit_episodes=8",
                  "resamples=100", "estimators=[rtg]", "pictures=false", cwd=user)  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    done = pg("train", *CART[:4], "behaviour.checkpoint=run", cwd=user)
    assert (done.returncode, "another env.wrappers" in done.stderr) == (2, True)


def test_of_a_file(user):
    (user / "conf" / "env").mkdir(parents=True)
    (user / "conf" / "env" / "Wrapped.yaml").write_text(
        "id: CartPole-v1\nwrappers:\n- wrapper: mine:Plus\n  more: 0.5\n- mine:Times\n"
    )
    line = ["--config-dir", "conf", *CART[:2], "env=Wrapped", "hydra.run.dir=run"]
    done = pg("train", *line, cwd=user)
    assert done.returncode == 0, done.stderr
    head, *body = rows(user / "run")
    ret, length = head.index("rollout/ep_rew_mean"), head.index("rollout/ep_len_mean")
    for row in body:
        assert float(row[ret]) == pytest.approx(4.5 * float(row[length]))


@pytest.mark.parametrize(
    ("wrappers", "said"),
    [
        ("[mine:Tims]", "mine has no Tims; did you mean Times?"),
        ("[nowhere:X]", "the module does not import: ModuleNotFoundError"),
        ("[Plus]", "must be module:name"),
        ("[{wrapper:mine:Plus,most:2}]", "cannot be made with most: TypeError"),
        ("[mine:nothing]", "made a NoneType, and no gymnasium.Env"),
        ("[{more:2}]", "each is module:name, or {wrapper:module:name,argument:value}"),
        ("mine:Plus", "must be a list"),
    ],
)
def test_what_cannot_be_is_one_line(wrappers, said, user):
    done = pg("train", *CART, f"env.wrappers={wrappers}", cwd=user)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("pg: env.wrappers=")
    assert said in done.stderr
    assert not (user / "run").exists()
