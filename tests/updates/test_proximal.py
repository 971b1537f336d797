"""PPO's minibatches and clipping, in float64, against what they say and against autograd."""

import pytest
import torch
from settings import train_config

from pgcli.collection.batch import Batch
from pgcli.gradients.around import Batched
from pgcli.gradients.statistics import measure
from pgcli.gradients.trajectory import gradient_sums
from pgcli.policies import fused
from pgcli.policies.heads import Categorical, Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.settings.schema import Minibatch
from pgcli.updates.proximal import Proximal
from pgcli.updates.rule import Start

S, N, T, D = 2, 5, 6, 3
INF = float("inf")


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def path(request, monkeypatch):
    """Both ways to compute the same."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(fused, "knows", lambda net, theta: False)
    return request.param


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


def minibatches(where, count, *, of_steps=True, **options):
    return list(where.minibatches(count, of_steps=of_steps, **options).each())


@pytest.mark.parametrize("of_steps", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_mean_of_a_pass_at_the_estimate_is_the_estimate(place, count, of_steps):
    """Weighted by their share of the rows, or of the episodes: a minibatch of m of M, M/(m·N)."""
    policy, theta, batch, weights, _ = place
    where = around(place)
    estimate = measure(gradient_sums(policy, theta, batch, weights)).gradient
    parts = minibatches(where, count, of_steps=of_steps)
    total = torch.zeros_like(estimate)
    for one in parts:
        found = where.clipped(theta, one, 0.2)
        rows, real = one.rows, one.rows >= 0
        share = real.sum(1).double() / batch.steps
        if not of_steps:
            share = (real & (rows % T == 0)).sum(1).double() / batch.episodes
        total += share.unsqueeze(1) * found.gradient
        assert (found.beyond == 0).all()
    torch.testing.assert_close(total, estimate, rtol=1e-12, atol=1e-12)
    every = torch.cat([one.rows for one in parts], 1)
    for s in range(S):
        assert (
            sorted(every[s][every[s] >= 0].tolist())
            == batch.mask[s].flatten().nonzero()[:, 0].tolist()
        )


def test_one_minibatch_at_the_estimate_has_ratios_of_exactly_one(place):
    _policy, theta, _batch, _weights, _ = place
    where = around(place)
    (whole,) = minibatches(where, 1)
    assert torch.equal(
        where.clipped(theta, whole, 1e-300).gradient, where.clipped(theta, whole, INF).gradient
    )


@pytest.mark.parametrize("clip", [0.05, 0.2, INF])
def test_the_gradient_is_that_of_the_clipped_surrogate(place, clip):
    policy, theta, batch, weights, way = place
    where, other = around(place, coef=0.3), theta + 0.3 * way
    (whole,) = minibatches(where, 1)
    found = where.clipped(other, whole, clip)
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
    beyond = ((above | below) & mask).sum(1)
    assert torch.equal(found.beyond, beyond)
    assert bool((beyond > 0).any()) == (clip < INF)


def test_without_a_clip_it_is_first_order_importance(place):
    policy, theta, batch, weights, way = place
    where, other = around(place), theta + 0.3 * way
    (whole,) = minibatches(where, 1)
    flat = batch.obs.flatten(1, 2), batch.act.flatten(1, 2)
    ratio = (policy.log_prob(other, *flat) - policy.log_prob(theta, *flat)).exp()
    weighted = ratio.reshape(weights.shape) * weights
    expected = measure(gradient_sums(policy, other, batch, weighted)).gradient
    torch.testing.assert_close(
        where.clipped(other, whole, INF).gradient, expected, rtol=1e-12, atol=1e-12
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
    one = minibatches(where, 2, normalize=True)[0]
    w = weights[0].flatten()[one.rows[0][one.rows[0] >= 0]]
    own = (weights - w.mean()) / (w.std(correction=0) + 1e-8)
    other = minibatches(Batched(policy, theta, batch, own, (3, 4), (7, 7)), 2)[0]
    assert torch.equal(one.rows, other.rows)
    expected = where.clipped(theta, other, 0.2).gradient[0]
    found = where.clipped(theta, one, 0.2).gradient[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", Minibatch)
def test_a_seed_beside_others_moves_as_it_would_alone(place, kind, normalize, path):
    """Compiled, bit for bit."""
    policy, theta, batch, weights, _ = place
    moved = theta.clone()
    options = {"minibatch_of": kind, "minibatches": 3, "normalize": normalize}
    rule = proximal(moved, (3, 4), **options)
    rule.step(moved, torch.ones_like(theta), 0.0, around(place))
    for s in range(S):
        own = slice(s, s + 1)
        one = Batch(*(getattr(batch, f)[own] for f in ("obs", "act", "rew", "mask", "terminated",
                      "truncated", "final_obs", "length")))  # fmt: skip
        alone = theta[own].clone()
        rule = proximal(alone, (3 + s,), **options)
        place_of_one = Batched(policy, theta[own], one, weights[own], (3 + s,), (7,))
        rule.step(alone, torch.ones_like(alone), 0.0, place_of_one)
        torch.testing.assert_close(alone, moved[own], rtol=1e-12, atol=1e-13)
        assert path == "torch" or torch.equal(alone, moved[own])


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


SMALL = [
    ("tanh", True, Categorical(3)),
    ("relu", True, Gaussian(2)),
    ("tanh", False, Gaussian(5)),
    ("relu", False, Categorical(2)),
]


@pytest.fixture(params=SMALL, ids=lambda x: f"{x[0]}-{x[1]}-{type(x[2]).__name__}")
def larger(request):
    """A float64 policy of 19-37-66-… units (no multiple of a block), 300 rows and their weights."""
    activation, bias, head = request.param
    policy = Policy(Mlp((19, 37, 66, head.num_outputs), activation, bias), head)
    rng = torch.Generator().manual_seed(5)
    theta = 0.2 * torch.randn(2, policy.num_params, dtype=torch.float64, generator=rng)
    length = torch.tensor([[60, 33, 60, 7], [60, 60, 60, 21]])
    mask = torch.arange(60) < length.unsqueeze(-1)
    obs = torch.randn(2, 4, 60, 19, dtype=torch.float64, generator=rng)
    act = torch.randn(2, 4, 60, *head.action_shape, generator=rng)
    if isinstance(head, Categorical):
        act = act.abs().long().clamp(max=head.n - 1)
    no = torch.zeros(2, 4, dtype=torch.bool)
    batch = Batch(obs, act, torch.zeros(2, 4, 60), mask, no, no, obs[:, :, 0], length)
    weights = torch.randn(2, 4, 60, dtype=torch.float64, generator=rng) * mask
    return policy, theta, batch, weights


def both(monkeypatch, compute):
    """What is computed with compiled code, and without."""
    pytest.importorskip("numba")
    monkeypatch.undo()
    first = compute()
    monkeypatch.setattr(fused, "knows", lambda net, theta: False)
    return first, compute()


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_compiled_code_has_the_gradient_that_torch_has(larger, kind, tolerance, monkeypatch, path):
    policy, theta, batch, weights = larger
    theta = theta.to(kind)
    other = theta + 0.05 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(6)).to(
        kind
    )

    def compute():
        where = Batched(policy, theta, batch, weights, (3, 4), (7, 7), 0.3)
        return [where.clipped(other, one, 0.1) for one in minibatches(where, 3)]

    for one, two in zip(*both(monkeypatch, compute), strict=True):
        size = two.gradient.norm(dim=1, keepdim=True)
        assert ((one.gradient - two.gradient).norm(dim=1, keepdim=True) <= tolerance * size).all()
        assert torch.equal(one.beyond, two.beyond)
        assert (one.beyond > 0).all()


@pytest.mark.parametrize("line", [
    [], ["optimizer.clip_norm=0.1", "optimizer.weight_decay=0.1"],
    ["optimizer=adamw", "optimizer.betas=[0.7, 0.9]", "optimizer.eps=1e-3"],
])  # fmt: skip
def test_compiled_code_steps_as_torch_does(larger, line, monkeypatch, path):
    policy, theta, batch, weights = larger

    def compute():
        moved = theta.clone()
        start = Start(moved, train_config(*line).optimizer, (3, 4))
        rule = Proximal(start, epochs=4, minibatches=5, minibatch_of=Minibatch.steps, clip=0.1)
        where = Batched(policy, theta, batch, weights, (3, 4), (7, 7))
        told = [rule.step(moved, torch.ones_like(theta), [0.2, 0.4], where) for _ in range(2)]
        return {"theta": moved, **rule.state(), **told[-1]}

    one, two = both(monkeypatch, compute)
    assert list(one) == list(two)
    for name, x in one.items():
        torch.testing.assert_close(x, two[name], rtol=1e-9, atol=1e-11)
