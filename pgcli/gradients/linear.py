"""A linear Gaussian policy in a linear model: moments in closed form, and a table that is exact.

With a = K s + k + σ ε all that estimators of ∇J ask for are polynomials in s of degree 6 at most:
E[Y|s], E[X|s], E[Y²|s], E[XY|s], E[X²|s] for returns Y and estimates X, whatever the dimension.
A polynomial of that degree is known by its values at as many nodes as it has coefficients, what is
expected of it over ε by Gauss-Hermite's nodes. So the programmes for tables serve, with nodes for
states, with quadrature for actions, and weights of interpolation for probabilities: these sum to 1,
some are negative, and whatever is expected of such a polynomial is exact. Where the states of
different times are of different size, each time has nodes of its own: a polynomial of degree 6
that is told by its values a thousand deviations away would be rounding only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgcli.environments.linear import Linear
from pgcli.environments.tabular import Tabular
from pgcli.policies.heads import Gaussian
from pgcli.policies.policy import Policy

DEGREE = 6  # of the polynomials
OF_NOISE = 5  # nodes per action: exact to degree 9, and squared scores of log σ have 8
OF_STATE = 4  # nodes per dimension of w: exact to degree 7
REACH = 2.5  # deviations of the state that the nodes span
ALIKE = 8.0  # as far as sizes of states may differ that share their nodes
TINY = 1e-300
WANTED = (  # where `is_linear` does not hold
    "a linear model serves a linear policy: policy=linear, its noise the same in every state, "
    "nothing clipped"
)


class Law(NamedTuple):
    """a = K s + k + σ ε; differentiable."""

    K: Tensor  # [m, d] float64
    k: Tensor  # [m]
    std: Tensor  # [m]


def is_linear(policy: Policy) -> bool:
    """Whether its actions are linear in what it sees, with noise of its own."""
    head, seen = policy.head, policy.normalized
    if not isinstance(head, Gaussian) or head.state_std or any(head.squashed):
        return False
    return len(policy.net.layers) == 1 and (seen is None or seen.clip is None)


def law(policy: Policy, theta: Tensor) -> Law:
    """Of a linear policy at theta [1, P] float64."""
    inputs = policy.net.sizes[0]
    corners = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).to(theta)
    out, extra = policy.distribution(theta, corners[None])
    assert isinstance(policy.head, Gaussian)
    mean, log_std = (policy.head.parameters(out, extra)[key][0] for key in ("mean", "log_std"))
    return Law((mean[1:] - mean[0]).T, mean[0], log_std[0].exp())


def expected_return(model: Linear, act: Law, gamma: float) -> Tensor:
    """J_γ, by the mean and the covariance of s_t; differentiable in the law."""
    total, spread = model.A.new_zeros(()), act.std.square().diag()
    for t, (mean, cov) in enumerate(_visited(model, act)):
        of_action = act.K @ cov @ act.K.T + spread
        reward = model.reward(mean, act.K @ mean + act.k)
        total = total + gamma**t * (reward - (model.Q * cov).sum() - (model.R * of_action).sum())
    return total


def _visited(model: Linear, act: Law) -> Iterator[tuple[Tensor, Tensor]]:
    """The mean [d] and the covariance [d, d] of the state at times [0, T)."""
    mean, cov = model.start_mean, model.start_std.square().diag()
    moves, noise = _moved(model, act)
    for _ in range(model.horizon):
        yield mean, cov
        mean = moves @ mean + model.B @ act.k
        cov = moves @ cov @ moves.T + noise


def _moved(model: Linear, act: Law) -> tuple[Tensor, Tensor]:
    """What one step makes of the state, A + BK, and the covariance that it adds."""
    spread = model.B @ act.std.square().diag() @ model.B.T
    return model.A + model.B @ act.K, spread + model.noise.square().diag()


class Values(NamedTuple):
    """V_t(s) = sᵀP_t s + p_tᵀs + c_t at times [0, T]."""

    P: Tensor  # [T + 1, d, d]
    p: Tensor  # [T + 1, d]
    c: Tensor  # [T + 1]

    def at(self, time: Tensor, state: Tensor) -> Tensor:
        """Of states [..., d] at times that broadcast to [...]."""
        square = torch.einsum("...i,...ij,...j->...", state, self.P[time], state)
        return square + (self.p[time] * state).sum(-1) + self.c[time]

    def expected(self, time: Tensor, mean: Tensor, model: Linear) -> Tensor:
        """E V_t(mean + w), w the noise of the model."""
        spread = (self.P.diagonal(dim1=-2, dim2=-1) * model.noise.square()).sum(-1)
        return self.at(time, mean) + spread[time]


def values_of(model: Linear, act: Law, gamma: float) -> Values:
    """Backward from V_T = 0."""
    P, p, c = torch.zeros_like(model.A), torch.zeros_like(model.noise), model.A.new_zeros(())
    found = [(P, p, c)]
    moves, noise = _moved(model, act)
    drift, spread = model.B @ act.k, act.std.square().diag()
    for _ in range(model.horizon):
        after = drift @ P @ drift + p @ drift + c + (P * noise).sum()
        own = model.shift - act.k @ model.R @ act.k - (model.R * spread).sum()
        p = -2 * act.K.T @ model.R @ act.k + gamma * moves.T @ (2 * P @ drift + p)
        P = -model.Q - act.K.T @ model.R @ act.K + gamma * moves.T @ P @ moves
        c = own + gamma * after
        found.insert(0, (P, p, c))
    return Values(*(torch.stack(x) for x in zip(*found, strict=True)))


@dataclass(frozen=True)
class Nodes(Tabular):
    """A linear model as a table of nodes, exact for polynomials of the state."""

    place: Tensor  # [states, d]: the nodes
    act: Tensor  # [states, actions, m]

    @property
    def observations(self) -> Tensor:
        """The nodes."""
        return self.place

    @property
    def choices(self) -> Tensor:
        """The actions of the quadrature at each node."""
        return self.act


class Box(NamedTuple):
    """Where the states of a time are."""

    centre: Tensor  # [d]
    half: Tensor  # [d]: how far they reach


def size(model: Linear, policy: Policy, theta: Tensor) -> int:
    """How many transitions its table has."""
    d, m = model.B.shape
    boxes = len(_boxes(model, law(policy, theta.detach().double())))
    return int(boxes * math.comb(d + DEGREE, d) ** 2 * OF_NOISE**m)


def quadrature(model: Linear, policy: Policy, theta: Tensor) -> tuple[Nodes, Tensor]:
    """The nodes around the states that the policy visits, and π of each action [n, actions]."""
    act = Law(*(x.detach() for x in law(policy, theta)))
    boxes = _boxes(model, act)
    unit = _leja(DEGREE + 1)[torch.tensor(_exponents(len(model.A)))]  # [n, d], in every box
    inverse = torch.linalg.inv(_powers(unit))  # from values at the nodes to coefficients
    noise, weights = _gauss(OF_NOISE, len(model.R))
    n, q, times = len(unit), len(weights), len(boxes)

    place = torch.stack([box.centre + box.half * unit for box in boxes])  # [times, n, d]
    action = (place @ act.K.T + act.k).unsqueeze(2) + act.std * noise  # [times, n, q, m]
    here = place.unsqueeze(2).expand(-1, -1, q, -1)
    then = [0] if times == 1 else list(range(1, times + 1))  # which box, of the last one none
    chance = [
        _expected(model, boxes[min(k, times - 1)], mean) @ inverse
        for k, mean in zip(then, model.following(here, action), strict=True)
    ]
    cell = torch.arange(times * n * q).repeat_interleave(n)  # of each transition
    following = torch.tensor(then).repeat_interleave(n * q * n) * n + torch.arange(n).repeat(
        times * n * q
    )
    points, of_start = _gauss(OF_STATE, len(model.A))
    first = (model.start_mean + model.start_std * points - boxes[0].centre) / boxes[0].half
    start = torch.zeros(times * n, dtype=torch.float64)
    start[:n] = of_start @ (_powers(first) @ inverse)
    nodes = Nodes(
        start=start,
        state=cell // q,
        action=cell % q,
        following=following.clamp(max=times * n),
        probability=torch.stack(chance).flatten(),
        reward=model.reward(here, action).flatten().repeat_interleave(n),
        actions=q,
        horizon=model.horizon,
        place=place.flatten(0, 1),
        act=action.flatten(0, 1),
    )
    return nodes, weights.expand(len(start), -1)


def _expected(model: Linear, box: Box, mean: Tensor) -> Tensor:
    """What is expected of a box's basis at mean + w, w the model's noise, [..., d] to [..., n]."""
    points, weights = _gauss(OF_STATE, len(model.noise))
    total: Tensor | float = 0.0
    for point, weight in zip(points, weights, strict=True):
        total = total + weight * _powers((mean + model.noise * point - box.centre) / box.half)
    assert isinstance(total, Tensor)
    return total


def _boxes(model: Linear, act: Law) -> list[Box]:
    """One for all times, where the states' sizes are alike; else one for each."""
    visited = list(_visited(model, act))
    mean = torch.stack([mean for mean, _ in visited])  # [T, d]
    away = REACH * torch.stack([cov.diagonal().sqrt() for _, cov in visited])
    lows, highs = mean - away, mean + away
    whole = _box(lows.amin(0), highs.amax(0))
    each = [_box(*both) for both in zip(lows, highs, strict=True)]
    large = torch.maximum(lows.abs(), highs.abs())  # [T, d]
    large = (large / large.amax(0).clamp(min=TINY)).amax(1)
    return [whole] if bool((ALIKE * large >= 1).all()) else each


def _box(low: Tensor, high: Tensor) -> Box:
    half = (high - low) / 2
    return Box((high + low) / 2, torch.where(half > 0, half, 1.0))


def _exponents(d: int) -> list[tuple[int, ...]]:
    """Of all monomials of d variables up to DEGREE."""
    every = itertools.product(range(DEGREE + 1), repeat=d)
    return [one for one in every if sum(one) <= DEGREE]


def _powers(x: Tensor) -> Tensor:
    """Products of Chebyshev's polynomials at points [..., d], those up to DEGREE: [..., n]."""
    each = [torch.ones_like(x), x]
    while len(each) <= DEGREE:
        each.append(2 * x * each[-1] - each[-2])
    table = torch.stack(each, -1)  # [..., d, DEGREE + 1]
    of = torch.tensor(_exponents(x.shape[-1]))  # [n, d]
    found = table[..., 0, of[:, 0]]
    for i in range(1, x.shape[-1]):
        found = found * table[..., i, of[:, i]]
    return found


def _leja(count: int) -> Tensor:
    """So many of Chebyshev's points in [-1, 1], in the order in which the first few are good, too.

    A grid of those whose numbers add up to less than `count` is then unisolvent and well spread
    (Leja 1957).
    """
    points = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    order = [int(np.abs(points).argmin())]
    while len(order) < count:
        away = np.abs(points[:, None] - points[order]).prod(1)
        order.append(int(away.argmax()))
    return torch.from_numpy(points[order])


def _gauss(count: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """Nodes [count^dimensions, dimensions] and weights for a standard normal vector."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    axes = [torch.from_numpy(x)] * dimensions
    points = torch.cartesian_prod(*axes).reshape(-1, dimensions)
    weights = torch.cartesian_prod(*[torch.from_numpy(w / w.sum())] * dimensions)
    return points, weights.reshape(-1, dimensions).prod(-1)
