"""The tally of a run and its budget."""

import numpy as np
from settings import train_config

from pgcli.runs.tags import RECENT
from pgcli.training.counts import Tally


def test_tally_counts_and_forgets():
    tally = Tally.start(2)
    tally.add(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[2, 2], [4, 0]]))
    assert tally.env_steps.tolist() == [4, 4]
    assert tally.mean_return.tolist() == [2.0, 5.0]
    tally.add(np.full((2, RECENT), 7.0), np.ones((2, RECENT), int))
    assert tally.mean_return.tolist() == [7.0, 7.0]
    other = Tally.start(2)
    other.load(tally.arrays())
    assert other.iteration == 2
    np.testing.assert_array_equal(other.returns, tally.returns)


def test_budget_is_whichever_limit_is_nearer():
    tally = Tally(5, np.array([5, 4]), np.array([100, 300]), np.zeros((2, 1)))

    def spent(iterations, total_steps):
        config = train_config(iterations=iterations, total_steps=total_steps)
        return tally.spent(config).tolist()

    assert spent(10, None) == [0.5, 0.4]
    assert spent(None, 400) == [0.25, 0.75]
    assert spent(10, 400) == [0.5, 0.75]
    assert spent(10, 200) == [0.5, 1]
    assert spent(5, 1000) == [1, 0.8]
    tally.older = True  # one budget for all, of the seed with fewest steps
    assert spent(None, 400) == [0.25, 0.25]


def test_only_the_seeds_that_ran_are_counted():
    tally = Tally.start(3)
    tally.add(np.ones((3, 2)), np.full((3, 2), 5))
    tally.add(np.full((2, 2), 7.0), np.full((2, 2), 5), np.array([1, 2]), np.array([0, 2]))
    assert (tally.iteration, tally.done.tolist()) == (2, [2, 1, 2])
    assert tally.env_steps.tolist() == [21, 10, 22]
    assert tally.mean_return.tolist() == [4, 1, 4]
    old = Tally.start(1)
    old.older = True
    old.add(np.ones((1, 2)), np.full((1, 2), 5), np.array([7]))
    assert old.env_steps.tolist() == [10]
    earlier = {key: x for key, x in tally.arrays().items() if key != "tally/done"}
    old.load(earlier)
    assert old.done.tolist() == [2, 2, 2]
