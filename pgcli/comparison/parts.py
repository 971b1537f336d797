"""Where the variance of an estimate comes from, exactly, where the model is known.

Reveal s_0, a_0, s_1, a_1, ... one by one: the increments of E[g | history] are orthogonal, so

    tr Var(g) = E‖E[g|s_0] − E[g]‖²                       start
              + Σ_t E‖E[g|h_t, a_t] − E[g|h_t]‖²          actions
              + Σ_t E‖E[g|h_{t+1}] − E[g|h_t, a_t]‖²      dynamics.
A baseline b(h_t) changes only the actions' part,
since its term is known once a_t is and has mean zero given h_t; so start + dynamics is a floor that
no baseline goes below. (Off policy the mean is zero only under full importance weights.)

With z = (y, X) of `exact` and one step back z_t = B_t z_{t+1}, B affine in the score ψ of a
parameter, the estimate is u_tᵀ z_t given the past, where u_{t+1} = B_tᵀ u_t. Hence

    E[g | h_t] = u_tᵀ z̄_t(s_t),    E‖increments‖² = Σ_s ⟨E[u_t u_tᵀ; s_t = s], δδᵀ⟩,

where z̄ goes backward, E[u uᵀ; s] forward, and δ are the increments of z̄ in a state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.comparison.maps import spread
from pgcli.environments.tabular import Tabular
from pgcli.machine.cores import ordered

BLOCK = 2**23  # numbers in one table at once
TINY = 1e-300


class Parts(NamedTuple):
    """Of N · tr Var(ĝ), by what is revealed."""

    start: float  # the first state
    actions: float
    dynamics: float  # states and rewards that follow
    batch: float = 0.0  # what a baseline of the batch's other trajectories adds
    floor: float = math.nan  # under every baseline; NaN: a baseline would bias the estimate

    @property
    def total(self) -> float:
        """N · tr Var(ĝ)."""
        return self.start + self.actions + self.dynamics + self.batch


class Step(NamedTuple):
    """One step back, z = (one + ψ · scored) z', on every transition: [K, m, m] each."""

    one: Tensor
    scored: Tensor


def parts(
    model: Tabular, chance: Tensor, psi: Tensor, steps: Sequence[Step], end: Tensor, out: Tensor
) -> Parts:
    """Start, actions and dynamics of the estimate outᵀ z_0.

    chance [K]: of action, next state and reward, under who collects; psi [states · actions, P]: the
    scores; steps: one for each time; end [m]: z at the end of every trajectory; out [m, P].
    """
    cell, cells = model.state * model.actions + model.action, model.states * model.actions
    of_state = torch.arange(model.states).repeat_interleave(model.actions)
    acted = chance.new_zeros(cells).index_add(0, cell, chance)  # π(a|s)
    given = chance / acted[cell].clamp(min=TINY)
    forward = [_forward(model, chance, cell, step) for step in steps]

    def block(index: slice) -> Tensor:
        score, mine = psi[:, index], out[:, index]
        after = end[:, None].repeat(model.states + 1, 1, score.shape[1])

        def looked(step: Step, mean: Tensor) -> tuple[Tensor, Tensor]:
            """z on every transition, and what is expected of it in its cell."""
            z = mean[model.following]
            z = step.one @ z + score[cell, None] * (step.scored @ z)
            return z, z.new_zeros(cells, *z.shape[1:]).index_add(0, cell, given[:, None, None] * z)

        def over_actions(expected: Tensor) -> Tensor:
            mean = after.clone()  # of the terminal state, too
            mean[:-1] = 0
            return mean.index_add_(0, of_state, acted[:, None, None] * expected)

        means = [after]
        for step in reversed(steps):
            means.insert(0, over_actions(looked(step, means[0])[1]))
        first = (mine * means[0][:-1]).sum(1)  # [states, p]
        apart = first - (model.start[:, None] * first).sum(0)
        found = torch.zeros(3, dtype=torch.float64)
        found[0] = (model.start[:, None] * apart.square()).sum()
        u = model.start[:, None, None, None] * mine[:, None] * mine  # E[u uᵀ; s] [states, m, m, p]
        for step, now, then, moved in zip(steps, means, means[1:], forward, strict=False):
            z, expected = looked(step, then)
            found[1] += _mean_square(acted, u[of_state], expected - now[of_state])
            found[2] += _mean_square(chance, u[model.state], z - expected[cell])
            n, p = u[of_state].flatten(0, 2), score.repeat_interleave(u.shape[1] ** 2, 0)
            u = (moved[0] @ n + moved[1] @ (p * n) + moved[2] @ (p.square() * n)).view(
                -1, *u.shape[1:]
            )
            u = u[:-1]
        return found

    m = len(end)
    width = max(1, BLOCK // (m * max(len(chance) * m, (model.states + 1) * len(steps))))
    pieces = [slice(i, i + width) for i in range(0, psi.shape[1], width)]
    return Parts(*torch.stack(list(ordered(block, pieces))).sum(0).tolist())


def score_products(
    model: Tabular, chance: Tensor, psi: Tensor, steps: Sequence[Step], end: Tensor, out: Tensor
) -> Tensor:
    """E⟨outᵀ z_0, ψ_t⟩ [T]: given the past the estimate is u_tᵀ B_t z_{t+1}, and u_t, z̄ do.

    Arguments as of `parts`.
    """
    cell = model.state * model.actions + model.action

    def block(index: slice) -> Tensor:
        score, mine = psi[cell][:, None, index], out[:, index]  # [K, 1, p]
        means = [end[:, None].repeat(model.states + 1, 1, mine.shape[1])]
        for step in reversed(steps):
            z = means[0][model.following]
            z = chance[:, None, None] * (step.one @ z + score * (step.scored @ z))
            mean = means[0].clone()  # of the terminal state, too
            mean[:-1] = 0
            means.insert(0, mean.index_add_(0, model.state, z))
        u = model.start[:, None, None] * mine  # E[u_t; s] [states, m, p]
        found = []
        for step, then in zip(steps, means[1:], strict=True):
            z = then[model.following]
            z = step.one @ z + score * (step.scored @ z)
            now = chance[:, None, None] * u[model.state]
            found.append((now * z * score).sum())
            moved = step.one.mT @ now + score * (step.scored.mT @ now)
            u = u.new_zeros(model.states + 1, *u.shape[1:]).index_add_(0, model.following, moved)
            u = u[:-1]
        return torch.stack(found)

    width = max(1, BLOCK // (len(end) * max(len(chance), (model.states + 1) * len(steps))))
    pieces = [slice(i, i + width) for i in range(0, psi.shape[1], width)]
    return torch.stack(list(ordered(block, pieces))).sum(0)


def _forward(model: Tabular, chance: Tensor, cell: Tensor, step: Step) -> list[Tensor]:
    """E[u uᵀ; cell] ↦ E[u'u'ᵀ; s'] for u' = (one + ψ scored)ᵀ u, by the power of ψ; sparse."""
    shape = model.states * model.actions, model.states + 1

    def along(left: Tensor, right: Tensor) -> Tensor:
        return spread(chance[:, None, None] * left, right, model.following, cell, shape)

    one, scored = step
    mixed = along(one, scored) + along(scored, one)
    return [x.t().coalesce() for x in (along(one, one), mixed, along(scored, scored))]


def _mean_square(chance: Tensor, u: Tensor, x: Tensor) -> Tensor:
    """Σ chance ⟨u, xxᵀ⟩ for chance [n], u [n, m, m, p] and x [n, m, p]."""
    return torch.einsum("n,nijp,nip,njp->", chance, u, x, x)
