"""How often the intervals over seeds hold the truth, by simulation.

`python tests/statistics/test_coverage_over_seeds.py` prints the table. The populations were written
down before any interval was tried on them; they follow what 200 seeds of CartPole-v1 did, rtg and
gae in batches of 10: returns have a skewness of -1 after 10 iterations, of -3 and a tenth of the
seeds at 500 after 40, some with a return of 150 for good; the trace of the covariance spreads by
0.6 to 1 in logarithms. The truth is always the population's: its IQM, mean, ratio or probability.
"""

from functools import cache

import numpy as np
import pytest

from pgcli.statistics.effects import effect, improvement
from pgcli.statistics.intervals import iqm, iqm_interval

SEEDS = (5, 8, 20)
POPULATIONS = {
    "normal": lambda rng, size: rng.normal(300, 40, size),
    "learning": lambda rng, size: 500 - rng.gamma(2, 40, size),
    "late": lambda rng, size: capped(rng, size, 500 - rng.exponential(60, size)),
    "solved": lambda rng, size: capped(rng, size, 500 - lognormal(rng, size, 1.4, 10)),
    "stuck": lambda rng, size: np.where(
        rng.random(size) < 0.3, rng.normal(100, 20, size), rng.normal(450, 30, size)
    ),
    "spread 0.3": lambda rng, size: lognormal(rng, size, 0.3),
    "spread 0.6": lambda rng, size: lognormal(rng, size, 0.6),
    "spread 1": lambda rng, size: lognormal(rng, size, 1.0),
}
RETURNS = ("normal", "learning", "late", "solved", "stuck")
FIGURES = ("spread 0.3", "spread 0.6", "spread 1")
DIFFERENCES = [
    ("normal", "normal"), ("learning", "learning"), ("learning", "normal"), ("late", "normal"),
    ("late", "learning"), ("solved", "learning"), ("solved", "solved"), ("stuck", "normal"),
]  # fmt: skip
RATIOS = [(0.3, 0.3, 0.0), (0.3, 0.3, 0.5), (0.6, 0.3, 0.0), (0.6, 0.3, 0.5), (0.6, 0.6, 0.0),
          (0.6, 0.6, 0.5), (0.6, 0.6, 0.9), (1, 0.3, 0.0), (1, 0.5, 0.8), (1, 1, 0.0),
          (1, 1, 0.5), (1, 1, 0.9)]  # fmt: skip
WINS = {  # standard deviations between the means, ratio of the deviations
    "even": (0.0, 1.0), "better": (0.5, 1.0), "clearly": (1.0, 1.0), "nearly all": (2.0, 1.0),
    "unequal": (1.0, 3.0),
}  # fmt: skip
# Cells without 93.5 to 96.5 %: too wide where a tenth of the seeds is at the cap or one
# is far off, too narrow where a third of the seeds are another population.
WIDE = ("IQM: solved", "IQM: spread 1", "difference: solved less solved",
        "paired difference: solved less solved")  # fmt: skip
NARROW = ("IQM: stuck", "difference: stuck less normal", "paired difference: stuck less normal")


def capped(rng, size, x):
    return np.where(rng.random(size) < 0.1, 500, np.maximum(x, 0))


def lognormal(rng, size, spread, median=1.0):
    return median * np.exp(rng.normal(0, spread, size))


@cache
def truth(name):
    return float(iqm(POPULATIONS[name](np.random.default_rng(7), 4_000_000)))


def held(found, true):
    return 100 * float(((found.lower <= true) & (true <= found.upper)).mean())


def of_one(name, seeds, repetitions):
    x = POPULATIONS[name](np.random.default_rng(seeds), (repetitions, seeds))
    return held(iqm_interval(x, positive=name in FIGURES), truth(name))


def of_difference(names, seeds, repetitions, paired):
    rng = np.random.default_rng(seeds)
    x, y = (POPULATIONS[name](rng, (repetitions, seeds)) for name in names)
    found = effect(x, y, ratio=False, paired=paired, robust=True)
    return held(found, truth(names[0]) - truth(names[1]))


def of_correlated(correlation, scale, seeds, repetitions):
    """IQMs of normal numbers that belong together."""
    x, z = np.random.default_rng(seeds).normal(size=(2, repetitions, seeds))
    y = scale * (correlation * x + np.sqrt(1 - correlation**2) * z)
    return held(effect(x, y, ratio=False, paired=True, robust=True), 0)


def of_ratio(spreads, correlation, seeds, repetitions, paired):
    """Means of log-normal numbers."""
    a, b = spreads
    x, z = np.random.default_rng(seeds).normal(size=(2, repetitions, seeds))
    y = correlation * x + np.sqrt(1 - correlation**2) * z
    found = effect(np.exp(a * x), np.exp(b * y), ratio=True, paired=paired, robust=False)
    return held(found, np.exp((a**2 - b**2) / 2))


def of_iqm_ratio(names, seeds, repetitions):
    rng = np.random.default_rng(seeds)
    x, y = (POPULATIONS[name](rng, (repetitions, seeds)) for name in names)
    found = effect(x, y, ratio=True, paired=False, robust=True)
    return held(found, truth(names[0]) / truth(names[1]))


def of_wins(apart, ratio, seeds, repetitions):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seeds)
    x = rng.normal(apart, 1, (repetitions, seeds))
    y = rng.normal(0, ratio, (repetitions, seeds))
    return held(improvement(x, y), float(stats.norm.cdf(apart / np.hypot(1, ratio))))


def of_win_of_returns(names, seeds, repetitions):
    rng = np.random.default_rng(seeds)
    a, b = (POPULATIONS[name](rng, 4_000_000) for name in names)
    true = float((a > b).mean() + 0.5 * (a == b).mean())
    x, y = (POPULATIONS[name](rng, (repetitions, seeds)) for name in names)
    return held(improvement(x, y), true)


def cells():
    """Name of each cell, and its coverage in % as a function of seeds and repetitions."""
    for name in (*RETURNS, *FIGURES):
        yield f"IQM: {name}", lambda s, n, name=name: of_one(name, s, n)
    for names in DIFFERENCES:
        for paired in (False, True):
            said = f"{'paired ' * paired}difference: {' less '.join(names)}"
            yield said, lambda s, n, a=names, p=paired: of_difference(a, s, n, p)
    for correlation in (-0.5, 0.5, 0.9, 0.99):
        for scale in (1, 3):
            said = f"paired difference: normal, correlation {correlation}, scale {scale}"
            yield said, lambda s, n, c=correlation, k=scale: of_correlated(c, k, s, n)
    for a, b, correlation in RATIOS:
        paired = correlation > 0
        said = f"ratio: spread {a:g} to {b:g}{f', paired, correlation {correlation}' * paired}"
        yield said, lambda s, n, a=a, b=b, c=correlation, p=paired: of_ratio((a, b), c, s, n, p)
    for names in (("normal", "normal"), ("learning", "normal"), ("late", "learning")):
        said = f"ratio of IQMs: {' to '.join(names)}"
        yield said, lambda s, n, a=names: of_iqm_ratio(a, s, n)
    for name, (apart, ratio) in WINS.items():
        yield f"P(X > Y): normal, {name}", lambda s, n, a=apart, r=ratio: of_wins(a, r, s, n)
    for names in (("late", "learning"), ("solved", "late")):
        said = f"P(X > Y): {' above '.join(names)}"
        yield said, lambda s, n, a=names: of_win_of_returns(a, s, n)


CELLS = dict(cells())

# What claims and tables are made of: normal numbers, returns of CartPole, ratios of traces.
ORDINARY = [
    name
    for name in CELLS
    if name not in (*WIDE, *NARROW) and not name.startswith(("P(X", "ratio: spread 1"))
]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ORDINARY)
def test_intervals_cover_as_often_as_they_say(cell):
    """93.5 to 96.5 % of 4,000 repetitions, less two standard errors of those."""
    for seeds in SEEDS:
        assert 92.8 <= CELLS[cell](seeds, 4000) <= 97.2, seeds


@pytest.mark.slow
@pytest.mark.parametrize("cell", [*WIDE, *NARROW])
def test_where_they_do_not_is_known(cell):
    for seeds in SEEDS:
        low, high = (92.8, 99.9) if cell in WIDE else (83, 95)
        assert low <= CELLS[cell](seeds, 4000) <= high, seeds


def test_five_seeds_of_normal_numbers_and_of_returns_are_covered():
    for cell in ("IQM: normal", "IQM: learning", "ratio: spread 0.3 to 0.3"):
        assert 92.5 <= CELLS[cell](5, 2000) <= 97.5, cell


if __name__ == "__main__":
    print(f"{'coverage in %, seeds:':56s}", *(f"{s:5d}" for s in (3, 4, *SEEDS)))
    for cell, coverage in CELLS.items():
        found = [coverage(s, 40_000) for s in (3, 4, *SEEDS)]
        mark = "" if all(93.5 <= x <= 96.5 for x in found[2:]) else "  *"
        print(f"{cell:56s}", *(f"{x:5.1f}" for x in found), mark, flush=True)
