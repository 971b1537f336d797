"""What episodes come to."""

import numpy as np
import pytest

from pgcli.evaluation.figures import of_episodes, over_seeds
from pgcli.evaluation.video import chosen
from pgcli.settings.schema import VideoEpisode
from pgcli.statistics.intervals import iqm_interval, mean_interval

RETURNS = np.array([1.0, 2.0, 3.0, 10.0, 4.0, 4.0, 4.0, 0.0])


def of(returns, success=np.nan):
    n = len(returns)
    return of_episodes(returns, np.arange(n), np.full(n, success), 0.9)


def test_the_figures_of_one_policy():
    found = of(RETURNS)
    mean, iqm = mean_interval(RETURNS, 0.9), iqm_interval(RETURNS, 0.9)
    assert (found["mean"], found["mean_lo"], found["mean_hi"]) == mean
    assert (found["iqm"], found["iqm_lo"], found["iqm_hi"]) == iqm
    assert found["iqm"] == np.mean([2, 3, 4, 4])
    assert (found["length"], found["success_rate"]) == (3.5, None)
    half = np.where(np.arange(8) < 2, np.arange(8) % 2, np.nan)  # one yes, one no, else nothing
    assert of_episodes(RETURNS, RETURNS, half, 0.9)["success_rate"] == 0.5


def test_over_seeds_a_number_is_a_seed():
    seeds = [of(RETURNS), of(RETURNS + 1, 1.0), of(RETURNS - 5, 0.0)]
    found = over_seeds(seeds, 0.9)
    means = np.array([one["mean"] for one in seeds])
    assert (found["mean"], found["mean_lo"], found["mean_hi"]) == mean_interval(means, 0.9)
    assert found["success_rate"] == 0.5


@pytest.mark.parametrize(("which", "ret"), [("worst", 0), ("median", 3), ("best", 10)])
def test_the_episode_that_is_shown(which, ret):
    seed, episode = chosen(VideoEpisode[which], RETURNS.reshape(2, 4))
    assert RETURNS.reshape(2, 4)[seed, episode] == ret
