"""Environments of Stable-Baselines3, as a line of a benchmark names them."""

from __future__ import annotations

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

KINDS = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}


def vectorised(count: int, name: str = "CartPole-v1", kind: str = "dummy") -> VecEnv:
    """So many copies, in one process or in one each."""
    return make_vec_env(name, n_envs=count, vec_env_cls=KINDS[kind])
