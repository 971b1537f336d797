"""Normalised observations: running moments, and the policy that looks through them."""

import numpy as np
import pytest
import torch
from command_line import pg
from settings import train_config

from pgcli.collection.rollout import Quota, collect
from pgcli.environments.compiled.engine import CompiledEngine
from pgcli.policies.actor import PolicyActor
from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.normalizer import EPS, Moments
from pgcli.policies.policy import Normalized, Policy
from pgcli.runs import checkpoint


def whole(x):
    return torch.ones(x.shape[:-1], dtype=torch.bool)


def test_moments_are_those_of_the_marked_rows():
    moments = Moments(1, 1)
    x = torch.tensor([[[1.0], [3.0], [99.0]], [[8.0], [99.0], [99.0]]])[None]  # [1, 2, 3, 1]
    moments.merge(x, torch.tensor([[[True, True, False], [True, False, False]]]))
    assert moments.count.item() == 3
    assert moments.mean.item() == pytest.approx(4)
    assert moments.scale.item() == pytest.approx((26 / 3) ** -0.5)  # (9 + 1 + 16)/3
    moments.merge(torch.tensor([[[0.0]]]), torch.tensor([[True]]))
    assert moments.mean.item() == pytest.approx(3)
    assert moments.scale.item() == pytest.approx(9.5**-0.5)  # (4 + 0 + 25 + 9)/4


def test_parts_merge_to_the_moments_of_the_whole_far_from_zero():
    rng = torch.Generator().manual_seed(0)
    x = 1e6 + torch.randn(2, 100, 3, dtype=torch.float64, generator=rng)
    at_once, in_parts = Moments(2, 3), Moments(2, 3)
    at_once.merge(x, whole(x))
    for part in x.split([1, 9, 40, 50], 1):
        in_parts.merge(part, whole(part))
    torch.testing.assert_close(in_parts.scale, at_once.scale, rtol=1e-9, atol=0)
    torch.testing.assert_close(at_once.scale, x.var(1, correction=0).add(EPS).rsqrt())
    torch.testing.assert_close(in_parts.mean, x.mean(1), rtol=1e-12, atol=0)


def test_a_seed_without_rows_keeps_what_it_has():
    moments = Moments(2, 1)
    assert moments.scale.tolist() == [[1.0], [1.0]]  # as it is, until something is seen
    moments.merge(torch.tensor([[[2.0]], [[5.0]]]), torch.tensor([[True], [False]]))
    assert moments.count.tolist() == [1.0, 0.0]
    assert moments.mean.tolist() == [[2.0], [0.0]]
    assert moments.scale[1].item() == 1.0


def made(clip):
    policy = Policy(Mlp((2, 4, 3)), Categorical(3), Normalized(clip))
    rng = torch.Generator().manual_seed(1)
    theta = torch.randn(1, policy.width, dtype=torch.float64, generator=rng)
    policy.normalize_by(theta, torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 4.0]]))
    return policy, theta


def test_it_is_the_policy_of_the_normalised_observations():
    policy, theta = made(clip=2.0)
    obs = torch.tensor([[[3.0, -1.9], [0.0, 9.0]]], dtype=torch.float64)
    seen = torch.tensor([[[1.0, 0.4], [-0.5, 2.0]]], dtype=torch.float64)
    torch.testing.assert_close(policy.inputs(theta, obs), seen)
    plain = Policy(policy.net, policy.head)
    act = torch.tensor([[0, 2]])
    torch.testing.assert_close(
        policy.log_prob(theta, obs, act), plain.log_prob(policy.learned(theta), seen, act)
    )


def test_no_gradient_reaches_what_is_normalised_by():
    policy, theta = made(clip=None)
    theta.requires_grad_()
    policy.log_prob(theta, torch.ones(1, 1, 2).double(), torch.tensor([[1]])).sum().backward()
    assert not theta.grad[:, policy.num_params :].any()
    assert policy.learned(theta.grad).any()


@pytest.mark.parametrize("clip", [0.7, None])
def test_the_rollouts_act_as_the_policy_says(clip):
    policy = Policy(Mlp((4, 8, 2)), Categorical(2), Normalized(clip))
    theta = policy.init(train_config().policy, [0, 1])
    theta += 0.5 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    fixed = torch.tensor([0.1, 0.2, -0.1, 0.0]), torch.tensor([3.0, 0.5, 9.0, 1.0])
    policy.normalize_by(theta, *(x.expand(2, -1) for x in fixed))
    actor = PolicyActor(policy, theta, [0, 1], 0, 3)
    obs = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    noise = PolicyActor(policy, theta, [0, 1], 0, 3).noise()[0]
    out, _ = policy.distribution(theta, torch.from_numpy(obs))
    assert (actor(obs) == (out.numpy() + noise).argmax(-1)).all()

    engine = CompiledEngine(train_config().env, 6)
    batches = [
        collect(engine, chosen, Quota(3, None), [0, 1], 0)
        for chosen in (PolicyActor(policy, theta, [0, 1], 0, 3), Asked(policy, theta))
    ]
    assert (batches[0].length == batches[1].length).all()
    assert (batches[0].act == batches[1].act).all()


class Asked:
    """The same actor, which must be asked step by step."""

    def __init__(self, policy, theta):
        self._actor = PolicyActor(policy, theta, [0, 1], 0, 3)

    def __call__(self, obs):
        return self._actor(obs)

    def restart(self):
        self._actor.restart()


def trained(path, *more):
    line = ["train", "policy.normalize_obs=true", "batch_size=4", "estimator=gae", *more]
    line.append("optimizer.schedule=constant")
    done = pg(*line, f"hydra.run.dir={path}", cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return checkpoint.load(path).arrays


def test_what_a_policy_normalises_by_is_that_of_the_batches_it_has_learned_from(tmp_path):
    first = trained(tmp_path / "a", "iterations=1", "seeds=2")
    assert (first["normalizer/count"] == first["tally/env_steps"]).all()
    scale = (first["normalizer/square"] / first["normalizer/count"][:, None] + EPS) ** -0.5
    fixed = np.concatenate([first["normalizer/mean"], scale], 1)
    assert np.allclose(first["theta"][:, -8:], fixed, rtol=1e-6)
    assert not (first["theta"][0] == first["theta"][1]).all()
    alone = trained(tmp_path / "b", "iterations=1", "seed=1")
    assert (alone["normalizer/mean"][0] == first["normalizer/mean"][1]).all()


def test_a_run_that_normalises_resumes_bit_for_bit(tmp_path):
    whole = trained(tmp_path / "a", "iterations=4")
    trained(tmp_path / "b", "iterations=2")
    done = pg("train", f"resume={tmp_path / 'b'}", "iterations=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resumed = checkpoint.load(tmp_path / "b").arrays
    assert all(np.array_equal(x, resumed[name], equal_nan=True) for name, x in whole.items())


def test_compare_looks_through_the_frozen_normaliser(tmp_path):
    trained(tmp_path / "a", "iterations=3", "env=FrozenLake-v1", "policy=tabular", "critic=linear")
    look = ["compare", f"checkpoint={tmp_path / 'a'}", "episodes=64", "estimators=[rtg,gae]"]
    look += ["updates=[natural,proximal]", "along=proximal", f"hydra.run.dir={tmp_path / 'c'}"]
    done = pg(*look, "batch_size=16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    other = pg(*look, "batch_size=16", "policy.clip_obs=3", cwd=tmp_path)
    assert other.returncode == 2
    assert "policy.clip_obs" in other.stderr
