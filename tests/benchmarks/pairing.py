"""Interleaved repetitions: A B A B ..., so that a machine that drifts slows both alike."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

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
    print(f"{title} ({unit}); {platform.processor() or platform.machine()}, "
          f"{torch.get_num_threads()} threads, {len(found[reference])} repetitions")  # fmt: skip
    rows = []
    for name, figures in found.items():
        ratio = statistics.median(a / b for a, b in zip(figures, found[reference], strict=True))
        rows.append(
            {"name": name, "median": statistics.median(figures), "min": min(figures),
             "max": max(figures), "ratio": ratio}
        )  # fmt: skip
        print(f"  {name:<42}{rows[-1]['median']:>12.4g}   [{min(figures):.4g}, {max(figures):.4g}]"
              f"   ×{ratio:.3g}")  # fmt: skip
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps({"title": title, "unit": unit, "rows": rows}))
