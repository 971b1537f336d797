"""Compatible features: the advantage that is linear in ψ(s, a) = ∇log π(a|s).

    w = argmin Σ_t E(Q_t − V_t − ψ_tᵀw)²,    F w = E Σ_t ψ_t Q_t

So Φ = ψᵀw has the mean that Q has, and w is the natural gradient (Sutton et al. 2000, theorem 2;
Kakade 2001; Peters & Schaal 2008). Fitted on the very batch that it serves, ψᵀw without a ridge is
the estimate from which it came, at more cost: it is fitted elsewhere, and is biased by what a
finite fit and the ridge make of w.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.gradients.fisher import Fisher
from pgcli.gradients.trajectory import gradient_sums, row_by_row
from pgcli.policies.policy import Policy
from pgcli.updates.natural import conjugate_gradients

ITERATIONS = 10  # of conjugate gradients: what more of them add is of the fit's own noise


def least_squares(
    policy: Policy,
    theta: Tensor,
    batch: Batch,
    target: Tensor,
    *,
    ridge: float,
    weights: Tensor | None = None,
    iterations: int = ITERATIONS,
) -> Tensor:
    """w [S, P] float64 of least squares of target [S, N, T] on ψ, at theta [S, P].

    weights [S, N, T]: of the steps, 1 where none are given. `ridge`: added to the diagonal of the
    Fisher matrix of one step. The least of all solutions where there are many; 0 without episodes.
    """
    theta = theta.double()
    fisher = Fisher(policy, theta, batch, sampled=True, weights=weights)
    weighted = target.double() * batch.mask
    weighted = weighted if weights is None else weighted * weights
    everyone = batch.length.shape[1]
    sums = gradient_sums(policy, theta, batch, weighted, group=everyone)
    episodes = batch.units.clamp(min=1).unsqueeze(1)
    added = ridge * batch.steps.unsqueeze(1) / episodes

    def product(v: Tensor) -> Tensor:
        return fisher.product(v) + added * v

    return conjugate_gradients(product, sums.gradient / episodes, iterations).x


def advantages(policy: Policy, theta: Tensor, batch: Batch, w: Tensor) -> Tensor:
    """ψ(s_t, a_t)ᵀw [S, N, T] float64 at theta [S, P], for w [S, P]; zero where padded."""
    theta, w = theta.double(), w.double()

    return row_by_row(lambda obs, act: policy.along(theta, obs.to(theta), act, w), batch)


def cross_fitted(
    policy: Policy,
    theta: Tensor,
    batch: Batch,
    target: Tensor,
    *,
    ridge: float,
    weights: Tensor | None = None,
) -> Tensor:
    """ψᵀw [S, N, T], each half of the episodes by the w of the other half.

    Every second episode is of one half, so that both have seen as many slots and starts.
    """
    found = torch.zeros(batch.mask.shape, dtype=torch.float64, device=theta.device)
    if batch.mask.shape[1] < 2:
        return found  # no other half: as a baseline of the others is 0 there
    halves = [slice(0, None, 2), slice(1, None, 2)]
    for own, other in (halves, halves[::-1]):
        given = None if weights is None else weights[:, other]
        elsewhere = batch.part(other)
        w = least_squares(policy, theta, elsewhere, target[:, other], ridge=ridge, weights=given)
        found[:, own] = advantages(policy, theta, batch.part(own), w)
    return found
