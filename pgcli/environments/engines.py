"""Engines: ways to step many copies of one environment. Imports no torch.

Every engine keeps Gymnasium's NEXT_STEP autoreset: the step after an episode's end ignores the
action and returns the reset observation with reward 0; that row is no transition.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from pgcli.config.schema import Engine as EngineName
from pgcli.config.schema import EnvConfig
from pgcli.environments.ambient import Ambient, Own, seeded, spaces_of
from pgcli.environments.looks import FirstLook, memories
from pgcli.environments.spaces import (
    ActionAdapter,
    Flattened,
    ObsAdapter,
    Spaces,
    action_adapter,
    checker,
    described,
    is_composite,
    obs_adapter,
)
from pgcli.environments.tabular import Tabular, hidden_by, read_model
from pgcli.errors import ConfigError, EnvironmentFailed, did_you_mean
from pgcli.streams import DISTINCT, Seeding

Array = np.ndarray
Step = tuple[Array, Array, Array, Array]

SLOTS = 16  # of Sync and Async, per seed: more copies no longer make a step of one cheaper
NATIVE_SLOTS = 256  # a native engine steps hundreds for the price of one
MANY_SLOTS = ("compiled", "native", "envpool")
COMPILED = ("CartPoleEnv", "AcrobotEnv", "MountainCarEnv", "PendulumEnv")  # of classic control
SLOW_STEP = 1e-3  # seconds: from here on a process per environment pays for its pipes
STEP_TIMEOUT = 300.0  # seconds without an answer after which a worker counts as dead


class Engine(Protocol):
    """E = `num_envs` copies of an environment, stepped together."""

    id: str
    name: str
    num_envs: int
    obs: ObsAdapter
    action: ActionAdapter
    max_episode_steps: int
    exact_resume: bool  # whether reset(seeds) makes everything that follows repeatable
    renewed: str  # what is not as it was for runs of checkpoint format 1, if anything

    @property
    def obs_dim(self) -> int:
        """D, the length of an encoded observation."""
        ...

    @property
    def ambient(self) -> Ambient | None:
        """What is around every batch, where environments run in this process."""
        ...

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        """Start anew in every slot, seeded: obs [E, D]; by `seeding` where one seed is for all."""
        ...

    def step(self, act: Array, active: Array) -> Step:
        """obs [E, D], rew [E], terminated [E], truncated [E] for the policy's actions [E, ...].

        The rows of slots that are not active [E] mean nothing. Buffers may be reused: copy.
        """
        ...

    def notices(self) -> list[str]:
        """What the environment has shown so far, and a reader of the results must know."""
        ...

    def close(self) -> None:
        """Release processes and windows."""
        ...


class Base:
    """What all engines share: the adapters, and errors that name the environment."""

    name: str
    exact_resume = True
    renewed = ""
    ambient: Ambient | None = None

    def __init__(self, config: EnvConfig, num_envs: int, obs: Any, act: Any) -> None:
        self.id, self.num_envs = config.id, num_envs
        self.obs, self.action = obs_adapter(obs, config.id), action_adapter(act, config.id)
        self.max_episode_steps = time_limit(config)
        self._first_look = FirstLook(obs) if isinstance(obs, spaces.Box) else None
        self._batches = 0
        self._notices: list[str] = []

    @property
    def obs_dim(self) -> int:
        return self.obs.dim

    def notices(self) -> list[str]:
        found = list(self._notices)
        if self._first_look is not None:
            found += self._first_look.notices()
        if self.ambient is not None and self.ambient.confirmed:
            found.append(
                "the environment draws from random, numpy.random, torch or a space's sample() "
                "beside its np_random: each copy has seeded ones of its own, which takes time; "
                "the first batch was played twice for that, and counts once"
            )
        return found

    def _begun(self, seeds: Sequence[int]) -> None:
        """A batch begins: the first look is over after the first one."""
        if self._batches == 1 and self._first_look is not None:
            self._notices += self._first_look.notices()
            self._first_look = None
        self._batches += 1
        if self.ambient is not None:
            self.ambient.seed(seeds)

    def _encoded(self, obs: Any, what: str) -> Array:
        """Observations of all slots as [E, D]; EnvironmentFailed where one is none of its space."""
        try:
            array = np.asarray(obs)
            found = self.obs.encode(array)
        except Exception as error:
            for slot, one in enumerate(obs):
                if (fault := self.obs.fault(one)) is not None:
                    raise EnvironmentFailed(_failed(self.id, what, fault, slot)) from error
            raise _failure(self.id, what, error) from error
        if self._first_look is not None:
            self._first_look.at(array)
        return found


class SyncEngine(Base):
    """A plain loop over environments in this process; idle slots cost nothing."""

    name = "sync"

    def __init__(self, config: EnvConfig, num_envs: int, slots: int | None = None) -> None:
        make = maker(config)
        with _failing(config.id, "make"):
            self._envs = [make(i % (slots or num_envs)) for i in range(num_envs)]
        env = self._envs[0]
        super().__init__(config, num_envs, env.observation_space, env.action_space)
        self._notices += memories(env)
        self.ambient: Ambient = Ambient([spaces_of(env) for env in self._envs])
        self._ended = np.zeros(num_envs, bool)
        self._obs: list[Any] = [None] * num_envs
        self._rew = np.zeros(num_envs)
        self._terminated, self._truncated = np.zeros((2, num_envs), bool)

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        self._begun(seeds)
        self._ended[:] = False
        swap = self.ambient if self.ambient.active else None
        for i, (env, seed) in enumerate(zip(self._envs, seeds, strict=True)):
            with _failing(self.id, "reset", i):
                if swap:
                    swap.enter(i)
                self._obs[i] = _observation(env.reset(seed=seed))
                if swap:
                    swap.leave(i)
        return self._encoded(self._obs, "reset")

    def step(self, act: Array, active: Array) -> Step:
        given = self.action.to_env(act)
        obs, rew, ended = self._obs, self._rew, self._ended
        terminated, truncated = self._terminated, self._truncated
        terminated[:], truncated[:] = False, False
        swap = self.ambient if self.ambient.active else None
        i = 0
        try:
            for i in active.nonzero()[0].tolist():
                if swap:
                    swap.enter(i)
                if ended[i]:  # goes on with the slot's own generator
                    obs[i] = _observation(self._envs[i].reset())
                    rew[i], ended[i] = 0.0, False
                else:
                    obs[i], rew[i], terminated[i], truncated[i], _ = self._envs[i].step(given[i])
                    ended[i] = terminated[i] or truncated[i]
                if swap:
                    swap.leave(i)
        except Exception as error:
            raise _failure(self.id, "step", error, i) from error
        return self._encoded(obs, "step"), rew, terminated, truncated

    def close(self) -> None:
        for env in self._envs:
            env.close()


class _VectorEngine(Base):
    """Any vector environment of Gymnasium's interface."""

    def __init__(self, config: EnvConfig, envs: Any) -> None:
        self._envs = envs
        super().__init__(
            config, envs.num_envs, envs.single_observation_space, envs.single_action_space
        )

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        self._begun(seeds)
        with _failing(self.id, "reset"):
            obs, _ = self._reset(seeds, seeding)
        return self._encoded(obs, "reset")

    def step(self, act: Array, active: Array) -> Step:
        try:
            obs, rew, terminated, truncated, _ = self._step(self.action.to_env(act))
        except Exception as error:
            raise _failure(self.id, "step", error) from error
        return self._encoded(obs, "step"), rew, terminated, truncated

    def close(self) -> None:
        self._envs.close()

    def _reset(self, seeds: Sequence[int], seeding: Seeding) -> Any:
        return self._envs.reset(seed=list(seeds))

    def _step(self, act: Array) -> Any:
        return self._envs.step(act)


class NativeEngine(_VectorEngine):
    """The environment's own vector entry point: one generator, seeded by all slots' seeds."""

    name = "native"

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        kwargs = dict(config.kwargs)
        if config.max_episode_steps is not None:
            kwargs["max_episode_steps"] = config.max_episode_steps
        with _failing(config.id, "make"), seeded(0):
            envs = gym.make_vec(
                config.id, num_envs, vectorization_mode="vector_entry_point", **kwargs
            )
        if envs.metadata.get("autoreset_mode") is not AutoresetMode.NEXT_STEP:
            raise ConfigError(
                "env.engine", "native", f"{config.id} resets in another way than NEXT_STEP: sync"
            )
        super().__init__(config, envs)
        self.ambient: Ambient = Ambient()

    def _reset(self, seeds: Sequence[int], seeding: Seeding) -> Any:
        with self.ambient.given(0):
            return self._envs.reset(seed=seeding.single(seeds))

    def _step(self, act: Array) -> Any:
        with self.ambient.given(0):
            return self._envs.step(act)


class AsyncEngine(_VectorEngine):
    """A process per environment, for those whose step takes milliseconds."""

    name = "async"

    def __init__(self, config: EnvConfig, num_envs: int, slots: int | None = None) -> None:
        make, kept = maker(config), list[str]()
        with _failing(config.id, "make"), _quiet():
            copies = range(slots or num_envs)
            makers = [
                partial(_in_worker, partial(make, copies[i % len(copies)]), i, os.getpid(), kept)
                for i in range(num_envs)
            ]
            envs = AsyncVectorEnv(makers, copy=False)
        super().__init__(config, envs)
        self._notices += kept

    def _reset(self, seeds: Sequence[int], seeding: Seeding) -> Any:
        with _quiet():  # a worker's error is raised as well
            return super()._reset(seeds, seeding)

    def _step(self, act: Array) -> Any:
        self._envs.step_async(act)
        with _quiet():
            return self._envs.step_wait(timeout=STEP_TIMEOUT)

    def close(self) -> None:
        if self._envs.closed:
            return
        # After a worker's death an orderly close() would raise, or wait for it for ever.
        self._envs.closed = True
        for process in self._envs.processes:
            process.terminate()
        for process in self._envs.processes:
            process.join()


class EnvpoolEngine(_VectorEngine):
    """envpool's C++ threads. It can be seeded only when made, so a resume is not bit-exact."""

    name = "envpool"
    exact_resume = False

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        envpool = importlib.import_module("envpool")
        kwargs = dict(config.kwargs)
        if config.max_episode_steps is not None:
            kwargs["max_episode_steps"] = config.max_episode_steps
        if "num_threads" not in kwargs and _takes_all_cores(num_envs):
            # Left to the scheduler, two workers may share a core for seconds while another idles.
            kwargs.setdefault("thread_affinity_offset", 0)
        with _failing(config.id, "make"), _quiet():
            self._make = partial(envpool.make_gymnasium, config.id, num_envs=num_envs, **kwargs)
            self._envs = self._make(seed=0)
            spaces = self._envs.observation_space, self._envs.action_space
        self._seeded = False
        Base.__init__(self, config, num_envs, *spaces)

    def _reset(self, seeds: Sequence[int], seeding: Seeding) -> Any:
        with _quiet():
            if not self._seeded:
                self._envs.close()
                self._envs, self._seeded = self._make(seed=seeding.single(seeds) % 2**31), True
            return self._envs.reset()


def open_engine(config: EnvConfig, num_envs: int, slots: int | None = None) -> Engine:
    """The engine that `config.engine` names, or the fastest that keeps the semantics.

    slots: of one seed, where there are several: every seed's copies are made alike.
    """
    name = choose_engine(config)
    if name == "sync" and config.engine is EngineName["auto"] and _is_slow(config, num_envs):
        name = "async"
    engines: dict[str, Callable[[EnvConfig, int], Engine]] = {
        "compiled": _compiled,
        "native": NativeEngine,
        "sync": partial(SyncEngine, slots=slots),
        "async": partial(AsyncEngine, slots=slots),
        "envpool": EnvpoolEngine,
    }
    return engines[name](config, num_envs)


def _compiled(config: EnvConfig, num_envs: int) -> Engine:
    module = importlib.import_module("pgcli.environments.compiled")  # which takes its time
    engine: Engine = module.CompiledEngine(config, num_envs)
    return engine


def compiled_model(config: EnvConfig) -> str | None:
    """The class of the environment, where its dynamics exist compiled and nothing changes them."""
    if config.kwargs or config.engine is EngineName["envpool"]:
        return None
    spec = _spec(config.id)
    module, _, name = str(spec.entry_point).partition(":")
    known = module.startswith("gymnasium.envs.classic_control") and name in COMPILED
    return name if known and not spec.kwargs and not spec.additional_wrappers else None


def choose_engine(config: EnvConfig) -> str:
    """The engine's name; `sync` stands for async too where `auto` may still find it slow."""
    if config.engine is not EngineName["auto"]:
        return config.engine.name
    if compiled_model(config) is not None and importlib.util.find_spec("numba") is not None:
        return "compiled"
    try:
        NativeEngine(config, 1).close()
    except (ConfigError, EnvironmentFailed):
        return "sync"  # no native engine, or not for these arguments
    return "native"


def slots_per_seed(config: EnvConfig, episodes: int | None) -> int:
    """K: copies of the environment side by side for one seed that collects so many episodes.

    Sync and async share one number, so that the choice between them never changes a result.
    """
    if config.num_envs is not None:
        return config.num_envs
    most = NATIVE_SLOTS if choose_engine(config) in MANY_SLOTS else SLOTS
    return min(episodes, most) if episodes is not None else min(SLOTS, most)


def time_limit(config: EnvConfig) -> int:
    """Steps after which an episode is cut; ConfigError where the environment has no limit."""
    limit = config.max_episode_steps
    if limit is None and config.engine is EngineName["envpool"]:
        limit = _envpool_spec(config.id).config.max_episode_steps
    elif limit is None:
        limit = _spec(config.id).max_episode_steps
    if limit is None:
        raise ConfigError(
            "env.max_episode_steps", None,
            f"{config.id} has no time limit of its own: set one, e.g. env.max_episode_steps=1000",
        )  # fmt: skip
    return int(limit)


def check_environment(config: EnvConfig) -> Spaces:
    """Its spaces, from making it once; ConfigError where it cannot be made or trained in."""
    if config.engine is EngineName["envpool"]:
        spec = _envpool_spec(config.id)
        with _quiet():
            observation, action = spec.gymnasium_observation_space, spec.gymnasium_action_space
    else:
        if config.engine is EngineName["native"] and _spec(config.id).vector_entry_point is None:
            allowed = f"{config.id} has no vector entry point: auto, sync, async"
            raise ConfigError("env.engine", config.engine, allowed)
        if config.engine is EngineName["compiled"]:
            _check_compiled(config)
        make = maker(config)
        try:
            env = make()
        except Exception as error:
            # Names only: a value may be a secret, and Gymnasium repeats them at the end.
            text = " ".join(f"{type(error).__name__}: {error}".split())
            text = text.partition(" was raised from the environment creator")[0]
            given = f" with env.kwargs {', '.join(config.kwargs)}" if config.kwargs else ""
            raise ConfigError("env", config.id, f"cannot be made{given}: {text}") from error
        observation, action = env.observation_space, env.action_space
        env.close()
    time_limit(config)
    return Spaces(obs_adapter(observation, config.id).dim, action_adapter(action, config.id))


def _check_compiled(config: EnvConfig) -> None:
    if compiled_model(config) is None:
        allowed = "only CartPole, Acrobot, MountainCar and Pendulum, without env.kwargs"
        raise ConfigError("env.engine", "compiled", allowed)
    if importlib.util.find_spec("numba") is None:
        raise ConfigError("env.engine", "compiled", "numba is not installed: extra `fast`")


def tabular_model(config: EnvConfig) -> Tabular | None:
    """The environment's model, rewards shifted, where it exposes one; else None.

    Raises EnvironmentFailed where the model contradicts itself.
    """
    if config.engine is EngineName["envpool"]:
        return None
    env = maker(config)()
    try:
        return read_model(env, time_limit(config), config.reward_shift)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise EnvironmentFailed(f"{config.id}: its model is unusable: {error}") from error
    finally:
        env.close()


def hidden_model(config: EnvConfig) -> str | None:
    """The wrapper that keeps the environment's model from counting; None where none does."""
    if config.engine is EngineName["envpool"]:
        return None
    env = maker(config)()
    try:
        return hidden_by(env)
    finally:
        env.close()


def _envpool_spec(env_id: str) -> Any:
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


def _spec(env_id: str) -> EnvSpec:
    """The registry's entry for `Id`, `namespace/Id` or `module:Id`; ConfigError where none is."""
    module, _, name = env_id.rpartition(":")
    try:
        with _quiet():
            if module:
                importlib.import_module(module)
            return gym.spec(name)
    except ImportError as error:
        raise ConfigError("env", env_id, f"the module does not import: {error}") from error
    except gym.error.Error as error:
        allowed = f"no such Gymnasium environment{did_you_mean(name, gym.registry)}"
        raise ConfigError("env", env_id, allowed) from error


def maker(config: EnvConfig) -> Callable[..., gym.Env[Any, Any]]:
    """What makes copy 0, or another, of the environment; it may be sent to another process."""
    mujoco = "mujoco" in str(_spec(config.id).entry_point)

    def make(copy: int = 0) -> gym.Env[Any, Any]:
        with _quiet(mujoco), seeded(copy):
            env = gym.make(
                config.id,
                max_episode_steps=config.max_episode_steps,
                disable_env_checker=True,
                **config.kwargs,
            )
        if is_composite(env.observation_space):
            return Flattened(env)
        return env

    return make


def _in_worker(
    make: Callable[[], gym.Env[Any, Any]], copy: int, parent: int, kept: list[str]
) -> gym.Env[Any, Any]:
    """Make the environment in a process of its own, where the run's signals are not handled.

    Gymnasium calls this once in the parent as well, to see the spaces: its handlers stay, and what
    is to be said of the environment goes into `kept`.
    """
    if os.getpid() == parent:
        env = make()
        kept += memories(env)
        return env
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; pg ends it
    return _Worker(make(), copy)


class _InCopy(Exception):
    """What went wrong in one copy, in words; it can be sent to another process."""


class _Worker(gym.Wrapper[Any, Any, Any, Any]):
    """An environment alone in its process: errors say which copy it is, and what it gave."""

    def __init__(self, env: gym.Env[Any, Any], copy: int) -> None:
        super().__init__(env)
        self._copy, self._check = copy, checker(env.observation_space)
        self._spaces = spaces_of(env)
        self._own: Own | None = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """As the environment does; a seed is for the global generators too."""
        if seed is not None:
            self._own = Own(seed, self._spaces)
            self._own.enter()
        return self._guarded(lambda: (_observation(self._anew(seed)), {}))

    def step(self, action: Any) -> Any:
        """As the environment does."""
        return self._guarded(lambda: self.env.step(action))

    def _anew(self, seed: int | None) -> Any:
        return self.env.reset() if seed is None else self.env.reset(seed=seed)

    def _guarded(self, call: Callable[[], Any]) -> Any:
        if self._own is not None:
            self._own.enter_numpy()
        try:
            found = call()
            self._check(found[0])
        except Exception as error:
            raise _InCopy(f"(environment {self._copy}): {_told(error)}") from error
        return found


def _observation(found: Any) -> Any:
    """The observation that a reset gave."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise TypeError(f"it gave {described(found)} instead of (observation, info)")
    return found[0]


def _takes_all_cores(threads: int) -> bool:
    """Whether so many threads are one for each core of this machine, or more."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    return usable == os.cpu_count() and threads >= usable


def _is_slow(config: EnvConfig, num_envs: int) -> bool:
    """Whether a step takes so long that processes pay: judged on a few random steps."""
    if num_envs == 1 or (os.cpu_count() or 1) == 1:
        return False
    with _failing(config.id, "step"):
        env = maker(config)()
        env.reset(seed=0)
        env.action_space.seed(0)
        times = []
        for _ in range(20):
            act, start = env.action_space.sample(), time.perf_counter()
            *_, terminated, truncated, _ = env.step(act)
            times.append(time.perf_counter() - start)
            if terminated or truncated:
                env.reset()
        env.close()
    return float(np.median(times)) > SLOW_STEP


@contextmanager
def _quiet(mujoco: bool = False) -> Iterator[None]:
    """Without the warnings that environments, and what they import, give as they are made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not mujoco or importlib.util.find_spec("mujoco") is None:
            yield
            return
        set_handler = importlib.import_module("mujoco").set_mju_user_warning
        set_handler(lambda text: None)  # else it writes to the terminal and a log file
        try:
            yield
        finally:
            set_handler(None)


@contextmanager
def _failing(env_id: str, what: str, slot: int | None = None) -> Iterator[None]:
    try:
        yield
    except (ConfigError, EnvironmentFailed):
        raise
    except Exception as error:
        raise _failure(env_id, what, error, slot) from error


def _failure(
    env_id: str, what: str, error: Exception, slot: int | None = None
) -> EnvironmentFailed:
    if isinstance(error, _InCopy):
        return EnvironmentFailed(f"{env_id}: {what} failed {error}")
    return EnvironmentFailed(_failed(env_id, what, _told(error), slot))


def _failed(env_id: str, what: str, text: str, slot: int | None) -> str:
    where = "" if slot is None else f" (environment {slot})"
    return f"{env_id}: {what} failed{where}: {text}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
