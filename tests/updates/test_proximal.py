"""PPO's minibatches and clipping, in float64, against what they say and against autograd."""

import pytest
import torch
from settings import train_config

from pgcli.collection.batch import Batch
from pgcli.gradients.around import Batched
from pgcli.gradients.statistics import measure
from pgcli.gradients.trajectory import gradient_sums
from pgcli.policies.heads import Categorical, Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.settings.schema import Minibatch
from pgcli.updates.proximal import Proximal
from pgcli.updates.rule import Start

S, N, T, D = 2, 5, 6, 3
INF = float("inf")


@pytest.fixture(params=[Categorical(3), Gaussian(2)], ids=["categorical", "gaussian"])
def place(request):
    head = request.param
    policy = Policy(Mlp((D, 4, head.num_outputs)), head)
    rng = torch.Generator().manual_seed(1)
    theta, way = torch.randn(2, S, policy.num_params, dtype=torch.float64, generator=rng)
    length = torch.tensor([[6, 2, 3, 1, 5], [4, 1, 6, 0, 0]])
    mask = torch.arange(T) < length.unsqueeze(-1)
    obs = torch.randn(S, N, T, D, dtype=torch.float64, generator=rng)
    shape = (S, N, T, *head.action_shape)
    gaussian = isinstance(head, Gaussian)
    act = (
        torch.randn(shape, generator=rng).double()
        if gaussian
        else torch.randint(3, shape, generator=rng)
    )
    no = torch.zeros(S, N, dtype=torch.bool)
    batch = Batch(obs, act, torch.zeros(S, N, T), mask, no, no, obs[:, :, 0], length)
    weights = torch.randn(S, N, T, dtype=torch.float64, generator=rng) * mask
    return policy, theta, batch, weights, way


def around(place, seeds=(3, 4), done=(7, 7), coef=0.0):
    policy, theta, batch, weights, _ = place
    return Batched(policy, theta, batch, weights, seeds, done, coef)


def clipped(where, theta, rows, clip=INF, **options):
    return where.clipped(theta, rows, clip, **{"of_steps": True, "normalize": False, **options})


@pytest.mark.parametrize("of_steps", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_mean_of_a_pass_at_the_estimate_is_the_estimate(place, count, of_steps):
    """Weighted by their share of the rows, or of the episodes: a minibatch of m of M, M/(m·N)."""
    policy, theta, batch, weights, _ = place
    where = around(place)
    estimate = measure(gradient_sums(policy, theta, batch, weights)).gradient
    parts = where.minibatches(count, of_steps=of_steps)
    total = torch.zeros_like(estimate)
    for rows in parts:
        found = clipped(where, theta, rows, 0.2, of_steps=of_steps)
        real = rows >= 0
        share = real.sum(1).double() / batch.steps
        if not of_steps:
            share = (real & (rows % T == 0)).sum(1).double() / batch.episodes
        total += share.unsqueeze(1) * found.gradient
        assert (found.fraction == 0).all()
    torch.testing.assert_close(total, estimate, rtol=1e-12, atol=1e-12)
    every = torch.cat(parts, 1)
    for s in range(S):
        assert (
            sorted(every[s][every[s] >= 0].tolist())
            == batch.mask[s].flatten().nonzero()[:, 0].tolist()
        )


def test_one_minibatch_at_the_estimate_has_ratios_of_exactly_one(place):
    _policy, theta, _batch, _weights, _ = place
    where = around(place)
    (rows,) = where.minibatches(1, of_steps=True)
    assert torch.equal(
        clipped(where, theta, rows, 1e-300).gradient, clipped(where, theta, rows).gradient
    )


@pytest.mark.parametrize("clip", [0.05, 0.2, INF])
def test_the_gradient_is_that_of_the_clipped_surrogate(place, clip):
    policy, theta, batch, weights, way = place
    where, other = around(place, coef=0.3), theta + 0.3 * way
    (rows,) = where.minibatches(1, of_steps=True)
    found = clipped(where, other, rows, clip)
    free = other.clone().requires_grad_()
    flat = batch.obs.flatten(1, 2), batch.act.flatten(1, 2)
    ratio = (policy.log_prob(free, *flat) - policy.log_prob(theta, *flat)).exp()
    w, mask = weights.flatten(1), batch.mask.flatten(1)
    objective = torch.minimum(ratio * w, ratio.clamp(1 - clip, 1 + clip) * w)
    entropy = policy.head.entropy(*policy.distribution(free, flat[0]))
    total = ((objective + 0.3 * entropy) * mask).sum(1) / batch.episodes
    (expected,) = torch.autograd.grad(total.sum(), free)
    torch.testing.assert_close(found.gradient, expected, rtol=1e-12, atol=1e-12)
    above, below = (w > 0) & (ratio > 1 + clip), (w < 0) & (ratio < 1 - clip)
    fraction = ((above | below) & mask).sum(1) / batch.steps
    torch.testing.assert_close(found.fraction, fraction)
    assert bool((fraction > 0).any()) == (clip < INF)


def test_without_a_clip_it_is_first_order_importance(place):
    policy, theta, batch, weights, way = place
    where, other = around(place), theta + 0.3 * way
    (rows,) = where.minibatches(1, of_steps=True)
    flat = batch.obs.flatten(1, 2), batch.act.flatten(1, 2)
    ratio = (policy.log_prob(other, *flat) - policy.log_prob(theta, *flat)).exp()
    weighted = ratio.reshape(weights.shape) * weights
    expected = measure(gradient_sums(policy, other, batch, weighted)).gradient
    torch.testing.assert_close(
        clipped(where, other, rows).gradient, expected, rtol=1e-12, atol=1e-12
    )


def proximal(theta, seeds, **values):
    settings = {
        "epochs": 3,
        "minibatches": 2,
        "minibatch_of": Minibatch.steps,
        "clip": 0.2,
        **values,
    }
    return Proximal(Start(theta, train_config().optimizer, seeds), **settings)


def test_weights_are_standardised_within_a_minibatch(place):
    policy, theta, batch, weights, _ = place
    where = around(place)
    rows = where.minibatches(2, of_steps=True)[0]
    w = weights[0].flatten()[rows[0][rows[0] >= 0]]
    own = Batched(policy, theta, batch, (weights - w.mean()) / (w.std(correction=0) + 1e-8))
    found = clipped(where, theta, rows, normalize=True).gradient[0]
    torch.testing.assert_close(found, clipped(own, theta, rows).gradient[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", Minibatch)
def test_a_seed_beside_others_moves_as_it_would_alone(place, kind):
    policy, theta, batch, weights, _ = place
    moved = theta.clone()
    rule = proximal(moved, (3, 4), minibatch_of=kind, minibatches=3)
    rule.step(moved, torch.ones_like(theta), 0.0, around(place))
    for s in range(S):
        own = slice(s, s + 1)
        one = Batch(*(getattr(batch, f)[own] for f in ("obs", "act", "rew", "mask", "terminated",
                      "truncated", "final_obs", "length")))  # fmt: skip
        alone = theta[own].clone()
        rule = proximal(alone, (3 + s,), minibatch_of=kind, minibatches=3)
        place_of_one = Batched(policy, theta[own], one, weights[own], (3 + s,), (7,))
        rule.step(alone, torch.ones_like(alone), 0.0, place_of_one)
        torch.testing.assert_close(alone, moved[own], rtol=1e-12, atol=1e-13)


def test_a_seed_beyond_the_target_begins_no_further_pass(place):
    _policy, theta, _batch, _weights, _ = place
    where = around(place)
    moved = theta.clone()
    told = proximal(moved, (3, 4), epochs=50, target_kl=1e-4).step(
        moved, torch.ones_like(theta), 0.0, where
    )
    passes = told["epochs"]
    assert (passes < 50).all()
    assert (where.divergence(moved) > 1e-4).all()
