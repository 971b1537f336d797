"""From the command to the first environment step, and to CartPole-v1 solved.

    python tests/benchmarks/starting.py [result.json]

The first ends with the first call of the engine, beside the import of torch and Gymnasium alone.
The second is `pg train` with the shipped settings, start-up
included, and the mean of its last 100 training episodes, ten seeds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from pairing import interleaved, report, saved

REPETITIONS, SEEDS, SOLVED = 10, 10, 475
PG = [str(Path(sys.executable).parent / "pg"), "train", "estimator=rtg", "env=CartPole-v1"]
FIRST = """
import os, time
from pgcli.environments import choose
real = choose.open_engine
def opened(*args, **kwargs):
    engine = real(*args, **kwargs)
    def first(*args, play=engine.play):
        play(*args)
        print(time.time(), flush=True)
        os._exit(0)
    engine.play = first
    return engine
choose.open_engine = opened
from pgcli.cli.main import main
main()
"""  # as `pg`, but it ends with the first rows that are played


def seconds(*command: str) -> float:
    """Wall time of a command in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        return time.perf_counter() - start


def first_step() -> float:
    """From the start of the process to the end of the first call of the engine."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        line = [sys.executable, "-c", FIRST, *PG[1:], "batch_size=1"]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1]) - start


def solving(seed: int) -> tuple[float, float]:
    """Wall time of a whole run, and the mean return of its last 100 episodes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([*PG, f"seed={seed}"], cwd=folder, capture_output=True, check=True)
        wall = time.perf_counter() - start
        (summary,) = Path(folder).rglob("summary.json")
        return wall, json.loads(summary.read_text())["return_100"][0]


if __name__ == "__main__":
    imports = [sys.executable, "-c", "import torch, gymnasium"]
    found = interleaved(
        {
            "import torch, gymnasium": partial(seconds, *imports),
            "pg train, to the first step": first_step,
        },
        REPETITIONS,
    )
    report("Start-up", "seconds", found, "import torch, gymnasium")
    runs = [solving(seed) for seed in range(SEEDS)]
    walls, returns = zip(*runs, strict=True)
    print(f"pg train estimator=rtg, {SEEDS} seeds: median {statistics.median(walls):.2f} s "
          f"[{min(walls):.2f}, {max(walls):.2f}]; {sum(r >= SOLVED for r in returns)} of {SEEDS} "
          f"at {SOLVED} or above over the last 100 episodes, least {min(returns):.1f}")  # fmt: skip
    rows = [{"seed": seed, "seconds": w, "return_100": r} for seed, (w, r) in enumerate(runs)]
    saved("CartPole-v1 from the command line", "seconds", rows)
