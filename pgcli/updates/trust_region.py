"""TRPO: a natural step that a line search decides on (Schulman et al. 2015, appendix C)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgcli.settings.schema import FisherKind
from pgcli.updates.natural import direction, length_of, notes, told
from pgcli.updates.rule import Around, Start, register


@register("trust_region", surrogate=True, rated=lambda config: False, notes=notes)
class TrustRegion:
    """The longest of β d, shrink · β d, shrink² · β d, ... that improves L and keeps D ≤ delta.

    Each seed for itself; where none does, θ stays. See `rule.Rule`.
    """

    def __init__(
        self,
        start: Start,
        *,
        delta: float,
        fisher: FisherKind,
        damping: float,
        cg_iterations: int,
        cg_tolerance: float,
        backtracks: int,
        shrink: float,
    ) -> None:
        self._delta, self._backtracks, self._shrink = delta, backtracks, shrink
        self._solver = fisher, damping, cg_iterations, cg_tolerance

    def step(
        self, theta: Tensor, estimate: Tensor, progress: ArrayLike, around: Around
    ) -> Mapping[str, Tensor]:
        """One step or none."""
        natural = direction(estimate, around, *self._solver)
        longest = length_of(self._delta, natural, around).unsqueeze(1) * natural.way
        old, searching = theta.clone(), (longest != 0).any(1)
        accepted = torch.zeros_like(searching)
        tried = accepted.to(torch.int64)
        for k in range(self._backtracks + 1):
            if not searching.any():
                break
            # As it will be kept: the rounding of θ's type included.
            further = old + (self._shrink**k * longest).to(old)
            trial = torch.where(searching.unsqueeze(1), further, old)
            gain, divergence = around.surrogate(trial), around.divergence(trial)
            good = searching & (gain > 0) & (divergence <= self._delta)
            theta.copy_(torch.where(good.unsqueeze(1), trial, theta))
            accepted |= good
            searching = searching & ~good
            tried += searching
        return {
            **told(natural, (theta - old).double(), estimate, around, theta),
            "backtracks": tried,
            "accepted": accepted.double(),
        }

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is remembered."""
        return {}
