"""How time and memory grow with batch, width, length and seeds, and that neither grows for ever.

    python tests/benchmarks/scaling.py [result.json]

Pendulum-v1, whose episodes all have as many steps, reward-to-go, variance measured; each row in a
process of its own. Slope: of the logarithm of the time per iteration by that of what grows.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairing import machine, saved

LONG, STEPS = 1000, 200  # iterations of the last table; steps of an episode
LADDERS = {  # what grows: its values, its setting, what goes with it, how many iterations
    "episodes": ((8, 32, 128, 512, 2048, 4096), "batch_size={}", "", 5),
    "width": ((64, 128, 256, 512, 1024), "policy.hidden=[{0},{0}]", "batch_size=32", 5),
    "steps of an episode": (
        (200, 1000, 10_000, 100_000), "env.max_episode_steps={}", "batch_size=4", 3,
    ),
    "seeds": ((1, 4, 16, 64), "seeds={}", "batch_size=32", 5),
}  # fmt: skip


def child(line: list[str]) -> None:
    """Train, and print the resident megabytes after each iteration, the peak and the seconds."""
    from pgcli.cli.compose import compose_all
    from pgcli.training import loop as train

    own = ["estimator=rtg", "env=Pendulum-v1", "method=none", "checkpoint.every=1000", *line]
    (composed,) = compose_all("train", own, None, multirun=False)
    resident, clock = [], []
    real = train.Session.record

    def record(self, *args) -> None:
        real(self, *args)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * resource.getpagesize() / 2**20)
        clock.append(time.perf_counter())

    train.Session.record = record
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        train.run(composed.config, Path(folder) / "run")
    seconds = statistics.median(b - a for a, b in itertools.pairwise(clock))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"resident": resident, "peak": peak, "seconds": seconds}))


def run(*line: str) -> dict:
    """The child's figures."""
    command = [sys.executable, __file__, "--child", *line]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print all tables."""
    print(f"Pendulum-v1, 2×64 unless width grows; {machine()}\n")
    for what, (values, setting, beside, iterations) in LADDERS.items():
        print(
            f"| {what} | ms per iteration | ns per step | slope | peak MB |\n|---|---|---|---|---|"
        )
        rows: list[dict[str, float]] = []
        for value in values:
            found = run(setting.format(value), *beside.split(), f"iterations={iterations}")
            steps = {"episodes": value * STEPS, "steps of an episode": 4 * value}.get(
                what, 32 * STEPS * (value if what == "seeds" else 1)
            )
            row = {what: value, "seconds": found["seconds"], "peak_mb": found["peak"]}
            row["ns_per_step"] = 1e9 * found["seconds"] / steps
            slope = ""
            if rows:
                grown = math.log(row["seconds"] / rows[-1]["seconds"])
                slope = f"{grown / math.log(value / rows[-1][what]):.2f}"
            rows.append(row)
            cells = f"{value:,}", f"{1e3 * row['seconds']:.1f}", f"{row['ns_per_step']:.0f}", slope
            print("|", " | ".join(cells), f"| {row['peak_mb']:.0f} |", flush=True)
        print()
        saved(f"Scaling with {what}", "", rows)
    resident = run("batch_size=32", f"iterations={LONG}")["resident"]
    print(f"resident MB after 100 iterations: {resident[99]:.0f}, after {LONG}: {resident[-1]:.0f}")


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[2:])
    else:
        main()
