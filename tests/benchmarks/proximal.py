"""PPO beside Stable-Baselines3's, and what measuring the variance costs each update rule.

    pip install -e '.[bench]'
    python tests/benchmarks/proximal.py [result.json]

CartPole-v1, 8 environments, rollouts of 2,048 steps, 10 epochs of 32 minibatches for policy and
value, two networks of 2×64 tanh, each in a process of its own, in turn. Both have two threads;
Stable-Baselines3 is measured with one as well, and ratios are to its faster. pg collects whole
episodes until it has 2,048 steps, measures the gradient's variance and writes everything to disk;
what counts is the steps that were learned from, not those it simulated and threw away.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

from pairing import interleaved, report
from throughput import measured

from pgcli.cli.compose import compose_all
from pgcli.training.loop import run

REPETITIONS = 5
PPO = (
    "update=proximal update.epochs=10 update.minibatches=32 update.minibatch_of=steps "
    "update.normalize=true estimator=gae estimator.gamma=0.99 batch_steps=2048 env.num_envs=8 "
    "critic.epochs=10 critic.minibatches=32 critic.time_input=false "
    "optimizer.lr=3e-4 optimizer.clip_norm=0.5"
)
LINES = {
    "Stable-Baselines3, 1 thread": "stable_baselines3_ppo.py 8 256 6144 1",
    "Stable-Baselines3, 2 threads": "stable_baselines3_ppo.py 8 256 2048 2",
    "pg, 1 seed": f"pg_train.py {PPO} iterations=40",
    "pg, 10 seeds": f"pg_train.py {PPO} iterations=6 seeds=10",
}
RULES = {
    "ascent": "update=ascent",
    "natural": "update=natural",
    "trust_region": "update=trust_region",
    "proximal, 4 minibatches": "update=proximal",
}


def rate(line: str) -> float:
    """Steps learned from, per second of training."""
    figures = measured(line)
    assert figures is not None, line
    return figures["learned"] / figures["seconds"]


def seconds(rule: str, measure: bool) -> float:
    """Of 15 iterations of 32 episodes of 200 steps."""
    line = [
        "env=Pendulum-v1",
        "method=none",
        rule,
        f"gradient.measure={str(measure).lower()}",
        "iterations=15",
    ]
    (composed,) = compose_all("train", line, None, multirun=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run(composed.config, Path(folder) / "run")
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return float(summary["seconds"])


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # and all that it starts
    found = interleaved({name: partial(rate, line) for name, line in LINES.items()}, REPETITIONS)
    theirs = [name for name in found if name.startswith("Stable")]
    fastest = max(theirs, key=lambda name: statistics.median(found[name]))
    report("PPO on CartPole-v1", "steps learned from per second", found, fastest)
    for name, rule in RULES.items():
        both = {"without": partial(seconds, rule, False), "with": partial(seconds, rule, True)}
        report(f"measuring, {name}", "s of 15 iterations", interleaved(both, 9), "without")
