"""Environments whose model is known: Gymnasium's toy-text ones and any that expose `P` likewise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pgcli.environments.looks import layers
from pgcli.environments.make import maker, time_limit
from pgcli.errors import EnvironmentFailed
from pgcli.settings.schema import Engine as EngineName
from pgcli.settings.schema import EnvConfig

T = TypeVar("T")
# Wrappers that change nothing that a model says.
PASSING = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)


@dataclass(frozen=True)
class Tabular:
    """A finite decision process with a time limit; the last state index is the terminal one.

    K transitions (s, a) → s' of positive probability, one entry each per distinct reward.
    """

    start: Tensor  # [states] float64: distribution of the first state
    state: Tensor  # [K] int64
    action: Tensor  # [K] int64
    following: Tensor  # [K] int64; `states` where the episode terminates
    probability: Tensor  # [K] float64: of s' and this reward, given (s, a)
    reward: Tensor  # [K] float64
    actions: int
    horizon: int  # steps after which an episode is cut

    @property
    def states(self) -> int:
        """How many there are, the terminal one not counted."""
        return len(self.start)

    def shifted(self, by: float) -> Tabular:
        """With so much added to every reward."""
        return replace(self, reward=self.reward + by)

    @property
    def observations(self) -> Tensor:
        """What is seen in each state, [states, D]."""
        return torch.eye(self.states)

    @property
    def choices(self) -> Tensor:
        """The actions of each state, [states, actions, ...]."""
        return torch.arange(self.actions).expand(self.states, -1)


def read_model(env: gym.Env[Any, Any], horizon: int) -> Tabular | None:
    """The model of an environment; None where it does not expose one.

    `P[s][a]` lists (probability, next state, reward, terminated), and `initial_state_distrib` the
    first state's distribution, as Gymnasium's toy-text ones do; both of the outermost layer that
    has a P. Raises ValueError where these contradict the spaces or are no distributions.
    """
    layer = _speaker(env)
    if not _has_model(layer):
        return None
    table, start = (_of(layer, name) for name in ("P", "initial_state_distrib"))
    seen, acted = env.observation_space, env.action_space
    if table is None or start is None:
        return None
    if not (isinstance(seen, spaces.Discrete) and isinstance(acted, spaces.Discrete)):
        return None
    if seen.start != 0 or acted.start != 0:
        return None
    states, actions = int(seen.n), int(acted.n)
    transitions: dict[tuple[int, int, int, float], float] = defaultdict(float)
    for s in range(states):
        for a in range(actions):
            outcomes = table[s][a]
            total = sum(float(p) for p, *_ in outcomes)
            if abs(total - 1) > 1e-6:
                raise ValueError(f"P[{s}][{a}] sums to {total}")
            for p, following, reward, terminated in outcomes:
                if p > 0:
                    end = states if terminated else int(following)
                    transitions[s, a, end, float(reward)] += float(p) / total
    first = np.asarray(start, np.float64)
    if first.shape != (states,) or abs(first.sum() - 1) > 1e-6:
        raise ValueError(f"initial_state_distrib is no distribution over {states} states")
    *places, rewards = zip(*transitions, strict=True)
    state, action, following = (torch.tensor(column, dtype=torch.int64) for column in places)
    reward = torch.tensor(rewards, dtype=torch.float64)  # by itself torch takes float32
    probability = torch.tensor(list(transitions.values()), dtype=torch.float64)
    begin = torch.from_numpy(first / first.sum())
    return Tabular(begin, state, action, following, probability, reward, actions, horizon)


def tabular_model(config: EnvConfig) -> Tabular | None:
    """The environment's table, where it exposes one; else None. See `asked`."""
    return asked(config, read_model)


def asked(config: EnvConfig, read: Callable[[gym.Env[Any, Any], int], T]) -> T | None:
    """What `read` finds in the environment, given its time limit.

    Raises EnvironmentFailed where the model contradicts itself.
    """
    if config.engine is EngineName["envpool"]:
        return None
    env = maker(config)()
    try:
        return read(env, time_limit(config))
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


def hidden_by(env: gym.Env[Any, Any]) -> str | None:
    """The wrapper because of which the P further in says nothing of what is seen out here."""
    layer = _speaker(env)
    if _has_model(layer) or not _has_model(env.unwrapped):
        return None
    return type(layer).__name__


def _speaker(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The outermost layer with a P, or that may change what an inner one says."""
    for layer in layers(env):
        if _has_model(layer) or (isinstance(layer, gym.Wrapper) and type(layer) not in PASSING):
            break
    return layer


def _has_model(layer: gym.Env[Any, Any]) -> bool:
    """Whether it has a P of its own: a wrapper may pass the question on."""
    own = "P" in vars(layer) or any("P" in vars(kind) for kind in type(layer).__mro__)
    return own or (not isinstance(layer, gym.Wrapper) and hasattr(layer, "P"))


def _of(layer: gym.Env[Any, Any], name: str) -> Any:
    """An attribute of a layer, or of one within; None where there is none."""
    return layer.get_wrapper_attr(name) if layer.has_wrapper_attr(name) else None
