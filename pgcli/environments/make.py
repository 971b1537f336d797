"""Look an environment up, and make it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from pgcli.environments.ambient import seeded
from pgcli.environments.guard import quiet
from pgcli.environments.spaces import (
    Flattened,
    is_composite,
)
from pgcli.environments.wrapping import wrapped
from pgcli.errors import ConfigError, did_you_mean
from pgcli.settings.schema import Engine as EngineName
from pgcli.settings.schema import EnvConfig

EXTRAS = ("box2d", "mujoco")  # as Gymnasium calls its own modules, too
OWN = ("pgcli.environments.teaching", "pgcli.environments.linear")  # register ours
COMPILED = ("CartPoleEnv", "AcrobotEnv", "MountainCarEnv", "PendulumEnv")  # of classic control


def maker(config: EnvConfig) -> Callable[..., gym.Env[Any, Any]]:
    """What makes copy 0, or another, of the environment; it may be sent to another process."""
    spec = spec_of(config.id)  # itself, for another process may not have it in its registry
    mujoco = "mujoco" in str(spec.entry_point)

    def make(copy: int = 0) -> gym.Env[Any, Any]:
        with quiet(mujoco), seeded(copy):
            env = gym.make(
                spec,
                max_episode_steps=config.max_episode_steps,
                disable_env_checker=True,
                **config.kwargs,
            )
            env = wrapped(env, config.wrappers)
        if is_composite(env.observation_space):
            return Flattened(env)
        return env

    return make


def time_limit(config: EnvConfig) -> int:
    """Steps after which an episode is cut; ConfigError where the environment has no limit."""
    limit = config.max_episode_steps
    if limit is None and config.engine is EngineName["envpool"]:
        limit = envpool_spec(config.id).config.max_episode_steps
    elif limit is None:
        limit = spec_of(config.id).max_episode_steps
    if limit is None:
        raise ConfigError(
            "env.max_episode_steps", None,
            f"{config.id} has no time limit of its own: set one, e.g. env.max_episode_steps=1000",
        )  # fmt: skip
    return int(limit)


def compiled_model(config: EnvConfig) -> str | None:
    """The class of the environment, where its dynamics exist compiled and nothing changes them."""
    if config.kwargs or config.wrappers or config.info or config.engine is EngineName["envpool"]:
        return None
    spec = spec_of(config.id)
    module, _, name = str(spec.entry_point).partition(":")
    known = module.startswith("gymnasium.envs.classic_control") and name in COMPILED
    return name if known and not spec.kwargs and not spec.additional_wrappers else None


def extra_of(config: EnvConfig) -> str | None:
    """The extra that brings what the environment needs, where Gymnasium ships the rest of it."""
    module = str(spec_of(config.id).entry_point)
    return next((name for name in EXTRAS if module.startswith(f"gymnasium.envs.{name}")), None)


def spec_of(env_id: str) -> EnvSpec:
    """The registry's entry for `Id`, `namespace/Id` or `module:Id`; ConfigError where none is."""
    module, _, name = env_id.rpartition(":")
    try:
        with quiet():
            for one in (module, *(OWN if name.startswith("pg/") else ())):
                if one:
                    importlib.import_module(one)
            return gym.spec(name)
    except ImportError as error:
        raise ConfigError("env", env_id, f"the module does not import: {error}") from error
    except gym.error.Error as error:
        allowed = f"no such Gymnasium environment{did_you_mean(name, gym.registry)}"
        if name.startswith("ALE/"):  # ale_py registers them
            allowed = f"its package registers it: pip install ale-py, then env=ale_py:{name}"
        raise ConfigError("env", env_id, allowed) from error


def envpool_spec(env_id: str) -> Any:
    """envpool's description of an environment; ConfigError without envpool or for an unknown id."""
    try:
        envpool = importlib.import_module("envpool")
    except ImportError as error:
        allowed = "envpool is not installed: extra `envpool`"
        raise ConfigError("env.engine", "envpool", allowed) from error
    known = envpool.list_all_envs()
    if env_id not in known:
        raise ConfigError(
            "env", env_id, f"envpool has no such environment{did_you_mean(env_id, known)}"
        )
    return envpool.make_spec(env_id)
