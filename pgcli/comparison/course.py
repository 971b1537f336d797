"""What `pg compare` leaves of several policies: figures over the iterations of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pgcli.comparison.results import (
    Found,
    best_row,
    csv_of,
    ladder_row,
    named,
    say_biases,
    short,
)
from pgcli.pictures import estimators as slides
from pgcli.runs import summary
from pgcli.runs.directory import write_atomically
from pgcli.runs.progress import Progress, table
from pgcli.settings.schema import CompareConfig
from pgcli.statistics.intervals import mean_interval

POSITIVE = ("trace_cov", "nsr", "trace_cov_exact", "nsr_exact")  # whose means are geometric
FIGURES = {  # of compare.csv, and what pictures call them
    "trace_cov": "tr Σ per trajectory",
    "trace_cov_exact": "tr Σ per trajectory, exact",
    "nsr": "noise to signal tr Σ/‖∇J‖²",
    "nsr_exact": "noise to signal tr Σ/‖∇J‖², exact",
    "cos_to_true": "cosine to ∇J of a batch",
    "bias_exact": "relative bias, exact",
}
ROUNDING = 1e-9  # of a relative bias
SHOWN = 6  # policies in the terminal's table, at most


def write(
    directory: Path,
    config: CompareConfig,
    found: Sequence[Found],
    made_with: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Write everything into `directory` and show how it went."""
    rows = [
        {"iteration": _number(one), "seed": one.config.seed, **row}
        for one in found
        for row in one.rows
    ]
    write_atomically(directory / "compare.csv", csv_of(rows).encode())
    points = course(rows, config.level)
    write_atomically(directory / "course.csv", csv_of(points).encode())
    ladders = {
        "ladder": [(one, ladder_row(point)) for one in found for point in one.looks.ladder],
        "best": [(one, best_row(best)) for one in found for best in one.looks.best],
    }
    tables = {
        name: [{"iteration": _number(one), "seed": one.config.seed, **row} for one, row in made]
        for name, made in ladders.items()
        if made
    }
    for name, told in tables.items():
        write_atomically(directory / f"{name}.csv", csv_of(told).encode())
    pictures = {"course": drawn(points, config)} if config.pictures else {}
    for name, png in pictures.items():
        write_atomically(directory / f"{name}.png", png)
    facts = {
        "environment": config.env.id,
        "batch_size": config.batch_size,
        "gamma": config.gamma,
        "policies": [
            {
                "iteration": _number(one),
                "seed": one.config.seed,
                "objective": None if one.solution is None else one.solution.objective,
            }
            for one in found
        ],
        "estimators": rows,
        "course": points,
        **tables,
        "notes": {f.name: f.notes for f in found[0].findings},
        **made_with,
    }
    summary.write(directory, facts, "compare.json")  # last: it says that the rest is there
    say_biases(found[0].findings, progress)
    progress.say(_shown(points, config.level))
    written = ", ".join(f"{name}.csv" for name in ("compare", "course", *tables))
    progress.say(f"{directory}: {written}, compare.json, {len(pictures)} pictures")


def _number(one: Found) -> int:
    """0: a fresh policy."""
    return 0 if one.config.iteration is None else one.config.iteration


def course(rows: Sequence[Mapping[str, Any]], level: float) -> list[dict[str, Any]]:
    """Every figure of every estimator at each iteration: its mean over the seeds, with limits.

    Of one seed the figure itself with its own limits, where it has any. Geometric means of what is
    positive; seeds of which a figure is not known, or infinite, are left out of it.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        kl = None if math.isnan(row["kl"]) else row["kl"]  # a NaN is equal to none
        groups.setdefault((row["estimator"], kl, row["iteration"]), []).append(row)
    points = []
    for (estimator, kl, iteration), own in groups.items():
        point: dict[str, Any] = {
            "estimator": estimator,
            "kl": math.nan if kl is None else kl,
            "iteration": iteration,
            "seeds": len(own),
        }
        for name in FIGURES:
            point |= dict(
                zip((name, f"{name}_lo", f"{name}_hi"), _mean(own, name, level), strict=True)
            )
        points.append(point)
    return points


def _mean(rows: Sequence[Mapping[str, Any]], name: str, level: float) -> tuple[float, float, float]:
    if len(rows) == 1:
        (row,) = rows
        return row[name], row.get(f"{name}_lo", math.nan), row.get(f"{name}_hi", math.nan)
    x = np.array([row[name] for row in rows], float)
    geometric = name in POSITIVE
    x = x[np.isfinite(x) & ((x > 0) | (not geometric))]
    if not len(x):
        return math.nan, math.nan, math.nan
    found = mean_interval(np.log(x) if geometric else x, level)
    value, low, high = (float(np.exp(y)) if geometric else float(y) for y in found[:3])
    return value, low, high


def drawn(points: Sequence[Mapping[str, Any]], config: CompareConfig) -> bytes:
    """Panels over the iteration, a line with its band for each estimator."""
    names = dict.fromkeys(named(point) for point in points)
    panels = {}
    for figure, title in FIGURES.items():
        bands = []
        for name in names:
            own = [p for p in points if named(p) == name]
            x = [p["iteration"] for p in own]
            y, low, high = ([p[f"{figure}{end}"] for p in own] for end in ("", "_lo", "_hi"))
            if np.isfinite(y).any():
                told = np.isfinite(low).all() and np.isfinite(high).all()
                bands.append(slides.Band(name, x, y, *((low, high) if told else ())))
        if bands:
            panels[title] = bands
    for figure in ("trace_cov", "nsr"):
        # Exact figures stand for sampled ones where they are known of all.
        if len(panels.get(FIGURES[f"{figure}_exact"], ())) == len(names):
            panels.pop(FIGURES[figure], None)
    if not any(p["bias_exact"] > ROUNDING for p in points):
        panels.pop(FIGURES["bias_exact"], None)
    log = {FIGURES[name] for name in POSITIVE}
    return slides.bands(panels, "iteration", f"Along training: {config.env.id}", log=log)


def _shown(points: Sequence[Mapping[str, Any]], level: float) -> str:
    """For a terminal: a few iterations from first to last."""
    every = list(dict.fromkeys(p["iteration"] for p in points))
    count = min(SHOWN, len(every))
    some = {every[i * (len(every) - 1) // max(1, count - 1)] for i in range(count)}
    exact = all(math.isfinite(p["trace_cov_exact"]) for p in points)
    trace, nsr = (f"{name}_exact" if exact else name for name in ("trace_cov", "nsr"))

    limits = any(math.isfinite(p[f"{nsr}_lo"]) for p in points)

    def between(p: Mapping[str, Any], name: str) -> str:
        return f"{short(p[f'{name}_lo'])} to {short(p[f'{name}_hi'])}"

    lines = [
        [
            named(p), str(p["iteration"]), str(p["seeds"]), short(p[trace]), short(p[nsr]),
            *([between(p, nsr)] if limits else []), short(p["cos_to_true"]),
            *([short(p["bias_exact"])] if exact else []),
        ]
        for p in sorted(points, key=lambda p: list(every).index(p["iteration"]))
        if p["iteration"] in some
    ]  # fmt: skip
    headers = [
        "estimator", "iteration", "seeds", "exact tr Σ" if exact else "tr Σ",
        "exact tr Σ/‖∇J‖²" if exact else "tr Σ/‖∇J‖²",
        *([f"{level:.0%}"] if limits else []), "cos to ∇J", *(["exact bias"] if exact else []),
    ]  # fmt: skip
    return table(lines, headers)
