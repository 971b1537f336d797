"""The policies on episodes of their own, now and then, while they train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.play import WHILE_TRAINING, play
from pgcli.environments.choose import open_engine, slots_per_seed
from pgcli.environments.engine import Engine
from pgcli.errors import EnvironmentFailed, NonFinite
from pgcli.policies.actor import ACTORS
from pgcli.policies.policy import Policy
from pgcli.runs import tags
from pgcli.settings.schema import TrainConfig


class Evaluations:
    """Every `eval.every` iterations, and when a seed's budget is spent.

    Training sees nothing of it: other environments play, on random streams of their own. What did
    best of each of S seeds is kept, in `arrays()`, and so in every checkpoint.
    """

    def __init__(self, config: TrainConfig, seeds: Sequence[int], width: int) -> None:
        """width: columns of theta."""
        s = len(seeds)
        self._config, self._seeds = config.eval, list(seeds)
        self._env = replace(config.env, num_envs=None, info=[])
        self._engine: Engine | None = None
        self._iteration = np.zeros(s, np.int64)  # 0: not evaluated yet
        self._return = np.full(s, -np.inf)
        self._theta = np.zeros((s, width), np.float32)
        self._kept = config.eval.every is not None  # or a run that was evaluated goes on without

    def after(
        self, policy: Policy, theta: Tensor, ran: np.ndarray, done: np.ndarray, spent: np.ndarray
    ) -> dict[str, Tensor]:
        """Figures of the seeds at places `ran` [n] after `done` [n] iterations, [n] each.

        theta [n, P]; spent [n]: whether that was the last one. NaN where none is due; nothing
        where there are no evaluations.
        """
        every = self._config.every
        if every is None:
            return {}
        figures = {tag: np.full(len(ran), np.nan) for tag in tags.EVALUATED}
        due = ((done % every == 0) | spent).nonzero()[0]
        if len(due):
            self._evaluate(policy, theta[due], ran[due], done[due], due, figures)
        return {tag: torch.from_numpy(x) for tag, x in figures.items()}

    def _evaluate(
        self, policy: Policy, theta: Tensor, places: np.ndarray, done: np.ndarray,
        rows: np.ndarray, figures: dict[str, np.ndarray],
    ) -> None:  # fmt: skip
        seeds = [self._seeds[i] for i in places]
        slots = slots_per_seed(self._env, self._config.episodes)
        if self._engine is not None and self._engine.num_envs != len(seeds) * slots:
            self.close()
        if self._engine is None:
            self._engine = open_engine(self._env, len(seeds) * slots, slots)
        iteration = WHILE_TRAINING + done
        actor = ACTORS[self._config.acting](policy, theta, seeds, iteration, slots)
        try:
            played = play(self._engine, actor, self._config.episodes, seeds, iteration)
        except (EnvironmentFailed, NonFinite) as error:
            error.add(f"in the evaluation after iteration {int(done.max())}")
            raise
        returns = played.returns.mean(1)
        figures[tags.EVAL_RETURN][rows] = returns
        figures[tags.EVAL_LENGTH][rows] = played.length.mean(1)
        figures[tags.EVAL_SUCCESS][rows] = played.success.mean(1)
        better = returns > self._return[places]  # the first of equals stays
        self._return[places[better]] = returns[better]
        self._iteration[places[better]] = done[better]
        self._theta[places[better]] = theta.detach().cpu().numpy()[better]

    def arrays(self) -> dict[str, np.ndarray]:
        """The best policies so far, by name; nothing where nothing was ever evaluated."""
        if not self._kept:
            return {}
        kept = {"iteration": self._iteration, "return": self._return, "theta": self._theta}
        return {f"best/{name}": x.copy() for name, x in kept.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave; a run that was never evaluated begins now."""
        if "best/theta" in arrays:
            self._kept = True
            self._iteration = arrays["best/iteration"].copy()
            self._return = arrays["best/return"].copy()
            self._theta = arrays["best/theta"].copy()

    def close(self) -> None:
        """Let go of the environments."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
