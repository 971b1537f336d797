"""What one collection returns: whole episodes, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import torch
from torch import Tensor


class Ended(NamedTuple):
    """The episodes that ended in a batch, whole."""

    returns: Tensor  # [S, N] float64: the sum of rewards, from their start
    length: Tensor  # [S, N] int64: steps, from their start; 0: the row is none


@dataclass(frozen=True)
class Batch:
    """Whole episodes of S seeds, or parts of them, padded to the longest of T steps.

    Rows of a seed that drew fewer episodes than N (only with `batch_steps`) have length 0.
    """

    obs: Tensor  # [S, N, T, D] float32, encoded; zero where padded
    act: Tensor  # [S, N, T] or [S, N, T, A] int64; [S, N, T, A] float32 for a Gaussian policy
    rew: Tensor  # [S, N, T] float64, as the environment gave it; zero where padded
    mask: Tensor  # [S, N, T] bool: True where the step is real
    terminated: Tensor  # [S, N] bool: ended in a terminal state
    truncated: Tensor  # [S, N] bool: cut by a time limit, and not terminated
    final_obs: Tensor  # [S, N, D] float32: the observation after the last step
    length: Tensor  # [S, N] int64
    discarded: Tensor = field(  # [S] int64: steps simulated beside those of the batch, and lost
        default_factory=lambda: torch.zeros((), dtype=torch.int64)
    )

    # [S, N, T, K] float64: the entries of info that `env.info` names, NaN where one is not there
    info: Tensor | None = None

    # Of parts of episodes, where slots play on from batch to batch; None: they are whole.
    unit: Tensor | None = None  # [S, N] int64: the slot that a part is of
    age: Tensor | None = None  # [S, N] int64: the episode's steps before it
    before: Tensor | None = None  # [S, N] float64: and its rewards
    cut: Tensor | None = None  # [S, N] bool: goes on in the next batch

    @property
    def steps(self) -> Tensor:
        """Environment steps in the batch per seed, [S]."""
        return self.length.sum(-1)

    @property
    def simulated(self) -> Tensor:
        """Environment steps that the batch has cost per seed, [S]."""
        return self.steps + self.discarded

    @property
    def episodes(self) -> Tensor:
        """Episodes per seed, [S]."""
        return (self.length > 0).sum(-1)

    @property
    def units(self) -> Tensor:
        """N of the estimate, [S]: how many are independent of each other, episodes or slots."""
        if self.unit is None:
            return self.episodes
        return self.unit.amax(1) + 1

    def ended(self) -> Ended:
        """What can be told of whole episodes."""
        returns = self.rew.sum(-1)
        if self.age is None or self.before is None or self.cut is None:
            return Ended(returns, self.length)
        there = (self.length > 0) & ~self.cut
        return Ended(self.before + returns, torch.where(there, self.age + self.length, 0))

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""

        def moved(x: Tensor) -> Tensor:
            if device.type != "cuda":
                return x.to(device)
            return x.pin_memory().to(device, non_blocking=True)  # copies pass beside each other

        return self._each(moved)

    def of_seeds(self, chosen: slice) -> Batch:
        """Some of the seeds."""
        return self._each(lambda x: x[chosen] if x.ndim else x)

    def part(self, chosen: slice | Tensor) -> Batch:
        """Some of the episodes of every seed."""
        return self._each(lambda x: x[:, chosen] if x.ndim > 1 else x)

    def apart(self, count: int) -> Batch:
        """The episodes of a single seed in so many batches, as if each were a seed's."""
        return self._each(
            lambda x: x[0].unflatten(0, (count, -1)) if x.ndim > 1 else x.expand(count)
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        each = {f.name: getattr(self, f.name) for f in fields(self)}
        there = {name: change(x) for name, x in each.items() if x is not None}
        return Batch(**there)
