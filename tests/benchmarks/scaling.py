"""How time and memory grow with the batch, and that neither grows with the iterations.

    python tests/benchmarks/scaling.py [result.json]

Pendulum-v1, whose episodes all have 200 steps, 2×64 tanh policy, variance measured, each batch
size in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairing import machine, saved

BATCHES, ITERATIONS, LONG = (8, 16, 32, 64, 128, 256, 512), 30, 1000
STEPS = 200  # of an episode


def child(batch: int, iterations: int) -> None:
    """Train, and print the resident megabytes after each iteration, the peak and the seconds."""
    from pgcli.cli.compose import compose_all
    from pgcli.training import loop as train

    line = ["estimator=rtg", "env=Pendulum-v1", f"batch_size={batch}", f"iterations={iterations}"]
    (composed,) = compose_all("train", line, None, multirun=False)
    resident, clock = [], []
    real = train.Session.record

    def record(self, found) -> None:
        real(self, found)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * resource.getpagesize() / 2**20)
        clock.append(time.perf_counter())

    train.Session.record = record
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        train.run(composed.config, Path(folder) / "run")
    seconds = statistics.median(b - a for a, b in itertools.pairwise(clock[4:]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"resident": resident, "peak": peak, "seconds": seconds}))


def run(batch: int, iterations: int) -> dict:
    """The child's figures."""
    command = [sys.executable, __file__, "--child", str(batch), str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print both tables."""
    print(f"Pendulum-v1, 2×64; {machine()}\n\n| episodes | ns per step | peak MB |\n|---|---|---|")
    rows = []
    for batch in BATCHES:
        found = run(batch, ITERATIONS)
        ns = 1e9 * found["seconds"] / (batch * STEPS)
        rows.append({"episodes": batch, "ns_per_step": ns, "peak_mb": found["peak"]})
        print(f"| {batch} | {ns:.0f} | {found['peak']:.0f} |", flush=True)
    first, last = rows[2], rows[-1]
    constant = (last["peak_mb"] - first["peak_mb"]) / (last["episodes"] - first["episodes"]) / STEPS
    print(f"\nmemory: {1e6 * constant / 0.953674:.0f} bytes per step of the batch")
    resident = run(32, LONG)["resident"]
    grown = resident[-1] - resident[LONG // 10]
    print(f"{LONG} iterations of 32 episodes: {resident[LONG // 10]:.1f} MB after {LONG // 10}, "
          f"{resident[-1]:.1f} MB at the end")  # fmt: skip
    rows.append({"iterations": LONG, "grown_mb": grown})
    saved("Scaling", "ns per step, MB", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
