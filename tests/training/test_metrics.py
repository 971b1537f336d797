"""What is logged beside the gradient, by hand."""

import pytest
import torch
from settings import train_config

from pgcli.collection.batch import Batch
from pgcli.estimators.estimator import terms
from pgcli.estimators.phi import Episodes
from pgcli.gradients.around import mean_kl
from pgcli.gradients.trajectory import entropy_gradient
from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.settings.schema import BehaviourConfig
from pgcli.training import metrics


@pytest.fixture
def case():
    rng = torch.Generator().manual_seed(0)
    length = torch.tensor([[4, 1, 3]])
    mask = torch.arange(4) < length.unsqueeze(-1)
    obs = torch.randn(1, 3, 4, 2, generator=rng) * mask.unsqueeze(-1)
    act = torch.randint(0, 3, (1, 3, 4), generator=rng) * mask
    ended = torch.ones(1, 3, dtype=torch.bool)
    batch = Batch(obs, act, mask.double(), mask, ended, ~ended, obs[:, :, 0], length)
    policy = Policy(Mlp((2, 3)), Categorical(3))
    theta = torch.randn(1, policy.num_params, generator=rng)
    return batch, policy, theta


def test_effective_sample_sizes_are_of_prefixes_whatever_the_form(case):
    batch, _, _ = case
    ratio = torch.tensor([[[2.0, 3, 1, 5], [4, 1, 1, 1], [1, 1, 2, 1]]]).double().log()
    looks = Episodes(batch.rew, batch.mask, batch.truncated, log_ratio=ratio)
    first, whole = torch.tensor([2.0, 4, 1]), torch.tensor([30.0, 4, 2])
    for form in ("none", "first_order", "trajectory", "per_decision"):
        config = train_config(f"estimator.importance={form}").estimator
        found = metrics.importance(terms(config, looks), ratio, batch.mask)
        for name, w in {"1": first, "whole": whole, "100": whole}.items():
            expected = w.sum() ** 2 / w.square().sum()
            assert found[f"importance/ess_{name}"].item() == pytest.approx(expected.item())


def test_divergence_is_from_the_first_to_the_second_and_of_the_changed_behaviour(case):
    batch, policy, theta = case
    other = theta + 0.5
    other[:, 0] += 1
    obs, exactly = batch.obs[batch.mask].unsqueeze(0).double(), theta.double()
    p, q = (policy.distribution(x.double(), obs)[0].log_softmax(-1) for x in (theta, other))
    expected = (p.exp() * (p - q)).sum(-1).mean()
    torch.testing.assert_close(mean_kl(policy, theta, other, batch)[0], expected)
    by = BehaviourConfig(temperature=2.0, epsilon=0.25, checkpoint=None, iteration=None)
    p = (0.75 * (policy.distribution(exactly, obs)[0] / 2).softmax(-1) + 0.25 / 3).log()
    expected = (p.exp() * (p - q)).sum(-1).mean()
    torch.testing.assert_close(mean_kl(policy, theta, other, batch, by)[0], expected)


def test_the_entropy_bonus_is_per_episode_over_real_steps(case):
    batch, policy, theta = case
    theta = theta.requires_grad_()
    logp = policy.distribution(theta, batch.obs.flatten(1, 2))[0].log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1) * batch.mask.flatten(1)
    expected = torch.autograd.grad(entropy.sum() / 3, theta)[0]
    torch.testing.assert_close(entropy_gradient(policy, theta.detach(), batch), expected)
