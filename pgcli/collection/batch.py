"""What one collection returns: whole episodes, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Whole episodes of S seeds, padded to the longest of T steps.

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
        return Batch(**{f.name: change(getattr(self, f.name)) for f in fields(self)})
