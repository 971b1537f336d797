"""What each group of runs achieved, in figures and curves over its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pgcli.pictures.curves import Curve
from pgcli.reports.groups import Group
from pgcli.runs.saved import recent_return
from pgcli.runs.tags import EPISODES, NORM_SQ, RECENT, RETURN, TRACE_COV, VARIANCE
from pgcli.statistics.curves import Band, area, band, interpolate, steps_to
from pgcli.statistics.effects import holm, improvement, p_value, seeds_for
from pgcli.statistics.intervals import FEWEST, Estimate, iqm_interval, ratio_of_means

LAST = 10  # the end of a run is the last tenth of its iterations
ALPHA = 0.05  # that any of an environment's groups is wrongly told from the first
POINTS = 150  # of a curve
Range = tuple[float, float]  # environment steps from, to
NOTHING = Estimate(*np.full(3, np.nan))


class Better(NamedTuple):
    """How a group's final returns compare with those of the first group of its environment."""

    chance: Estimate  # P(above one of the first group); NaN for the first group itself
    groups: int  # that are compared with it: all their intervals hold at once at 95 %
    differs: bool  # told from 1/2 by Holm's procedure, at 5 % for all of them
    needed: Estimate = NOTHING  # seeds on each side that tell means so far apart, see seeds_for


NOBODY = Better(NOTHING, 0, differs=False)


class Result(NamedTuple):
    """One group's figures over its seeds; NaN for what it does not have."""

    group: Group
    final: Estimate  # IQM of the mean return of each seed's last RECENT episodes
    steps: float  # until that mean reached the threshold, median of the seeds; ∞: most never did
    reached: int  # seeds that did
    area: Estimate  # IQM of the area under the return's curve, per step, over the common range
    variance: Estimate  # IQM of the variance of the gradient estimate at the end
    noise_scale: float  # at the end, mean tr Σ over mean ‖G‖² of the seeds, in episodes
    better: Better = NOBODY


def compare(
    groups: Sequence[Group], thresholds: Mapping[str, float], ranges: Mapping[str, Range]
) -> list[Result]:
    """Figures of every group; by environment a threshold, NaN for none, and its common range."""
    finals: list[np.ndarray] = []
    results = []
    for group in groups:
        seeds, threshold = list(group.seeds.values()), thresholds[group.environment]
        final = np.array([recent_return(r)[-1] for r in seeds])
        reached = np.array([_steps_to(r, threshold) for r in seeds])
        areas = np.array(
            [area(r["env_steps"], r[RETURN], *ranges[group.environment]) for r in seeds]
        )
        results.append(
            Result(
                group,
                final=_estimate(final),
                steps=float(np.median(reached)) if seeds else math.nan,
                reached=int(np.isfinite(reached).sum()),
                area=_estimate(areas),
                variance=_estimate(np.array([at_end(r, VARIANCE) for r in seeds]), positive=True),
                noise_scale=_noise_scale(seeds),
            )
        )
        finals.append(final)
    places = [group.environment for group in groups]
    better = _better(places, finals)
    return [result._replace(better=better[i]) for i, result in enumerate(results)]


def _better(places: Sequence[str], finals: Sequence[np.ndarray]) -> list[Better]:
    """Each group's returns [S] against those of the first of its environment that has any.

    The groups of an environment are one family: intervals at level 1 − 5 %/k hold at once for its
    k comparisons at 95 % (Bonferroni), and Holm's procedure tells which differ.
    """
    better = [NOBODY] * len(places)
    for place in set(places):
        family = [i for i, x in enumerate(finals) if x.size and places[i] == place]
        reference = finals[family[0]] if family else np.empty(0)
        chances = [
            improvement(finals[i], reference, level=1 - ALPHA / (len(family) - 1))
            for i in family[1:]
        ]
        sizes = [(finals[i].size, reference.size) for i in family[1:]]
        tests = [p_value(float(c.value), *s) for c, s in zip(chances, sizes, strict=True)]
        told = holm(tests, ALPHA)
        for i, chance, both, differs in zip(family[1:], chances, sizes, told, strict=True):
            needed = seeds_for(finals[i], reference)
            better[i] = Better(chance, len(chances), differs and min(both) >= FEWEST, needed)
    return better


def curves(groups: Sequence[Group], column: str) -> dict[str, Curve]:
    """By label: the IQM of a column over a group's seeds, up to where half of them have ended."""
    by_label = {}
    for group in groups:
        steps = [rows["env_steps"] for rows in group.seeds.values()]
        values = [rows[column] for rows in group.seeds.values()]
        if not steps or not np.isfinite(np.concatenate(values)).any():
            continue
        grid = np.linspace(min(x[0] for x in steps), max(x[-1] for x in steps), POINTS)
        over_seeds = band(interpolate(steps, values, grid), positive=column == VARIANCE)
        by_label[group.label] = Curve(group.series, grid, over_seeds, len(steps))
    return by_label


def noise_along(groups: Sequence[Group]) -> dict[str, Curve]:
    """By label: the noise scale in each tenth of the iterations, of a group's seeds together."""
    by_label = {}
    for group in groups:
        pieces = [np.array_split(rows, min(LAST, len(rows))) for rows in group.seeds.values()]
        if not pieces or len({len(own) for own in pieces}) > 1:
            continue
        noise, signal, steps = (
            np.array([[_known_mean(piece[name]) for piece in own] for own in pieces])
            for name in (TRACE_COV, NORM_SQ, "env_steps")
        )
        scale = ratio_of_means(noise, signal)
        if np.isfinite(scale.value).any():
            over_seeds = Band(*scale, np.full(scale.value.shape, len(pieces)))
            by_label[group.label] = Curve(group.series, steps.mean(0), over_seeds, len(pieces))
    return by_label


def _known_mean(x: np.ndarray) -> float:
    known = x[~np.isnan(x)]
    return float(known.mean()) if known.size else math.nan


def common_range(groups: Sequence[Group], environment: str) -> Range:
    """The environment steps that every seed of an environment has a curve for.

    It begins where an episode has ended: with fixed horizons that may be batches later.
    """
    steps = [
        rows["env_steps"][_first(rows) :]
        for group in groups
        if group.environment == environment
        for rows in group.seeds.values()
    ]
    start = max((int(x[0]) for x in steps), default=0)
    return start, min((int(x[-1]) for x in steps), default=0)


def _first(rows: np.ndarray) -> int:
    """The first row with a return; 0 where none has one."""
    return int(np.argmax(~np.isnan(rows[RETURN])))


def at_end(rows: np.ndarray, column: str) -> float:
    """Mean of a column over the last tenth of a seed's rows."""
    return float(rows[column][-max(1, len(rows) // LAST) :].mean())


def _steps_to(rows: np.ndarray, threshold: float) -> float:
    if math.isnan(threshold):
        return math.nan
    # A lucky first batch is no success: the mean must be one of RECENT episodes.
    full = np.cumsum(rows[EPISODES]) >= RECENT
    mean = recent_return(rows)
    return steps_to(rows["env_steps"][full], mean[full], threshold)


def _noise_scale(seeds: Sequence[np.ndarray]) -> float:
    """NaN where ‖G‖² is lost in the noise. Signal and noise are averaged apart: less biased."""
    noise = sum(at_end(rows, TRACE_COV) for rows in seeds)
    signal = sum(at_end(rows, NORM_SQ) for rows in seeds)
    return noise / signal if signal > 0 else math.nan


def _estimate(x: np.ndarray, positive: bool = False) -> Estimate:
    return iqm_interval(x, positive=positive) if x.size else NOTHING
