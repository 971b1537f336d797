"""Fisher-vector products from score factors: no autograd, no matrix.

    F = (1/N) Σ_n Σ_t E[∇log π(a|s_{n,t}) ∇log π(a|s_{n,t})ᵀ],

in the unit of ĝ, the mean over trajectories of sums over their steps. The expectation is over the
action (exact: the Hessian of the divergence on the batch's states), or the one action that was
taken stands for it (sampled; Kakade 2001, Schulman et al. 2015, appendix C).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.gradients.trajectory import chunks_of, over_time, taken
from pgcli.machine.cores import ordered
from pgcli.policies.policy import Factor, Policy

Piece = Callable[[Tensor], Tensor]  # v [S, P] to its product with the sum over some rows [S, P]


class Fisher:
    """F of one batch at theta [S, P]; each seed its own."""

    def __init__(
        self,
        policy: Policy,
        theta: Tensor,
        batch: Batch,
        *,
        sampled: bool,
        weights: Tensor | None = None,
    ) -> None:
        """`sampled`: the action that was taken stands for all. weights [S, N, T]: of its steps.

        In double precision: its inverse magnifies rounding by the spread of its eigenvalues.
        """
        self._policy, self._theta, self._episodes = policy, theta.double(), batch.units
        self._weights = batch.mask if weights is None else batch.mask * weights
        make = self._sampled if sampled else self._exact
        by_length = batch.length.argsort(dim=1, descending=True)
        chunks = list(chunks_of(batch.length, by_length))
        self._pieces: list[Piece] = list(ordered(partial(make, batch), chunks))

    def product(self, v: Tensor) -> Tensor:
        """F v [S, P] float64, for v [S, P]."""
        sums = ordered(lambda piece: piece(v.double()), self._pieces)
        return torch.stack(list(sums)).sum(0) / self._episodes.clamp(min=1).unsqueeze(1)

    def _exact(self, batch: Batch, index: Tensor) -> Piece:
        """One tangent pass gives z' = J v, the head M z', one backward pass Jᵀ M z'."""
        policy, theta = self._policy, self._theta
        obs, mask = taken(batch, index, batch.obs, self._weights)
        real = mask.flatten(1).unsqueeze(-1)
        trace = policy.trace(theta, obs.flatten(1, 2).to(theta.dtype))

        def piece(v: Tensor) -> Tensor:
            way = policy.net.tangent(theta, trace, v), policy.extra(v)
            out, free = policy.head.fisher(trace.out, policy.extra(theta), way)
            rows = free.expand(*out.shape[:-1], -1) * real
            return policy.pulled_back(theta, trace, out * real, rows)

        return piece

    def _sampled(self, batch: Batch, index: Tensor) -> Piece:
        """d = ⟨∇log π, v⟩ of each row, then the sum of d ∇log π over rows."""
        policy, theta = self._policy, self._theta
        obs, act, mask = taken(batch, index, batch.obs, batch.act, self._weights)
        rows = obs.flatten(1, 2).to(theta.dtype), act.flatten(1, 2)
        factors, _ = policy.score_factors(theta, *rows)
        real = mask.flatten(1)

        def piece(v: Tensor) -> Tensor:
            d = torch.stack([_along(factor, v) for factor in factors]).sum(0) * real  # [S, M]
            weighted = [f._replace(delta=f.delta * d.unsqueeze(-1)) for f in factors]
            return over_time(weighted, 1, policy.num_params).squeeze(1)

        return piece


def _along(factor: Factor, v: Tensor) -> Tensor:
    """⟨input ⊗ delta, v⟩ of each row, [S, M]."""
    part = v[:, factor.block]
    if factor.input is None:
        return (factor.delta @ part.unsqueeze(-1)).squeeze(-1)
    matrix = part.unflatten(1, (factor.input.shape[-1], -1))
    return ((factor.input @ matrix) * factor.delta).sum(-1)
