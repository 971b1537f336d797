"""Exact variances by listing all trajectories: what is a theorem, and what is none."""

import numpy as np
import pytest
import torch
from made_episodes import config

from pgcli.estimators.estimator import terms
from pgcli.estimators.phi import Episodes
from pgcli.gradients.trajectory import trajectory_gradients
from pgcli.proof.listed import TinyMdp


def exact(mdp, policy, theta, weights, behaviour=None):
    """Mean [P] and trace of the covariance of g_n, for weights [N, T] on every trajectory."""
    b = mdp.batch
    p = mdp.probabilities(policy, theta if behaviour is None else behaviour).detach()
    factors, _ = policy.score_factors(theta, b.obs.flatten(1, 2), b.act.flatten(1, 2))
    g = trajectory_gradients(factors, (weights * b.mask[0]).unsqueeze(0), policy.num_params)[0]
    mean = (p[:, None] * g).sum(0)
    return mean, (p * (g - mean).square().sum(1)).sum().item(), g


def theta_of(policy, seed=7, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return scale * torch.randn(1, policy.num_params, dtype=torch.float64, generator=rng)


def phi(mdp, name, log_ratio=None, **values):
    b = mdp.batch
    batch = Episodes(b.rew[0][:, None], b.mask[0][:, None], b.truncated[0][:, None],
                     log_ratio=log_ratio)  # fmt: skip
    return terms(config(name, gamma=1.0, **values), batch).weights[:, 0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["total_return", "reward_to_go"])
def test_the_optimal_constant_is_optimal(seed, name):
    """No other constant has less variance, and per parameter has least of all."""
    mdp = TinyMdp.random(seed)
    policy = mdp.policy()
    theta = theta_of(policy)
    p = mdp.probabilities(policy, theta).detach()[:, None]
    base = phi(mdp, name)
    _, plain, x = exact(mdp, policy, theta, base)
    _, _, s = exact(mdp, policy, theta, torch.ones_like(base))
    best = ((p * x * s).sum() / (p * s * s).sum()).item()
    least = exact(mdp, policy, theta, base - best)[1]
    assert least <= plain
    for other in (best - 0.1, best + 0.1, 0.0, phi(mdp, "total_return")[:, 0].mean().item()):
        assert exact(mdp, policy, theta, base - other)[1] >= least
    each = (p * x * s).sum(0) / (p * s * s).sum(0)
    g = x - each * s
    per_parameter = (p * (g - (p * g).sum(0)).square()).sum().item()
    assert per_parameter <= least * (1 + 1e-12)


def test_the_textbooks_baseline_for_reward_to_go_is_not_optimal():
    """E[‖g_t‖²G_t]/E‖g_t‖² leaves out that scores and returns of different steps correlate."""
    mdp = TinyMdp.random(0)
    policy = mdp.policy()
    theta = theta_of(policy)
    p, b = mdp.probabilities(policy, theta).detach(), mdp.batch
    base = phi(mdp, "reward_to_go")
    _, _, x = exact(mdp, policy, theta, base)
    _, _, s = exact(mdp, policy, theta, torch.ones_like(base))
    best = ((p[:, None] * x * s).sum() / (p[:, None] * s * s).sum()).item()
    square = torch.zeros_like(base)  # ‖g_t‖²
    for t in range(mdp.horizon):
        only = torch.zeros_like(base)
        only[:, t] = 1
        square[:, t] = exact(mdp, policy, theta, only)[2].square().sum(1)
    chance = p[:, None] * square * b.mask[0]
    textbook = ((chance * base).sum() / chance.sum()).item()
    assert textbook != pytest.approx(best, rel=1e-3)
    assert exact(mdp, policy, theta, base - textbook)[1] > exact(mdp, policy, theta, base - best)[1]


def test_reward_to_go_can_be_noisier_than_the_total_return():
    """With r_1 = −r_0 the total return is 0 and its estimate has no variance at all."""
    mdp = TinyMdp(
        P=np.array([[[1.0, 0.0], [1.0, 0.0]]]),
        R=np.zeros((1, 2, 2)),
        start=np.array([1.0]),
        horizon=2,
    )
    mdp.batch.rew[0, :, 0], mdp.batch.rew[0, :, 1] = 1.0, -1.0
    policy = mdp.policy(())
    theta = theta_of(policy)
    assert exact(mdp, policy, theta, phi(mdp, "total_return"))[1] == pytest.approx(0, abs=1e-20)
    assert exact(mdp, policy, theta, phi(mdp, "reward_to_go"))[1] > 0.01


def test_the_importance_ladder_trades_variance_for_bias():
    """Far from the behaviour: whole-trajectory weights are noisier than per-decision ones, which
    are noisier than first-order ones; and the biases of the last two shrink with the distance."""
    mdp = TinyMdp.random(1)
    policy = mdp.policy()
    theta = theta_of(policy)
    direction = theta_of(policy, seed=9)
    truth = mdp.gradient(policy, theta, 1.0)[0]
    rows = mdp.batch.obs.flatten(1, 2), mdp.batch.act.flatten(1, 2)

    def ladder(distance):
        behaviour = theta + distance * direction
        ratio = policy.log_prob(theta, *rows) - policy.log_prob(behaviour, *rows)
        log_ratio = (ratio.reshape(mdp.batch.mask.shape) * mdp.batch.mask)[0].detach()[:, None]
        found = {}
        for form in ("trajectory", "per_decision", "truncated", "first_order"):
            w = phi(mdp, "reward_to_go", log_ratio, importance=form)
            mean, trace, _ = exact(mdp, policy, theta, w, behaviour)
            found[form] = ((mean - truth).norm().item(), trace)
        return found

    far, near = ladder(0.4), ladder(0.2)
    for form in ("trajectory", "per_decision"):
        assert far[form][0] < 1e-10
    assert far["trajectory"][1] > far["per_decision"][1] > far["first_order"][1]
    for form in ("truncated", "first_order"):
        assert near[form][0] == pytest.approx(far[form][0] / 2, rel=0.35)  # linear in the distance
        assert far[form][0] > 1e-4
