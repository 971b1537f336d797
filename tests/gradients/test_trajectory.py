"""Per-trajectory gradients against autograd, one trajectory at a time."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pgcli.collection.batch import Batch
from pgcli.estimators.estimator import Terms
from pgcli.gradients import trajectory
from pgcli.gradients.estimate import weighted_sums
from pgcli.gradients.statistics import measure
from pgcli.policies import fused
from pgcli.policies.heads import Bernoulli, Categorical, Gaussian, MultiCategorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Normalized, Policy

HEADS = {
    "categorical": Categorical(3),
    "multi_categorical": MultiCategorical((2, 3)),
    "bernoulli": Bernoulli(2),
    "gaussian": Gaussian(2),
}


def random_batch(head, seeds=2, episodes=7, steps=11, dim=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    length = torch.randint(1, steps + 1, (seeds, episodes), generator=rng)
    length[-1, -1] = 0  # a seed that drew fewer episodes
    mask = torch.arange(steps) < length.unsqueeze(-1)
    shape = (seeds, episodes, steps)
    if isinstance(head, Gaussian):
        act = torch.randn(*shape, head.n, generator=rng, dtype=torch.float64)
    else:
        act = torch.randint(0, 2, (*shape, *head.action_shape), generator=rng)
    obs = torch.randn(*shape, dim, generator=rng, dtype=torch.float64)
    final = torch.randn(seeds, episodes, dim, generator=rng, dtype=torch.float64)
    ended = torch.ones(seeds, episodes, dtype=torch.bool)
    rew = torch.randn(shape, generator=rng, dtype=torch.float64) * mask
    return Batch(obs, act, rew, mask, ended, ~ended, final, length)


def problem(kind, bias=True, **kwargs):
    head = HEADS[kind]
    batch = random_batch(head, **kwargs)
    net = Mlp((batch.obs.shape[-1], 5, 6, head.num_outputs), "elu", bias)
    policy = Policy(net, head)
    rng = torch.Generator().manual_seed(1)
    theta = torch.randn(len(batch.length), policy.num_params, generator=rng, dtype=torch.float64)
    weights = torch.randn(batch.mask.shape, generator=rng, dtype=torch.float64) * batch.mask
    return policy, 0.5 * theta, batch, weights


def slow_trajectory_gradients(policy, theta, batch, weights):
    """g_n = ∇ Σ_t w_t log π(a_t|s_t), by autograd for each seed and trajectory: [S, N, P]."""
    s, n, _ = weights.shape
    g = torch.zeros(s, n, policy.num_params, dtype=torch.float64)
    for i in range(s):
        for j in range(n):
            k = int(batch.length[i, j])
            row = theta[i : i + 1].clone().requires_grad_()
            logp = policy.log_prob(row, batch.obs[i, j, None, :k], batch.act[i, j, None, :k])
            (slope,) = torch.autograd.grad((logp * weights[i, j, :k]).sum(), row)
            g[i, j] = policy.learned(slope[0])
    return g


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("chunk", [1, 40, 10_000])
def test_sums_agree_with_autograd(kind, bias, chunk, monkeypatch):
    monkeypatch.setattr(trajectory, "CHUNK_STEPS", chunk)
    policy, theta, batch, weights = problem(kind, bias)
    g = slow_trajectory_gradients(policy, theta, batch, weights)
    sums = trajectory.gradient_sums(policy, theta, batch, weights)
    torch.testing.assert_close(sums.gradient, g.sum(1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sums.square, g.square().sum((1, 2)), rtol=1e-10, atol=1e-10)
    assert sums.episodes.tolist() == sums.groups.tolist() == [7, 6]
    found = measure(sums)
    for i, n in enumerate([7, 6]):
        spread = (g[i, :n] - g[i, :n].mean(0)).square().sum() / (n - 1)
        torch.testing.assert_close(found.trace_cov[i], spread, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found.gradient[i], g[i, :n].mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(), (5, 6), (9, 16)], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
@pytest.mark.parametrize("group", [1, 2, 7, "unit"])
@pytest.mark.parametrize("normalized", [False, True])
def test_compiled_sums_agree_with_autograd(kind, activation, shape, group, normalized, monkeypatch):
    """With few outputs and many, of trajectories, of groups of them, and of slots that play on."""
    pytest.importorskip("numba")
    monkeypatch.setattr(trajectory, "PIECE_STEPS", 20)
    head = HEADS[kind]
    batch = random_batch(head)
    by = Normalized(1.5) if normalized else None
    policy = Policy(Mlp((4, *shape, head.num_outputs), activation), head, by)
    rng = torch.Generator().manual_seed(1)
    theta = 0.5 * torch.randn(2, policy.width, generator=rng, dtype=torch.float64)
    weights = torch.randn(batch.mask.shape, generator=rng, dtype=torch.float64) * batch.mask
    each = slow_trajectory_gradients(policy, theta, batch, weights)
    if group == "unit":
        unit = torch.tensor([[0, 2, 1, 1, 0, 2, 2], [1, 0, 0, 2, 2, 1, 0]])
        batch = replace(batch, unit=unit)
        g = torch.zeros(2, 3, each.shape[2], dtype=torch.float64)
        g.scatter_add_(1, unit.unsqueeze(-1).expand_as(each), each)
        sizes = torch.ones(2, 3)
    else:
        g = torch.stack([part.sum(1) for part in each.split(group, 1)], 1)
        sizes = torch.stack([(x > 0).sum(1) for x in batch.length.split(group, 1)], 1)
    assert trajectory._rows(policy, theta, batch) is not None
    sums = trajectory.gradient_sums(policy, theta, batch, weights, 1 if group == "unit" else group)
    torch.testing.assert_close(sums.gradient, g.sum(1), rtol=1e-10, atol=1e-10)
    square = (g.square().sum(2) / sizes.clamp(min=1)).sum(1)
    torch.testing.assert_close(sums.square, square, rtol=1e-10, atol=1e-10)
    assert sums.groups.tolist() == (sizes > 0).sum(1).tolist()
    monkeypatch.setattr(fused, "knows", lambda net, theta: False)
    plain = trajectory.gradient_sums(policy, theta, batch, weights, 1 if group == "unit" else group)
    for one, two in zip(sums[:-1], plain[:-1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("episodes", [1, 7, 60])
def test_pieces_are_whole_groups_in_their_order(episodes):
    """Whatever their lengths, none of them lost; a group without a step is in one of them."""
    rng = np.random.default_rng(episodes)
    length = rng.integers(0, 900, episodes)
    of = rng.integers(0, max(1, episodes // 3), episodes)
    pieces = trajectory._cut(length, of)
    assert np.concatenate(pieces).tolist() == of.argsort(kind="stable").tolist()
    for one, two in pairwise(pieces):
        assert of[one].max() < of[two].min()
    assert len(pieces) <= max(1, round(length.sum() / trajectory.PIECE_STEPS))


@pytest.mark.parametrize("group", [2, 3, 7])
def test_groups_give_the_same_gradient(group):
    policy, theta, batch, weights = problem("categorical")
    alone = trajectory.gradient_sums(policy, theta, batch, weights)
    grouped = trajectory.gradient_sums(policy, theta, batch, weights, group)
    torch.testing.assert_close(grouped.gradient, alone.gradient, rtol=1e-10, atol=1e-10)
    assert grouped.groups.tolist() == [-(-7 // group), -(-6 // group)]


@pytest.mark.parametrize("group", [1, 2, 3])
def test_trace_is_unbiased_for_every_grouping(group):
    """Random trajectories, many batches: the mean of tr Σ̂ is tr Σ, uneven last group included."""
    rng = torch.Generator().manual_seed(3)
    batches, n, p = 4000, 7, 3
    scale = torch.tensor([1.0, 2.0, 0.5]).double()
    g = scale * torch.randn(batches, n, p, generator=rng, dtype=torch.float64) + 1.0
    parts = g.split(group, dim=1)
    sums = trajectory.Sums(
        gradient=g.sum(1),
        square=sum(part.sum(1).square().sum(-1) / part.shape[1] for part in parts),
        entropy=torch.zeros(batches).double(),
        groups=torch.full((batches,), len(parts)),
        episodes=torch.full((batches,), n),
    )
    found = measure(sums)
    for estimate, truth in ((found.trace_cov, scale.square().sum()), (found.norm_sq, 3.0)):
        error = (estimate.mean() - truth) / (estimate.std() / batches**0.5)
        assert abs(float(error)) < 4


def test_one_group_has_no_variance():
    policy, theta, batch, weights = problem("categorical")
    found = measure(trajectory.gradient_sums(policy, theta, batch, weights, group=7))
    assert found.trace_cov.isnan().all()
    assert found.gradient.isfinite().all()


def test_seeds_do_not_touch_each_other():
    policy, theta, batch, weights = problem("gaussian")
    both = trajectory.gradient_sums(policy, theta, batch, weights).gradient
    other = theta.clone()
    other[1] += 1.0
    changed = trajectory.gradient_sums(policy, other, batch, weights).gradient
    torch.testing.assert_close(changed[0], both[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(changed[1], both[1])


def test_scale_does_not_depend_on_episode_length():
    """The mean is over trajectories: a long episode weighs by its sum, not its average."""
    policy, theta, batch, _ = problem("categorical", seeds=1, episodes=2)
    g = slow_trajectory_gradients(policy, theta, batch, batch.mask.double())
    found = measure(trajectory.gradient_sums(policy, theta, batch, batch.mask.double()))
    n = int(batch.episodes[0])
    torch.testing.assert_close(found.gradient, g.sum(1) / n, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 40, 10_000])
def test_the_baseline_of_each_time_is_the_same_in_chunks(chunk, monkeypatch):
    """Against b_t fitted on the others one trajectory at a time, from autograd's gradients."""
    monkeypatch.setattr(trajectory, "CHUNK_STEPS", chunk)
    policy, theta, batch, weights = problem("categorical")
    control = 0.5 * batch.mask.double()
    steps = batch.mask.shape[2]
    x = slow_trajectory_gradients(policy, theta, batch, weights)
    s = torch.stack(
        [
            slow_trajectory_gradients(policy, theta, batch, control * (torch.arange(steps) == t))
            for t in range(steps)
        ],
        2,
    )  # [S, N, T, P]
    xs, ss = torch.einsum("snp,sntp->snt", x, s), s.square().sum(-1)
    found = trajectory.time_products(policy, theta, batch, weights, control)
    for one, other in zip(found, (xs, ss), strict=True):
        torch.testing.assert_close(one, other * batch.mask, rtol=1e-9, atol=1e-12)
    expected = x.clone()
    for i, n in enumerate([7, 6]):
        for j in range(n):
            others = [k for k in range(n) if k != j]
            for t in range(steps):
                below = ss[i, others, t].sum()
                if below > 0:
                    expected[i, j] -= xs[i, others, t].sum() / below * s[i, j, t]
    terms = Terms(weights, control, control, torch.zeros(2))
    sums, own = weighted_sums(policy, theta, batch, terms, "time")
    torch.testing.assert_close(sums.gradient, expected.sum(1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sums.square, expected.square().sum((1, 2)), rtol=1e-9, atol=1e-9)
    again = trajectory.gradient_sums(policy, theta, batch, own).gradient
    torch.testing.assert_close(again, sums.gradient)


@pytest.mark.parametrize("per_parameter", [False, True])
@pytest.mark.parametrize("chunk", [1, 40, 10_000])
def test_fitted_baseline_is_the_same_in_chunks(per_parameter, chunk, monkeypatch):
    """Against b fitted on the others one trajectory at a time, from autograd's gradients."""
    monkeypatch.setattr(trajectory, "CHUNK_STEPS", chunk)
    policy, theta, batch, weights = problem("categorical")
    control = 0.5 * batch.mask.double()
    x = slow_trajectory_gradients(policy, theta, batch, weights)
    s = slow_trajectory_gradients(policy, theta, batch, control)
    expected = torch.zeros_like(x)
    for i, n in enumerate([7, 6]):
        for j in range(n):
            others = [k for k in range(n) if k != j]
            xs, ss = (x * s)[i, others], (s * s)[i, others]
            b = xs.sum(0) / ss.sum(0) if per_parameter else xs.sum() / ss.sum()
            expected[i, j] = x[i, j] - b * s[i, j]
    sums, b = trajectory.fitted_gradient_sums(
        policy, theta, batch, weights, control, per_parameter=per_parameter
    )
    torch.testing.assert_close(sums.gradient, expected.sum(1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sums.square, expected.square().sum((1, 2)), rtol=1e-9, atol=1e-9)
    assert sums.groups.tolist() == [7, 6]
    assert (b is None) == per_parameter
    if b is not None:  # weights of single steps that make the same estimate
        own = weights - b.unsqueeze(-1) * control
        again = trajectory.gradient_sums(policy, theta, batch, own).gradient
        torch.testing.assert_close(again, sums.gradient, rtol=1e-9, atol=1e-9)
