"""What a comparison of runs found, in tables and words."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pgcli.reports import claims
from pgcli.reports.document import Block, Heading, Paragraph, Table
from pgcli.reports.groups import Group
from pgcli.reports.results import ALPHA, LAST, Range, Result
from pgcli.runs.progress import table
from pgcli.runs.saved import Run
from pgcli.runs.tags import RECENT
from pgcli.statistics.intervals import FEWEST, Estimate

SHOWN = 8  # runs left out that the terminal names
NONE = "—"

ON_CLAIMS = (
    "A claim is borne out where the whole 95 % interval lies within what is claimed, contradicted "
    "where it lies outside of it, else undecided, as with fewer than "
    f"{FEWEST} seeds on either side. Each is tested by itself: the intervals are not adjusted for "
    "how many claims there are. In simulations with 5, 8 and 20 seeds they hold the truth in 94 to "
    "97 % for differences of returns, unless a third of the seeds is stuck (89 to 94 %), and for "
    "ratios of means whose logarithms spread by 0.3 to 0.6 from seed to seed; in 92 to 98 % where "
    "they spread by 1, in up to 99 % where seeds lie in two clusters or near 0, and less where the "
    "few largest of many make the mean."
)

LeftOut = Sequence[tuple[Run, str]]  # and why
Ranges = Mapping[str, Range]  # by environment


def results_table(results: Sequence[Result], thresholds: Mapping[str, float]) -> Table:
    """One row per group; thresholds by environment."""
    levels = {_number(thresholds[r.group.environment], "{:g}") for r in results}
    level = levels.pop() if len(levels) == 1 else NONE
    headers = [
        "group",
        "runs",
        "seeds",
        f"return (last {RECENT})",
        f"steps to {'threshold' if level == NONE else level}",
        "AUC/steps",
        "gradient variance",
        "noise scale",
        "P(> first)",
        "seeds to tell",
    ]
    return Table(headers, [_cells(result) for result in results])


def adjustment(results: Sequence[Result]) -> list[str]:
    """By environment: how P(> first) takes account of several groups being compared at once."""
    lines = []
    for name, k in {r.group.environment: r.better.groups for r in results}.items():
        if k == 1:
            lines.append(f"P(> first), {name}: * differs from the first group at {ALPHA:.0%}")
        elif k > 1:
            lines.append(
                f"P(> first), {name}: * differs from the first group by Holm's procedure, "
                f"{ALPHA:.0%} for all {k} comparisons; intervals adjusted to {1 - ALPHA / k:.2%} "
                f"each, so that all hold at once at {1 - ALPHA:.0%}"
            )
    return lines


def terminal(results: Table, notes: Sequence[str], left_out: LeftOut) -> str:
    """The results, notes on them, and what is not in them."""
    width = max(len(row[0]) for row in results.rows)
    rows = [[row[0].ljust(width), *row[1:]] for row in results.rows]
    out = [f"left out, {run.state.name}: {run.directory}: {why}" for run, why in left_out]
    if len(left_out) > SHOWN:
        out[SHOWN:] = [f"left out: {len(left_out) - SHOWN} more, named in what is written"]
    return "\n".join([table(rows, results.headers), *notes, *out])


def claims_table(findings: Sequence[claims.Finding]) -> list[Block]:
    """What the runs set out to show, and whether the data bear it out."""
    if not findings:
        return []
    rows = [
        (f.claim["says"], f.environment, f.verdict, _of(f.claim), interval(f.effect),
         _bounds(f.claim))
        for f in findings
    ]  # fmt: skip
    headers = ["claim", "environment", "verdict", "effect", "found", "claimed"]
    return [Heading("Claims"), Table(headers, rows, words=True), Paragraph(ON_CLAIMS)]


def verdicts(findings: Sequence[claims.Finding]) -> str:
    """The claims for a terminal."""
    return "\n".join(
        f"{f.verdict}: {f.claim['says']} ({f.environment}: {interval(f.effect)}, "
        f"claimed {_bounds(f.claim)})"
        for f in findings
    )


def _of(claim: Mapping[str, Any]) -> str:
    """What is measured: area, ratio of estimator=total to estimator=rtg."""
    when, other = claim["when"], claim["against_when"] or claim["when"]
    sides = [_setting(claim[side]) for side in ("of", "against")]
    if when != other:
        sides = [f"{side} ({t})".lstrip() for side, t in zip(sides, (when, other), strict=True)]
    at = "" if when != other or claim["figure"] == "area" else f" ({when})"
    word = "to" if claim["effect"] == "ratio" else "less"
    return f"{claim['figure']}{at}, {claim['effect']}: {sides[0]} {word} {sides[1]}"


def _setting(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _bounds(claim: Mapping[str, Any]) -> str:
    low, high = claim["at_least"], claim["at_most"]
    if low is None or high is None:
        return f"≥ {low:g}" if high is None else f"≤ {high:g}"
    return f"{low:g} to {high:g}"


def explanation(ranges: Ranges) -> list[Block]:
    """What the columns and the pictures show."""
    spans = (f"{name}: {a:,.0f} to {b:,.0f}" for name, (a, b) in ranges.items())
    rows = [
        ("runs, seeds", "that count; the same seed of the same setting counts once", ""),
        (
            f"return (last {RECENT})",
            f"mean return of a seed's last {RECENT} training episodes; IQM over seeds",
            "reward",
        ),
        (
            "steps to …",
            "environment steps until that mean reached the threshold; of the median seed, "
            "∞ where half or more never did (seeds that did)",
            "steps",
        ),
        (
            "AUC/steps",
            "area under a seed's learning curve, divided by its width: the steps that every "
            f"seed covers ({', '.join(spans)}); IQM over seeds",
            "reward",
        ),
        (
            "gradient variance",
            f"tr Σ̂/N of the estimate, its mean in the last 1/{LAST} of a seed's iterations; "
            "IQM over seeds",
            "norm²",
        ),
        (
            "noise scale",
            f"tr Σ/‖G‖² there, noise and signal averaged apart; {NONE} where the signal is lost",
            "episodes",
        ),
        (
            "P(> first)",
            "probability that a seed's return (first column of figures) is above that of a seed "
            "of the environment's first group; a tie counts half. Interval: method 5 of Newcombe "
            "(2006), adjusted where several groups are compared; in simulations it covers 93 to "
            f"97 % at level 95 %. * differs: Mann and Whitney's test, {FEWEST} seeds or more on "
            "either side, Holm's procedure (1979) over the groups of an environment",
            "1",
        ),
        (
            "seeds to tell",
            "that each side would need for Student's test to tell their mean returns from those of "
            "the first group in 80 % of experiments, at 5 %, if mean and spread are as found here "
            "(Guenther 1981); the interval is what few seeds leave open (Hedges & Olkin 1985), ∞ "
            "where the means may be equal",
            "seeds",
        ),
        (
            "[a, b], bands",
            "95 % intervals of what all seeds would have: Student's t for the IQM, of the variance "
            "on the scale of logarithms; bands at each point by itself. In simulations with 5, 8 "
            "and 20 seeds they cover 94 to 96 % for normal returns and for skewed ones, up to 98 % "
            "where most seeds stand at a ceiling, 85 to 93 % where a third of them is stuck or a "
            "limit cuts off the upper half; with 3 or 4 seeds 92 to 96 % of all but the last",
            "",
        ),
        (
            "pictures",
            "IQM over seeds; thin where some seeds have ended, up to where half of them have",
            "",
        ),
        (
            "noise.png",
            "noise scale in tenths of the iterations: mean tr Σ over mean ‖G‖² of all seeds, none "
            f"where the signal is lost; band, of {FEWEST} seeds or more, by leaving out one at a "
            "time, on the scale of logarithms; it covers 93 to 95 % in simulations with 5 to 20",
            "episodes",
        ),
    ]
    return [Heading("How to read it"), Table(["", "meaning", "unit"], rows, words=True)]


def differences(groups: Sequence[Group]) -> list[Block]:
    """The settings in which the groups differ."""
    keys = list(groups[0].settings)
    rows = [[g.label, *(g.settings[key] for key in keys)] for g in groups]
    return [Heading("Settings that differ"), Table(["group", *keys], rows)] if keys else []


def common(shared: Mapping[str, str]) -> list[Block]:
    """The settings that all runs share."""
    table = Table(["setting", "value"], list(shared.items()), words=True)
    return [Heading("Settings of all runs"), table]


def left_out_table(left_out: LeftOut) -> list[Block]:
    """The runs that do not count, and why."""
    rows = [(str(run.directory), run.state.name, why) for run, why in left_out]
    headers = ["run", "state", "why"]
    return [Heading("Runs left out"), Table(headers, rows, words=True)] if rows else []


def as_csv(results: Sequence[Result], thresholds: Mapping[str, float], ranges: Ranges) -> str:
    """One line per group with every digit; a cell is empty where there is no number."""
    rows: list[dict[str, object]] = []
    for r in results:
        name, needed = r.group.environment, _columns("seeds_to_tell", r.better.needed)
        for key, number in zip(needed, r.better.needed, strict=True):
            if math.isinf(number):  # the means may be equal
                needed[key] = "inf"
        rows.append(
            {
                "group": r.group.label,
                "environment": name,
                **r.group.settings,
                "runs": len(r.group.runs),
                "runs_counted": r.group.counted,
                "seeds": len(r.group.seeds),
                **_columns(f"return_{RECENT}", r.final),
                "threshold": _exact(thresholds[name]),
                "steps_to_threshold": _exact(r.steps),
                "seeds_that_reached": r.reached,
                "auc_from": ranges[name][0],
                "auc_to": ranges[name][1],
                **_columns("auc_per_step", r.area),
                **_columns("gradient_variance", r.variance),
                "noise_scale": _exact(r.noise_scale),
                **_columns("p_better", r.better.chance),
                "p_better_level": _exact(
                    1 - ALPHA / r.better.groups if r.better.groups else math.nan
                ),
                "p_better_differs": ("no", "yes")[r.better.differs] if r.better.groups else "",
                **needed,
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cells(r: Result) -> list[str]:
    runs, seeds = len(r.group.runs), len(r.group.seeds)
    return [
        r.group.label,
        f"{runs}" if r.group.counted == runs else f"{r.group.counted} of {runs}",
        f"{seeds}",
        interval(r.final),
        NONE if math.isnan(r.steps) else f"{_number(r.steps)} ({r.reached}/{seeds})",
        interval(r.area),
        interval(r.variance),
        _number(r.noise_scale),
        interval(r.better.chance, "{:.2f}" + "*" * r.better.differs, "{:.2f}"),
        interval(r.better.needed, "{:,.0f}"),
    ]


def interval(x: Estimate, form: str | None = None, limits: str | None = None) -> str:
    """A figure with its limits, those in a form of their own, if given."""
    value, lower, upper = (
        _number(float(number), how)
        for number, how in zip(x, (form, limits or form, limits or form), strict=True)
    )
    return value if lower == NONE else f"{value} [{lower}, {upper}]"


def _number(x: float, form: str | None = None) -> str:
    """With three digits or more, or as `form` has it."""
    if math.isnan(x):
        return NONE
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if form is None:
        form = "{:#.3g}"
        if 10 <= abs(x) < 1e6:
            form = "{:,.0f}" if abs(x) >= 1000 else "{:.1f}"
    return form.format(x)


def _columns(name: str, x: Estimate) -> dict[str, object]:
    names = (name, f"{name}_lower", f"{name}_upper")
    return {key: _exact(float(number)) for key, number in zip(names, x, strict=True)}


def _exact(x: float) -> str:
    return repr(x) if math.isfinite(x) else ""
