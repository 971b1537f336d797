"""J and ∇J, V, Q and the natural gradient of a policy, exactly, where the model is known.

By dynamic programming over (t, s), or for linear models over moments; nothing is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pgcli.environments.linear import Linear
from pgcli.environments.tabular import Tabular
from pgcli.gradients.linear import Values, expected_return, law, quadrature, values_of
from pgcli.gradients.trajectory import trajectory_gradients
from pgcli.policies.policy import Policy
from pgcli.updates.natural import conjugate_gradients


class Placed(NamedTuple):
    """A policy in a model."""

    model: Tabular
    chance: Tensor  # [states, actions] float64: π(a|s)
    psi: Tensor  # [states, actions, P] float64: ∇log π(a|s)


class Solution(Protocol):
    """What is known of one policy, for a discount γ."""

    @property
    def objective(self) -> float:
        """J_γ = E[Σ_t γ^t r_t]."""
        ...

    @property
    def gradient(self) -> Tensor:
        """∇J_γ [P] float64."""
        ...

    def values(self, time: Tensor, obs: Tensor) -> Tensor:
        """V_t of observations [..., D] at times that broadcast to [...]; 0 at the time limit."""
        ...

    def action_values(self, time: Tensor, obs: Tensor, act: Tensor) -> Tensor:
        """Q_t of observations [..., D] and actions."""
        ...


@dataclass(frozen=True)
class Tables:
    """Of a policy in a table, by dynamic programming."""

    objective: float
    gradient: Tensor
    value: Tensor  # [T + 1, states + 1]: V_t(s); 0 at the time limit and in the terminal state
    action_value: Tensor  # [T, states + 1, actions]: Q_t(s, a)

    def values(self, time: Tensor, obs: Tensor) -> Tensor:
        """As of every solution."""
        return self.value[time, obs.argmax(-1)]

    def action_values(self, time: Tensor, obs: Tensor, act: Tensor) -> Tensor:
        """As of every solution."""
        return self.action_value[time, obs.argmax(-1), act]


@dataclass(frozen=True)
class Quadratic:
    """Of a linear policy in a linear model, whose V_t and Q_t are polynomials of degree 2."""

    objective: float
    gradient: Tensor
    value: Values
    linear: Linear
    gamma: float

    def values(self, time: Tensor, obs: Tensor) -> Tensor:
        """As of every solution."""
        return self.value.at(time, obs.double())

    def action_values(self, time: Tensor, obs: Tensor, act: Tensor) -> Tensor:
        """r + γ E V_{t+1}(s')."""
        state, action = obs.double(), act.double()
        after = self.value.expected(time + 1, self.linear.following(state, action), self.linear)
        return self.linear.reward(state, action) + self.gamma * after


def placed(model: Tabular | Linear, policy: Policy, theta: Tensor) -> Placed:
    """The policy at theta [1, P] in its model; of a linear one, at the nodes of a quadrature."""
    theta = theta.detach().double()
    if isinstance(model, Linear):
        nodes, chance = quadrature(model, policy, theta)
        return Placed(nodes, chance, scores(policy, theta, nodes))
    chance = action_probabilities(policy, theta, model.states)
    return Placed(model, chance, scores(policy, theta, model))


def action_probabilities(policy: Policy, theta: Tensor, states: int) -> Tensor:
    """π(a|s) [states, actions] at theta [1, P]; differentiable."""
    eye = torch.eye(states, dtype=theta.dtype, device=theta.device).unsqueeze(0)
    return policy.distribution(theta, eye)[0][0].softmax(-1)


def scores(policy: Policy, theta: Tensor, model: Tabular) -> Tensor:
    """ψ(s, a) = ∇log π(a|s), [states, actions, P] float64, at theta [1, P]."""
    obs = model.observations.double().repeat_interleave(model.actions, 0).unsqueeze(0)
    act = model.choices.flatten(0, 1).unsqueeze(0)
    factors, _ = policy.score_factors(theta.double(), obs, act)
    one = torch.ones(1, obs.shape[1], 1, dtype=torch.float64)
    found = trajectory_gradients(factors, one, policy.num_params)[0]
    return found.unflatten(0, (model.states, model.actions))


def solve(model: Tabular | Linear, policy: Policy, theta: Tensor, gamma: float) -> Solution:
    """J_γ, its gradient at theta [1, P] by autograd, V_t and Q_t."""
    start = theta.detach().double().requires_grad_()
    found = _objective(model, policy, start, gamma)
    gradient = policy.learned(torch.autograd.grad(found, start)[0])[0]
    if isinstance(model, Linear):
        quadratic = values_of(model, law(policy, start.detach()), gamma)
        return Quadratic(found.item(), gradient, quadratic, model, gamma)
    at = placed(model, policy, theta)
    value, q = _values(model, at.chance, gamma)
    gradient = torch.where(gradient.abs() <= 1e-13 * _size(at, q[:, :-1]), 0.0, gradient)
    return Tables(found.item(), gradient, value, q)


def objective(model: Tabular | Linear, policy: Policy, theta: Tensor, gamma: float) -> float:
    """J_γ at theta [1, P]."""
    return float(_objective(model, policy, theta.detach().double(), gamma))


def natural_gradient(
    model: Tabular | Linear, policy: Policy, theta: Tensor, gamma: float
) -> Tensor:
    """F⁺∇J_γ [P] float64 at theta [1, P], F = E[Σ_t ψψᵀ] over the states that the policy visits.

    By conjugate gradients from 0, which stay in the range of F (Kakade 2001).
    """
    at = placed(model, policy, theta)
    weight = visits(at.model, transitions(at)).sum(0).unsqueeze(-1) * at.chance

    def product(v: Tensor) -> Tensor:
        along = weight * (at.psi @ v[0])
        return torch.einsum("sap,sa->p", at.psi, along)[None]

    gradient = solve(model, policy, theta, gamma).gradient[None]
    return conjugate_gradients(product, gradient, 2 * policy.num_params, 1e-12).x[0]


def transitions(at: Placed) -> Tensor:
    """The chance of each transition, its action included, in its state: [K]."""
    return at.model.probability * at.chance[at.model.state, at.model.action]


def visits(model: Tabular, chance: Tensor) -> Tensor:
    """The distribution of the state at times [0, T), for transition chances [K]: [T, states]."""
    d, found = model.start, []
    for _ in range(model.horizon):
        found.append(d)
        flow = chance * d[model.state]
        d = d.new_zeros(model.states + 1).index_add(0, model.following, flow)[:-1]
    return torch.stack(found)


def _objective(model: Tabular | Linear, policy: Policy, theta: Tensor, gamma: float) -> Tensor:
    """J_γ at theta [1, P] float64, differentiable."""
    if isinstance(model, Linear):
        return expected_return(model, law(policy, theta), gamma)
    pi = action_probabilities(policy, theta, model.states)
    return (model.start * _values(model, pi, gamma)[0][0, :-1]).sum()


def _values(model: Tabular, pi: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """V_t(s) [T + 1, states + 1] and Q_t(s, a) [T, states + 1, actions], by going backward."""
    v = torch.zeros(model.states + 1, dtype=torch.float64)
    values, action_values = [v], list[Tensor]()
    for _ in range(model.horizon):
        q = _expected(model, model.reward + gamma * v[model.following])
        v = torch.cat([(pi * q).sum(-1), v.new_zeros(1)])
        values.insert(0, v)
        action_values.insert(0, torch.cat([q, q.new_zeros(1, model.actions)]))
    return torch.stack(values), torch.stack(action_values)


def _size(at: Placed, q: Tensor) -> Tensor:
    """Σ_t Σ_s d_t(s) Σ_a π(a|s) |ψ(s, a) Q_t(s, a)| [P]: beside it, ∇J may be rounding only."""
    d = visits(at.model, transitions(at))
    weight = (d.unsqueeze(-1) * at.chance * q.abs()).sum(0)  # [states, actions]
    return torch.einsum("sap,sa->p", at.psi.abs(), weight)


def _expected(model: Tabular, outcome: Tensor) -> Tensor:
    """E[outcome | s, a] [states, actions] of a number per transition [K]."""
    cell = model.state * model.actions + model.action
    total = outcome.new_zeros(model.states * model.actions)
    return total.index_add(0, cell, model.probability * outcome).unflatten(0, (model.states, -1))
