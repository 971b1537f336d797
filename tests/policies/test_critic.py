"""The value network: independence of seeds, standardised targets, learning."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.machine.cores import started
from pgcli.policies import fused
from pgcli.policies.critic import ALONE, WINDOW, AdvantageCritic, Critic, LinearCritic
from pgcli.settings.schema import Activation


def settings(**changes):
    own = {"hidden": [16], "lr": 0.01, "minibatches": 4, **changes}
    return replace(train_config().critic, **own)


def data(seeds=2, episodes=3, steps=6):
    rng = torch.Generator().manual_seed(0)
    length = torch.tensor([[6, 3, 1], [2, 0, 5]])[:seeds]
    mask = torch.arange(steps) < length.unsqueeze(-1)
    obs = torch.randn(seeds, episodes, steps, 4, generator=rng)
    target = (100 + 30 * torch.randn(seeds, episodes, steps, generator=rng).double()) * mask
    return obs, mask, target


def make(seeds, **changes):
    return Critic(settings(**changes), 4, 6, seeds, torch.device("cpu"))


def test_values_are_zero_where_padded_and_right_elsewhere():
    critic = make([0, 1])
    obs, mask, target = data()
    started(critic.fits(obs, mask, target, 0))()
    found = critic.along(obs, mask)
    assert not found[~mask].any()
    time = torch.arange(6).expand(2, 3, 6) / 6
    x = torch.cat([obs, time.unsqueeze(-1)], -1).flatten(1, 2)
    direct = critic.net.forward(critic.theta, x).reshape(2, 3, 6)
    direct = direct * critic.std[:, None, None] + critic.mean[:, None, None]
    torch.testing.assert_close(found[mask], direct[mask].detach(), rtol=1e-4, atol=1e-3)


def test_a_seed_fits_alone_as_beside_others():
    both, one = make([0, 1]), make([1])
    obs, mask, target = data()
    for iteration in range(3):
        started(both.fits(obs, mask, target, iteration))()
        started(one.fits(obs[1:], mask[1:], target[1:], iteration))()
    torch.testing.assert_close(both.theta[1:], one.theta, rtol=1e-4, atol=1e-5)
    a = both.along(obs, mask)[1:]
    b = one.along(obs[1:], mask[1:])
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_compiled_code_fits_as_torch_does(activation, kind, monkeypatch):
    """Over uneven minibatches, and more of them than there are rows."""
    pytest.importorskip("numba")
    obs, mask, target = data()
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(fused, "knows", lambda net, theta: False)
        critic = make([0, 1], activation=Activation[activation], epochs=5)
        critic.theta = critic.theta.to(kind)
        critic.mean, critic.std = critic.mean.to(kind), critic.std.to(kind)
        critic._remembered = critic._optimizer.init(critic.theta)
        for iteration in range(3):
            started(critic.fits(obs.to(kind), mask, target, iteration))()
        value = critic.along(obs.to(kind), mask)
        found.append({**critic.state(), "value": value})
    one, two = found
    tight = {"rtol": 1e-9, "atol": 1e-11} if kind is torch.float64 else {"rtol": 1e-3, "atol": 1e-5}
    for name, x in one.items():
        torch.testing.assert_close(x, two[name], **tight)


def test_a_new_scale_of_the_targets_leaves_v_unchanged():
    """PopArt: mean and std move, the last layer is adjusted, V stays."""
    critic = make([0, 1])
    obs, mask, target = data()
    before = critic.along(obs, mask)
    for seed in range(2):
        critic._rescale(slice(seed, seed + 1), target[seed][mask[seed]].float().unsqueeze(0))
    assert critic.mean[0] > 50
    torch.testing.assert_close(critic.along(obs, mask), before,
                               rtol=1e-4, atol=1e-4)  # fmt: skip


def test_the_scale_follows_so_many_targets_not_single_small_batches():
    """Mean and std are those of all targets so far, then of about the last WINDOW."""
    critic = make([0])
    y = torch.from_numpy(np.random.default_rng(0).normal(50, 20, (1, WINDOW))).float()
    for part in y.split(16, 1):
        critic._rescale(slice(0, 1), part)
    torch.testing.assert_close(critic.mean, y.mean(1))
    torch.testing.assert_close(critic.std, y.std(1, correction=0))
    critic._rescale(slice(0, 1), torch.full((1, 16), 50.0))  # much alike
    assert critic.std == pytest.approx(float(y.std()), rel=0.01)
    critic._rescale(slice(0, 1), y[:, : WINDOW // 2] + 100)  # half of the window
    assert critic.mean == pytest.approx(float(y.mean()) + 50, rel=0.01)
    before = critic.state()
    before["seen"].fill_(ALONE)  # a run of an earlier version: each batch by itself
    critic._rescale(slice(0, 1), y[:, :100])
    torch.testing.assert_close(critic.mean, y[:, :100].mean(1))
    torch.testing.assert_close(critic.std, y[:, :100].std(1, correction=0))
    assert critic.seen == ALONE
    before["seen"].fill_(WINDOW)
    large = torch.cat([y, y], 1) - 30
    critic._rescale(slice(0, 1), large)  # more than the window holds: nothing else counts
    torch.testing.assert_close(critic.mean, large.mean(1), rtol=1e-5, atol=0)
    assert torch.equal(critic.std, large.std(1, correction=0))  # to the last bit


def test_the_scale_of_advantages_follows_so_many_too():
    """Their root mean square: a mean would not be 0 under the policy."""
    shape = (settings(), 4, 2, 6, [0], torch.device("cpu"))
    critic = AdvantageCritic(*shape)
    y = torch.from_numpy(np.random.default_rng(0).normal(1, 2, (1, WINDOW))).float()
    for part in y.split(32, 1):
        critic._rescale(slice(0, 1), part)
    torch.testing.assert_close(critic.std, y.square().mean(1).sqrt())
    assert not critic.mean.any()


def test_batches_of_equal_targets_do_not_undo_a_critic(monkeypatch):
    """A pole in balance pays 1 a step: the targets of most small batches hardly differ."""

    def share_unexplained():
        critic = make([0], minibatches=1, lr=0.003, time_input=False)
        generator = torch.Generator().manual_seed(0)
        for i in range(3000):
            obs = torch.randn(1, 32, 1, 4, generator=generator) * (i % 4 == 0)
            for work in critic.fits(obs, mask[:, :32], value(obs), i):
                work()
        obs = torch.randn(1, 500, 1, 4, generator=generator)
        return (critic.along(obs, mask) - value(obs)).var() / value(obs).var()

    def value(obs):
        return 60 + 20 * obs[..., 0].tanh()

    mask = torch.ones(1, 500, 1).bool()
    assert share_unexplained() < 0.1
    monkeypatch.setattr("pgcli.policies.critic.WINDOW", 1)  # each batch by its own scale
    assert share_unexplained() > 0.15


@pytest.mark.parametrize("time_input", [False, True])
def test_fitting_reduces_the_error(time_input):
    critic = make([0], time_input=time_input)
    obs, mask, target = (x[:1] for x in data())

    def error():
        v = critic.along(obs, mask)
        return float(((v - target) * mask).square().sum())

    first = error()
    for iteration in range(300):
        started(critic.fits(obs, mask, target, iteration))()
    assert error() < 0.05 * first
    assert np.isfinite(critic.theta.detach().numpy()).all()


def test_linear_critic_solves_least_squares():
    obs, mask, _ = data()
    critic = LinearCritic(4, 6, seeds=2, device=torch.device("cpu"))
    time = torch.arange(6).expand(2, 3, 6) / 6
    truth = 3 * obs[..., 0].double() - obs[..., 1].double() ** 2 + 5 * time + 2
    assert not critic.along(obs, mask).any()
    started(critic.fits(obs, mask, truth * mask, 0))()
    found = critic.along(obs, mask)
    torch.testing.assert_close(found[mask], truth[mask].float(), rtol=5e-3, atol=5e-3)
    assert not found[~mask].any()
    end = critic.after(obs[:, :, 2], torch.full((2, 3), 2))
    torch.testing.assert_close(end[mask[..., 2]], found[..., 2][mask[..., 2]])


def test_a_linear_critic_does_not_depend_on_units():
    """With ridge relative to each feature, V follows t and holds the mean at any scale of obs."""
    obs, mask, _ = data(seeds=1, episodes=3)
    time = torch.arange(6).expand(1, 3, 6) / 6
    target = (100 + 50 * time + 30 * time**3).double() * mask
    for scale in (1e-2, 1.0, 1e2):
        critic = LinearCritic(4, 6, 1, torch.device("cpu"))
        started(critic.fits(scale * obs, mask, target, 0))()
        error = (critic.along(scale * obs, mask) - target)[mask]
        assert error.abs().max() < 0.5
    timeless = LinearCritic(4, 6, 1, torch.device("cpu"), time_input=False)
    started(timeless.fits(0 * obs, mask, target, 0))()
    mean = target[mask].mean().float()
    torch.testing.assert_close(
        timeless.along(0 * obs, mask)[mask], mean.expand(mask.sum()), rtol=1e-3, atol=0
    )
