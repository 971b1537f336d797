"""Engines over Gymnasium: a loop in this process, a process each, the environment's own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from pgcli.environments.ambient import Ambient, Own, seeded, spaces_of
from pgcli.environments.base import Base
from pgcli.environments.engine import Array, Step
from pgcli.environments.guard import FAULTS, InCopy, failing, failure, let_go, place, quiet, told
from pgcli.environments.info import names, picked
from pgcli.environments.looks import memories
from pgcli.environments.make import maker
from pgcli.environments.seeds import forgetting
from pgcli.environments.spaces import (
    checker,
    described,
)
from pgcli.errors import ConfigError
from pgcli.machine.randomness import DISTINCT, Seeding
from pgcli.settings.schema import EnvConfig

# How processes begin, whatever a launcher has set for its own: loky's cannot have shared memory.
METHOD = "fork" if sys.platform == "linux" else "spawn"
PICKED = "picked"  # the only entry of info that a worker sends: those that are asked for
STEP_TIMEOUT = 300.0  # seconds without an answer after which a worker counts as dead
LAST_BREATH = 0.1  # seconds for a process whose pipe is closed to end
SUCCESS = ("is_success", "success")  # by what an info tells it


class SyncEngine(Base):
    """A plain loop over environments in this process; idle slots cost nothing."""

    name = "sync"

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        slots: int | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """`slots`: of each seed; `numbers` [E]: of these among all of theirs."""
        make = self._another = maker(config)
        numbers = range(num_envs) if numbers is None else numbers
        self._envs: list[gym.Env[Any, Any]] = []
        with failing(config.id, "make"):
            for i in numbers:
                self._envs.append(make(i % (slots or num_envs)))
                self._lives()
        env = self._envs[0]
        super().__init__(config, num_envs, env.observation_space, env.action_space)
        self.numbers = numbers
        self._notices += memories(env)
        self.ambient: Ambient = Ambient([spaces_of(env) for env in self._envs])
        self._ended = np.zeros(num_envs, bool)
        self._obs: list[Any] = [None] * num_envs
        self._rew = np.zeros(num_envs)
        self._terminated, self._truncated = np.zeros((2, num_envs), bool)

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        self._begun(seeds)
        if self._batches == 1:
            self._notices += forgetting(self._another)
        self._ended[:] = False
        swap = self.ambient if self.ambient.active else None
        for i, (env, seed) in enumerate(zip(self._envs, seeds, strict=True)):
            self._lives()
            with failing(self.id, "reset", self._place(i)):
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
        entries = self._entries
        self._steps += 1
        first = self._batches == 1
        result: Any = None
        i = 0
        try:
            for i in active.nonzero()[0].tolist():
                self._lives()
                if swap:
                    swap.enter(i)
                if ended[i]:  # goes on with the slot's own generator
                    obs[i] = _observation(self._envs[i].reset())
                    rew[i], ended[i] = 0.0, False
                else:
                    result = None
                    result = self._envs[i].step(given[i])
                    if first and (fault := _fault(result)) is not None:
                        raise fault  # NumPy would take a text for true
                    obs[i], rew[i], terminated[i], truncated[i], info = result
                    if entries is not None:
                        entries.at(i, info)
                    ended[i] = terminated[i] or truncated[i]
                    if ended[i]:
                        self.success[i] = _success(info)
                if swap:
                    swap.leave(i)
        except FAULTS as error:
            wrong = error if result is None else _fault(result) or error
            raise failure(self.id, "step", wrong, self._place(i)) from error
        if entries is not None:
            entries.over(terminated | truncated)
        return self._encoded(obs, "step"), rew, terminated, truncated

    def _lives(self) -> None:
        """Called before a copy is, which may never return."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the environment says of itself."""
        return self._envs[0].metadata

    def frame(self, slot: int) -> Any:
        """The picture of a copy that was made to render."""
        with failing(self.id, "render", self._place(slot)):
            return self._envs[slot].render()

    def close(self) -> None:
        let_go(self.id, *(env.close for env in self._envs))


class VectorEngine(Base):
    """Any vector environment of Gymnasium's interface."""

    def __init__(self, config: EnvConfig, envs: Any) -> None:
        self._envs = envs
        super().__init__(
            config, envs.num_envs, envs.single_observation_space, envs.single_action_space
        )

    def reset(self, seeds: Sequence[int], seeding: Seeding = DISTINCT) -> Array:
        self._begun(seeds)
        with failing(self.id, "reset"):
            obs, _ = self._reset(seeds, seeding)
        return self._encoded(obs, "reset")

    def step(self, act: Array, active: Array) -> Step:
        self._steps += 1
        try:
            obs, rew, terminated, truncated, info = self._step(self.action.to_env(act))
        except FAULTS as error:
            raise failure(self.id, "step", error) from error
        self._succeeded(info, np.logical_or(terminated, truncated))
        if self._entries is not None:
            self._entries.all(info.get(PICKED), info.get(f"_{PICKED}"))
            self._entries.over(terminated | truncated)
        return self._encoded(obs, "step"), rew, terminated, truncated

    def close(self) -> None:
        let_go(self.id, self._envs.close)

    def _succeeded(self, info: Any, ended: Array) -> None:
        key = next((key for key in SUCCESS if isinstance(info, Mapping) and key in info), None)
        if key is not None:
            there = np.asarray(info.get(f"_{key}", True)) & ended
            told = np.asarray(info[key]).astype(bool)
            self.success = np.where(there, told, np.where(ended, np.nan, self.success))

    def _reset(self, seeds: Sequence[int], seeding: Seeding) -> Any:
        return self._envs.reset(seed=list(seeds))

    def _step(self, act: Array) -> Any:
        return self._envs.step(act)


class NativeEngine(VectorEngine):
    """The environment's own vector entry point: one generator, seeded by all slots' seeds."""

    name = "native"

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        kwargs = dict(config.kwargs)
        if config.max_episode_steps is not None:
            kwargs["max_episode_steps"] = config.max_episode_steps
        with failing(config.id, "make"), seeded(0):
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


class AsyncEngine(VectorEngine):
    """A process per environment, for those whose step takes milliseconds."""

    name = "async"

    def __init__(self, config: EnvConfig, num_envs: int, slots: int | None = None) -> None:
        make, kept, asked = maker(config), list[str](), names(config.info)
        with failing(config.id, "make"), quiet(), _outlived(lambda: "a copy"):
            copies = range(slots or num_envs)
            makers = [
                partial(
                    _in_worker, partial(make, copies[i % len(copies)]), i, os.getpid(), kept, asked
                )
                for i in range(num_envs)
            ]
            envs = AsyncVectorEnv(makers, copy=False, context=METHOD)
        super().__init__(config, envs)
        self._notices += kept

    def _reset(self, seeds: Sequence[int], seeding: Seeding) -> Any:
        with quiet(), _outlived(self._dead):  # a worker's error is raised as well
            reset = super()._reset(seeds, seeding)
            if self._batches == 1:
                self._notices += self._envs.get_attr("notices")[0]
            return reset

    def _step(self, act: Array) -> Any:
        with quiet(), _outlived(self._dead):
            self._envs.step_async(act)
            return self._envs.step_wait(timeout=STEP_TIMEOUT)

    def _dead(self) -> str:
        """The first copy whose process has ended, and how."""
        for slot, process in enumerate(self._envs.processes):
            process.join(LAST_BREATH)
            if process.exitcode is not None:
                return f"{self._place(slot)}, exit code {process.exitcode}"
        return "a copy"

    def close(self) -> None:
        if self._envs.closed:
            return
        # After a worker's death an orderly close() would raise, or wait for it for ever.
        self._envs.closed = True
        for process in self._envs.processes:
            process.terminate()
        for process in self._envs.processes:
            process.join()


@contextmanager
def _outlived(dead: Callable[[], str]) -> Iterator[None]:
    """A pipe that broke is a copy's process that ended; `dead` says which."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise InCopy(f"({dead()}): its process ended") from error


def _in_worker(
    make: Callable[[], gym.Env[Any, Any]],
    copy: int,
    parent: int,
    kept: list[str],
    asked: Sequence[str],
) -> gym.Env[Any, Any]:
    """Make the environment in a process of its own, where the run's signals are not handled.

    Gymnasium calls this once in the parent as well, to see the spaces: its handlers stay, and what
    is to be said of the environment goes into `kept`.
    """
    if os.getpid() == parent:
        env = make()
        kept += memories(env)
        return _Looked(env)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; pg ends it
    return _Worker(make(), copy, asked, make if copy == 0 else None)


class _Looked(gym.Wrapper[Any, Any, Any, Any]):
    """A copy whose spaces are all that is wanted of it."""

    def close(self) -> None:
        """What fails there is told where a run's are closed."""
        with suppress(*FAULTS):
            self.env.close()


class _Worker(gym.Wrapper[Any, Any, Any, Any]):
    """An environment alone in its process: errors say which copy it is, and what it gave.

    Of info only what is asked for, and success, goes through the pipe.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        copy: int,
        asked: Sequence[str],
        another: Callable[[], gym.Env[Any, Any]] | None = None,
    ) -> None:
        """another: makes one more copy, on which it is seen whether seeds are heeded."""
        super().__init__(env)
        self._asked, self._another = asked, another
        self.notices: list[str] = []
        self._copy, self._check = copy, checker(env.observation_space)
        self._spaces = spaces_of(env)
        self._own: Own | None = None
        self._seed: int | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """As the environment does; a seed is for the global generators too."""
        if self._another is not None:
            # No steps: one that ends the process is to be told as what it is.
            self.notices, self._another = forgetting(self._another, steps=0), None
        if seed is not None:
            self._seed, self._steps = seed, 0
            self._own = Own(seed, self._spaces)
            self._own.enter()
        return self._guarded(lambda: (_observation(self._anew(seed)), {}))

    def step(self, action: Any) -> Any:
        """As the environment does."""
        self._steps += 1
        return self._guarded(lambda: self._stepped(action))

    def _stepped(self, action: Any) -> Any:
        result = self.env.step(action)
        if (fault := _fault(result)) is not None:
            raise fault
        *four, info = result
        sent = {key: info[key] for key in SUCCESS if isinstance(info, Mapping) and key in info}
        if self._asked:
            sent[PICKED] = np.array(picked(info, self._asked))
        return *four, sent

    def _anew(self, seed: int | None) -> Any:
        return self.env.reset() if seed is None else self.env.reset(seed=seed)

    def _guarded(self, call: Callable[[], Any]) -> Any:
        if self._own is not None:
            self._own.enter_numpy()
        try:
            result = call()
            self._check(result[0])
        except FAULTS as error:
            where = place(self._copy, self._seed, self._steps)
            raise InCopy(f"({where}): {told(error)}") from error
        return result


def _success(info: Any) -> float:
    """What the info of an episode's last step says of success; NaN: nothing."""
    there = [key for key in SUCCESS if isinstance(info, Mapping) and key in info]
    return float(bool(info[there[0]])) if there else np.nan


def _fault(result: Any) -> TypeError | None:
    """What is wrong with the five things that a step gave, but for the observation."""
    if not isinstance(result, (tuple, list)) or len(result) != 5:
        count = f"{len(result)} things" if isinstance(result, (tuple, list)) else described(result)
        told = "(observation, reward, terminated, truncated, info)"
        return TypeError(f"it gave {count} instead of {told}")
    _, rew, terminated, truncated, _ = result
    given = {"reward": rew, "terminated": terminated, "truncated": truncated}
    for name, x in given.items():
        if x is None or isinstance(x, (str, bytes, list, tuple, dict)) or np.ndim(x) > 0:
            kind = "a number" if name == "reward" else "true or false"
            return TypeError(f"its {name} is {described(x)}, and must be {kind}")
    return None


def _observation(result: Any) -> Any:
    """The observation that a reset gave."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError(f"it gave {described(result)} instead of (observation, info)")
    return result[0]
