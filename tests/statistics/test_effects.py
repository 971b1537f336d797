"""Differences, ratios and probabilities against SciPy and against their definitions."""

import numpy as np
import pytest

from pgcli.statistics.effects import beside, effect, holm, improvement, p_value, seeds_for
from pgcli.statistics.intervals import iqm, iqm_centre, mean, t_quantile


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_difference_of_means_is_welchs():
    stats = pytest.importorskip("scipy.stats")
    x, y = rng().normal(5, 1, 6), rng(1).normal(4, 3, 9)
    found = effect(x, y, ratio=False, paired=False, robust=False)
    slow = stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    np.testing.assert_allclose(found, (x.mean() - y.mean(), *slow))


def test_a_paired_difference_of_means_is_students():
    stats = pytest.importorskip("scipy.stats")
    x, y = rng().normal(5, 1, 6), rng(1).normal(4, 3, 6)
    found = effect(x, y, ratio=False, paired=True, robust=False)
    slow = stats.ttest_rel(x, y).confidence_interval()
    np.testing.assert_allclose(found, (x.mean() - y.mean(), *slow))


def test_pairs_that_move_together_have_a_narrow_interval():
    x = rng().normal(0, 10, 9)
    y = x + rng(1).normal(0, 0.1, 9)
    for robust in (False, True):
        apart, together = (
            effect(x, y, ratio=False, paired=p, robust=robust) for p in (False, True)
        )
        assert together.value == apart.value
        assert np.ptp(together[1:]) < np.ptp(apart[1:]) / 20


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("robust", [False, True])
def test_the_limits_of_a_ratio_are_where_a_test_just_rejects(robust, paired):
    """Fieller: x − ρy is told from 0 outside of them, and not inside."""
    x, y = rng().normal(-5, 2, 8), rng(1).normal(4, 1, 8)
    found = effect(x, y, ratio=True, paired=paired, robust=robust)
    assert found.value == (iqm(x) / iqm(y) if robust else x.mean() / y.mean())
    centre = iqm_centre if robust else mean
    a, b = centre(x), centre(y)
    for limit in found[1:]:
        if paired:
            square, freedom = ((a.scores - limit * b.scores) ** 2).sum(), a.freedom
        else:
            parts = a.variance, found.value**2 * b.variance
            freedom = sum(parts) ** 2 / (parts[0] ** 2 / a.freedom + parts[1] ** 2 / b.freedom)
            square = a.variance + limit**2 * b.variance
        t = abs(a.value - limit * b.value) / np.sqrt(square)
        assert t == pytest.approx(t_quantile(0.975, float(freedom)))
    assert found.lower < found.value < found.upper


def test_a_ratio_to_what_may_be_nothing_has_no_limits():
    x, y = rng().normal(5, 1, 6), rng(1).normal(0.1, 1, 6)
    found = effect(x, y, ratio=True, paired=False, robust=False)
    assert (found.lower, found.upper) == (-np.inf, np.inf)


def test_a_ratio_of_positive_figures_reads_the_same_upside_down():
    x, y = np.exp(rng().normal(size=7)), np.exp(rng(1).normal(size=7))
    for paired in (False, True):
        there = effect(x, y, ratio=True, paired=paired, robust=False)
        back = effect(y, x, ratio=True, paired=paired, robust=False)
        np.testing.assert_allclose(
            (there.value, there.lower, there.upper),
            (1 / back.value, 1 / back.upper, 1 / back.lower),
        )
        assert 0 < there.lower < there.value < there.upper


@pytest.mark.parametrize("ratio", [False, True])
@pytest.mark.parametrize("robust", [False, True])
def test_what_is_the_same_for_every_seed_is_certain(robust, ratio):
    x = rng().normal(5, 1, 8)
    same = effect(x, x, ratio=ratio, paired=True, robust=robust)
    assert same == ((1, 1, 1) if ratio else (0, 0, 0))
    constant = effect(np.full(5, 6.0), np.full(5, 3.0), ratio=ratio, paired=False, robust=robust)
    assert constant == ((2, 2, 2) if ratio else (3, 3, 3))


def test_one_seed_or_no_number_has_no_limits():
    one, two = np.array([4.0]), np.array([1.0, 2.0])
    for x, y in ((one, two), (two, one), (two, np.array([np.nan, 1])), (two, np.zeros(2))):
        for ratio in (False, True):
            found = effect(x, y, ratio=ratio, paired=False, robust=False)
            if ratio or np.isnan(y).any() or min(x.size, y.size) < 2:
                assert not np.isfinite([found.lower, found.upper]).any()
    assert np.isnan(improvement(one, two)[1:]).all()


def test_intervals_of_many_samples_are_those_of_each():
    x, y = np.exp(rng().normal(size=(4, 6))), np.exp(rng(1).normal(size=(4, 6)))
    y[3] -= 1
    for ratio in (False, True):
        for paired in (False, True):
            for robust in (False, True):
                settings = {"ratio": ratio, "paired": paired, "robust": robust}
                slow = [effect(a, b, **settings) for a, b in zip(x, y, strict=True)]
                np.testing.assert_allclose(np.transpose(effect(x, y, **settings)), slow)
    slow = [improvement(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(np.transpose(improvement(x, y)), slow)


def test_improvement_counts_pairs():
    x, y = rng().integers(0, 4, 6).astype(float), rng(1).integers(0, 4, 9).astype(float)
    slow = np.mean([1.0 * (a > b) + 0.5 * (a == b) for a in x for b in y])
    assert improvement(x, y).value == pytest.approx(slow)
    stats = pytest.importorskip("scipy.stats")
    assert stats.mannwhitneyu(x, y).statistic == pytest.approx(slow * x.size * y.size)


def test_improvement_of_equals_is_a_half_and_five_wins_of_five_are_not_certain():
    x = np.arange(5.0)
    assert improvement(x, x).value == 0.5
    found = improvement(x + 10, x)
    assert found.value == found.upper == 1
    assert found.lower == pytest.approx(0.643, abs=5e-4)
    back = improvement(x, x + 10)
    np.testing.assert_allclose(back, (0, 0, 1 - found.lower))


def test_the_limits_of_improvement_are_those_of_newcombes_method_5():
    """|p̂ − θ| = z √(θ(1 − θ)/(mn) (1 + N*(1 − θ)/(2 − θ) + N*θ/(1 + θ))), N* = (m + n)/2 − 1."""
    x, y = rng().normal(1, 1, 7), rng(1).normal(0, 1, 12)
    found = improvement(x, y, 0.9)
    for theta in found[1:]:
        n = (7 + 12) / 2 - 1
        variance = (
            theta * (1 - theta) / 84 * (1 + n * (1 - theta) / (2 - theta) + n * theta / (1 + theta))
        )
        assert abs(found.value - theta) == pytest.approx(1.6448536 * np.sqrt(variance))


def test_p_values_are_mann_and_whitneys_and_agree_with_the_interval():
    stats = pytest.importorskip("scipy.stats")
    for seed in range(40):
        x, y = rng(seed).normal(seed / 20, 1, 9), rng(100 + seed).normal(0, 1, 6)
        found = improvement(x, y)
        p = p_value(float(found.value), 9, 6)
        slow = stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False).pvalue
        assert p == pytest.approx(slow)
        assert (p < 0.05) == (found.lower > 0.5 or found.upper < 0.5)


def test_holm_steps_down_and_stops():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]  # 0.03 > 0.05/2
    assert holm([0.01, 0.04, 0.02, 0.005]) == [True, True, True, True]  # Bonferroni: two of them
    assert holm([0.06]) == [False]
    assert holm([]) == []


def test_of_several_groups_that_do_not_differ_one_in_twenty_is_told_apart():
    """Three against a first, and their adjusted intervals hold at once as often as they say."""
    generator, wrong, held = rng(), 0, 0
    trials = 2000
    first, *others = generator.normal(size=(4, trials, 8))
    found = [improvement(x, first, level=1 - 0.05 / 3) for x in others]
    for i in range(trials):
        wrong += any(holm([p_value(float(f.value[i]), 8, 8) for f in found]))
        held += all(f.lower[i] <= 0.5 <= f.upper[i] for f in found)
    assert wrong / trials < 0.05
    assert held / trials > 0.95


def test_a_difference_to_a_published_mean_is_welchs():
    x = np.array([10.0, 11, 12, 13, 14])
    value, lower, upper = beside(x, 10.0, 2.0, 4)
    y = np.array([-1.0, 1, -1, 1]) * np.sqrt(3) + 10  # mean 10, deviation 2
    expected = effect(x, y, ratio=False, paired=False, robust=False)
    assert (value, lower, upper) == pytest.approx(tuple(map(float, expected)))
    exact = beside(x, 10.0, None, None)
    assert exact.upper - exact.value == pytest.approx(t_quantile(0.975, 4) * np.sqrt(0.5))


def test_seeds_for_a_difference_give_students_test_its_power():
    from scipy.stats import nct, t

    generator = np.random.default_rng(0)
    for effect_size in (0.5, 1.0, 2.0, 3.0):
        x = generator.normal(size=8)
        x = (x - x.mean()) / x.std(ddof=1)
        n = int(seeds_for(x + effect_size, x).value)
        power = {}
        for k in (n - 1, n, n + 1):
            freedom, shift = 2 * k - 2, effect_size * np.sqrt(k / 2)
            edge = t.ppf(0.975, freedom)
            power[k] = 1 - nct.cdf(edge, freedom, shift) + nct.cdf(-edge, freedom, shift)
        assert power[n + 1] >= 0.8 > power[n - 1] - 0.02
    for nothing in (seeds_for(np.ones(3), np.ones(3) + 1), seeds_for(np.ones(1), np.arange(3.0))):
        assert np.isnan(nothing).all()
    equal = seeds_for(np.arange(3.0), np.arange(3.0))
    assert np.isinf(equal.value)
    assert np.isfinite(equal.lower)


@pytest.mark.parametrize("effect_size", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("seeds", [5, 8, 20])
def test_the_interval_of_seeds_to_tell_holds_the_true_number(effect_size, seeds):
    from scipy.stats import norm

    true = 2 * ((norm.ppf(0.975) + norm.ppf(0.8)) / effect_size) ** 2 + norm.ppf(0.975) ** 2 / 4
    generator = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        x, y = generator.normal(size=(2, seeds))
        found = seeds_for(x + effect_size, y)
        held.append(found.lower <= np.ceil(true) and true <= found.upper)
    assert 0.92 <= np.mean(held) <= 0.99
