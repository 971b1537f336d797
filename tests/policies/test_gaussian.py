"""Gaussian heads: squashed, with a deviation of each state, with bounds of it."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.errors import ConfigError
from pgcli.gradients.trajectory import entropy_gradient_of
from pgcli.policies import fused
from pgcli.policies.actor import PolicyActor
from pgcli.policies.heads import Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.settings.schema import check_combination

BOUNDS = [(None, None), (0.2, None), (None, 1.5), (0.2, 1.5)]
COMBINATIONS = [
    Gaussian(2, squashed, state_std, low, high)
    for squashed, state_std, (low, high) in product(
        [(), (True, True), (True, False)], [False, True], BOUNDS
    )
]
every = pytest.mark.parametrize("head", COMBINATIONS, ids=repr)
BOUNDED = [head for head in COMBINATIONS if head.has_bounds]


def point(head, rows=6, seed=0):
    """out, extra and actions of some rows, with ρ on either side of the bounds."""
    rng = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    return drawn(1, rows, head.num_outputs), drawn(1, 1, head.num_extra), drawn(1, rows, 2)


def grid(points, reach):
    """Nodes and the weight of each of the trapezoidal rule in one dimension."""
    x = torch.linspace(-reach, reach, points, dtype=torch.float64)
    return x, 2 * reach / (points - 1)


def parameters(head, out, extra):
    return (torch.cat([out, extra.expand(1, out.shape[1], -1)], -1),)


def parted(head, x):
    return x[..., : head.num_outputs], x[..., head.num_outputs :]


@pytest.mark.parametrize("state_std", [False, True])
@pytest.mark.parametrize("bounds", BOUNDS)
def test_the_density_of_what_the_environment_is_told_integrates_to_one(state_std, bounds):
    """Over a ∈ (−1, 1), not over u."""
    a = torch.linspace(-1, 1, 400_001, dtype=torch.float64)[1:-1]
    head = Gaussian(1, (True,), state_std, *bounds)
    out = torch.tensor([[[0.4, -0.9][: head.num_outputs]]], dtype=torch.float64)
    extra = torch.full((1, 1, head.num_extra), -0.9, dtype=torch.float64)
    density = head.log_prob(out, extra, a.atanh()[None, :, None]).exp()
    assert density.sum().item() * 2 / 400_000 == pytest.approx(1, abs=1e-6)


@every
def test_the_density_integrates_to_one_in_two_dimensions(head):
    """Over what the environment is told: tanh u where squashed, u elsewhere."""
    out, extra, _ = point(head, rows=1)
    x, step = grid(801, 14.0)
    pairs = torch.cartesian_prod(x, x)[None]
    jacobian = torch.ones(1, len(pairs[0]), dtype=torch.float64)
    for i, squashed in enumerate(head.squashed):
        jacobian = jacobian / pairs[..., i].cosh().square() if squashed else jacobian
    total = (head.log_prob(out, extra, pairs).exp() * jacobian).sum() * step**2
    assert total.item() == pytest.approx(1, abs=1e-9)


@every
def test_scores_are_the_derivatives_of_the_log_probability(head):
    out, extra, act = point(head)
    both = parameters(head, out, extra)[0].requires_grad_()
    (expected,) = torch.autograd.grad(head.log_prob(*parted(head, both), act).sum(), both)
    found = head.score(out, extra, act)
    torch.testing.assert_close(torch.cat([found.out, found.extra], -1), expected)


@every
def test_the_divergence_is_that_of_torch_and_knows_no_tanh(head):
    p, q = point(head)[:2], point(head, seed=1)[:2]
    a, b = (torch.distributions.Normal(m, s.exp()) for m, s in (head._moments(*x) for x in (p, q)))
    torch.testing.assert_close(head.kl(p, q), torch.distributions.kl_divergence(a, b).sum(-1))


@pytest.mark.parametrize("state_std", [False, True])
def test_the_divergence_of_squashed_policies_is_the_integral_over_what_is_told(state_std):
    head = Gaussian(1, (True,), state_std, 0.2, 1.5)
    a = torch.linspace(-1, 1, 400_001, dtype=torch.float64)[1:-1]
    sides = [([0.3, -0.5], -0.5), ([-0.2, 0.1], 0.1)]
    p, q = (
        (torch.tensor([[out[: head.num_outputs]]]).double(),
         torch.full((1, 1, head.num_extra), free).double())
        for out, free in sides
    )  # fmt: skip
    log_p, log_q = (head.log_prob(*x, a.atanh()[None, :, None]) for x in (p, q))
    integral = (log_p.exp() * (log_p - log_q)).sum().item() * 2 / 400_000
    assert head.kl(p, q).item() == pytest.approx(integral, rel=1e-6)


@every
def test_the_fisher_matrix_is_the_hessian_of_the_divergence(head):
    out, extra, _ = point(head, rows=1)
    (both,) = parameters(head, out, extra)
    size = both.shape[-1]

    def divergence(x):
        return head.kl((out, extra), parted(head, x.reshape(1, 1, -1))).sum()

    expected = torch.autograd.functional.hessian(divergence, both.reshape(-1))
    columns = [head.fisher(out, extra, parted(head, e[None, None])) for e in torch.eye(size)]
    found = torch.stack([torch.cat(column, -1)[0, 0] for column in columns])
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-9)


@every
def test_the_score_has_mean_zero_and_its_covariance_is_the_fisher_matrix(head):
    """By quadrature over u."""
    out, extra, _ = point(head, rows=1)
    mean, log_std = head._moments(out, extra)
    z, step = grid(161, 9.0)
    pairs = torch.cartesian_prod(z, z)[None]
    weight = (-0.5 * pairs.square().sum(-1)).exp() * step**2 / (2 * math.pi)
    rows = out.expand(1, pairs.shape[1], -1)
    score = head.score(rows, extra, mean + log_std.exp() * pairs)
    s = torch.cat([score.out, score.extra], -1)[0]
    torch.testing.assert_close(weight[0] @ s, torch.zeros_like(s[0]), rtol=0, atol=1e-9)
    covariance = (s * weight[0].unsqueeze(1)).T @ s
    eye = torch.eye(s.shape[1], dtype=torch.float64)
    product_ = [torch.cat(head.fisher(out, extra, parted(head, e[None, None])), -1) for e in eye]
    torch.testing.assert_close(covariance, torch.cat(product_, 1)[0], rtol=1e-8, atol=1e-9)


STDS = [0.05, 0.2, 0.5, 1.0, 2.0, 3.0]


def dense_entropy(mean, std):
    """−∫ p log p of tanh u in one dimension, by the change of variable, on a dense grid."""
    z = np.linspace(-12, 12, 200_001)
    u, step = mean + std * z, z[1] - z[0]
    p = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    stretch = 2 * (math.log(2) - np.logaddexp(u, -u))
    log_density = -0.5 * z**2 - math.log(std * math.sqrt(2 * math.pi)) - stretch
    return float(-(p * log_density).sum() * step)


@pytest.mark.parametrize("std", STDS)
def test_the_entropy_of_what_is_told_and_its_slopes_are_the_integrals(std):
    head = Gaussian(1, (True,))
    for mean in np.linspace(-3, 3, 7):
        out = torch.tensor([[[mean]]], dtype=torch.float64, requires_grad=True)
        extra = torch.full((1, 1, 1), math.log(std), dtype=torch.float64, requires_grad=True)
        found = head.entropy(out, extra)
        assert found.item() == pytest.approx(dense_entropy(mean, std), abs=1e-6)
        slopes = torch.autograd.grad(found.sum(), [out, extra])
        d = 1e-4
        by_mean = (dense_entropy(mean + d, std) - dense_entropy(mean - d, std)) / (2 * d)
        wider, less = std * math.exp(d), std * math.exp(-d)
        by_std = (dense_entropy(mean, wider) - dense_entropy(mean, less)) / (2 * d)
        assert [x.item() for x in slopes] == pytest.approx([by_mean, by_std], abs=1e-5)


def test_the_entropy_of_a_wide_squashed_policy_falls_and_that_of_its_gaussian_rises():
    head, plain, mean = Gaussian(1, (True,)), Gaussian(1), torch.zeros(1, 1, 1)
    one, three = (torch.full((1, 1, 1), math.log(s)) for s in (1.0, 3.0))
    assert head.entropy(mean, three) < head.entropy(mean, one)
    assert plain.entropy(mean, three) > plain.entropy(mean, one)


def test_a_probability_far_out_is_finite_and_so_is_its_ratio():
    head = Gaussian(2, (True, True), state_std=True)
    out = torch.tensor([[[0.0, 0.0, 0.0, 0.0]]])
    act = torch.tensor([[[40.0, -40.0]]])
    extra = torch.zeros(1, 1, 0)
    assert head.log_prob(out, extra, act).isfinite().all()
    for part in head.score(out, extra, act):
        assert part.isfinite().all()


@pytest.mark.parametrize("head", BOUNDED, ids=repr)
def test_the_deviation_stays_between_its_bounds_and_rises_with_what_makes_it(head):
    free = torch.linspace(-50, 50, 2001, dtype=torch.float64)
    std = head._log_std(free).exp()
    low, high = head.min_std or 0.0, head.max_std or math.inf
    assert (std >= low * (1 - 1e-12)).all()
    assert (std <= high * (1 + 1e-12)).all()
    assert (std.diff() >= -1e-14).all()  # rounding of ρ: 7e-15 at 50
    exact = (low + free.exp()) / (1 + free.exp() / high)
    torch.testing.assert_close(std, exact, rtol=1e-12, atol=0)
    free.requires_grad_()
    (slope,) = torch.autograd.grad(head._log_std(free).sum(), free)
    torch.testing.assert_close(head._slope(free.detach()), slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("init", ["orthogonal", "zeros"])
@every
def test_a_fresh_policy_has_the_deviation_that_it_is_told_to_have(head, init):
    config = train_config(f"policy.init={init}").policy
    policy = Policy(Mlp((3, 8, head.num_outputs)), head)
    for log_std in (-1.0, 0.0, 0.3):
        theta = policy.init(replace(config, log_std=log_std, output_gain=0.0), [0, 1])
        mean, found = head._moments(*policy.distribution(theta, torch.randn(2, 5, 3)))
        torch.testing.assert_close(found, torch.full_like(found, log_std), rtol=0, atol=2e-6)
        assert not mean.any()


def test_a_plain_gaussian_is_as_it_was_bit_for_bit():
    head, rng = Gaussian(3), torch.Generator().manual_seed(0)
    out, extra, act = (torch.randn(1, n, 3, generator=rng) for n in (7, 1, 7))
    z = (act - out) * (-extra).exp()
    constant = 0.5 * 3 * math.log(2 * math.pi)
    assert torch.equal(
        head.log_prob(out, extra, act), (-0.5 * z.square() - extra).sum(-1) - constant
    )
    score = head.score(out, extra, act)
    assert torch.equal(score.out, z * (-extra).exp())
    assert torch.equal(score.extra, z.square() - 1.0)
    noise = np.random.default_rng(0).normal(size=(1, 7, 3)).astype(np.float32)
    expected = out.numpy() + np.exp(extra[:, 0].numpy())[:, None] * noise
    assert np.array_equal(head.sample(out.numpy(), extra[:, 0].numpy(), noise), expected)


@every
def test_the_actor_samples_what_torch_says_and_tells_what_is_within_the_bounds(head):
    policy = Policy(Mlp((3, 8, head.num_outputs)), head)
    config = replace(train_config().policy, output_gain=1.0, log_std=0.1)
    theta = policy.init(config, [3, 4])
    actor = PolicyActor(policy, theta, [3, 4], 0, slots=500)
    obs = np.random.default_rng(0).normal(size=(2, 500, 3)).astype(np.float32)
    act = actor(obs)
    assert act.dtype == np.float32
    assert act.shape == (2, 500, 2)
    actor.restart()
    mean, log_std = head._moments(*policy.distribution(theta, torch.from_numpy(obs)))
    noise = torch.from_numpy(actor.noise()[0])
    torch.testing.assert_close(torch.from_numpy(act), mean + log_std.exp() * noise)
    told = actor.emitted(act.reshape(1000, 2))
    assert told.dtype == np.float32
    squashed = np.array(head.squashed or (False, False))
    assert (np.abs(told[:, squashed]) <= 1).all()
    np.testing.assert_array_equal(told[:, ~squashed], act.reshape(1000, 2)[:, ~squashed])
    features = head.features(torch.from_numpy(act)).reshape(1000, 2).numpy()
    np.testing.assert_allclose(features, told, rtol=1e-6, atol=1e-6)
    assert (actor.network() is None) == bool(head.squashed or head.state_std)
    if (network := actor.network()) is not None:
        np.testing.assert_allclose(network.spread, log_std.exp()[:, 0].numpy(), rtol=1e-6)


def test_tempering_is_of_the_gaussian_and_bounds_refuse_it():
    for state_std in (False, True):
        head = Gaussian(2, (True, True), state_std)
        out, extra, _ = point(head)
        wider = head._moments(*head.behaviour(out, extra, 4.0, 0.0))
        mean, log_std = head._moments(out, extra)
        torch.testing.assert_close(wider[0], mean)
        torch.testing.assert_close(wider[1].exp(), 2 * log_std.exp())
    with pytest.raises(ValueError, match="bounds"):
        Gaussian(2, min_std=0.1).behaviour(*point(Gaussian(2))[:2], 4.0, 0.0)


@every
def test_scores_and_entropy_of_a_policy_are_those_of_its_head(head):
    """Factor by factor against autograd of log π, and the bonus's gradient against its value."""
    policy = Policy(Mlp((3, 4, head.num_outputs)), head)
    rng = torch.Generator().manual_seed(1)
    theta, way = torch.randn(2, 1, policy.num_params, generator=rng, dtype=torch.float64)
    obs, act = (torch.randn(1, 5, n, generator=rng, dtype=torch.float64) for n in (3, 2))
    (expected,) = torch.autograd.functional.jacobian(
        lambda x: policy.log_prob(x, obs, act).sum(), theta
    )
    factors, _ = policy.score_factors(theta, obs, act)
    found = torch.zeros_like(theta)
    for block, x, delta in factors:
        x = torch.ones(1, 5, 1, dtype=torch.float64) if x is None else x
        found[:, block] = (x.mT @ delta).flatten(1)
    torch.testing.assert_close(found, expected[None])
    along = policy.along(theta, obs, act, way).sum()
    torch.testing.assert_close(along, (expected * way).sum())
    slope = entropy_gradient_of(policy, theta, obs, torch.ones(1, 5, dtype=torch.float64))
    d = 1e-6
    ends = [head.entropy(*policy.distribution(theta + s * d * way, obs)).sum() for s in (1, -1)]
    torch.testing.assert_close(
        (slope * way).sum(), (ends[0] - ends[1]) / (2 * d), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("head", "bonus", "compiled"),
    [
        (Gaussian(2), True, True),
        (Gaussian(2, (True, False)), False, True),
        (Gaussian(2, (True, False)), True, False),
        (Gaussian(2, state_std=True), False, False),
        (Gaussian(2, min_std=0.1), False, False),
        (Gaussian(2, max_std=3.0), False, False),
    ],
    ids=repr,
)
def test_compiled_passes_take_what_they_compute_and_no_more(head, bonus, compiled):
    pytest.importorskip("numba")
    policy = Policy(Mlp((3, 8, head.num_outputs)), head)
    theta = policy.init(train_config().policy, [0])
    rows = torch.randn(1, 9, 3), torch.randn(1, 9, 2)
    found = fused.Rows.of(policy, theta, *rows, bonus)
    assert (found is not None) == compiled


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("policy.min_std=2 policy.max_std=1", "policy.min_std=2"),
        ("policy.min_std=1", "policy.log_std=0"),
        ("policy.max_std=1", "policy.log_std=0"),
        ("policy.min_std=0.1 behaviour.temperature=2", "behaviour.temperature=2"),
        ("policy.state_std=true policy.bias=false", "policy.state_std=true"),
    ],
)
def test_what_cannot_be_together_is_refused(line, said):
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        check_combination(train_config(*line.split()))
