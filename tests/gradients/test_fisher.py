"""Fisher-vector products of every head against sums of ψψᵀ and the Hessian of the divergence."""

import torch
from made_places import place as place
from made_places import scores
from torch.autograd.functional import hessian

from pgcli.gradients.fisher import Fisher


def test_the_sampled_fisher_is_the_sum_of_outer_products_of_scores(place):
    policy, theta, batch, v = place
    product = Fisher(policy, theta, batch, sampled=True).product(v)
    for s, episodes in enumerate([3, 2]):
        psi = scores(policy, theta, batch, s)
        expected = psi.T @ (psi @ v[s]) / episodes
        torch.testing.assert_close(product[s], expected, rtol=1e-12, atol=1e-12)


def test_the_exact_fisher_is_the_hessian_of_the_divergence(place):
    policy, theta, batch, v = place
    product = Fisher(policy, theta, batch, sampled=False).product(v)
    for s, episodes in enumerate([3, 2]):
        obs = batch.obs[s][batch.mask[s]][None]

        def divergence(x, obs=obs, s=s, episodes=episodes):
            p, q = (policy.distribution(y[None], obs) for y in (theta[s], x))
            return policy.head.kl(p, q).sum() / episodes

        # The divergence switches form where it is small, to the same function.
        size = policy.num_params
        expected = hessian(divergence, theta[s])[:size, :size] @ v[s]
        torch.testing.assert_close(product[s], expected, rtol=1e-12, atol=1e-12)


def test_it_does_not_depend_on_how_rows_are_cut(place, monkeypatch):
    policy, theta, batch, v = place
    whole = [Fisher(policy, theta, batch, sampled=x).product(v) for x in (True, False)]
    monkeypatch.setattr("pgcli.gradients.trajectory.CHUNK_STEPS", 1)
    cut = [Fisher(policy, theta, batch, sampled=x).product(v) for x in (True, False)]
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
