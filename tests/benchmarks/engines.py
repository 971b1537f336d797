"""HalfCheetah-v5: whole training beside the raw engine stepped with random actions.

    pip install -e '.[bench]'
    python tests/benchmarks/engines.py [result.json]

Both use as many environments side by side as `pg train` does. What is not the engine's is the
policy's, the update's and the records': the ratio is what they leave of its speed.
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np
from pairing import interleaved, report
from throughput import measured

from pgcli.cli.compose import compose_all
from pgcli.environments.choose import open_engine, slots_per_seed

REPETITIONS = 5
STEPS = 160_000  # five batches of the shipped size


def overrides(engine: str) -> tuple[str, ...]:
    return ("estimator=rtg", "env=HalfCheetah-v5", f"env.engine={engine}", f"total_steps={STEPS}")


def raw(name: str) -> float:
    """Steps per second of the engine alone."""
    (composed,) = compose_all("train", overrides(name), None, multirun=False)
    slots = slots_per_seed(composed.config.env, composed.config.batch_size)
    engine = open_engine(composed.config.env, slots)
    try:
        rng = np.random.default_rng(0)
        acts = rng.standard_normal((100, slots, *engine.action.shape), np.float32)
        engine.reset(list(range(slots)))
        active = np.ones(slots, bool)
        start = time.perf_counter()
        for i in range(STEPS // slots):
            engine.step(acts[i % 100], active)
        return STEPS / (time.perf_counter() - start)
    finally:
        engine.close()


def trained(name: str) -> float:
    """Steps per second of `pg train`."""
    found = measured(" ".join(["pg_train.py", *overrides(name)]))
    assert found is not None
    return found["rate"]


if __name__ == "__main__":
    for name in ("sync", "envpool"):
        if name == "envpool" and importlib.util.find_spec("envpool") is None:
            print("envpool is not installed")
            continue
        found = interleaved(
            {"the raw engine": lambda name=name: raw(name),
             "pg train": lambda name=name: trained(name)},
            REPETITIONS,
        )  # fmt: skip
        report(f"HalfCheetah-v5, {name}", "environment steps per second", found, "the raw engine")
