"""Where an iteration of `pg train` goes, beside what it must cost on paper.

    python tests/benchmarks/floor.py [result.json]

CartPole-v1, 2×64 tanh policy, 32 episodes of 500 steps, reward-to-go, variance measured. The floor
counts operations and divides by what this machine does of them on both cores; README.md beside
this file derives the counts.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from pairing import machine, saved

from pgcli.cli.compose import compose_all
from pgcli.estimators import estimator
from pgcli.machine.cores import begin, cores
from pgcli.policies.network import ACTIVATIONS
from pgcli.training import loop as train
from pgcli.training.cohort import Cohort
from pgcli.training.session import Session

STEPS, HIDDEN, INPUTS, OUTPUTS = 32 * 500, 64, 4, 2
FORWARD = 2 * (INPUTS * HIDDEN + HIDDEN * HIDDEN + HIDDEN * OUTPUTS)  # operations per step
DELTAS = 2 * (OUTPUTS * HIDDEN + HIDDEN * HIDDEN)
PASSES = 9  # over a hidden layer's 64 floats per step in the update, both layers together


def best(work, repetitions: int = 30) -> float:
    """Seconds of the fastest repetition."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def rates() -> dict[str, float]:
    """Per second, both cores: multiply-adds as two operations, tanh, bytes read and written."""
    begin()
    x, w = torch.randn(4096, HIDDEN), torch.randn(HIDDEN, HIDDEN)
    out, small = torch.empty(4096, HIDDEN), torch.randn(2048, HIDDEN)
    product = 2 * x.numel() * HIDDEN / best(lambda: torch.mm(x, w, out=out))
    tanh = small.numel() / best(lambda: ACTIVATIONS["tanh"].forward_(small))
    large = torch.randn(16_000, HIDDEN)
    moved = 8 * large.numel() / best(lambda: large.mul_(1.0))
    return {"operations": product * cores(), "tanh": tanh * cores(), "bytes": moved * cores()}


def measured() -> tuple[dict[str, float], float]:
    """Milliseconds per iteration of the parts and of the whole, late in training."""
    spent: dict[str, list[float]] = defaultdict(list)

    def timed(owner, name: str, label: str) -> None:
        real = getattr(owner, name)

        def wrapped(*args, **kwargs):
            start = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                spent[label].append(time.perf_counter() - start)

        setattr(owner, name, wrapped)

    timed(Cohort, "collect", "collection")
    timed(train, "sums_of", "update and its variance")
    timed(estimator, "terms", "weights of the scores")
    timed(train, "mean_kl", "divergence of the update")
    timed(Session, "record", "records, to disk")
    line = ("estimator=rtg", "iterations=150")
    (composed,) = compose_all("train", line, None, multirun=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        train.run(composed.config, Path(folder) / "run")
        rows = (Path(folder) / "run" / "metrics.csv").read_text().splitlines()
    header, *body = (row.split(",") for row in rows)
    length, fps = header.index("rollout/ep_len_mean"), header.index("time/fps")
    late = [i for i, row in enumerate(body) if float(row[length]) > 495 and i >= 50]

    def median(times: list[float]) -> float:
        return 1e3 * sorted(times)[len(times) // 2]

    parts = {label: median([times[i] for i in late]) for label, times in spent.items()}
    return parts, median([STEPS / float(body[i][fps]) for i in late])


if __name__ == "__main__":
    rate = rates()
    floor = {
        "collection": 1e3 * STEPS * (FORWARD / rate["operations"] + 2 * HIDDEN / rate["tanh"]),
        "update and its variance": 1e3 * STEPS * (
            (2 * FORWARD + DELTAS) / rate["operations"]
            + 2 * HIDDEN / rate["tanh"]
            + PASSES * 8 * HIDDEN / rate["bytes"]
        ),
    }  # fmt: skip
    found, whole = measured()
    inside = sum(ms for part, ms in found.items() if part != "records, to disk")  # after the clock
    found["everything else"] = whole - inside
    whole += found["records, to disk"]
    found["one iteration"] = whole
    floor["one iteration"] = sum(floor.values())
    print(machine(), *(f"{value / 1e9:.1f}e9 {name}/s" for name, value in rate.items()), sep=", ")
    print("\n| part | floor ms | measured ms | ratio |\n|---|---|---|---|")
    table = []
    for part, ms in found.items():
        least = floor.get(part)
        table.append({"part": part, "floor": least, "measured": ms})
        ratio = "" if least is None else f"{ms / least:.1f}"
        print(f"| {part} | {'' if least is None else f'{least:.2f}'} | {ms:.2f} | {ratio} |")
    print(f"\n{STEPS / whole * 1e3:,.0f} environment steps per second late in training")
    saved("One iteration beside its floor", "ms", table)
