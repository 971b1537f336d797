"""Curves of seeds against loops over episodes and closed forms."""

import numpy as np
import pytest

from pgcli.statistics.curves import area, band, interpolate, running_mean, steps_to
from pgcli.statistics.intervals import iqm


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("window", [1, 7, 100, 1000])
def test_running_mean_is_the_mean_over_single_episodes(window):
    episodes = rng().integers(1, 12, 40)
    ret = rng(1).normal(size=40)
    single = np.repeat(ret, episodes)  # a batch's mean stands for each of its episodes
    slow = [single[:end][-window:].mean() for end in np.cumsum(episodes)]
    np.testing.assert_allclose(running_mean(ret, episodes, window), slow)


def test_steps_to_is_the_first_crossing():
    steps, value = np.array([10.0, 20, 30, 40]), np.array([1.0, 5, 3, 9])
    assert steps_to(steps, value, 4) == 20
    assert steps_to(steps, value, 9) == 40
    assert steps_to(steps, value, 9.5) == np.inf
    assert steps_to(steps, np.full(4, np.nan), 0) == np.inf


def test_area_of_a_ramp_is_its_middle():
    steps = np.linspace(0, 100, 11)
    assert area(steps, 3 * steps, 0, 100) == pytest.approx(150)
    assert area(steps, 3 * steps, 15, 35) == pytest.approx(75)  # between the points


def test_area_is_a_riemann_sum():
    steps, value = np.sort(rng().uniform(0, 9, 30)), rng(1).normal(size=30)
    start, stop = steps[0] + 0.1, steps[-1] - 0.1
    width = (stop - start) / 100_000
    x = start + width * (np.arange(100_000) + 0.5)
    assert area(steps, value, start, stop) == pytest.approx(np.interp(x, steps, value).mean(), 1e-4)


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (2, 11), (5, 5), (6, 5)])
def test_area_outside_of_the_curve_is_not_known(start, stop):
    assert np.isnan(area(np.array([1.0, 10]), np.array([0.0, 1]), start, stop))


def test_interpolation_extrapolates_nothing():
    found = interpolate(
        [np.array([10.0, 20]), np.array([0.0, 40])],
        [np.array([1.0, 2]), np.array([0.0, 4])],
        np.array([0.0, 10, 15, 20, 30]),
    )
    np.testing.assert_equal(found, [[np.nan, 1, 1.5, 2, np.nan], [0, 1, 1.5, 2, 3]])


def test_a_band_holds_the_iqm_of_the_seeds_that_are_there():
    y = rng().normal(size=(8, 5))
    y[6:, 1] = np.nan  # 6 of 8
    y[3:, 2] = np.nan  # 3 of 8: too few
    y[:, 3] = np.nan
    found = band(y)
    assert found.seeds.tolist() == [8, 6, 3, 0, 8]
    np.testing.assert_allclose(found.value[[0, 1, 4]], [iqm(y[:, 0]), iqm(y[:6, 1]), iqm(y[:, 4])])
    assert np.isnan(found.value[[2, 3]]).all()
    there = [0, 1, 4]
    assert (found.lower[there] < found.value[there]).all()
    assert (found.value[there] < found.upper[there]).all()


def test_a_band_of_one_seed_is_its_curve():
    found = band(np.array([[1.0, 2, np.nan]]))
    np.testing.assert_equal(found.value, [1, 2, np.nan])
    assert np.isnan(found.lower).all()


def test_the_band_of_a_positive_figure_stays_positive():
    y = np.exp(3 * rng().normal(size=(5, 40)))
    assert (band(y).lower < 0).any()
    found = band(y, positive=True)
    assert (found.lower > 0).all()
    np.testing.assert_allclose(found.value**2, found.lower * found.upper)
