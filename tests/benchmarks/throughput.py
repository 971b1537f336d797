"""Environment steps per second of whole training on CartPole-v1: pg beside Stable-Baselines3 A2C.

    pip install -e '.[bench]'
    python tests/benchmarks/throughput.py [result.json]

Both train a 2×64 tanh policy; A2C with 8 environments and its defaults, on the CPU as its
documentation recommends; pg with reward-to-go, the gradient's variance measured, 32 episodes a
batch, everything logged to disk. Start-up is not counted for either.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

import torch
from pairing import interleaved, report
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env

from pgcli.commands.train import run
from pgcli.config.compose import compose_all

REPETITIONS = 5
A2C_STEPS = 20_000


def pg(*overrides: str) -> float:
    """Steps per second of one `pg train`, all seeds together."""
    (composed,) = compose_all("train", overrides, None, multirun=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        run(composed.config, Path(folder) / "run")
        seconds = time.perf_counter() - start
        rows = (Path(folder) / "run" / "metrics.csv").read_text().splitlines()
    last = rows[-composed.config.seeds :]
    return sum(int(row.split(",")[2]) for row in last) / seconds


def a2c() -> float:
    """Steps per second of Stable-Baselines3."""
    threads = torch.get_num_threads()
    model = A2C("MlpPolicy", make_vec_env("CartPole-v1", n_envs=8), device="cpu", seed=0)
    start = time.perf_counter()
    model.learn(A2C_STEPS)
    seconds = time.perf_counter() - start
    torch.set_num_threads(threads)
    return model.num_timesteps / seconds


if __name__ == "__main__":
    found = interleaved(
        {
            "Stable-Baselines3 A2C, 8 environments": a2c,
            "pg rtg, 1 seed": lambda: pg("estimator=rtg"),
            "pg rtg, 8 seeds side by side": lambda: pg("estimator=rtg", "seeds=8"),
            "pg rtg + value network, 1 seed": lambda: pg("estimator=rtg_value"),
        },
        REPETITIONS,
    )
    report("CartPole-v1, whole training", "environment steps per second", found,
           "Stable-Baselines3 A2C, 8 environments")  # fmt: skip
