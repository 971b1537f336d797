"""Compatible features in float64, by listing all trajectories of a small process: Φ = ψᵀw and w."""

from dataclasses import replace

import pytest
import torch
from made_places import scores

from pgcli.estimators.returns import powers, reward_to_go
from pgcli.gradients.compatible import advantages, cross_fitted, least_squares
from pgcli.gradients.trajectory import gradient_sums
from pgcli.proof.listed import TinyMdp

MDP = TinyMdp.random(3, states=2, actions=3)
POLICY = MDP.policy()
ENOUGH = 500  # iterations of conjugate gradients


def drawn(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(1, POLICY.num_params, dtype=torch.float64, generator=rng)


def some(count=7, seed=1):
    """A batch of so many of the trajectories."""
    rng = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(MDP.trajectories), generator=rng)[:count]
    return MDP.batch.part(chosen)


def sums(batch, weights, theta):
    return gradient_sums(POLICY, theta, batch, weights).gradient / batch.length.shape[1]


def fisher(batch, weights, theta):
    """Dense: Σ weight ψψᵀ over the real steps, per episode, [P, P]."""
    psi = scores(POLICY, theta, batch, 0)
    weight = weights[batch.mask].unsqueeze(-1)
    return psi.T @ (weight * psi) / batch.length.shape[1]


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("baseline", [False, True])
def test_of_the_minimiser_the_mean_is_the_gradient_and_w_the_natural_one(gamma, baseline):
    """Sutton et al. 2000, theorem 2; with γ^t in the fit and in the estimate where γ < 1."""
    theta, batch = drawn(), MDP.batch
    chance = MDP.probabilities(POLICY, theta).detach()[None, :, None] * batch.length.shape[1]
    target = reward_to_go(batch.rew, gamma)
    if baseline:  # anything of the state
        state, _ = MDP.states_and_times()
        target = target - torch.tensor([1.7, -0.6, 0.0]).double()[state]
    weights = (chance * powers(gamma, target)).expand(batch.mask.shape)
    w = least_squares(POLICY, theta, batch, target, ridge=0.0, weights=weights, iterations=ENOUGH)
    phi = advantages(POLICY, theta, batch, w)
    truth = MDP.gradient(POLICY, theta, gamma)
    torch.testing.assert_close(sums(batch, weights * phi, theta), truth, rtol=1e-8, atol=1e-9)
    dense = fisher(batch, weights, theta)
    natural = torch.linalg.pinv(dense, rtol=1e-9, hermitian=True) @ truth[0]
    torch.testing.assert_close(w[0], natural, rtol=1e-5, atol=1e-6)
    without = least_squares(
        POLICY, theta, batch, target, ridge=0.0, weights=chance.expand(batch.mask.shape),
        iterations=ENOUGH,
    )  # fmt: skip
    other = sums(batch, weights * advantages(POLICY, theta, batch, without), theta)
    assert ((other - truth).norm() > 1e-3 * truth.norm()) == (gamma < 1)


def test_on_its_own_batch_it_is_the_reward_to_go_estimate_but_for_the_ridge():
    theta, batch = drawn(), some(40)
    target = reward_to_go(batch.rew, 1.0)
    plain = sums(batch, target, theta)
    w = least_squares(POLICY, theta, batch, target, ridge=0.0, iterations=ENOUGH)
    found = sums(batch, advantages(POLICY, theta, batch, w), theta)
    torch.testing.assert_close(found, plain, rtol=1e-8, atol=1e-9)
    w = least_squares(POLICY, theta, batch, target, ridge=0.1, iterations=ENOUGH)
    found = sums(batch, advantages(POLICY, theta, batch, w), theta)
    per_episode = float(batch.steps) / batch.length.shape[1]
    torch.testing.assert_close(found, plain - 0.1 * per_episode * w, rtol=1e-8, atol=1e-9)


def test_its_mean_under_the_policy_is_nothing():
    theta, w = drawn(), drawn(5)
    batch = MDP.batch
    pi = POLICY.probabilities(theta, batch.obs.flatten(1, 2)).reshape(*batch.mask.shape, 3)
    mean = 0.0
    for a in range(3):
        taken = replace(batch, act=torch.full_like(batch.act, a))
        mean = mean + pi[..., a] * advantages(POLICY, theta, taken, w)
    assert float(mean.abs().max()) < 1e-12


def test_no_episode_is_served_by_a_fit_that_has_seen_it():
    theta, batch = drawn(), some(7)
    target = reward_to_go(batch.rew, 1.0)
    found = cross_fitted(POLICY, theta, batch, target, ridge=0.01)
    halves = slice(0, None, 2), slice(1, None, 2)
    for own, other in (halves, halves[::-1]):
        w = least_squares(POLICY, theta, batch.part(other), target[:, other], ridge=0.01)
        expected = advantages(POLICY, theta, batch.part(own), w)
        assert torch.equal(found[:, own], expected)
    spoiled = target.clone()
    spoiled[:, 3] += 100  # of the second half: its own weights stay
    again = cross_fitted(POLICY, theta, batch, spoiled, ridge=0.01)
    assert torch.equal(again[:, 1::2], found[:, 1::2])
    assert not torch.equal(again[:, 0::2], found[:, 0::2])
    assert not cross_fitted(POLICY, theta, some(1), target[:, :1], ridge=0.01).any()
