"""The IQM and its bootstrap against slow oracles, SciPy and simulation."""

import numpy as np
import pytest

from pgcli.analysis import bootstrap
from pgcli.analysis.bootstrap import improvement, iqm, iqm_interval


def rng(seed=0):
    return np.random.default_rng(seed)


def slow_resamples(x, counts):
    """IQMs of the samples that `counts` [B, S] describes, one by one; x [S]."""
    return np.array([iqm(np.repeat(x, times)) for times in counts])


def test_iqm_of_numbers_that_can_be_checked_by_eye():
    assert iqm(np.array([9.0, 1, 2, 3, 4, 100, 5, 0])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm(np.array([0.0, 6, 3])) == 3  # ⌊3/4⌋ = 0: nothing is cut
    assert iqm(np.array([7.0])) == 7


def test_iqm_hides_no_nan():
    assert np.isnan(iqm(np.array([1.0, 2, 3, np.nan])))


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5, 8, 13])
def test_iqm_is_scipys_trimmed_mean(seeds):
    stats = pytest.importorskip("scipy.stats")
    x = rng().normal(size=(6, seeds))
    np.testing.assert_allclose(iqm(x), stats.trim_mean(x, 0.25, axis=-1))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_weights_of_ranks_give_the_iqm_of_each_resample(seeds):
    x = np.sort(rng().normal(size=seeds))
    counts = bootstrap._counts(np.zeros(seeds, int), 200, rng(1))
    fast = bootstrap._iqm_weights(counts) @ x
    np.testing.assert_allclose(fast, slow_resamples(x, counts))


def test_strata_are_resampled_by_themselves():
    x = rng().normal(size=(3, 9))
    strata = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    counts = bootstrap._counts(strata, 500, rng(1))
    for stratum in range(3):
        mine = strata == stratum
        assert (counts[:, mine].sum(-1) == mine.sum()).all()
    found = iqm_interval(x, rng(1), strata, resamples=500)
    for i, row in enumerate(x):
        drawn = slow_resamples(row, counts)
        np.testing.assert_allclose(
            (found.lower[i], found.upper[i]), np.quantile(drawn, [0.025, 0.975])
        )


def test_strata_far_apart_have_a_narrower_interval_than_one_pool():
    x = np.concatenate([rng().normal(0, 1, 8), rng(1).normal(100, 1, 8)])
    strata = np.repeat([0, 1], 8)
    pooled, stratified = iqm_interval(x, rng()), iqm_interval(x, rng(), strata)
    assert stratified.value == pooled.value
    assert np.ptp(stratified[1:]) < np.ptp(pooled[1:]) / 2


def test_one_stratum_said_or_unsaid_gives_the_same_interval():
    x = rng().normal(size=(2, 7))
    said = iqm_interval(x, rng(), np.zeros(7, int), resamples=20_000)
    unsaid = iqm_interval(x, rng(), resamples=20_000)
    np.testing.assert_allclose(said, unsaid, atol=0.05)


def test_the_same_generator_gives_the_same_interval():
    x = rng().normal(size=10)
    assert iqm_interval(x, rng(3)) == iqm_interval(x, rng(3))


def test_one_seed_has_no_interval():
    found = iqm_interval(np.array([[4.0]]), rng())
    assert found.value.tolist() == [4.0]
    assert np.isnan([found.lower, found.upper]).all()
    alone = improvement(np.array([1.0]), np.array([0.0, 0.0]), rng())
    assert alone.value == 1
    assert np.isnan(alone.lower)


def test_intervals_cover_nearly_as_often_as_they_say():
    # A percentile bootstrap is a little too narrow: 94 in 100 with 20 seeds, 75 with 3.
    x = rng().normal(3.0, 2.0, (4000, 20))
    found = iqm_interval(x, rng(1))
    covered = ((found.lower < 3.0) & (found.upper > 3.0)).mean()
    assert 0.915 < covered < 0.955


def test_improvement_counts_pairs():
    x, y = rng().integers(0, 4, 6).astype(float), rng(1).integers(0, 4, 9).astype(float)
    slow = np.mean([1.0 * (a > b) + 0.5 * (a == b) for a in x for b in y])
    assert improvement(x, y, rng()).value == pytest.approx(slow)
    stats = pytest.importorskip("scipy.stats")
    assert stats.mannwhitneyu(x, y).statistic == pytest.approx(slow * x.size * y.size)


def test_improvement_of_equals_is_a_half_and_of_betters_is_certain():
    x = np.arange(5.0)
    assert improvement(x, x, rng()).value == 0.5
    assert improvement(x + 10, x, rng()) == (1, 1, 1)


def test_improvement_resamples_both_settings():
    x, y = rng().normal(size=7), rng(1).normal(size=5)
    found = improvement(x, y, rng(2), resamples=500)
    generator = rng(2)
    of_x, of_y = (bootstrap._counts(np.zeros(z.size, int), 500, generator) for z in (x, y))
    drawn = [
        improvement(np.repeat(x, a), np.repeat(y, b), rng(), resamples=2).value
        for a, b in zip(of_x, of_y, strict=True)
    ]
    np.testing.assert_allclose(found[1:], np.quantile(drawn, [0.025, 0.975]))


def test_the_interval_of_improvement_covers():
    # P(X > Y) of N(1, 1) against N(0, 1) is Φ(1/√2).
    generator, truth, trials = rng(), 0.7602499, 600
    hits = 0
    for _ in range(trials):
        x, y = generator.normal(1, 1, 25), generator.normal(0, 1, 25)
        found = improvement(x, y, generator, resamples=400)
        hits += found.lower <= truth <= found.upper
    assert 0.90 < hits / trials < 0.98
