"""The counters of a run and its budget."""

import numpy as np
from settings import train_config

from pgcli.runs.tags import RECENT
from pgcli.training.counts import Counters


def test_tally_counts_and_forgets():
    counters = Counters.start(2)
    counters.add(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[2, 2], [4, 0]]))
    assert counters.env_steps.tolist() == [4, 4]
    assert counters.mean_return.tolist() == [2.0, 5.0]
    counters.add(np.full((2, RECENT), 7.0), np.ones((2, RECENT), int))
    assert counters.mean_return.tolist() == [7.0, 7.0]
    other = Counters.start(2)
    other.load(counters.arrays())
    assert other.iteration == 2
    np.testing.assert_array_equal(other.returns, counters.returns)


def test_budget_is_whichever_limit_is_nearer():
    counters = Counters(5, np.array([5, 4]), np.array([100, 300]), np.zeros((2, 1)), np.zeros(2))

    def spent(iterations, total_steps):
        config = train_config(iterations=iterations, total_steps=total_steps)
        return counters.spent(config).tolist()

    assert spent(10, None) == [0.5, 0.4]
    assert spent(None, 400) == [0.25, 0.75]
    assert spent(10, 400) == [0.5, 0.75]
    assert spent(10, 200) == [0.5, 1]
    assert spent(5, 1000) == [1, 0.8]
    counters.older = True  # one budget for all, of the seed with fewest steps
    assert spent(None, 400) == [0.25, 0.25]


def test_only_the_seeds_that_ran_are_counted():
    counters = Counters.start(3)
    counters.add(np.ones((3, 2)), np.full((3, 2), 5))
    counters.add(np.full((2, 2), 7.0), np.full((2, 2), 5), np.array([11, 12]), np.array([0, 2]))
    assert (counters.iteration, counters.done.tolist()) == (2, [2, 1, 2])
    assert counters.env_steps.tolist() == [21, 10, 22]
    assert counters.mean_return.tolist() == [4, 1, 4]
    old = Counters.start(1)
    old.older = True
    old.add(np.ones((1, 2)), np.full((1, 2), 5), np.array([17]))
    assert old.env_steps.tolist() == [10]
    earlier = {key: x for key, x in counters.arrays().items() if key != "tally/done"}
    old.load(earlier)
    assert old.done.tolist() == [2, 2, 2]


def test_that_nothing_differs_is_told_once_after_a_few_iterations():
    counters = Counters.start(2)
    for i in range(1, 13):
        returns = np.array([[-200.0] * 20, [-200.0] * 19 + [-150.0]])
        counters.add(returns, np.full((2, 20), 200))
        text = counters.alike()
        assert (text is not None) == (i == 10)
        if text is not None:
            assert "of 1 of 2 seeds all gave the same return, -200" in text
    few = Counters.start(1)
    for _ in range(10):
        few.add(np.array([[1.0]]), np.array([[3]]))
    assert few.alike() is None  # ten episodes are not many
