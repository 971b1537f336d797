"""Fisher-vector products of every head against sums of ψψᵀ and the Hessian of the divergence."""

import pytest
import torch
from torch.autograd.functional import hessian

from pgcli.collection.batch import Batch
from pgcli.gradients.fisher import Fisher
from pgcli.policies.heads import Bernoulli, Categorical, Gaussian, MultiCategorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy

HEADS = {
    "categorical": Categorical(3),
    "multi_categorical": MultiCategorical((2, 3)),
    "bernoulli": Bernoulli(2),
    "gaussian": Gaussian(2),
}
S, N, T, D = 2, 3, 4, 3


@pytest.fixture(params=HEADS)
def place(request):
    head = HEADS[request.param]
    policy = Policy(Mlp((D, 4, head.num_outputs), "elu"), head)
    rng = torch.Generator().manual_seed(5)
    theta, v = torch.randn(2, S, policy.num_params, dtype=torch.float64, generator=rng)
    length = torch.tensor([[4, 2, 3], [1, 4, 0]])  # a seed of two episodes
    mask = torch.arange(T) < length.unsqueeze(-1)
    obs = torch.randn(S, N, T, D, dtype=torch.float64, generator=rng)
    shape = (S, N, T, *head.action_shape)
    if request.param == "gaussian":
        act = torch.randn(shape, dtype=torch.float64, generator=rng)
    else:
        act = torch.randint(2, shape, generator=rng)
    nothing = torch.zeros(S, N, dtype=torch.bool)
    batch = Batch(obs, act, torch.zeros(S, N, T), mask, nothing, nothing, obs[:, :, 0], length)
    return policy, theta, batch, v


def scores(policy, theta, batch, s):
    """ψ of every real step of seed s, [M, P], by autograd."""
    obs, act = batch.obs[s][batch.mask[s]], batch.act[s][batch.mask[s]]

    def logp(x):
        return policy.log_prob(x[None], obs[None], act[None])[0]

    return torch.autograd.functional.jacobian(logp, theta[s])


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
        expected = hessian(divergence, theta[s]) @ v[s]
        torch.testing.assert_close(product[s], expected, rtol=1e-12, atol=1e-12)


def test_it_does_not_depend_on_how_rows_are_cut(place, monkeypatch):
    policy, theta, batch, v = place
    whole = [Fisher(policy, theta, batch, sampled=x).product(v) for x in (True, False)]
    monkeypatch.setattr("pgcli.gradients.trajectory.CHUNK_STEPS", 1)
    cut = [Fisher(policy, theta, batch, sampled=x).product(v) for x in (True, False)]
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
