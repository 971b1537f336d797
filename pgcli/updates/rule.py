"""What an update rule is: from an estimate, which is measured before, to the next parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from numpy.typing import ArrayLike
from torch import Tensor


class Around(Protocol):
    """The objective around the parameters θ [S, P] at which a batch was estimated."""

    def surrogate(self, theta: Tensor) -> Tensor:
        """L(θ') = (1/N) Σ_n Σ_t (ρ'_t − 1) w_{n,t} [S], ρ' = π_θ'/π_θ: ∇L(θ) is the estimate ĝ.

        w are the final weights at θ: Φ less its baseline, times importance and γ^t. ValueError
        where no weight of a step makes that estimate (a baseline fitted on gradients).
        """
        ...

    def divergence(self, theta: Tensor) -> Tensor:
        """D(θ') [S]: KL(π_θ‖π_θ') in nats per state, the mean over the batch's states."""
        ...


class Rule(Protocol):
    """How S seeds step, each for itself; what it remembers belongs to their state."""

    def step(
        self, theta: Tensor, estimate: Tensor, progress: ArrayLike, around: Around
    ) -> Mapping[str, Tensor]:
        """Move theta [S, P], in place, by the estimate [S, P] of the gradient.

        `progress`: spent of the budget, of all seeds or of each [S]. Returns what it has to tell,
        `update/...` by seed [S].
        """
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What it remembers, by name, live: [S, ...] each."""
        ...
