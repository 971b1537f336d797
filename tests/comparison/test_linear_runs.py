"""`pg compare env=LQG`: exact figures of continuous actions, and what they are believed for."""

import csv
import json
import shutil

import pytest
from command_line import pg

LIARS = """
import gymnasium as gym
from pgcli.environments.linear import LinearQuadratic

class Louder(LinearQuadratic):
    def reset(self, **kwargs):
        state, info = super().reset(**kwargs)
        said = self.linear_quadratic
        self.linear_quadratic = {**said, "noise": said["noise"] * 2}
        return state, info

class Dearer(LinearQuadratic):
    def step(self, action):
        state, reward, *rest = super().step(action)
        return state, 1.01 * reward, *rest

class Elsewhere(LinearQuadratic):
    def reset(self, **kwargs):
        super().reset(**kwargs)
        self._state = self._state + 1
        return self._state.copy(), {}

class Ending(LinearQuadratic):
    def step(self, action):
        state, reward, _, *rest = super().step(action)
        return state, reward, bool(state[0] > 1), *rest

class Clipped(gym.ActionWrapper):
    def action(self, action):
        return action.clip(-1, 1)

for kind in (Louder, Dearer, Elsewhere, Ending):
    gym.register(f"{kind.__name__}-v0", kind, max_episode_steps=10)
"""
SMALL = ("resamples=200", "pictures=false", "policy=linear")


def compare(cwd, *words):
    shutil.rmtree(cwd / "run", ignore_errors=True)
    done = pg("compare", "hydra.run.dir=run", *SMALL, *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    with open(cwd / "run" / "compare.csv") as file:
        rows = {row["estimator"]: row for row in csv.DictReader(file)}
    return rows, json.loads((cwd / "run" / "compare.json").read_text()), done.stdout


def test_sampled_intervals_cover_what_is_exact(tmp_path):
    rows, told, _ = compare(
        tmp_path, "env=LQG", "critic=exact", "parts=true", "episodes=4096", "batch_size=16",
        "estimators=[total,rtg,rtg_mean,rtg_value,gae,td,n_step,advantage,q]",
    )  # fmt: skip
    assert told["objective"] < 0 < told["gradient_norm"]
    covered = 0
    for row in rows.values():
        assert float(row["bias_exact"]) < 1e-10
        low, exact, high = (float(row[f"trace_cov{x}"]) for x in ("_lo", "_exact", "_hi"))
        covered += low <= exact <= high
        whole = ("start", "actions", "dynamics", "batch")
        assert sum(float(row[f"part_{x}"]) for x in whole) == pytest.approx(exact, rel=1e-10)
    assert covered >= len(rows) - 1
    again = pg("compare", "hydra.run.dir=run", *SMALL, "env=LQG", cwd=tmp_path)
    assert again.returncode == 3
    assert again.stderr == "pg: run holds a run: choose another hydra.run.dir\n"
    assert told["contradicted"] == []


def test_two_states_and_actions_with_a_learned_critic(tmp_path):
    matrices = "env.kwargs={A:[[1,0.1],[0,0.9]],B:[[0,0.1],[0.3,0]],start_mean:[1,0]}"
    rows, _, said = compare(
        tmp_path, "env=LQG", matrices, "estimators=[rtg,rtg_value,rtg_linear]", "episodes=1024",
        "batch_size=16", "fit_episodes=64",
    )  # fmt: skip
    assert float(rows["rtg"]["bias_exact"]) < 1e-9
    assert float(rows["rtg_linear"]["bias_exact"]) < 1e-6
    assert rows["rtg_value"]["trace_cov_exact"] == ""
    assert "rtg_value: nothing exact: its critic is no polynomial of the state" in said


def test_off_policy_only_the_truth_is_known(tmp_path):
    rows, told, said = compare(
        tmp_path, "env=LQG", "estimators=[rtg,is_per_decision]", "behaviour.kl=[0.01]",
        "episodes=512", "batch_size=16",
    )  # fmt: skip
    assert told["gradient_norm"] > 0
    assert all(row["trace_cov_exact"] == "" for row in rows.values())
    assert "no exact variances: weights of Gaussians are no polynomials" in said


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("Louder-v0", "deviations of the next state from As + Ba in dimension 0"),
        ("Dearer-v0", "and Q and R say"),
        ("Elsewhere-v0", "deviations of the first state in dimension 0"),
        ("Ending-v0", "an episode ended by itself"),
    ],
)
def test_a_model_that_lies_is_given_up(tmp_path, env, said):
    (tmp_path / "liars.py").write_text(LIARS)
    line = (f"env=liars:{env}", "estimators=[rtg]", "episodes=512", "batch_size=16")
    rows, _, out = compare(tmp_path, *line)
    assert said in out
    assert rows["rtg"]["trace_cov_exact"] == ""
    done = pg("compare", *SMALL, *line, "exact=true", cwd=tmp_path)
    assert done.returncode == 6
    assert "its model is not what it does" in done.stderr


def test_what_is_not_linear_is_said(tmp_path):
    (tmp_path / "liars.py").write_text(LIARS)
    few = ("estimators=[rtg]", "episodes=128")
    rows, _, said = compare(tmp_path, "env=LQG", "policy=mlp", "policy.hidden=[4]", *few)
    assert "no exact figures: a linear model serves a linear policy" in said
    assert rows["rtg"]["trace_cov_exact"] == ""
    rows, _, _ = compare(tmp_path, "env=LQG", "env.wrappers=[liars:Clipped]", *few)
    assert rows["rtg"]["trace_cov_exact"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env.kwargs={A:[[1,2]]}"], "A is square"),
        (["env.kwargs={B:[[1],[2]]}"], "B has 2 rows, and A says 1 states"),
        (["env.kwargs={noise:-1}"], "noise is -1: a number, or 1 of them of 0 or more"),
        (["env.kwargs={Q:[[1,2],[3,4]],A:[[1,0],[0,1]],B:1}"], "symmetric, 2 by 2"),
        (["env.kwargs={R:nan}"], "R is nan"),
        (["policy=mlp", "critic=exact"], "a linear model serves a linear policy"),
        (["policy=mlp", "parts=true"], "a linear model serves a linear policy"),
    ],
)
def test_bad_systems_are_one_line(tmp_path, words, said):
    done = pg("compare", "env=LQG", "policy=linear", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("compare.csv"))
