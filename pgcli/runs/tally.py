"""What a run has done so far, and how much of its budget is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pgcli.config.schema import TrainConfig

RECENT = 100  # episodes in the running mean return


@dataclass
class Tally:
    """Counts of S seeds; all of it fits in `arrays()`."""

    iteration: int  # iterations done
    env_steps: np.ndarray  # [S] int64
    returns: np.ndarray  # [S, RECENT] float64: the newest episodes' returns, NaN where none yet

    @classmethod
    def start(cls, seeds: int) -> Tally:
        """Nothing done yet."""
        return cls(0, np.zeros(seeds, np.int64), np.full((seeds, RECENT), np.nan))

    def add(self, returns: np.ndarray, length: np.ndarray) -> None:
        """Count an iteration: returns and lengths [S, N] of its episodes, length 0 for none."""
        self.iteration += 1
        self.env_steps = self.env_steps + length.sum(1)
        for row, new, steps in zip(self.returns, returns, length, strict=True):
            row[:] = np.concatenate([row, new[steps > 0]])[-RECENT:]

    @property
    def mean_return(self) -> np.ndarray:
        """Mean return of the last 100 training episodes (of those there are), [S]."""
        seen = ~np.isnan(self.returns)
        return np.where(seen, self.returns, 0.0).sum(1) / np.maximum(seen.sum(1), 1)

    def spent(self, config: TrainConfig) -> float:
        """The fraction of the budget that is used, at most 1; whichever limit is nearer.

        Steps are counted by the seed that has fewest, so every seed gets what it was promised.
        """
        spent = 0.0
        if config.iterations is not None:
            spent = self.iteration / config.iterations
        if config.total_steps is not None:
            spent = max(spent, float(self.env_steps.min()) / config.total_steps)
        return min(spent, 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name."""
        return {
            "tally/iteration": np.array(self.iteration),
            "tally/env_steps": self.env_steps.copy(),
            "tally/returns": self.returns.copy(),
        }

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave."""
        self.iteration = int(arrays["tally/iteration"])
        self.env_steps = arrays["tally/env_steps"].copy()
        self.returns = arrays["tally/returns"].copy()
