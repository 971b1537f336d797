"""How much faster two or more processes collect than one: `workers` beside `sync` on one core.

And `ray`, where it is installed.

    pip install -e '.[mujoco,box2d]'
    python tests/benchmarks/workers.py [result.json]

Whole batches of a fresh policy, 2×64, in turn; what is measured is collection alone.
"""

from __future__ import annotations

import importlib.util
import time
from functools import partial

import numpy as np
import torch
from pairing import interleaved, report

from pgcli.cli.compose import compose_all
from pgcli.collection.rollout import Quota
from pgcli.environments.choose import slots_per_seed
from pgcli.machine.cores import begin
from pgcli.machine.randomness import DISTINCT
from pgcli.policies.actor import PolicyActor
from pgcli.training.cohort import Cohort

REPETITIONS, BATCHES = 5, 4
CASES = (("HalfCheetah-v5", 16), ("LunarLander-v3", 16), ("LunarLander-v3", 64))


def rate(env: str, episodes: int, engine: str) -> float:
    """Environment steps per second of some batches, after one that does not count."""
    line = f"env={env} method=none env.engine={engine} batch_size={episodes}".split()
    (composed,) = compose_all("train", line, None, multirun=False)
    config = composed.config
    slots = slots_per_seed(config.env, episodes)
    cohort = Cohort(config, [0], slots)
    try:
        cohort.begin(torch.device("cpu"))
        learner, steps, start = cohort.learner, 0, 0.0
        for i in range(BATCHES + 1):
            if i == 1:
                steps, start = 0, time.perf_counter()
            actor = PolicyActor(learner.policy, learner.theta, [0], i, slots)
            batch = cohort.collect(actor, Quota(episodes, None), np.array([i]), DISTINCT)
            steps += int(batch.steps.sum())
        return steps / (time.perf_counter() - start)
    finally:
        cohort.close()


if __name__ == "__main__":
    begin()
    engines = ("sync", "workers", *(["ray"] if importlib.util.find_spec("ray") else []))
    for env, episodes in CASES:
        found = interleaved(
            {name: partial(rate, env, episodes, name) for name in engines}, REPETITIONS
        )
        report(f"{env}, {episodes} episodes a batch", "steps per second", found, "sync")
