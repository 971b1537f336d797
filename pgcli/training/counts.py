"""What a run has done so far, and how much of its budget is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pgcli.runs.tags import RECENT
from pgcli.settings.schema import TrainConfig

ALL = slice(None)
FEW = 10  # iterations after which it is time to say that nothing has been seen


@dataclass
class Counters:
    """Counts of S seeds; all of it fits in `arrays()`."""

    iteration: int  # turns of the loop: in each, every seed with budget left has an iteration
    done: np.ndarray  # [S] int64: iterations of each seed
    env_steps: np.ndarray  # [S] int64: simulated
    returns: np.ndarray  # [S, RECENT] float64: the newest episodes' returns, NaN where none yet
    length: np.ndarray  # [S] float64: mean length of the newest batch's episodes, 0: none yet
    # As a run of format 1 counts: only the steps of its batches, and all seeds by the one that has
    # fewest.
    older: bool = False
    every_slot: bool = False  # an earlier run plays with all its slots

    @classmethod
    def start(cls, seeds: int) -> Counters:
        """Nothing done yet."""
        done, steps = np.zeros((2, seeds), np.int64)
        return cls(0, done, steps, np.full((seeds, RECENT), np.nan), np.zeros(seeds))

    def add(
        self,
        returns: np.ndarray,
        length: np.ndarray,
        simulated: np.ndarray | None = None,
        ran: np.ndarray | slice = ALL,
    ) -> None:
        """Count an iteration of the n seeds that `ran`.

        Returns and lengths [n, N] of the episodes that ended, length 0 for none; steps that it
        has cost [n], None: theirs.
        """
        self.iteration += 1
        self.done[ran] += 1
        own = length.sum(1)
        self.env_steps[ran] += own if self.older or simulated is None else simulated
        self.length[ran] = own / (length > 0).sum(1).clip(1)
        places = np.arange(len(self.done))[ran]
        for i, new, steps in zip(places, returns, length, strict=True):
            self.returns[i] = np.concatenate([self.returns[i], new[steps > 0]])[-RECENT:]

    @property
    def mean_return(self) -> np.ndarray:
        """Mean return of the last 100 training episodes (of those there are; NaN: none), [S]."""
        seen = ~np.isnan(self.returns)
        count, total = seen.sum(1), np.where(seen, self.returns, 0.0).sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def alike(self) -> str | None:
        """That the last 100 episodes of seeds gave one and the same return each; None: no seed's.

        Told after a few iterations: a policy that sees no difference has nothing to learn from.
        """
        if self.iteration != FEW:
            return None
        whole = ~np.isnan(self.returns).any(1)
        same = whole & (self.returns == self.returns[:, :1]).all(1)
        if not same.any():
            return None
        who = "" if same.all() else f" of {same.sum()} of {len(same)} seeds"
        return (
            f"after {FEW} iterations the last {RECENT} episodes{who} all gave the same return, "
            f"{self.returns[same][0, 0]:g}: where nothing differs, nothing is learned. More may be "
            "seen with a larger batch_size, policy.log_std, policy.entropy_coef or "
            "env.max_episode_steps"
        )

    def spent(self, config: TrainConfig) -> np.ndarray:
        """The fraction of its budget that each seed has used, at most 1, [S].

        By whichever limit is nearer.
        """
        spent = np.zeros(len(self.done))
        if config.iterations is not None:
            spent = self.done / config.iterations
        if config.total_steps is not None:
            steps = self.env_steps.min() if self.older else self.env_steps
            spent = np.maximum(spent, steps / config.total_steps)
        return np.minimum(spent, 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name."""
        return {
            "tally/iteration": np.array(self.iteration),
            "tally/done": self.done.copy(),
            "tally/env_steps": self.env_steps.copy(),
            "tally/returns": self.returns.copy(),
            **({} if self.every_slot else {"tally/length": self.length.copy()}),
        }

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave."""
        self.iteration = int(arrays["tally/iteration"])
        self.env_steps = arrays["tally/env_steps"].copy()
        every = np.full(len(self.env_steps), self.iteration)  # where none has been told apart
        self.done = arrays.get("tally/done", every).copy()
        self.returns = arrays["tally/returns"].copy()
        self.every_slot = "tally/length" not in arrays
        self.length = arrays.get("tally/length", self.length).copy()
