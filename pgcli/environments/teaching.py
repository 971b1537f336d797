"""Environments that exist to show one thing, their exact model included."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

SURE, RISKY = 0, 1


class RareReward(gymnasium.Env[np.int64, np.int64]):
    """One choice: a reward of 1 for sure, or one of 10 in a fifth of all cases.

    The risky action is twice as good in the mean and mostly worse: whoever looks at ranks within a
    small batch, as standardised returns do, learns the wrong one. The model is exposed as in
    Gymnasium's toy-text environments.
    """

    PRIZE, CHANCE = 10.0, 0.2
    P = {  # noqa: RUF012
        0: {
            SURE: [(1.0, 1, 1.0, True)],
            RISKY: [(CHANCE, 1, PRIZE, True), (1 - CHANCE, 1, 0.0, True)],
        },
        1: {a: [(1.0, 1, 0.0, True)] for a in (SURE, RISKY)},
    }
    initial_state_distrib = np.array([1.0, 0.0])

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """The only state there is to choose in."""
        super().reset(seed=seed)
        return np.int64(0), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """The reward; the episode is over."""
        won = self.PRIZE * float(self.np_random.random() < self.CHANCE)
        return np.int64(1), 1.0 if action == SURE else won, True, False, {}


gymnasium.register("pg/RareReward-v0", f"{__name__}:RareReward", max_episode_steps=1)
