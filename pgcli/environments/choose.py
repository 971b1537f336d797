"""Choose an engine, open it, and check what it is to play. Imports no torch."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import gymnasium as gym
import numpy as np

from pgcli.environments.cluster import RayEngine
from pgcli.environments.engine import Engine
from pgcli.environments.envpool import EnvpoolEngine
from pgcli.environments.guard import FAULTS, quiet
from pgcli.environments.info import names
from pgcli.environments.make import (
    compiled_model,
    envpool_spec,
    extra_of,
    maker,
    spec_of,
    time_limit,
)
from pgcli.environments.spaces import (
    Spaces,
    action_adapter,
    obs_adapter,
)
from pgcli.environments.vector import AsyncEngine, NativeEngine, SyncEngine
from pgcli.environments.workers import WorkersEngine, shared_out
from pgcli.environments.wrapping import wrappings
from pgcli.errors import ConfigError, EnvironmentFailed
from pgcli.machine.cores import cores
from pgcli.settings.schema import ELSEWHERE, EnvConfig
from pgcli.settings.schema import Engine as EngineName

SLOTS = 16  # of Sync and Async, per seed: more copies no longer make a step of one cheaper
NATIVE_SLOTS = 256  # a native engine steps hundreds for the price of one
MANY_SLOTS = ("compiled", "native", "envpool")
SLOW_STEP = 1e-3  # seconds: from here on a process per environment pays for its pipes
WORTH = 2e-5  # seconds: from here on sharing a batch out pays for sending it back,
SENT = 5e-9  # which takes so long for each byte of an observation


def open_engine(
    config: EnvConfig,
    num_envs: int,
    slots: int | None = None,
    shared: bool = False,
    stopping: bool = False,
) -> Engine:
    """The engine that `config.engine` names, or the fastest that keeps the semantics.

    slots: of one seed, where there are several: every seed's copies are made alike. `shared`:
    whether they may be other processes'; else `sync` stands for `workers`, whose bits are the same.
    `stopping`: whether some slots are to stand while others step, which native, async and envpool
    cannot have, so that `auto` avoids them.
    """
    name = choose_engine(config)
    if stopping and name == "native" and config.engine is EngineName["auto"]:
        name = "sync"
    if name in ELSEWHERE and not shared:
        name = "sync"
    if name == "sync" and config.engine is EngineName["auto"] and num_envs > 1 and cores() > 1:
        name = _by_its_step(config, num_envs, slots or num_envs, shared)
        name = "sync" if stopping and name == "async" else name
    engines: dict[str, Callable[[EnvConfig, int], Engine]] = {
        "compiled": _compiled,
        "native": NativeEngine,
        "sync": partial(SyncEngine, slots=slots),
        "async": partial(AsyncEngine, slots=slots),
        "envpool": EnvpoolEngine,
        "workers": partial(WorkersEngine, slots=slots),
        "ray": partial(RayEngine, slots=slots),
    }
    return engines[name](config, num_envs)


def choose_engine(config: EnvConfig) -> str:
    """The engine's name; `sync` stands for what `auto` may find better, with the same bits."""
    if config.engine is not EngineName["auto"]:
        return config.engine.name
    if config.wrappers or config.info:
        return "sync"
    if compiled_model(config) is not None and importlib.util.find_spec("numba") is not None:
        return "compiled"
    try:
        NativeEngine(config, 1).close()
    except (ConfigError, EnvironmentFailed):
        return "sync"  # no native engine, or not for these arguments
    return "native"


def unused(config: EnvConfig) -> dict[str, str]:
    """The settings `env.<name>` that can have no effect: why, by key."""
    if config.engine.name in ELSEWHERE:
        return {}
    return {"env.workers": "it is for env.engine=workers or ray"}


def slots_per_seed(config: EnvConfig, episodes: int | None) -> int:
    """K: copies of the environment side by side for one seed that collects so many episodes.

    Sync and async share one number, so that the choice between them never changes a result.
    """
    if config.num_envs is not None:
        return config.num_envs
    most = NATIVE_SLOTS if choose_engine(config) in MANY_SLOTS else SLOTS
    return min(episodes, most) if episodes is not None else min(SLOTS, most)


def check_environment(config: EnvConfig) -> Spaces:
    """Its spaces, from making it once; ConfigError where it cannot be made or trained in."""
    _check_single(config)
    if config.engine is EngineName["envpool"]:
        spec = envpool_spec(config.id)
        with quiet():
            observation, action = spec.gymnasium_observation_space, spec.gymnasium_action_space
    else:
        if config.engine is EngineName["native"] and spec_of(config.id).vector_entry_point is None:
            allowed = f"{config.id} has no vector entry point: auto, sync, async"
            raise ConfigError("env.engine", config.engine, allowed)
        if config.engine is EngineName["compiled"]:
            _check_compiled(config)
        if config.engine is EngineName["ray"] and importlib.util.find_spec("ray") is None:
            raise ConfigError("env.engine", "ray", "ray is not installed: extra `ray`")
        make = maker(config)
        try:
            env = make()
        except ConfigError:
            raise
        except FAULTS as error:
            missing = isinstance(error, (ImportError, gym.error.DependencyNotInstalled))
            if missing and (extra := extra_of(config)) is not None:
                raise ConfigError("env", config.id, f"needs the extra {extra}") from error
            # Names only: a value may be a secret, and Gymnasium repeats them at the end.
            text = " ".join(f"{type(error).__name__}: {error}".split())
            text = text.partition(" was raised from the environment creator")[0]
            given = f" with env.kwargs {', '.join(config.kwargs)}" if config.kwargs else ""
            raise ConfigError("env", config.id, f"cannot be made{given}: {text}") from error
        observation, action = env.observation_space, env.action_space
        with suppress(*FAULTS):  # it is said when a run's are closed
            env.close()
    time_limit(config)
    return Spaces(
        obs_adapter(observation, config.id).dim,
        action_adapter(action, config.id),
        table=isinstance(observation, gym.spaces.Discrete),
        seen=observation,
    )


def _check_single(config: EnvConfig) -> None:
    """What needs environments one by one: an engine that has no such thing is refused."""
    wrappings(config.wrappers)
    for key, given in (("wrappers", config.wrappers), ("info", names(config.info))):
        if given and config.engine.name in MANY_SLOTS:
            allowed = f"it has no single environments, which env.{key} needs: auto, sync, async"
            raise ConfigError("env.engine", config.engine, allowed)


def _compiled(config: EnvConfig, num_envs: int) -> Engine:
    module = importlib.import_module("pgcli.environments.compiled.engine")  # which takes its time
    engine: Engine = module.CompiledEngine(config, num_envs)
    return engine


def _check_compiled(config: EnvConfig) -> None:
    if compiled_model(config) is None:
        allowed = "only CartPole, Acrobot, MountainCar and Pendulum, without env.kwargs"
        raise ConfigError("env.engine", "compiled", allowed)
    if importlib.util.find_spec("numba") is None:
        raise ConfigError("env.engine", "compiled", "numba is not installed: extra `fast`")


def _by_its_step(config: EnvConfig, num_envs: int, slots: int, shared: bool) -> str:
    """Who plays it best, judged on how long a step takes: `sync`, or processes."""
    alone = multiprocessing.parent_process() is None  # else there are others who need the cores
    dividable = shared and alone and len(shared_out(num_envs // slots, slots, cores())) > 1
    step, size = _step_cost(config)
    if dividable and step > WORTH + size * SENT:
        return "workers"
    return "async" if step > SLOW_STEP else "sync"


def _step_cost(config: EnvConfig) -> tuple[float, int]:
    """The median of a few random steps, in seconds, and bytes of what is seen; 0 where it fails."""
    try:
        env = maker(config)()
        env.reset(seed=0)
        env.action_space.seed(0)
        times = []
        for _ in range(20):
            act, start = env.action_space.sample(), time.perf_counter()
            seen, _, terminated, truncated, _ = env.step(act)
            times.append(time.perf_counter() - start)
            if terminated or truncated:
                env.reset()
        with suppress(*FAULTS):
            env.close()
    except FAULTS:  # the engine that plays it says it, and where
        return 0.0, 0
    return float(np.median(times)), np.asarray(seen, np.float32).nbytes
