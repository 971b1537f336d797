"""What is said of runs that cannot succeed as they are set, and of sound ones not."""

import numpy as np
import pytest

from pgcli.policies.heads import Categorical, Gaussian
from pgcli.runs.tags import ENTROPY, RETURN, SNR
from pgcli.training.outlook import LONG, Outlook

BOTH = np.arange(2)


def run(returns, entropy=1.0, ratio=0.01, iterations=LONG):
    """An outlook on two seeds; the figures are numbers or functions of iteration and noise."""
    outlook, rng = Outlook.start(2), np.random.default_rng(0)
    for i in range(iterations):
        given = zip((RETURN, ENTROPY, SNR), (returns, entropy, ratio), strict=True)
        record = {
            tag: np.array([x(i, e) if callable(x) else x for e in rng.normal(size=2)], float)
            for tag, x in given
        }
        outlook.add(record, BOTH)
    return outlook


FLAT = {
    "noise around one return": lambda i, e: -1200 + 100 * e,
    "one return": 0.0,
    "falling": lambda i, e: -i + e,
}


@pytest.mark.parametrize("name", FLAT)
def test_noise_that_teaches_nothing_is_said_once(name):
    outlook = run(FLAT[name])
    (text,) = outlook.tells(0.3, Categorical(2))
    assert text.startswith("signal-to-noise ratio of the gradient around 0.01 over 30 iterations")
    assert outlook.tells(0.4, Categorical(2)) == []


@pytest.mark.parametrize(
    "outlook",
    [
        run(lambda i, e: i + 5 * e),  # it rises all the same
        run(FLAT["one return"], ratio=0.5),
        run(FLAT["one return"], ratio=np.nan),  # not measured
        run(FLAT["one return"], iterations=LONG - 1),
    ],
)
def test_else_it_is_not(outlook):
    assert outlook.tells(0.3, Categorical(2)) == []


def test_early_in_a_run_nothing_is_judged():
    assert run(0.0).tells(0.1, Categorical(2)) == []


def test_a_policy_that_stops_exploring_early_is_said():
    outlook = run(lambda i, e: i, entropy=lambda i, e: np.exp(-2 * i), iterations=12)
    (text,) = outlook.tells(0.2, Categorical(2))
    assert "hardly explores any more" not in text[:10]
    assert "with 80% of the budget left" in text
    assert outlook.tells(0.3, Categorical(2)) == []


@pytest.mark.parametrize(("spent", "said"), [(0.4, 1), (0.6, 0)])
def test_late_it_is_as_it_should_be(spent, said):
    outlook = run(lambda i, e: i, entropy=lambda i, e: np.exp(-i))
    assert len(outlook.tells(spent, Categorical(2))) == said


@pytest.mark.parametrize(("drop", "said"), [(4.0, 0), (5.0, 1)])
def test_a_gaussian_by_its_deviation_in_each_direction(drop, said):
    outlook = run(lambda i, e: i, entropy=lambda i, e: -3 * drop * min(1.0, i))
    assert len(outlook.tells(0.3, Gaussian((3,)))) == said


def test_one_seed_of_two_is_named_as_such():
    outlook = Outlook.start(2)
    for i in range(LONG):
        record = {RETURN: np.array([0.0, i]), ENTROPY: np.ones(2), SNR: np.full(2, 0.01)}
        outlook.add(record, BOTH)
    (text,) = outlook.tells(0.3, Categorical(2))
    assert "of 1 of 2 seeds" in text


def test_it_goes_on_where_it_was():
    whole, half = run(lambda i, e: -i + e), run(lambda i, e: -i + e, iterations=LONG)
    resumed = Outlook.start(2)
    resumed.load(half.arrays())
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(array, resumed.arrays()[name])
    assert resumed.tells(0.3, Categorical(2)) == whole.tells(0.3, Categorical(2))
    older = Outlook.start(2)
    older.load({})
    assert older.count.tolist() == [0, 0]
