"""Environment steps per second of whole training on LunarLander-v3 and HalfCheetah-v5.

    pip install -e '.[bench]' && pip install -e '.[box2d]'
    python tests/benchmarks/real.py [result.json]

pg with its engines in one process and in workers, beside A2C and PPO of Stable-Baselines3 and of
Tianshou with their environments in one process and in several. Everyone in a process of its own, in
turn; pg measures the gradient's variance and writes everything, nobody else measures anything.
"""

from __future__ import annotations

import statistics

from pairing import machine, saved
from throughput import measured

REPETITIONS = 3
REFERENCE = "Stable-Baselines3 A2C, 16 × 250 steps, dummy"
COMMON = "estimator=rtg_value method=none batch_size=16"


def lines(env: str, steps: int) -> dict[str, str]:
    """The lines of an environment by name, those of pg with so many steps."""
    pg = f"pg_train.py env={env}"
    sb3 = "stable_baselines3_{}.py"
    found = {
        "Stable-Baselines3 A2C, 8 × 5 steps, its defaults, dummy":
        f"{sb3.format('a2c')} 8 5 16000 {env} dummy"
    }  # fmt: skip
    for kind in ("dummy", "subproc"):
        ppo = f"20000 1 {env} {kind}"
        found |= {
            f"Stable-Baselines3 A2C, 16 × 250 steps, {kind}":
            f"{sb3.format('a2c')} 16 250 32000 {env} {kind}",
            f"Stable-Baselines3 PPO, 16 × 128 steps, {kind}":
            f"{sb3.format('ppo')} 16 128 {ppo}",
            f"Tianshou A2C, 16 × 250 steps, {kind}":
            f"tianshou_actor_critic.py a2c 16 250 32000 {env} {kind}",
            f"Tianshou PPO, 16 × 128 steps, {kind}":
            f"tianshou_actor_critic.py ppo 16 128 20000 {env} {kind}",
        }  # fmt: skip
    return found | {
        "pg rtg + value network, sync": f"{pg} {COMMON} total_steps={steps} env.engine=sync",
        "pg rtg + value network, auto": f"{pg} {COMMON} total_steps={steps}",
        "pg PPO, as it ships, sync": f"{pg} total_steps={steps} env.engine=sync",
        "pg PPO, as it ships, auto": f"{pg} total_steps={steps}",
    }


def main() -> None:
    """Measure in turn and print a table for each environment."""
    print(f"{machine()}; medians of {REPETITIONS} runs in turn; ratios to {REFERENCE}\n")
    for env, steps in (("LunarLander-v3", 60_000), ("HalfCheetah-v5", 64_000)):
        found: dict[str, list[float]] = {}
        for _ in range(REPETITIONS):
            for name, line in lines(env, steps).items():
                if (figures := measured(line)) is not None:
                    found.setdefault(name, []).append(figures["rate"])
        base = statistics.median(found[REFERENCE])
        print(f"| {env} | steps/s | [min, max] | ratio |\n|---|---|---|---|")
        rows = []
        for name, rates in found.items():
            rate = statistics.median(rates)
            rows.append({"name": name, "rate": rate, "ratio": rate / base})
            print(f"| {name} | {rate:,.0f} | [{min(rates):,.0f}, {max(rates):,.0f}] | "
                  f"{rate / base:.2f} |")  # fmt: skip
        print()
        saved(f"{env}, whole training", "environment steps per second", rows)


if __name__ == "__main__":
    main()
