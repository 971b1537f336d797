"""A linear Gaussian policy in a linear model: moments in closed form, and a table that is exact.

With a = K s + k + σ ε all that estimators of ∇J ask for are polynomials in s of degree 6 at most:
E[Y|s], E[X|s], E[Y²|s], E[XY|s], E[X²|s] for returns Y and estimates X, whatever the dimension.
A polynomial of that degree is known by its values at as many nodes as it has coefficients, what is
expected of it over ε by Gauss-Hermite's nodes. So the programmes for tables serve, with nodes for
states, with quadrature for actions, and weights of interpolation for probabilities: these sum to 1,
some are negative, and whatever is expected of such a polynomial is exact.
"""

from __future__ import annotations

import itertools
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


@dataclass(frozen=True)
class Nodes(Tabular):
    """A linear model as a table of n nodes, exact for polynomials of the state."""

    linear: Linear
    place: Tensor  # [n, d]: the nodes
    act: Tensor  # [n, actions, m]
    centre: Tensor  # [d]
    half: Tensor  # [d]
    inverse: Tensor  # [n, n]: from values at the nodes to coefficients

    @property
    def observations(self) -> Tensor:
        """The nodes."""
        return self.place

    @property
    def choices(self) -> Tensor:
        """The actions of the quadrature at each node."""
        return self.act

    def basis(self, state: Tensor) -> Tensor:
        """What the value at each node weighs in that at states [..., d]: [..., n]."""
        return _powers(state.double(), self.centre, self.half) @ self.inverse

    def expected(self, mean: Tensor) -> Tensor:
        """The same for E f(mean + w), w the noise of the model."""
        noise = self.linear.noise
        points, weights = _gauss(OF_STATE, len(noise))
        rows = mean.double().reshape(-1, len(noise))
        found = sum(
            weight * _powers(rows + noise * point, self.centre, self.half)
            for point, weight in zip(points, weights, strict=True)
        )
        assert isinstance(found, Tensor)
        return (found @ self.inverse).reshape(*mean.shape[:-1], -1)


def quadrature(model: Linear, policy: Policy, theta: Tensor) -> tuple[Nodes, Tensor]:
    """The nodes around the states that the policy visits, and π of each action [n, actions]."""
    act = Law(*(x.detach() for x in law(policy, theta)))
    centre, half = _visited(model, act)
    d, m = model.B.shape
    order = torch.tensor(_exponents(d))
    place = centre + half * _leja(DEGREE + 1)[order]
    inverse = torch.linalg.inv(_powers(place, centre, half))
    noise, weights = _gauss(OF_NOISE, m)
    action = (place @ act.K.T + act.k).unsqueeze(1) + act.std * noise  # [n, actions, m]
    n, q = action.shape[:2]
    here = place.unsqueeze(1).expand(-1, q, -1)
    cell = torch.arange(n * q).repeat_interleave(n)
    table = Nodes(
        start=torch.zeros(n, dtype=torch.float64),
        state=cell // q,
        action=cell % q,
        following=torch.arange(n).repeat(n * q),
        probability=torch.zeros(0, dtype=torch.float64),
        reward=model.reward(here, action).flatten().repeat_interleave(n),
        actions=q,
        horizon=model.horizon,
        linear=model,
        place=place,
        act=action,
        centre=centre,
        half=half,
        inverse=inverse,
    )
    chance = table.expected(model.following(here, action)).flatten()
    points, of_start = _gauss(OF_STATE, d)
    begin = of_start @ table.basis(model.start_mean + model.start_std * points)
    known = {**vars(table), "probability": chance, "start": begin}
    return Nodes(**known), weights.expand(n, -1)


def _visited(model: Linear, act: Law) -> tuple[Tensor, Tensor]:
    """The middle of where the states are, and half of how far they reach, of each dimension."""
    mean, cov = model.start_mean, model.start_std.square().diag()
    moves, spread = model.A + model.B @ act.K, act.std.square().diag()
    low, high = [], []
    for _ in range(model.horizon):
        away = REACH * cov.diagonal().sqrt()
        low.append(mean - away)
        high.append(mean + away)
        mean = moves @ mean + model.B @ act.k
        cov = moves @ cov @ moves.T + model.B @ spread @ model.B.T + model.noise.square().diag()
    least, most = torch.stack(low).amin(0), torch.stack(high).amax(0)
    half = (most - least) / 2
    return (most + least) / 2, torch.where(half > 0, half, 1.0)


def _exponents(d: int) -> list[tuple[int, ...]]:
    """Of all monomials of d variables up to DEGREE."""
    every = itertools.product(range(DEGREE + 1), repeat=d)
    return [one for one in every if sum(one) <= DEGREE]


def _powers(state: Tensor, centre: Tensor, half: Tensor) -> Tensor:
    """Products of Chebyshev's polynomials at states [..., d], those up to DEGREE: [..., n]."""
    x = (state - centre) / half
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
