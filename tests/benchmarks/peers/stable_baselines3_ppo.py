"""PPO of Stable-Baselines3 with its defaults: `python … ENVIRONMENTS N_STEPS TOTAL THREADS`.

That is 10 epochs of minibatches of 64, two networks of 2×64 tanh. Its documentation advises the
CPU for small networks, and `DummyVecEnv` for cheap environments.
"""

from __future__ import annotations

import sys
import time

start = time.perf_counter()

import torch  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from timing import told  # noqa: E402

environments, n_steps, total, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
envs = make_vec_env("CartPole-v1", n_envs=environments)
model = PPO("MlpPolicy", envs, n_steps=n_steps, device="cpu", seed=0)
ready = time.perf_counter()
model.learn(total)
told(start=start, ready=ready, steps=model.num_timesteps)
