"""Student's t, the mean and the IQM against SciPy, printed tables and slow oracles."""

import numpy as np
import pytest

from pgcli.statistics.intervals import (
    iqm,
    iqm_centre,
    iqm_interval,
    mean_interval,
    ratio_of_means,
    t_quantile,
    t_quantiles,
)

TABLE = {  # two-sided 95 %: Abramowitz & Stegun 1964, table 26.10
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980,
}  # fmt: skip
SIZES = (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 20, 37, 48)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_agree_with_the_table(freedom):
    assert t_quantile(0.975, freedom) == pytest.approx(TABLE[freedom], abs=5e-4)


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9, 0.975, 0.99, 0.995])
def test_quantiles_of_any_freedom_are_scipys(p):
    stats = pytest.importorskip("scipy.stats")
    freedom = np.array([[1, 1.1, 1.7, 2, 3.4], [4, 7.9, 29, 511.5, 1e4]])
    np.testing.assert_allclose(t_quantiles(p, freedom), stats.t.ppf(p, freedom), 1e-8, 1e-12)


def test_the_interval_of_a_mean_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    x = rng().normal(3, 2, 7)
    found = mean_interval(x, 0.9)
    slow = stats.t.interval(0.9, 6, x.mean(), stats.sem(x))
    np.testing.assert_allclose((found.lower, found.upper), slow)


@pytest.mark.parametrize("seeds", [2, 5])
def test_intervals_cover_at_their_nominal_rate(seeds):
    x = rng().normal(3.0, 2.0, (20_000, seeds))
    found = mean_interval(x)
    covered = ((found.lower < 3.0) & (found.upper > 3.0)).mean()
    assert covered == pytest.approx(0.95, abs=0.006)


@pytest.mark.parametrize("interval", [mean_interval, iqm_interval])
def test_one_number_has_no_interval(interval):
    found = interval(np.array([[4.0]]))
    assert found.value.tolist() == [4.0]
    assert np.isnan([found.lower, found.upper]).all()


def test_iqm_of_numbers_that_can_be_checked_by_eye():
    assert iqm(np.array([9.0, 1, 2, 3, 4, 100, 5, 0])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm(np.array([0.0, 6, 3])) == 3  # ⌊3/4⌋ = 0: nothing is cut
    assert iqm(np.array([7.0])) == 7


def test_iqm_hides_no_nan():
    x = np.array([1.0, 2, 3, np.nan, 4, 5, 6, 7])
    assert np.isnan(iqm(x))
    assert np.isnan(iqm_interval(x)).all()


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5, 8, 13])
def test_iqm_is_scipys_trimmed_mean(seeds):
    stats = pytest.importorskip("scipy.stats")
    x = rng().normal(size=(6, seeds))
    np.testing.assert_allclose(iqm(x), stats.trim_mean(x, 0.25, axis=-1))


@pytest.mark.parametrize("seeds", [8, 11, 20, 37])
def test_the_variance_of_an_iqm_lies_between_yuens_and_that_of_normal_numbers(seeds):
    mstats = pytest.importorskip("scipy.stats.mstats")
    x = rng().exponential(size=seeds)
    cut = seeds // 4
    inside = seeds - 2 * cut
    w = np.asarray(mstats.winsorize(x, (cut / seeds, cut / seeds)))
    yuen = ((w - w.mean()) ** 2).sum() / (inside * (inside - 1))
    normal = (1 + 0.7 * cut / seeds) * x.var(ddof=1) / seeds
    weight = 5 / seeds
    assert iqm_centre(x).variance == pytest.approx(weight * normal + (1 - weight) * yuen)


@pytest.mark.parametrize("seeds", SIZES)
def test_a_normal_samples_iqm_varies_as_said(seeds):
    x = rng().normal(size=(200_000, seeds))
    assert iqm(x).var() * seeds == pytest.approx(1 + 0.7 * (seeds // 4) / seeds, rel=0.025)


@pytest.mark.parametrize("level", [0.95, 0.99])
@pytest.mark.parametrize("seeds", SIZES)
def test_iqms_of_normal_numbers_are_covered_for_any_number_of_seeds(seeds, level):
    """With 400,000 repetitions: 94.8 to 95.7 and 98.95 to 99.23 %, the widest with 4 and 11."""
    x = rng(seeds).normal(size=(40_000, seeds))
    found = iqm_interval(x, level)
    covered = ((found.lower <= 0) & (found.upper >= 0)).mean()
    noise = 2.6 * (level * (1 - level) / len(x)) ** 0.5
    low, high = {0.95: (0.9475, 0.9566), 0.99: (0.9895, 0.9924)}[level]
    assert low - noise < covered < high + noise


def test_seeds_at_a_ceiling_do_not_hide_one_that_is_not():
    found = iqm_interval(np.array([500.0, 500, 500, 500, 300]))
    assert found.value == 500
    assert found.lower < 400
    assert iqm_interval(np.full(5, 500.0)) == (500, 500, 500)


def test_a_positive_figure_has_an_interval_on_the_scale_of_logarithms():
    x = np.exp(rng().normal(size=(30, 5)))
    plain, positive = iqm_interval(x), iqm_interval(x, positive=True)
    factor = np.exp((plain.upper - plain.value) / plain.value)
    np.testing.assert_allclose(positive, (plain.value, plain.value / factor, plain.value * factor))
    zero = np.array([0.0, 0, 0, 0, 3])
    assert iqm_interval(zero, positive=True) == iqm_interval(zero)


@pytest.mark.parametrize("seeds", [5, 8, 20])
@pytest.mark.parametrize("spread", [0.3, 0.8])
def test_the_interval_of_a_ratio_of_means_holds_the_true_one(seeds, spread):
    """Noise and signal of each seed log-normal, at random and independent: their means are 1."""
    generator = np.random.default_rng(0)
    x, y = np.exp(spread * generator.normal(size=(2, seeds, 4000)) - spread**2 / 2)
    found = ratio_of_means(x, y)
    assert 0.90 <= ((found.lower <= 1) & (found.upper >= 1)).mean() <= 0.97
    assert np.isnan(ratio_of_means(x[:4], y[:4]).lower).all()
    assert np.isnan(ratio_of_means(x, -y).value).all()
