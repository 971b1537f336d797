"""Interleaved repetitions: A B A B ..., so that a machine that drifts slows both alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgcli.runs.provenance import processor

Measure = Callable[[], float]


def interleaved(measures: dict[str, Measure], repetitions: int) -> dict[str, list[float]]:
    """Each measure's figures, after one round that does not count."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for i in range(repetitions + 1):
        for name, measure in measures.items():
            figure = measure()
            if i:
                found[name].append(figure)
    return found


def report(title: str, unit: str, found: dict[str, list[float]], reference: str) -> None:
    """Print medians with their ranges and the median of the pairwise ratios to `reference`."""
    print(f"{title} ({unit}); {machine()}, {len(found[reference])} repetitions")
    rows = []
    for name, figures in found.items():
        ratio = statistics.median(a / b for a, b in zip(figures, found[reference], strict=True))
        rows.append(
            {"name": name, "median": statistics.median(figures), "min": min(figures),
             "max": max(figures), "ratio": ratio}
        )  # fmt: skip
        print(f"  {name:<42}{rows[-1]['median']:>12.4g}   [{min(figures):.4g}, {max(figures):.4g}]"
              f"   ×{ratio:.3g}")  # fmt: skip
    saved(title, unit, rows)


def machine() -> str:
    """What this runs on, in words."""
    return f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}"


def saved(title: str, unit: str, rows: list[dict[str, Any]]) -> None:
    """Add a table to the JSON file that the command line names, if it names one."""
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        tables = json.loads(path.read_text()) if path.exists() else []
        kept = [table for table in tables if table["title"] != title]
        new = {"title": title, "unit": unit, "machine": machine(), "rows": rows}
        path.write_text(json.dumps([*kept, new], indent=1))
