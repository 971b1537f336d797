"""Heads, networks and the NumPy actor."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.policies.actor import PolicyActor
from pgcli.policies.heads import Bernoulli, Categorical, Gaussian, MultiCategorical, make_head
from pgcli.policies.network import ACTIVATIONS, Mlp
from pgcli.policies.policy import Policy
from pgcli.settings.schema import BehaviourConfig, Init

HEADS = [Categorical(3), MultiCategorical((2, 3)), Bernoulli(2), Gaussian(2)]
DISCRETE = HEADS[:3]


def settings(**changes):
    return replace(train_config().policy, output_gain=1.0, log_std=-0.5, **changes)


def all_actions(head):
    if isinstance(head, Categorical):
        return torch.arange(head.n)
    ranges = (
        [range(n) for n in head.sizes] if isinstance(head, MultiCategorical) else [range(2)] * 2
    )
    return torch.tensor([[a, b] for a in ranges[0] for b in ranges[1]])


def outputs(head, rows=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    out = torch.randn(1, rows, head.num_outputs, generator=rng, dtype=torch.float64)
    return out, torch.full((1, 1, head.num_extra), -0.3, dtype=torch.float64)


@pytest.mark.parametrize("head", DISCRETE, ids=repr)
def test_probabilities_sum_to_one_and_give_entropy_and_kl(head):
    act = all_actions(head)
    (p, extra), (q, _) = outputs(head), outputs(head, seed=1)
    rows = (1, len(act), head.num_outputs)
    logp = head.log_prob(p.expand(rows), extra, act.unsqueeze(0))
    logq = head.log_prob(q.expand(rows), extra, act.unsqueeze(0))
    assert logp.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert head.entropy(p, extra).item() == pytest.approx(-(logp.exp() * logp).sum().item())
    kl = head.kl((p, extra), (q, extra)).item()
    assert kl == pytest.approx((logp.exp() * (logp - logq)).sum().item())


def test_gaussian_agrees_with_torch_distributions():
    head = Gaussian(2)
    (p, extra), (q, _) = outputs(head, 5), outputs(head, 5, seed=1)
    act = torch.randn(1, 5, 2, dtype=torch.float64)
    a, b = (torch.distributions.Normal(m, extra.exp()) for m in (p, q))
    torch.testing.assert_close(head.log_prob(p, extra, act), a.log_prob(act).sum(-1))
    torch.testing.assert_close(head.entropy(p, extra), a.entropy().sum(-1).expand(1, 5))
    kl = torch.distributions.kl_divergence(a, b).sum(-1)
    torch.testing.assert_close(head.kl((p, extra), (q, extra)), kl)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_the_divergence_of_a_tiny_update_is_neither_negative_nor_rounding(head):
    """KL(π_θ‖π_θ+δ) = ½ δᵀFδ to leading order: four times as much for twice the step."""
    policy = Policy(Mlp((3, 8, head.num_outputs)), head)
    rng = torch.Generator().manual_seed(0)
    theta, step, obs = (
        torch.randn(shape, generator=rng)
        for shape in ((1, policy.num_params), (1, policy.num_params), (1, 40, 3))
    )
    for size in (1e-6, 1e-3):
        once = policy.kl(theta, theta + size * step, obs)
        assert once.dtype == torch.float64
        assert (once >= 0).all()
        # What float32 parameters moved by, as they were rounded.
        exact = policy.kl(theta.double(), (theta + size * step).double(), obs.double())
        torch.testing.assert_close(once, exact, rtol=1e-9, atol=0)
        twice = policy.kl(theta.double(), theta.double() + 2 * size * step.double(), obs)
        real = policy.kl(theta.double(), theta.double() + size * step.double(), obs)
        torch.testing.assert_close(twice.mean(), 4 * real.mean(), rtol=20 * size, atol=0)


@pytest.mark.parametrize("head", DISCRETE, ids=repr)
def test_the_divergence_of_policies_far_apart_is_finite(head):
    far = torch.full((1, 1, head.num_outputs), 900.0, dtype=torch.float64)
    far[..., ::2] = -900.0
    none = torch.zeros(1, 1, 0, dtype=torch.float64)
    found = head.kl((far, none), (-far, none)).item()
    assert 0 < found < math.inf
    assert head.kl((far, none), (far, none)).item() == 0


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_samples_follow_the_log_probabilities(head):
    """The NumPy sampler draws from the distribution whose log-prob torch computes."""
    draws = 40_000
    out, extra = outputs(head)
    noise = head.noise(np.random.default_rng(0), draws, 1)  # [draws, 1, O]
    tiled = np.repeat(out.numpy().astype(np.float32), draws, axis=1)
    act = head.sample(tiled, extra[:, 0].numpy(), noise.transpose(1, 0, 2))
    assert act.shape == (1, draws, *head.action_shape)
    if isinstance(head, Gaussian):
        error = np.abs(act[0].mean(0) - out[0, 0].numpy()) * math.sqrt(draws)
        assert (error < 4 * math.exp(-0.3)).all()
        assert act[0].std(0) == pytest.approx(math.exp(-0.3), rel=0.02)
        return
    for action in all_actions(head):
        expected = head.log_prob(out, extra, action[None, None]).exp().item()
        hits = (act[0] == action.numpy()).reshape(draws, -1).all(1).mean()
        assert abs(hits - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_actor_computes_the_same_outputs_as_torch(head, activation):
    policy = Policy(Mlp((4, 8, 8, head.num_outputs), activation), head)
    theta = policy.init(settings(), seeds=[3, 4])
    actor = PolicyActor(policy, theta, [3, 4], iteration=0, slots=5)
    obs = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    out, extra = policy.distribution(theta, torch.from_numpy(obs))
    noise = np.stack([head.noise(rng, actor.BLOCK, 5)[0] for rng in _action_streams([3, 4])])
    expected = head.sample(out.numpy(), extra[:, 0].numpy(), noise)
    np.testing.assert_allclose(actor(obs), expected, rtol=1e-5, atol=1e-5)


def _action_streams(seeds):
    from pgcli.machine.randomness import Purpose, generator

    return [generator(seed, 0, Purpose.ACTION) for seed in seeds]


def test_a_seed_starts_and_acts_alone_as_beside_others():
    policy = Policy(Mlp((4, 8, 2)), Categorical(2))
    both, one = policy.init(settings(), [0, 1]), policy.init(settings(), [1])
    torch.testing.assert_close(both[1:], one, rtol=0, atol=0)
    obs = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    actors = PolicyActor(policy, both, [0, 1], 2, 6), PolicyActor(policy, one, [1], 2, 6)
    for _ in range(200):  # past a block of noise
        np.testing.assert_array_equal(actors[0](obs)[1:], actors[1](obs[1:]))


def test_orthogonal_init_is_orthogonal_and_zeros_is_zero():
    net = Mlp((4, 8, 2))
    weight, bias = net.unpack(Policy(net, Categorical(2)).init(settings(), [0]))[0]
    torch.testing.assert_close(weight[0] @ weight[0].T, 2 * torch.eye(4), rtol=1e-5, atol=1e-5)
    assert not bias.any()
    table = Policy(Mlp((5, 3), bias=False), Categorical(3))
    theta = table.init(settings(hidden=[], init=Init.zeros, bias=False), [0])
    assert theta.shape == (1, 15)
    assert not theta.any()


def test_make_head_knows_every_kind():
    assert make_head("CATEGORICAL", (3,)) == Categorical(3)
    assert make_head("MULTI_CATEGORICAL", (2, 3)) == MultiCategorical((2, 3))
    assert make_head("BERNOULLI", (4,)) == Bernoulli(4)
    assert make_head("GAUSSIAN", (2,)) == Gaussian(2)


@pytest.mark.parametrize("head", DISCRETE, ids=repr)
@pytest.mark.parametrize(("temperature", "epsilon"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.3)])
def test_behaviour_is_tempered_and_mixed(head, temperature, epsilon):
    act = all_actions(head)
    out, extra = outputs(head)
    rows = (1, len(act), head.num_outputs)
    changed = head.behaviour(out, extra, temperature, epsilon)
    found = head.log_prob(changed[0].expand(rows), extra, act[None]).exp()
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    if isinstance(head, Categorical):
        expected = (1 - epsilon) * (out / temperature).softmax(-1) + epsilon / head.n
        torch.testing.assert_close(found, expected[0])
    if epsilon == 0:
        logp = head.log_prob(out.expand(rows), extra, act[None]) / temperature
        torch.testing.assert_close(found, logp.softmax(-1))


def test_a_gaussian_behaviour_is_wider_and_never_uniform():
    head = Gaussian(2)
    out, extra = outputs(head)
    _, wider = head.behaviour(out, extra, 4.0, 0.0)
    torch.testing.assert_close(wider.exp(), 2 * extra.exp())
    with pytest.raises(ValueError, match="no uniform"):
        head.behaviour(out, extra, 1.0, 0.1)


def test_the_actor_follows_the_behaviour():
    head = Categorical(2)
    policy = Policy(Mlp((1, 2)), head)
    theta = torch.tensor([[3.0, -3.0, 0.0, 0.0]])
    by = BehaviourConfig(temperature=1.0, epsilon=0.5, checkpoint=None, iteration=None)
    actor = PolicyActor(policy, theta, [0], 0, slots=1000, behaviour=by)
    act = np.concatenate([actor(np.ones((1, 1000, 1), np.float32)) for _ in range(20)])
    obs = torch.ones(1, 1, 1)
    one = policy.behaviour_log_prob(theta, obs, torch.tensor([[1]]), by).exp().item()
    assert one == pytest.approx(0.25, abs=0.01)
    assert act.mean() == pytest.approx(one, abs=0.012)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2.5e-7), (torch.float64, 1e-15)])
def test_tanh_is_tanh(dtype, error):
    x = torch.linspace(-30, 30, 100_001, dtype=dtype, requires_grad=True)
    kind = ACTIVATIONS["tanh"]
    y = kind.forward(x)
    torch.testing.assert_close(y, torch.tanh(x), rtol=0, atol=error)
    slope = torch.autograd.grad(y.sum(), x)[0]
    torch.testing.assert_close(slope, 1 - torch.tanh(x) ** 2, rtol=0, atol=2 * error)
    here = kind.forward_(x.detach().clone())
    torch.testing.assert_close(here, y, rtol=0, atol=0)
    torch.testing.assert_close(kind.backward_(torch.ones_like(here), here), 1 - here**2)
