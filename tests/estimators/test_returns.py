"""Slow oracles in the papers' notation beside the vectorised code, and the identities."""

from dataclasses import replace

import pytest
import torch
from made_episodes import aims, config, episodes

from pgcli.estimators import baselines, returns
from pgcli.estimators.estimator import standardized, value_target, weights

GAMMAS = [0.0, 0.5, 0.97, 1.0]


def each(batch):
    """(index, length) of every episode."""
    length = batch.mask.sum(-1)
    for index in torch.cartesian_prod(*map(torch.arange, length.shape)):
        yield tuple(index.tolist()), int(length[tuple(index)])


def slow_gae(batch, index, length, gamma, lam, bootstrap):
    """A_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V(s_{t+1}) − V(s_t), term by term."""
    v = [float(x) for x in batch.value[index][:length]]
    v.append(float(batch.final_value[index]) if bootstrap and batch.truncated[index] else 0.0)
    r = [float(x) for x in batch.rew[index][:length]]
    delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
    return [
        sum((gamma * lam) ** l * delta[t + l] for l in range(length - t))  # noqa: E741
        for t in range(length)
    ]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_gae_term_by_term(gamma, lam, bootstrap):
    """Fails for a mask off by one, a leak across episodes, or a truncation taken for an end."""
    batch = episodes()
    found = weights(config("gae", gamma=gamma, lam=lam, bootstrap=bootstrap), batch)
    for index, length in each(batch):
        expected = torch.tensor(
            slow_gae(batch, index, length, gamma, lam, bootstrap), dtype=torch.float64
        )
        torch.testing.assert_close(found[index][:length], expected, rtol=1e-12, atol=1e-12)
        assert not found[index][length:].any()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_returns_term_by_term(gamma):
    batch = episodes()
    for index, length in each(batch):
        r = [float(x) for x in batch.rew[index][:length]]
        to_go = [sum(gamma ** (k - t) * r[k] for k in range(t, length)) for t in range(length)]
        whole = sum(gamma**k * r[k] for k in range(length))
        found = returns.reward_to_go(batch.rew, gamma)[index][:length]
        torch.testing.assert_close(
            found, torch.tensor(to_go, dtype=torch.float64), rtol=1e-12, atol=1e-12
        )
        assert returns.total_return(batch.rew, gamma)[index][0].item() == pytest.approx(whole)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 9, 100, 1000])
def test_doubling_is_the_backward_recursion(steps):
    x = torch.randn(3, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, expected = torch.zeros(3).double(), []
    for t in reversed(range(steps)):
        y = x[:, t] + 0.99 * y
        expected.insert(0, y)
    found = returns.discounted_sum(x, 0.99)
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-12, atol=1e-12)


def test_gae_is_td_at_zero_and_reward_to_go_minus_v_at_one():
    batch = episodes()
    following = returns.next_values(batch.value, torch.zeros_like(batch.final_value), batch.mask)
    td = returns.td_residual(batch.rew, batch.value, following, 0.97)
    zero = weights(config("gae", lam=0.0, bootstrap=False), batch)
    one = weights(config("gae", lam=1.0, bootstrap=False), batch)
    torch.testing.assert_close(zero, td * batch.mask, rtol=1e-12, atol=1e-12)
    advantage = weights(config("reward_to_go", "value"), batch)
    torch.testing.assert_close(one, advantage, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_gae_agrees_with_torchrl(gamma):
    functional = pytest.importorskip("torchrl.objectives.value.functional")
    batch = episodes(shape=(4,))
    last = batch.final_value * batch.truncated
    following = returns.next_values(batch.value, last, batch.mask)
    ends = torch.zeros_like(batch.mask)
    ends[torch.arange(4), batch.mask.sum(-1) - 1] = True
    double = [torch.tensor(x, dtype=torch.float64) for x in (gamma, 0.9)]  # not float32
    expected, _ = functional.vec_generalized_advantage_estimate(
        *double, batch.value[..., None], following[..., None], batch.rew[..., None],
        ends[..., None], (ends & ~batch.truncated[:, None])[..., None],
    )  # fmt: skip
    found = weights(config("gae", gamma=gamma), batch)
    torch.testing.assert_close(found, expected[..., 0] * batch.mask, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_reward_to_go_agrees_with_torchrl(gamma):
    functional = pytest.importorskip("torchrl.objectives.value.functional")
    batch = episodes(shape=(4,))
    ends = torch.zeros_like(batch.mask)
    ends[torch.arange(4), batch.mask.sum(-1) - 1] = True
    double = torch.tensor(gamma, dtype=torch.float64)  # a Python number becomes float32
    expected = functional.reward2go(batch.rew[..., None], ends[..., None], double)
    found = returns.reward_to_go(batch.rew, gamma)
    torch.testing.assert_close(found, expected[..., 0] * batch.mask, rtol=1e-12, atol=1e-12)


def test_leave_one_out_mean_by_hand():
    phi = torch.tensor([[4.0, 2.0], [10.0, 0.0], [1.0, 5.0], [0.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 0]]).bool()  # the last one was never drawn
    found = baselines.leave_one_out_mean(phi, mask)[:3, 0]  # time averages 3, 10, 3
    assert found.tolist() == [6.5, 3.0, 6.5]
    alone = baselines.leave_one_out_mean(phi[:1], mask[:1])
    assert alone.tolist() == [[0.0]]


def test_one_step_alone_is_standardised_to_zero_not_nan():
    one = standardized(torch.tensor([[5.0]]), torch.tensor([[True]]))
    assert one.tolist() == [[0.0]]
    batch = episodes()
    found = standardized(batch.value, batch.mask)[batch.mask].reshape(-1)
    assert torch.isfinite(found).all()


def test_value_targets():
    batch = episodes()
    monte_carlo = value_target(config(), aims("monte_carlo"), batch)
    torch.testing.assert_close(monte_carlo, returns.reward_to_go(batch.rew, 0.97))
    for lam, bootstrap in ((0.0, True), (0.9, True), (1.0, False)):
        found = value_target(config(lam=lam, bootstrap=bootstrap), aims("td_lambda"), batch)
        for index, length in each(batch):
            adv = slow_gae(batch, index, length, 0.97, lam, bootstrap)
            v = batch.value[index][:length]
            expected = torch.tensor(adv, dtype=torch.float64) + v
            torch.testing.assert_close(found[index][:length], expected, rtol=1e-12, atol=1e-12)
        own = value_target(config(lam=0.3, bootstrap=bootstrap), aims("td_lambda", lam), batch)
        assert torch.equal(own, found)


def test_weights_never_carry_a_gradient():
    batch = episodes()
    assert not weights(config("gae"), batch).requires_grad


@pytest.mark.parametrize("n", [1, 2, 4, 20])
def test_n_step_term_by_term(n):
    """Σ_{k<n} γ^k r_{t+k} + γ^n V(s_{t+n}) − V(s_t), cut short by the episode's end."""
    batch = episodes()
    found = weights(config("n_step", n=n), batch)
    for index, length in each(batch):
        v = [float(x) for x in batch.value[index][:length]]
        v.append(float(batch.final_value[index]) if batch.truncated[index] else 0.0)
        r = [float(x) for x in batch.rew[index][:length]]
        for t in range(length):
            end = min(t + n, length)
            expected = sum(0.97 ** (k - t) * r[k] for k in range(t, end)) - v[t]
            expected += 0.97 ** (end - t) * v[end]
            assert found[index][t].item() == pytest.approx(expected, abs=1e-12)


def test_the_identities_between_the_forms():
    batch = episodes()
    same = [
        (config("n_step", n=1), config("td")),
        (config("gae", lam=0.0), config("td")),
        (config("gae", lam=1.0), config("n_step", n=100)),
        (config("gae", lam=1.0, bootstrap=False), config("reward_to_go", "value")),
        (config("q"), config("q", "constant", constant=0.0)),
    ]
    batch = replace(batch, q=batch.value.flip(-1) * batch.mask)
    for a, b in same:
        torch.testing.assert_close(weights(a, batch), weights(b, batch), rtol=1e-12, atol=1e-12)
    minus_v = weights(config("q"), batch) - batch.value * batch.mask
    torch.testing.assert_close(weights(config("advantage"), batch), minus_v)


def test_time_mean_by_hand():
    phi = torch.tensor([[4.0, 2.0, 7.0], [10.0, 6.0, 0.0], [1.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]).bool()
    found = baselines.leave_one_out_time_mean(phi, mask)
    assert found[mask].tolist() == [5.5, 6.0, 0.0, 2.5, 2.0, 7.0]
    assert baselines.own_mean(phi, mask).item() == pytest.approx((13 / 3 + 8 + 1) / 3)
