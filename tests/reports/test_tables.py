"""How numbers are told."""

import math

import pytest

from pgcli.reports.tables import _number, interval
from pgcli.statistics.intervals import Estimate


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (0.0, "0.00"), (0.60345, "0.603"), (4.0, "4.00"), (9.999, "10.0"), (99.96, "100.0"),
        (475.0, "475.0"), (-1463.8, "-1,464"), (560042.4, "560,042"), (1.258e7, "1.26e+07"),
        (1e-9, "1.00e-09"), (math.inf, "∞"), (math.nan, "—"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_or_more(x, told):
    assert _number(x) == told


def test_an_interval_is_told_where_there_is_one():
    assert interval(Estimate(2.0, 1.0, 3.0)) == "2.00 [1.00, 3.00]"
    assert interval(Estimate(2.0, math.nan, math.nan)) == "2.00"
    assert interval(Estimate(0.5, 0.25, 1.0), "{:.2f}") == "0.50 [0.25, 1.00]"
