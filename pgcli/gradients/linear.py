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
    mean, cov = model.start_mean, model.start_std.square().diag()
    total, spread = mean.new_zeros(()), act.std.square().diag()
    moves = model.A + model.B @ act.K
    for t in range(model.horizon):
        mean_action = act.K @ mean + act.k
        of_action = act.K @ cov @ act.K.T + spread
        reward = model.reward(mean, mean_action)
        reward = reward - (model.Q * cov).sum() - (model.R * of_action).sum()
        total = total + gamma**t * reward
        mean = model.A @ mean + model.B @ mean_action
        cov = moves @ cov @ moves.T + model.B @ spread @ model.B.T + model.noise.square().diag()
    return total


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
    moves, drift = model.A + model.B @ act.K, model.B @ act.k
    spread = act.std.square().diag()
    noise = model.B @ spread @ model.B.T + model.noise.square().diag()
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
    d, m = model.B.shape
    unit = _leja(DEGREE + 1)[torch.tensor(_exponents(d))]  # [n, d], in every box
    inverse = torch.linalg.inv(_powers(unit))
    noise, weights = _gauss(OF_NOISE, m)
    n, q, last = len(unit), len(weights), len(boxes) - 1
    places, actions, columns = [], [], []
    for i, box in enumerate(boxes):
        place = box.centre + box.half * unit
        action = (place @ act.K.T + act.k).unsqueeze(1) + act.std * noise  # [n, actions, m]
        here = place.unsqueeze(1).expand(-1, q, -1)
        then = 0 if last == 0 else i + 1  # of the last of several times nothing follows
        ends = 0 < last < then
        chance = _expected(model, boxes[min(then, last)], model.following(here, action)) @ inverse
        cell = torch.arange(n * q).repeat_interleave(n)
        following = torch.arange(n).repeat(n * q) + then * n
        columns.append([
            cell // q + i * n, cell % q, torch.full_like(following, (last + 1) * n) if ends
            else following, chance.flatten(), model.reward(here, action).flatten()
            .repeat_interleave(n),
        ])  # fmt: skip
        places.append(place)
        actions.append(action)
    points, of_start = _gauss(OF_STATE, d)
    begin = torch.zeros((last + 1) * n, dtype=torch.float64)
    first = (model.start_mean + model.start_std * points - boxes[0].centre) / boxes[0].half
    begin[:n] = of_start @ (_powers(first) @ inverse)
    state, choice, following, chance, reward = map(torch.cat, zip(*columns, strict=True))
    nodes = Nodes(
        begin, state, choice, following, chance, reward, q, model.horizon,
        torch.cat(places), torch.cat(actions),
    )  # fmt: skip
    return nodes, weights.expand(len(begin), -1)


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
    mean, cov = model.start_mean, model.start_std.square().diag()
    moves, spread = model.A + model.B @ act.K, act.std.square().diag()
    low, high = [], []
    for _ in range(model.horizon):
        away = REACH * cov.diagonal().sqrt()
        low.append(mean - away)
        high.append(mean + away)
        mean = moves @ mean + model.B @ act.k
        cov = moves @ cov @ moves.T + model.B @ spread @ model.B.T + model.noise.square().diag()
    lows, highs = torch.stack(low), torch.stack(high)
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
