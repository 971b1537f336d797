"""Running mean and variance of what a policy has seen, of S agents side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

EPS = 1e-8  # added to a variance
ROUNDING = 1e-14  # a variance below this, relative to the mean's square, is none


class Moments:
    """Mean and variance of rows [S, M, D], each seed's own, whatever batches they came in.

    In double precision, merged pairwise (Chan, Golub & LeVeque 1979, equation 2.1): one batch of
    all rows gives the same as any parts of it, but for rounding.
    """

    def __init__(self, seeds: int, size: int, device: torch.device | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(seeds, *shape, dtype=torch.float64, device=device)

        self.count, self.mean, self.square = zeros(), zeros(size), zeros(size)

    def merge(self, x: Tensor, mask: Tensor) -> None:
        """Take in the rows of x [S, ..., D] that mask [S, ...] marks."""
        rows, real = x.flatten(1, -2).double(), mask.flatten(1).unsqueeze(-1)
        rows = torch.where(real, rows, 0.0)
        count = real.sum((1, 2)).double()
        mean = rows.sum(1) / count.clamp(min=1).unsqueeze(-1)
        square = (torch.where(real, rows - mean.unsqueeze(1), 0.0)).square().sum(1)
        total = (self.count + count).clamp(min=1)
        apart, share = mean - self.mean, (count / total).unsqueeze(-1)
        self.square += square + apart.square() * self.count.unsqueeze(-1) * share
        self.mean += apart * share
        self.count += count

    @property
    def scale(self) -> Tensor:
        """1/√(variance + EPS) [S, D]; 1 where nothing has changed yet.

        What is seen for the first time counts as it is, not as 1/√EPS.
        """
        variance = self.square / self.count.clamp(min=1).unsqueeze(-1)
        constant = variance <= ROUNDING * self.mean.square()
        return torch.where(constant, 1.0, (variance + EPS).rsqrt())

    def state(self) -> Mapping[str, Tensor]:
        """The tensors that `merge` changes; live, not copies."""
        return {"count": self.count, "mean": self.mean, "square": self.square}
