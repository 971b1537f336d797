"""Whether the data bear out what their runs set out to show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from pgcli.reports.groups import Group
from pgcli.reports.results import LAST
from pgcli.runs.saved import recent_return
from pgcli.runs.tags import RETURN
from pgcli.settings.schema import ClaimConfig, Effect, Role, When, having, role_of
from pgcli.statistics.curves import area
from pgcli.statistics.effects import effect
from pgcli.statistics.intervals import FEWEST, Estimate

BORNE_OUT, CONTRADICTED, OPEN = "borne out", "contradicted", "undecided"
FEW = f"{OPEN}: fewer than {FEWEST} seeds"
NO_RUNS, NO_NUMBERS = "no finished runs", "no such figure"
ROBUST = ("return", "area")
BUDGET = having(Role.BUDGET)
BESIDE = ("env", "experiment", "hydra")  # typed, and no settings or told apart anyhow
Key = tuple[int, int]  # which group, which seed
Claim = Mapping[str, Any]  # as ClaimConfig has it, read back from a run's configuration


class Finding(NamedTuple):
    """A claim and what was found."""

    claim: Claim
    environment: str  # and what else the runs of this finding have in common
    effect: Estimate  # NaN where the runs do not tell
    seeds: int  # of the first setting
    verdict: str


def check(groups: Sequence[Group]) -> list[Finding]:
    """Every claim of the groups' runs on those that make it.

    Like with like: each environment, each budget, and each combination of typed settings that no
    claim of theirs names, apart.
    """
    making: dict[tuple[str, ...], tuple[Claim, list[Group]]] = {}
    for group in groups:
        settings = group.runs[0].config or {}
        place = (group.environment, *(settings.get(key, "") for key in BUDGET))
        for claim in filter(_is_whole, group.runs[0].claims):
            making.setdefault((repr(claim), *place), (claim, []))[1].append(group)
    return [
        _checked(claim, alike, where)
        for claim, mine in making.values()
        for where, alike in _alike(claim, mine)
    ]


def _is_beside(key: str) -> bool:
    """Whether runs that differ in it are alike all the same, or told apart already."""
    return role_of(key) is not None or re.split(r"\W", key)[0] in BESIDE[1:] or key == BESIDE[0]


def _alike(claim: Claim, groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """The groups by what else was typed, with the environment and what tells them apart.

    Only those in which the claim can be checked, if there are any.
    """
    typed = set().union(*(group.runs[0].typed for group in groups))
    others = sorted(key for key in typed - _named(groups) if not _is_beside(key))
    values = [tuple(_setting(group, key) for key in others) for group in groups]
    telling = [i for i in range(len(others)) if len({row[i] for row in values}) > 1]
    by_place: dict[str, list[Group]] = {}
    for group, row in zip(groups, values, strict=True):
        where = [group.environment, *(f"{others[i]}={row[i]}" for i in telling)]
        by_place.setdefault(", ".join(where), []).append(group)
    whole = [
        (where, alike)
        for where, alike in by_place.items()
        if all(any(_fits(group, claim[side]) for group in alike) for side in ("of", "against"))
    ]
    return whole or [(groups[0].environment, list(groups))]


def _named(groups: Sequence[Group]) -> set[str]:
    """What the claims of these runs are about."""
    claims = [c for group in groups for c in group.runs[0].claims]
    return {key for c in filter(_is_whole, claims) for side in ("of", "against") for key in c[side]}


def _is_whole(claim: Claim) -> bool:
    """Whether it is as `pg train` wrote it, no hand having been at it."""
    limits = (claim.get("at_least"), claim.get("at_most"))
    return (
        {f.name for f in fields(ClaimConfig)} <= claim.keys()
        and all(isinstance(claim[side], dict) for side in ("of", "against"))
        and all(isinstance(claim[name], str) for name in ("says", "figure", "when", "effect"))
        and all(isinstance(limit, (int, float, type(None))) for limit in limits)
        and limits != (None, None)
    )


def _checked(claim: Claim, groups: Sequence[Group], environment: str) -> Finding:
    first, second = ([g for g in groups if _fits(g, claim[side])] for side in ("of", "against"))
    when = claim["when"]
    start, stop = _range([*first, *second])
    x = _values(claim["figure"], when, first, start, stop)
    y = _values(claim["figure"], claim["against_when"] or when, second, start, stop)
    if not x or not y:
        return Finding(claim, environment, Estimate(*np.full(3, np.nan)), len(x), NO_RUNS)
    estimate = effect(
        np.array(list(x.values())),
        np.array(list(y.values())),
        ratio=claim["effect"] == Effect.ratio.name,
        paired=x.keys() == y.keys(),
        robust=claim["figure"] in ROBUST,  # the others are unbiased in the mean only
    )
    if not np.isfinite(estimate.value):
        return Finding(claim, environment, estimate, len(x), NO_NUMBERS)
    if min(len(x), len(y)) < FEWEST:
        return Finding(claim, environment, estimate, len(x), FEW)
    verdict = _verdict(estimate, claim["at_least"], claim["at_most"])
    return Finding(claim, environment, estimate, len(x), verdict)


def _verdict(estimate: Estimate, at_least: float | None, at_most: float | None) -> str:
    """By the whole interval: within the bounds, outside of one, or neither, as a tie is."""
    low = -math.inf if at_least is None else at_least
    high = math.inf if at_most is None else at_most
    if estimate.lower > low and estimate.upper < high:
        return BORNE_OUT
    return CONTRADICTED if estimate.upper < low or estimate.lower > high else OPEN


def _fits(group: Group, settings: Mapping[str, Any]) -> bool:
    return all(_same(str(value), _setting(group, key)) for key, value in settings.items())


def _setting(group: Group, key: str) -> str:
    """The option chosen in a group of settings, or the value."""
    run = group.runs[0]
    chosen, settings = run.choices, run.config or {}
    return str(chosen.get(key, settings.get(key, "")))


def _same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a.lower() == b.lower()


def _range(groups: Sequence[Group]) -> tuple[float, float]:
    """The environment steps that every seed has."""
    steps = [rows["env_steps"] for group in groups for rows in group.seeds.values()]
    return max((x[0] for x in steps), default=0), min((x[-1] for x in steps), default=0)


def _values(
    figure: str, when: str, groups: Sequence[Group], start: float, stop: float
) -> dict[Key, float]:
    """The figure of each seed."""
    values: dict[Key, float] = {}
    for i, group in enumerate(groups):
        for seed, rows in sorted(group.seeds.items()):
            if figure == "return":
                mean = recent_return(rows)
                values[i, seed] = float(mean[0 if when == When.first.name else -1])
            elif figure == "area":
                values[i, seed] = area(rows["env_steps"], rows[RETURN], start, stop)
            else:
                values[i, seed] = _at(_column(group, seed, figure), when)
    return values


def _column(group: Group, seed: int, name: str) -> np.ndarray:
    if name in (group.seeds[seed].dtype.names or ()):
        return group.seeds[seed][name]
    for run in group.runs:
        if run.records.get(seed) is group.seeds[seed]:
            return run.column(seed, name)
    return np.full(1, np.nan)


def _at(x: np.ndarray, when: str) -> float:
    if when == When.first.name:
        return float(x[0])
    return float(x.mean() if when == When.whole.name else x[-max(1, len(x) // LAST) :].mean())
