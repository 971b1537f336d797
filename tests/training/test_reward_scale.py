"""Rewards over the running deviation of the discounted return: the figures, and what stays true."""

import csv

import numpy as np
import pytest
import torch
from command_line import pg
from settings import train_config

from pgcli.collection.batch import Batch
from pgcli.collection.episodes import rewards
from pgcli.environments.choose import open_engine
from pgcli.estimators.returns import returns_so_far
from pgcli.policies.critic import Critic, LinearCritic
from pgcli.policies.normalizer import EPS, Moments
from pgcli.runs import checkpoint
from pgcli.training.build import build_learner


def test_a_return_so_far_begins_anew_with_every_episode():
    rew = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 0.0]], dtype=torch.float64)
    expected = [[1.0, 2.5, 5.25], [8.0, 4.0, 2.0]]  # the second has ended: padding counts nowhere
    assert returns_so_far(rew, 0.5).tolist() == expected
    moments, mask = Moments(1, 1), torch.tensor([[[True] * 3, [True, False, False]]])
    moments.merge(returns_so_far(rew, 0.5)[None, ..., None], mask)
    variance = np.var([1.0, 2.5, 5.25, 8.0])
    assert moments.scale.item() == pytest.approx((variance + EPS) ** -0.5)


def test_parts_of_an_episode_go_on_from_batch_to_batch():
    """Two slots, cut after 2 and 1 steps; the second episode of slot 0 begins anew."""
    cuts = [  # reward, unit, age, cut of each part, batch by batch
        [([1.0, 2.0], 0, 0, True), ([8.0, 0.0], 1, 0, True)],
        [([4.0, 0.0], 0, 2, False), ([3.0, 5.0], 0, 0, True), ([1.0, 0.0], 1, 1, False)],
        [([7.0, 0.0], 0, 2, False), ([2.0, 0.0], 1, 0, False)],
    ]
    length = [[2, 1], [1, 2, 1], [1, 1]]
    expected = [  # γ = 0.5
        [[1.0, 2.5], [8.0]], [[4.0 + 1.25], [3.0, 6.5], [1.0 + 4.0]], [[7.0 + 3.25], [2.0]],
    ]  # fmt: skip
    config = train_config(
        "estimator=gae", "estimator.gamma=0.5", "estimator.scale_rewards=true", "collect=steps",
        "critic.target=td_lambda", "estimator.bootstrap=true", "env.num_envs=2", "horizon=2",
    )  # fmt: skip
    engine = open_engine(config.env, 2)
    learner = build_learner(config, engine, [0], torch.device("cpu"))
    for parts, lengths, wanted in zip(cuts, length, expected, strict=True):
        rew, unit, age, cut = zip(*parts, strict=True)
        n = len(parts)
        mask = torch.arange(2) < torch.tensor(lengths)[:, None]
        obs, nothing = torch.zeros(1, n, 2, 4), torch.zeros(1, n, dtype=torch.bool)
        batch = Batch(
            obs, obs[..., 0].long(), torch.tensor([rew], dtype=torch.float64), mask[None],
            nothing, nothing, obs[:, :, 0], torch.tensor([lengths]), unit=torch.tensor([unit]),
            age=torch.tensor([age]), before=torch.zeros(1, n), cut=torch.tensor([cut]),
        )  # fmt: skip
        found = learner._returns_so_far(batch)[0]
        for row, told, many in zip(found.tolist(), wanted, lengths, strict=True):
            assert row[:many] == told
    assert learner.arrays()["reward_scale/carried"].tolist() == [[0.0, 0.0]]
    engine.close()


@pytest.mark.slow
def test_the_scale_does_not_depend_on_where_episodes_are_cut(tmp_path):
    scales = []
    for horizon, iterations in ((5, 240), (300, 4)):
        line = ["train", "env=Pendulum-v1", "method=ppo", f"horizon={horizon}", "env.num_envs=8"]
        line += [f"iterations={iterations}", "total_steps=null", "estimator.scale_rewards=true"]
        line += ["optimizer.lr=1e-9", "critic.lr=1e-9", f"hydra.run.dir={horizon}"]
        assert pg(*line, cwd=tmp_path).returncode == 0
        arrays = checkpoint.load(tmp_path / str(horizon)).arrays
        scales.append(float(arrays["reward_scale/square"][0, 0] / arrays["reward_scale/count"][0]))
    assert scales[0] == pytest.approx(scales[1], rel=0.1)


def test_rewards_that_never_differed_are_as_they_are():
    moments = Moments(1, 1)
    moments.merge(torch.zeros(1, 5, 1), torch.ones(1, 5, dtype=torch.bool))
    assert moments.scale.item() == 1.0
    moments.merge(torch.full((1, 5, 1), 0.1), torch.ones(1, 5, dtype=torch.bool))
    assert moments.scale.item() == pytest.approx(20, rel=1e-4)  # the deviation is 0.05


def test_rewards_are_shifted_then_scaled_and_the_batch_keeps_its_own():
    nothing = torch.zeros(1, 1, dtype=torch.bool)
    rew = torch.tensor([[[1.0, 3.0, 0.0]]], dtype=torch.float64)
    mask, obs = torch.tensor([[[True, True, False]]]), torch.zeros(1, 1, 3, 1)
    batch = Batch(obs, obs[..., 0], rew, mask, nothing, nothing, obs[:, :, 0], mask.sum(-1))
    assert rewards(batch, 1.0, torch.tensor([0.5])).tolist() == [[[1.0, 2.0, 0.0]]]
    assert batch.rew.tolist() == [[[1.0, 3.0, 0.0]]]


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_a_critic_tells_the_same_values_in_another_unit(kind):
    config, device = train_config().critic, torch.device("cpu")
    critic = (
        LinearCritic(2, 10, 2, device)
        if kind == "linear"
        else Critic(config, 2, 10, [0, 1], device)
    )
    rng = torch.Generator().manual_seed(0)
    obs, mask = torch.randn(2, 4, 5, 2, generator=rng), torch.ones(2, 4, 5, dtype=torch.bool)
    for work in critic.fits(obs, mask, 100 + 50 * obs.sum(-1).double(), 0):
        work()
    before = critic.along(obs, mask).clone()
    critic.scale(torch.tensor([0.01, 3.0], dtype=torch.float64))
    expected = before * torch.tensor([0.01, 3.0])[:, None, None]
    torch.testing.assert_close(critic.along(obs, mask), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_one_learning_rate_of_the_critic_serves_returns_of_any_unit(unit):
    """V's targets are standardised by themselves."""
    config, device = train_config().critic, torch.device("cpu")
    rng = torch.Generator().manual_seed(0)
    obs, mask = torch.randn(1, 8, 9, 2, generator=rng), torch.ones(1, 8, 9, dtype=torch.bool)
    target = unit * (3 + obs.sum(-1).double())
    critic = Critic(config, 2, 10, [0], device)
    for i in range(20):
        for work in critic.fits(obs, mask, target, i):
            work()
    left = (critic.along(obs, mask) - target).square().mean() / target.var()
    assert left < 0.05


def trained(path, *more):
    line = ["train", "estimator.scale_rewards=true", "batch_size=4", "estimator=gae", *more]
    done = pg(*line, "optimizer.schedule=constant", f"hydra.run.dir={path}", cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return done, checkpoint.load(path).arrays


def test_the_first_batch_is_as_it_is_and_the_logged_return_always(tmp_path):
    done, _ = trained(tmp_path / "a", "iterations=2")
    assert "biased: scaled rewards" in done.stdout + done.stderr
    line = ["train", "batch_size=4", "estimator=gae", "iterations=1", "optimizer.schedule=constant"]
    pg(*line, f"hydra.run.dir={tmp_path / 'b'}", cwd=tmp_path)
    runs = [
        list(csv.DictReader((tmp_path / x / "metrics.csv").read_text().splitlines())) for x in "ab"
    ]
    for key in ("rollout/ep_rew_mean", "gradient/norm", "critic/loss"):
        assert runs[0][0][key] == runs[1][0][key]


def test_a_run_with_scaled_rewards_resumes_bit_for_bit(tmp_path):
    _, whole = trained(tmp_path / "a", "iterations=4", "seeds=2")
    trained(tmp_path / "b", "iterations=2", "seeds=2")
    done = pg("train", f"resume={tmp_path / 'b'}", "iterations=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resumed = checkpoint.load(tmp_path / "b").arrays
    assert all(np.array_equal(x, resumed[name], equal_nan=True) for name, x in whole.items())


def test_compare_refuses_to_scale(tmp_path):
    done = pg("compare", "estimator.scale_rewards=true", cwd=tmp_path)
    assert done.returncode == 2
    assert "estimator.scale_rewards" in done.stderr
