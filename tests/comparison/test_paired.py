"""One pass for many estimators: the same gradients as one by one, and figures that hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.collection.batch import Batch
from pgcli.comparison.paired import Sample, in_batches, joined, samples
from pgcli.comparison.resampled import Comparison, Resamples
from pgcli.estimators.estimator import terms, weights
from pgcli.estimators.phi import Episodes
from pgcli.gradients.estimate import weighted_sums
from pgcli.gradients.trajectory import trajectory_gradients
from pgcli.proof.listed import TinyMdp

BASE = train_config().estimator
CASES = {
    "total": replace(BASE, phi="total_return"),
    "rtg": BASE,
    "mean": replace(BASE, baseline="mean"),
    "time": replace(BASE, baseline="time"),
    "normalized": replace(BASE, normalize=True),
    "optimal": replace(BASE, baseline="optimal"),
    "optimal_time": replace(BASE, baseline="optimal_time"),
    "first_order": replace(BASE, importance="first_order", self_normalize=True),
}


def drawn(mdp, policy, theta, episodes, seed=0) -> Batch:
    """A random batch of the process, from the list of all its trajectories."""
    p = mdp.probabilities(policy, theta).detach().numpy()
    index = np.random.default_rng(seed).choice(len(p), episodes, p=p / p.sum())
    found = {
        name: x[:, index] for name, x in vars(mdp.batch).items() if x is not None and x.ndim > 1
    }
    return Batch(**found)


@pytest.fixture(scope="module")
def case():
    mdp = TinyMdp.random(1)
    policy = mdp.policy()
    rng = torch.Generator().manual_seed(3)
    theta = torch.randn(1, policy.num_params, dtype=torch.float64, generator=rng)
    return mdp, policy, theta


def drawn_part(batch, number, size):
    """One of its batches, by itself."""
    own = slice(number * size, (number + 1) * size)
    return Batch(**{k: x[:, own] for k, x in vars(batch).items() if x is not None and x.ndim > 1})


def test_one_pass_gives_each_estimators_own_gradients(case):
    mdp, policy, theta = case
    batch = drawn(mdp, policy, theta, 24)
    ratio = 0.3 * torch.randn(batch.rew.shape, generator=torch.Generator().manual_seed(1)).double()
    looks = Episodes(batch.rew, batch.mask, batch.truncated, log_ratio=ratio * batch.mask)
    found = samples(policy, theta, batch, {k: (c, looks) for k, c in CASES.items()}, 6, 3)
    factors, _ = policy.score_factors(theta, batch.obs.flatten(1, 2), batch.act.flatten(1, 2))
    for name, config in CASES.items():
        if config.baseline == "optimal_time":  # as in training, batch by batch
            for r in range(4):
                own = drawn_part(batch, r, 6)
                told = terms(config, Episodes(own.rew, own.mask, own.truncated))
                sums, _ = weighted_sums(policy, theta, own, told, "time")
                torch.testing.assert_close(found[name].mean[r, 0], sums.gradient[0] / 6)
            continue
        if name == "optimal":
            continue
        w = weights(config, in_batches(looks, 4)).reshape(1, 24, -1)
        g = trajectory_gradients(factors, w, policy.num_params)[0]
        sample = found[name]
        torch.testing.assert_close(sample.mean.mean((0, 1)), g.mean(0))
        if sample.size == 1:
            assert sample.mean.shape[:2] == (4, 3)
            torch.testing.assert_close(sample.mean.flatten(0, 1), g.unflatten(0, (12, 2)).mean(1))
            assert sample.square.mean() == pytest.approx(g.square().sum(-1).mean().item())
        else:
            torch.testing.assert_close(sample.mean[:, 0], g.unflatten(0, (4, 6)).mean(1))
            assert sample.size == 6


def test_rounds_are_joined(case):
    mdp, policy, theta = case
    parts = []
    for seed in range(2):
        batch = drawn(mdp, policy, theta, 12, seed)
        looks = Episodes(batch.rew, batch.mask, batch.truncated)
        parts.append(samples(policy, theta, batch, {"rtg": (BASE, looks)}, 6, 6))
    whole = joined(parts)["rtg"]
    assert whole.mean.shape[:2] == (4, 6)
    torch.testing.assert_close(whole.mean[2:], parts[1]["rtg"].mean)


def gaussian(rng, mean, scale, batches=40, units=8) -> Sample:
    u = torch.from_numpy(mean + scale * rng.standard_normal((batches, units, len(mean))))
    return Sample(u, u.square().sum(-1), 1, 0.0)


def test_intervals_cover_at_their_rate():
    """Gaussian gradients with a known mean and covariance, 200 times."""
    mean, scale, truth = np.array([0.5, -0.2, 0.1]), np.array([1.0, 2.0, 0.5]), None
    trace, square = (scale**2).sum(), (mean**2).sum()
    wanted = {
        "trace_cov": trace,
        "signal": square,
        "variance_ratio": 1 / 0.64,
    }
    # Mean cosines have no closed form here: a million batches of eight.
    drawn = mean + scale * np.random.default_rng(9).standard_normal((2, 10**6, 3)) / np.sqrt(8)
    a, b = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    wanted["cos_between"] = (a * b).sum(-1).mean()
    wanted["cos_to_true"] = (a @ mean / np.linalg.norm(mean)).mean()
    truth = torch.from_numpy(mean)
    hits = dict.fromkeys(wanted, 0)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = {"a": gaussian(rng, mean, scale), "b": gaussian(rng, mean, 0.8 * scale)}
        comparison = Comparison(found, 8, Resamples(40, 8, 300, rng))
        verdict = comparison.verdict("a", "b", truth, unbiased=True)
        for name, value in wanted.items():
            figure = getattr(verdict, name)
            hits[name] += figure.lower <= value <= figure.upper
    for name, count in hits.items():
        assert 0.88 <= count / 200 <= 0.99, name


@pytest.fixture(scope="module")
def pairs(case):
    """Every pair of trajectories as a batch of two: directions [M, P], 0 for none, and chances."""
    mdp, policy, theta = case
    b = mdp.batch
    rewarded = replace(b, rew=b.rew * (b.rew > 1.5))  # so that some episodes have no reward at all
    factors, _ = policy.score_factors(theta, b.obs.flatten(1, 2), b.act.flatten(1, 2))
    looks = Episodes(rewarded.rew, b.mask, b.truncated)
    g = trajectory_gradients(factors, weights(BASE, looks), policy.num_params)[0]
    p = mdp.probabilities(policy, theta).detach()
    first, second = torch.cartesian_prod(*[torch.arange(len(p))] * 2).T
    mean = 0.5 * (g[first] + g[second])
    return mean, p[first] * p[second]


def test_the_mean_cosine_is_that_of_all_batches_and_no_ratio_of_moments(pairs):
    """Exactly, from every batch of two; one without a gradient counts as 0."""
    mean, chance = pairs
    truth = (chance[:, None] * mean).sum(0)
    norm = mean.norm(dim=1)
    direction = torch.where(norm[:, None] > 0, mean / norm[:, None].clamp(min=1e-300), 0.0)
    to_true = float((chance * (direction @ truth)).sum() / truth.norm())
    between = float((chance[:, None] * direction).sum(0).square().sum())
    square = float((chance * norm.square()).sum())
    moments = float(truth.norm()) / np.sqrt(square)
    assert abs(moments - to_true) > 0.02  # what was printed before
    assert float(chance[norm == 0].sum()) > 0.005

    index = np.random.default_rng(1).choice(len(chance), 2**11, p=(chance / chance.sum()).numpy())
    u = mean[index][:, None]
    found = {"a": Sample(u, u.square().sum(-1), 1, 0.0)}
    comparison = Comparison(found, 2, Resamples(2**11, 1, 100, np.random.default_rng(0)), 0.9999)
    for known in (truth, "a"):
        verdict = comparison.verdict("a", "a", known, unbiased=True)
        assert verdict.cos_to_true.lower < to_true < verdict.cos_to_true.upper
        assert verdict.cos_to_true.value == pytest.approx(to_true, abs=0.03)
        assert verdict.cos_between.value == pytest.approx(between, abs=0.03)
        assert verdict.zero_batches == int((u.norm(dim=-1) == 0).sum()) > 0


def test_bias_is_found_where_it_is_and_not_where_it_is_not():
    rng = np.random.default_rng(0)
    mean = np.array([1.0, 0.0, 0.5])
    noise = rng.standard_normal((40, 8, 3))

    def sample(shift):
        u = torch.from_numpy(mean + shift + 0.5 * noise)
        return Sample(u, u.square().sum(-1), 1, 0.0)

    found = {"ref": sample(0.0), "same": sample(0.0), "off": sample(np.array([0.3, 0, 0]))}
    comparison = Comparison(found, 8, Resamples(40, 8, 300, rng))
    for truth in ("ref", torch.from_numpy(mean)):
        bias = comparison.verdict("off", "ref", truth, unbiased=False).bias
        assert bias.lower > 0
        assert bias.value == pytest.approx(0.3 / np.sqrt(1.25), rel=0.25)
        assert not comparison.verdict("same", "ref", truth, unbiased=False).bias.lower > 0


def test_one_event_alone_bounds_no_variance_from_above():
    u = torch.zeros(40, 8, 3).double()
    u[3, 2] = 1.0
    sample = Sample(u, u.square().sum(-1), 1, 0.0)
    rng = np.random.default_rng(0)
    found = Comparison({"a": sample}, 8, Resamples(40, 8, 300, rng))
    figure = found.verdict("a", "a", None, unbiased=True).trace_cov
    assert 0 < figure.lower < figure.value
    assert figure.upper == np.inf


def test_variance_falls_with_the_batch_size():
    rng = np.random.default_rng(0)
    sample = gaussian(rng, np.zeros(50), np.ones(50), batches=64, units=8)
    comparison = Comparison({"a": sample}, 8, Resamples(64, 8, 100, rng))
    sizes, variances = zip(*comparison.variances("a", [1, 2, 4, 8, 16, 32]), strict=True)
    slope = np.polyfit(np.log(sizes), np.log(variances), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)


def test_figures_of_coupled_estimators_come_from_whole_batches(case):
    """Leave-one-out: the exact N · tr Var(ĝ) lies within the interval from independent batches."""
    from pgcli.comparison.exact import Problem
    from pgcli.gradients.truth import placed
    from pgcli.proof.listed import tabular

    mdp, policy, theta = case
    exact = Problem(placed(tabular(mdp), policy, theta)).estimate(CASES["mean"], 4)
    batch = drawn(mdp, policy, theta, 4 * 600)
    looks = Episodes(batch.rew, batch.mask, batch.truncated)
    found = samples(policy, theta, batch, {k: (CASES[k], looks) for k in ("mean", "rtg")}, 4, 1)
    comparison = Comparison(found, 4, Resamples(600, 1, 500, np.random.default_rng(0)), 0.999)
    figure = comparison.verdict("mean", "rtg", None, unbiased=True).trace_cov
    assert figure.lower < exact.trace_cov < figure.upper
    assert figure.upper < 1.5 * figure.lower
