"""A2C of Stable-Baselines3: `stable_baselines3_a2c.py ENVIRONMENTS N_STEPS TOTAL [ENV KIND]`.

ENV: CartPole-v1 unless named; KIND of its vector environment: `dummy`, or `subproc`. Its
documentation advises the CPU for small networks, and `DummyVecEnv` for cheap environments.
"""

from __future__ import annotations

import sys
import time

start = time.perf_counter()

from stable_baselines3 import A2C  # noqa: E402
from timing import told  # noqa: E402
from vectorised import vectorised  # noqa: E402

environments, n_steps, total = map(int, sys.argv[1:4])


def main():
    envs = vectorised(environments, *sys.argv[4:])
    model = A2C("MlpPolicy", envs, n_steps=n_steps, device="cpu", seed=0)
    ready = time.perf_counter()
    model.learn(total)
    told(start=start, ready=ready, steps=model.num_timesteps)


if __name__ == "__main__":  # processes import it
    main()
