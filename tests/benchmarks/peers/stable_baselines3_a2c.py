"""A2C of Stable-Baselines3: `stable_baselines3_a2c.py ENVIRONMENTS N_STEPS TOTAL [ENV KIND]`.

ENV: CartPole-v1 unless named; KIND of its vector environment: `dummy`, or `subproc`. Its
documentation advises the CPU for small networks, and `DummyVecEnv` for cheap environments.
"""

from __future__ import annotations

import sys
import time

start = time.perf_counter()

from stable_baselines3 import A2C  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv  # noqa: E402
from timing import told  # noqa: E402

environments, n_steps, total = map(int, sys.argv[1:4])
name, kind = sys.argv[4:] or ("CartPole-v1", "dummy")
KINDS = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}


def main():
    envs = make_vec_env(name, n_envs=environments, vec_env_cls=KINDS[kind])
    model = A2C("MlpPolicy", envs, n_steps=n_steps, device="cpu", seed=0)
    ready = time.perf_counter()
    model.learn(total)
    told(start=start, ready=ready, steps=model.num_timesteps)


if __name__ == "__main__":  # processes import it
    main()
