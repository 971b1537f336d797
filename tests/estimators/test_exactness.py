"""Every estimator against ∇J, by listing all trajectories in float64: no tolerance for sampling.

The combinations are generated from the schema, so a new switch cannot escape. A combination must be
exact if and only if it carries no bias note: the notes that users read are themselves proven.
"""

import itertools

import pytest
import torch
from tiny_mdp import TinyMdp

from pgcli.config.schema import Baseline, EstimatorConfig, Importance, Phi
from pgcli.estimators.bias import bias_notes
from pgcli.estimators.estimator import Episodes, weights
from pgcli.gradients.trajectory import trajectory_gradients


def combinations():
    for phi, base, imp, gamma, lam, by_state, norm, boot in itertools.product(
        Phi, Baseline, Importance, (1.0, 0.9), (0.0, 0.7, 1.0), (False, True), (False, True),
        (False, True),
    ):  # fmt: skip
        if phi is not Phi["gae"] and (lam, boot) != (1.0, False):
            continue  # these act on GAE alone
        if phi is Phi["gae"] and base is not Baseline["none"]:
            continue  # refused
        yield EstimatorConfig(phi, base, imp, gamma, lam, by_state, norm, boot)


def name(config: EstimatorConfig) -> str:
    return (
        f"{config.phi.name}-{config.baseline.name}-γ{config.gamma}-λ{config.lam}"
        f"{'-γ^t' * config.discount_state}{'-norm' * config.normalize}{'-boot' * config.bootstrap}"
    )


def expected_gradient(mdp, policy, theta, config, value, final_value):
    """E[ĝ] [1, P]: the production code on all pairs of trajectories, weighted by probability."""
    b, p = mdp.batch, mdp.probabilities(policy, theta).detach()
    n = len(p)
    first, second = (x.flatten() for x in torch.meshgrid(*[torch.arange(n)] * 2, indexing="ij"))
    pair = torch.stack([first, second], 1)  # [n², 2]: the batch axis N = 2
    w = weights(
        config,
        Episodes(b.rew[0][pair], b.mask[0][pair], b.truncated[0][pair], value[pair],
                 final_value[pair]),
    )  # fmt: skip
    # ĝ is linear in the weights: gather the expected weight of every trajectory's scores.
    mean_w = torch.zeros_like(b.rew[0])
    chance = (p[first] * p[second]).unsqueeze(-1)
    for member in range(2):
        mean_w.index_add_(0, pair[:, member], 0.5 * chance * w[:, member])
    factors, _, _ = policy.score_factors(theta, b.obs.flatten(1, 2), b.act.flatten(1, 2))
    return trajectory_gradients(factors, mean_w.unsqueeze(0), policy.num_params).sum(1)


@pytest.fixture(scope="module", params=[0, 1])
def problem(request):
    mdp = TinyMdp.random(request.param)
    policy = mdp.policy()
    theta = torch.randn(
        1, policy.num_params, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
    )
    return mdp, policy, theta


def arbitrary_values(mdp):
    state, final = mdp.states_and_times()
    v = torch.tensor([1.7, -0.6, 0.0], dtype=torch.float64)  # of the terminal state: 0
    return v[state], v[final]


@pytest.mark.parametrize("config", list(combinations()), ids=name)
def test_exact_if_and_only_if_without_a_bias_note(problem, config):
    mdp, policy, theta = problem
    truth = mdp.gradient(policy, theta, config.gamma)
    estimate = expected_gradient(mdp, policy, theta, config, *arbitrary_values(mdp))
    error = (estimate - truth).norm() / truth.norm()
    if bias_notes(config, counted_by_steps=False):
        assert error > 1e-4
    else:
        assert error < 1e-10


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_gae_with_the_exact_value_of_the_finite_horizon_is_unbiased(problem, lam, gamma, bootstrap):
    """V_t(s) with V_T = 0: bootstrapping at the limit then adds nothing."""
    mdp, policy, theta = problem
    config = EstimatorConfig(
        Phi["gae"], Baseline["none"], Importance["none"], gamma, lam, True, False, bootstrap
    )
    v = mdp.values(mdp.action_probabilities(policy, theta).detach(), gamma)
    state, final = mdp.states_and_times()
    value = v[torch.arange(mdp.horizon), state]
    estimate = expected_gradient(mdp, policy, theta, config, value, v[mdp.horizon, final])
    truth = mdp.gradient(policy, theta, gamma)
    torch.testing.assert_close(estimate, truth, rtol=1e-10, atol=1e-10)


def test_dynamic_programming_agrees_with_the_listed_trajectories(problem):
    mdp, policy, theta = problem
    p = mdp.probabilities(policy, theta)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    pi = mdp.action_probabilities(policy, theta)
    discount = 0.9 ** torch.arange(mdp.horizon).double()
    listed = (p * (mdp.batch.rew[0] * discount).sum(-1)).sum()
    torch.testing.assert_close(mdp.objective(pi, 0.9), listed, rtol=1e-12, atol=1e-12)


def test_own_sample_mean_would_shrink_the_gradient_by_one_half(problem):
    """The bias that leave-one-out avoids: with N = 2, subtracting the batch mean halves ∇J."""
    mdp, policy, theta = problem
    b, p = mdp.batch, mdp.probabilities(policy, theta).detach()
    ret = b.rew[0].sum(-1)
    mean_of_pair = 0.5 * (ret + (p * ret).sum())  # E over the partner of the pair's mean
    w = (p * (ret - mean_of_pair)).unsqueeze(-1) * b.mask[0]
    factors, _, _ = policy.score_factors(theta, b.obs.flatten(1, 2), b.act.flatten(1, 2))
    estimate = trajectory_gradients(factors, w.unsqueeze(0), policy.num_params).sum(1)
    truth = mdp.gradient(policy, theta, 1.0)
    torch.testing.assert_close(estimate, truth / 2, rtol=1e-10, atol=1e-10)
