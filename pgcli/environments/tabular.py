"""Environments whose model is known: Gymnasium's toy-text ones and any that expose `P` likewise."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor


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


def read_model(env: Any, horizon: int, reward_shift: float = 0.0) -> Tabular | None:
    """The model of an environment; None where it does not expose one.

    `env.unwrapped.P[s][a]` lists (probability, next state, reward, terminated), and
    `initial_state_distrib` the first state's distribution, as Gymnasium's toy-text ones do.
    Raises ValueError where these contradict the spaces or are no distributions.
    """
    inner = env.unwrapped
    table, start = getattr(inner, "P", None), getattr(inner, "initial_state_distrib", None)
    spaces_fit = all(
        isinstance(space, spaces.Discrete) and space.start == 0
        for space in (env.observation_space, env.action_space)
    )
    if table is None or start is None or not spaces_fit:
        return None
    states, actions = int(env.observation_space.n), int(env.action_space.n)
    found: dict[tuple[int, int, int, float], float] = defaultdict(float)
    for s in range(states):
        for a in range(actions):
            outcomes = table[s][a]
            total = sum(float(p) for p, *_ in outcomes)
            if abs(total - 1) > 1e-6:
                raise ValueError(f"P[{s}][{a}] sums to {total}")
            for p, following, reward, terminated in outcomes:
                if p > 0:
                    end = states if terminated else int(following)
                    found[s, a, end, float(reward) + reward_shift] += float(p) / total
    first = np.asarray(start, np.float64)
    if first.shape != (states,) or abs(first.sum() - 1) > 1e-6:
        raise ValueError(f"initial_state_distrib is no distribution over {states} states")
    *places, rewards = zip(*found, strict=True)
    state, action, following = (torch.tensor(column, dtype=torch.int64) for column in places)
    reward = torch.tensor(rewards, dtype=torch.float64)  # by itself torch takes float32
    probability = torch.tensor(list(found.values()), dtype=torch.float64)
    begin = torch.from_numpy(first / first.sum())
    return Tabular(begin, state, action, following, probability, reward, actions, horizon)
