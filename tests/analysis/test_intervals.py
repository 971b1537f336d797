"""Student's t against a printed table and against sampling."""

import numpy as np
import pytest

from pgcli.analysis.intervals import mean_interval, t_quantile

TABLE = {  # two-sided 95 %: Abramowitz & Stegun 1964, table 26.10
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980,
}  # fmt: skip


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_agree_with_the_table(freedom):
    assert t_quantile(0.975, freedom) == pytest.approx(TABLE[freedom], abs=5e-4)


@pytest.mark.parametrize("seeds", [2, 5])
def test_intervals_cover_at_their_nominal_rate(seeds):
    x = np.random.default_rng(0).normal(3.0, 2.0, (20_000, seeds))
    found = mean_interval(x)
    covered = ((found.lower < 3.0) & (found.upper > 3.0)).mean()
    assert covered == pytest.approx(0.95, abs=0.006)


def test_one_number_has_no_interval():
    found = mean_interval(np.array([[4.0]]))
    assert found.mean.tolist() == [4.0]
    assert np.isnan(found.lower).all()
