"""Environment steps per second of whole training on CartPole-v1: pg beside its peers.

    pip install -e '.[bench]'
    python tests/benchmarks/throughput.py [result.json]

Everyone trains a 2×64 tanh policy, in a process of its own, in turn. pg uses reward-to-go on 32
episodes a batch, measures the gradient's variance and writes everything to disk; no peer measures
anything. Start-up (imports and construction) and compilation are columns of their own; the last
column counts compilation in and trains for a million steps.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from pairing import machine, saved

REPETITIONS = 5
MILLION = 1_000_000
PEERS = Path(__file__).parent / "peers"
LINES = {
    "Stable-Baselines3 A2C, 8 × 5 steps, its defaults": "stable_baselines3_a2c.py 8 5 40000",
    "Stable-Baselines3 A2C, 64 × 250 steps": "stable_baselines3_a2c.py 64 250 200000",
    "Tianshou REINFORCE, 8 environments, 2048 steps": "tianshou_reinforce.py 8 2048 30000",
    "Tianshou REINFORCE, 32 episodes": "tianshou_reinforce.py 32 32e 60000",
    "TorchRL REINFORCE, 8 environments, 1000 steps": "torchrl_reinforce.py 8 1000 20000",
    "TorchRL REINFORCE, 32 × 500 steps": "torchrl_reinforce.py 32 16000 96000",
    "JAX REINFORCE, 1 seed": "jax_reinforce.py 1 1600000",
    "JAX REINFORCE, 8 seeds": "jax_reinforce.py 8 6400000",
    "JAX A2C, 32 × 500 steps": "jax_a2c.py 32 500 1600000",
    "pg rtg, 1 seed": "pg_train.py estimator=rtg",
    "pg rtg, 8 seeds": "pg_train.py estimator=rtg seeds=8",
    "pg rtg + value network, 1 seed": "pg_train.py estimator=rtg_value",
    "pg rtg + value network, 8 seeds": "pg_train.py estimator=rtg_value seeds=8 iterations=70",
}


def measured(line: str) -> dict[str, float] | None:
    """What one run of a peer's script tells; None where it does not run here."""
    script, *args = line.split()
    command = [sys.executable, str(PEERS / script), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"left out: {line}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return None
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    figures["rate"] = figures["steps"] / figures["seconds"]
    figures["million"] = MILLION / (figures["compilation"] + MILLION / figures["rate"])
    return figures


def main() -> None:
    """Measure in turn, print the table, save it where a file is named."""
    lines = {name: line for name, line in LINES.items() if measured(line) is not None}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in lines}
    for _ in range(REPETITIONS):
        for name, line in lines.items():
            figures = measured(line)
            assert figures is not None
            found[name].append(figures)

    def median(name: str, key: str) -> float:
        return statistics.median(run[key] for run in found[name])

    torch_peers = [n for n in lines if n.split()[0] in ("Stable-Baselines3", "Tianshou", "TorchRL")]
    fastest = max(torch_peers, key=lambda name: median(name, "rate"))
    print(f"CartPole-v1, environment steps per second of whole training; {machine()}")
    print(f"medians of {REPETITIONS} runs in turn; ratios to {fastest}, pair by pair\n")
    print("| | steps/s | [min, max] | ratio | start-up s | compilation s | 1M steps, compiled |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name, runs in found.items():
        pairs = zip(runs, found[fastest], strict=True)
        rates = [run["rate"] for run in runs]
        row = {
            "name": name,
            **{key: median(name, key) for key in ("rate", "start_up", "compilation", "million")},
            "min": min(rates),
            "max": max(rates),
            "ratio": statistics.median(run["rate"] / other["rate"] for run, other in pairs),
        }
        rows.append(row)
        print("| {name} | {rate:,.0f} | [{min:,.0f}, {max:,.0f}] | {ratio:.2f} | {start_up:.1f} | "
              "{compilation:.1f} | {million:,.0f} |".format(**row))  # fmt: skip
    saved("CartPole-v1, whole training", "environment steps per second", rows)


if __name__ == "__main__":
    main()
