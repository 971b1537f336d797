"""What comparing twelve estimators costs, in units of one.

    python tests/benchmarks/comparing.py [result.json]

512 CartPole-v1 episodes, 2×64 network, at a fresh policy (22 steps an episode) and at one that has
trained for 25 iterations: critics, collection, gradients, all figures with their intervals, tables.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pairing import interleaved, report

from pgcli.cli.compose import compose_all
from pgcli.comparison import study as compare
from pgcli.training import loop as train

TWELVE = (
    "total,total_mean,total_value,total_optimal,rtg,rtg_mean,rtg_time,rtg_linear,rtg_value,"
    "td,n_step,gae"
)
REPETITIONS = 5


def seconds(command: Callable[[object, Path], None], *lines: str, place: str = "") -> float:
    """Of one run of a command, start-up left out."""
    name = command.__module__.rpartition(".")[2]
    (composed,) = compose_all(name, lines, None, multirun=False)
    with tempfile.TemporaryDirectory() as other, contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        command(composed.config, Path(place or other))
        return time.perf_counter() - start


def comparison(names: str, *more: str) -> float:
    return seconds(compare.run, f"estimators=[{names}]", "episodes=512", "pictures=false", *more)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as trained:
        policy = ("policy.hidden=[64,64]", f"checkpoint={trained}")
        settings = ("estimator=rtg_value", "iterations=25", "checkpoint.every=25")
        seconds(train.run, *settings, place=trained)
        for title, more in {"fresh": (), "25 iterations": policy}.items():
            found = interleaved(
                {
                    "one (rtg_value)": lambda more=more: comparison("rtg_value", *more),
                    "twelve": lambda more=more: comparison(TWELVE, *more),
                },
                REPETITIONS,
            )
            report(f"pg compare, 512 episodes, {title} policy", "s", found, "one (rtg_value)")
