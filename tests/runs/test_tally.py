"""The tally of a run and its budget."""

import numpy as np
from settings import train_config

from pgcli.runs.tally import RECENT, Tally


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
    tally = Tally(5, np.array([100, 300]), np.zeros((2, 1)))
    assert tally.spent(train_config(iterations=10, total_steps=None)) == 0.5
    assert tally.spent(train_config(iterations=None, total_steps=200)) == 0.5
    assert tally.spent(train_config(iterations=10, total_steps=125)) == 0.8
    assert tally.spent(train_config(iterations=5, total_steps=1000)) == 1
