"""Training along ∇J itself, where the model is known: the curve without noise."""

import csv

import numpy as np
import pytest
import torch
from command_line import pg
from settings import as_typed

from pgcli.environments.choose import open_engine
from pgcli.environments.known import known_model
from pgcli.gradients.truth import solve
from pgcli.policies.build import build_policy
from pgcli.runs import checkpoint

SHORT = ("batch_size=4", "optimizer=sgd", "optimizer.lr=0.5", "optimizer.schedule=constant")
ENVIRONMENTS = {
    "table": ("env=FrozenLake-v1", "policy=tabular", "env.max_episode_steps=20", "optimizer.lr=20"),
    "linear": ("env=LQG", "optimizer.lr=0.003"),
}


def rows(run):
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def theta_of(run):
    found = checkpoint.load(run)
    return torch.from_numpy(found.arrays["theta"])


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_a_run_is_gradient_ascent_on_j(kind, tmp_path):
    line = ["estimator=exact", *SHORT, *ENVIRONMENTS[kind], "seeds=2"]
    done = pg("train", *line, "iterations=12", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "biased" not in done.stdout
    config = as_typed(*line)
    engine = open_engine(config.env, 4)
    policy = build_policy(config.policy, config.behaviour, engine)
    engine.close()
    model = known_model(config.env)
    theta = policy.init(config.policy, [0, 1])
    told = [[row for row in rows(tmp_path / "run") if row["seed"] == str(s)] for s in (0, 1)]
    for i in range(12):
        found = [solve(model, policy, one[None], 1.0) for one in theta]
        for solution, own in zip(found, told, strict=True):
            assert float(own[i]["exact/objective"]) == pytest.approx(solution.objective, rel=1e-4)
            norm = float(solution.gradient.norm())
            assert float(own[i]["exact/gradient_norm"]) == pytest.approx(norm, rel=1e-4)
            assert not abs(float(own[i]["exact/cos_gradient"])) > 1  # NaN: no reward was seen
        step = torch.stack([one.gradient for one in found])
        theta = (theta.double() + config.optimizer.lr * step).float()
    np.testing.assert_allclose(theta_of(tmp_path / "run"), theta, rtol=1e-4, atol=1e-5)
    for own in told:
        climbed = [float(row["exact/objective"]) for row in own]
        assert climbed == sorted(climbed)


def test_batches_do_not_matter_and_a_run_goes_on_bit_for_bit(tmp_path):
    line = ["estimator=exact", *SHORT, *ENVIRONMENTS["table"]]
    for name, more in (
        ("whole", ["iterations=8"]),
        ("large", ["iterations=8", "batch_size=16"]),
        ("half", ["iterations=4"]),
    ):
        assert pg("train", *line, *more, f"hydra.run.dir={name}", cwd=tmp_path).returncode == 0
    assert pg("train", "resume=half", "iterations=8", cwd=tmp_path).returncode == 0
    whole = theta_of(tmp_path / "whole")
    assert torch.equal(theta_of(tmp_path / "half"), whole)
    assert torch.equal(theta_of(tmp_path / "large"), whole)


def test_any_estimate_can_be_measured_along_the_exact_curve(tmp_path):
    line = [*SHORT, *ENVIRONMENTS["linear"], "iterations=5", "estimator=gae", "estimator.gamma=0.9"]
    for name, more in (("exact", ["estimator.exact=true"]), ("sampled", [])):
        done = pg("train", *line, *more, f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("biased: missing γ^t" in done.stdout) == (name == "sampled")
    exact, sampled = rows(tmp_path / "exact"), rows(tmp_path / "sampled")
    assert exact[0]["gradient/variance"] == sampled[0]["gradient/variance"]
    assert "exact/objective" not in sampled[0]


@pytest.mark.parametrize("kwargs", ["noise:1e-8", "noise:1e-5,start_std:1e-6,start_mean:1000"])
def test_what_drowns_in_rounding_is_no_lie(kwargs, tmp_path):
    done = pg("train", "env=LQG", "estimator=exact", "optimizer.lr=1e-6", "iterations=3",
              f"env.kwargs={{{kwargs}}}", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr


LIAR = """
import gymnasium as gym
from pgcli.environments.linear import LinearQuadratic

class Dearer(LinearQuadratic):
    def step(self, action):
        state, reward, *rest = super().step(action)
        return state, 1.01 * reward, *rest

gym.register("Dearer-v0", Dearer, max_episode_steps=10)
"""


def test_a_model_that_lies_is_no_reference(tmp_path):
    (tmp_path / "liar.py").write_text(LIAR)
    done = pg("train", "env=liar:Dearer-v0", "policy=linear", "estimator=exact", cwd=tmp_path)
    assert done.returncode == 6
    assert "its model is not what it does" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env=CartPole-v1"], "CartPole-v1 does not expose its model"),
        (["env=LQG", "policy=mlp"], "a linear model serves a linear policy"),
        (["env=LQG", "policy.normalize_obs=true"], "nothing clipped"),
        (["env=FrozenLake-v1", "update=proximal"], "moves by the weights of steps"),
        (["env=FrozenLake-v1", "update=trust_region"], "moves by the weights of steps"),
        (["env=FrozenLake-v1", "estimator.scale_rewards=true"], "estimator.scale_rewards"),
    ],
)
def test_where_it_cannot_be_it_is_refused(tmp_path, words, said):
    done = pg("train", "estimator=exact", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip().count("\n")) == (2, 0), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("words", ["estimators=[rtg,exact]", "estimator.exact=true"])
def test_what_is_compared_with_it_is_no_estimate_of_itself(tmp_path, words):
    done = pg("compare", words, cwd=tmp_path)
    assert done.returncode == 2
    assert "∇J" in done.stderr


def test_its_natural_step_uses_the_exact_gradient(tmp_path):
    line = ["env=LQG", "estimator=exact", "update=natural", "iterations=10", "hydra.run.dir=run"]
    assert pg("train", *line, cwd=tmp_path).returncode == 0
    climbed = [float(row["exact/objective"]) for row in rows(tmp_path / "run")]
    assert climbed == sorted(climbed)
    assert climbed[-1] > climbed[0] + 1
