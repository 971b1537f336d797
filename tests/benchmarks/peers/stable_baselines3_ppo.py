"""PPO of Stable-Baselines3 with its defaults: 10 epochs of minibatches of 64, two 2×64 networks.

`python stable_baselines3_ppo.py ENVIRONMENTS N_STEPS TOTAL THREADS [ENV KIND]`. ENV: CartPole-v1
unless named; KIND of its vector environment: `dummy`, or `subproc`. Its documentation advises the
CPU for small networks, and `DummyVecEnv` for cheap environments.
"""

from __future__ import annotations

import sys
import time

start = time.perf_counter()

import torch  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402
from timing import told  # noqa: E402
from vectorised import vectorised  # noqa: E402

environments, n_steps, total, threads = map(int, sys.argv[1:5])


def main():
    torch.set_num_threads(threads)
    envs = vectorised(environments, *sys.argv[5:])
    model = PPO("MlpPolicy", envs, n_steps=n_steps, device="cpu", seed=0)
    ready = time.perf_counter()
    model.learn(total)
    told(start=start, ready=ready, steps=model.num_timesteps)


if __name__ == "__main__":  # processes import it
    main()
