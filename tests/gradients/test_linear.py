"""Linear-quadratic control: what is known exactly, against quadrature over whole trajectories."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.comparison.exact import Problem
from pgcli.environments.linear import Linear
from pgcli.estimators.estimator import couples, critics, terms
from pgcli.estimators.phi import Episodes
from pgcli.gradients.linear import is_linear, size
from pgcli.gradients.trajectory import trajectory_gradients
from pgcli.gradients.truth import natural_gradient, objective, placed, solve
from pgcli.policies.heads import Gaussian
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Normalized, Policy

BASE = replace(
    train_config().estimator, phi="reward_to_go", baseline="none", importance="none", gamma=1.0
)
CASES = {
    "rtg": {},
    "total": {"phi": "total_return"},
    "discounted": {"gamma": 0.9},
    "discount_state": {"gamma": 0.9, "discount_state": True},
    "total_discounted": {"phi": "total_return", "gamma": 0.9},
    "constant": {"baseline": "constant", "constant": -2.0},
    "value": {"baseline": "value"},
    "gae": {"phi": "gae", "lam": 0.7, "gamma": 0.9},
    "td": {"phi": "td"},
    "n_step": {"phi": "n_step", "n": 2},
    "q": {"phi": "q"},
    "advantage": {"phi": "advantage", "gamma": 0.9},
}


def f64(x):
    return torch.tensor(x, dtype=torch.float64)


def scalar(horizon=5):
    """The example with known figures."""
    model = Linear(
        f64([[0.9]]), f64([[0.5]]), f64([[1.0]]), f64([[0.1]]), f64([0.2]), f64([1.0]), f64([0.5]),
        horizon,
    )  # fmt: skip
    return model, policy(1, 1), f64([[-0.3, 0.0, math.log(0.7)]])


def plane():
    """Two states, one action, two steps, every number another; rewards are shifted."""
    model = Linear(
        f64([[1.0, 0.1], [-0.2, 0.8]]), f64([[0.1], [0.4]]), f64([[1.0, 0.2], [0.2, 0.5]]),
        f64([[0.3]]), f64([0.2, 0.1]), f64([1.0, -0.5]), f64([0.3, 0.6]), 2, shift=0.7,
    )  # fmt: skip
    return model, policy(2, 1), f64([[-0.3, 0.4, 0.1, -0.5]])


def policy(d, m):
    return Policy(Mlp((d, m), "tanh", True), Gaussian(m))


def listed(model, policy, theta, nodes=5):
    """Every trajectory of a grid of noises, with its weight: states, actions, rewards."""
    d, m = model.B.shape
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    axes = d + (m + d) * (model.horizon - 1) + m
    points = f64(np.array(list(itertools.product(x, repeat=axes))))
    chance = f64(np.array(list(itertools.product(w / w.sum(), repeat=axes)))).prod(1)
    drawn = iter(points.T)
    take = lambda count: torch.stack([next(drawn) for _ in range(count)], -1)  # noqa: E731
    mean_of = theta[0, : m * d].reshape(m, d), theta[0, m * d : m * d + m]
    std = theta[0, -m:].exp()
    state = model.start_mean + model.start_std * take(d)
    states, actions, rewards = [state], [], []
    for t in range(model.horizon):
        action = state @ mean_of[0].T + mean_of[1] + std * take(m)
        cost = ((state @ model.Q) * state).sum(-1) + ((action @ model.R) * action).sum(-1)
        actions.append(action)
        rewards.append(model.shift - cost)
        state = state @ model.A.T + action @ model.B.T
        if t < model.horizon - 1:  # no reward sees what comes after the last one
            state = state + model.noise * take(d)
        states.append(state)
    return chance, torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1)


def tables(nodes, solution):
    """V_t [T + 1, states + 1] and Q_t [T, states + 1, actions] at the nodes."""
    time = torch.arange(nodes.horizon + 1)[:, None]
    value = solution.values(time, nodes.observations[None])
    here = nodes.observations[None, :, None].expand(-1, -1, nodes.actions, -1)
    q = solution.action_values(time[:-1, :, None], here, nodes.choices[None])
    pad = torch.nn.functional.pad
    return pad(value, (0, 1)), pad(q, (0, 0, 0, 1))


def estimates(model, policy, theta, config, solution, trajectories):
    """The production code's g_n of every trajectory, V and Q those of the solution."""
    _, states, actions, rewards = trajectories
    n, steps = rewards.shape
    time = torch.arange(steps)
    mask, cut = torch.ones(n, steps).bool(), torch.ones(n).bool()
    episodes = Episodes(
        rewards,
        mask,
        cut,
        value=solution.values(time, states[:, :-1]),
        final_value=solution.values(torch.full((n,), steps), states[:, -1]),
        q=solution.action_values(time, states[:, :-1], actions),
    )
    rows = states[None, :, :-1].flatten(1, 2), actions[None].flatten(1, 2)
    factors, _ = policy.score_factors(theta, *rows)
    weights = terms(config, episodes).weights
    return trajectory_gradients(factors, weights[None], policy.num_params)[0]


@pytest.mark.parametrize("case", CASES)
def test_mean_and_variance_are_those_of_all_trajectories(case):
    model, pi, theta = plane()
    config = replace(BASE, **CASES[case])
    assert not couples(config)
    solution = solve(model, pi, theta, config.gamma)
    at = placed(model, pi, theta)
    value, q = tables(at.model, solution) if critics(config) else (None, None)
    problem = Problem(at, value=value, q=q)
    found = problem.estimate(config, 4)
    trajectories = listed(model, pi, theta)
    g = estimates(model, pi, theta, config, solution, trajectories)
    chance = trajectories[0][:, None]
    mean = (chance * g).sum(0)
    trace = float((chance * (g - mean).square()).sum())
    torch.testing.assert_close(found.mean, mean, rtol=1e-9, atol=1e-9)
    assert found.trace_cov == pytest.approx(trace, rel=1e-9)
    parts = problem.parts(config, found)
    assert parts.total == pytest.approx(trace, rel=1e-10)
    unbiased = case not in ("discounted", "gae", "advantage", "td")
    if unbiased or config.gamma == 1.0:
        torch.testing.assert_close(found.mean, solution.gradient, rtol=1e-9, atol=1e-9)
    else:  # the customary estimate without γ^t is the gradient of nothing
        assert float((found.mean - solution.gradient).norm()) > 1e-3


def test_the_parts_are_those_of_the_reward_to_go_history_by_history():
    model, pi, theta = plane()
    problem = Problem(placed(model, pi, theta))
    parts = problem.parts(BASE, problem.estimate(BASE, 2))
    trajectories = listed(model, pi, theta)
    solution = solve(model, pi, theta, 1.0)
    g = estimates(model, pi, theta, BASE, solution, trajectories)
    chance, nodes, d, m = trajectories[0], 5, 2, 1
    sizes = [nodes**d, nodes**m, nodes**d, nodes**m]  # s_0, a_0, w_0, a_1
    p, g = chance.reshape(sizes), g.reshape(*sizes, -1)
    levels = [g]
    for axis in (3, 2, 1, 0):  # what is expected of g before a_1, w_0, a_0, s_0
        own = p.sum(tuple(i for i in range(4) if i != axis))
        view = own.reshape([-1 if i == axis else 1 for i in range(4)] + [1])
        levels.insert(0, (levels[0] * view).sum(axis, keepdim=True))
    step = [(p[..., None] * (b - a).square()).sum() for a, b in itertools.pairwise(levels)]
    assert parts.start == pytest.approx(float(step[0]), rel=1e-9)
    assert parts.actions == pytest.approx(float(step[1] + step[3]), rel=1e-9)
    assert parts.dynamics == pytest.approx(float(step[2]), rel=1e-9)


def test_the_scalar_example_has_the_known_figures():
    model, pi, theta = scalar()
    solution = solve(model, pi, theta, 1.0)
    assert float(solution.gradient[0]) == pytest.approx(-4.118641397, abs=1e-9)
    moments = Problem(placed(model, pi, theta))._kernel(BASE).moments()
    variance = moments.product[0, 0, 0] - moments.mean[0, 0] ** 2
    assert float(variance) == pytest.approx(395.28885297, abs=1e-8)


@pytest.mark.parametrize("case", [scalar, plane])
def test_two_ways_to_j_and_its_gradient_agree(case):
    """By moments and autograd; by V_0, and by the table's programme as E Σ_t ψ_t G_t."""
    model, pi, theta = case()
    solution = solve(model, pi, theta, 0.9)
    at = placed(model, pi, theta)
    start = (at.model.start * tables(at.model, solution)[0][0, :-1]).sum()
    assert float(start) == pytest.approx(solution.objective, rel=1e-12)
    assert objective(model, pi, theta, 0.9) == pytest.approx(solution.objective, rel=1e-12)
    config = replace(BASE, gamma=0.9, discount_state=True)
    mean = Problem(at).estimate(config, 2).mean
    torch.testing.assert_close(mean, solution.gradient, rtol=1e-11, atol=1e-11)


def test_the_natural_gradient_is_that_of_the_covariance_of_states():
    """F = Σ_t E[(s,1)(s,1)ᵀ]/σ² for K and k, 2T for log σ (Kakade 2001)."""
    model, pi, theta = scalar()
    found = natural_gradient(model, pi, theta, 1.0)
    mean, square, fisher = 1.0, 1.25, torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(model.horizon):
        fisher[:2, :2] += f64([[square, mean], [mean, 1.0]]) / 0.49
        fisher[2, 2] += 2.0
        factor = 0.9 + 0.5 * -0.3
        square = factor**2 * square + 0.25 * 0.49 + 0.04
        mean = factor * mean
    gradient = solve(model, pi, theta, 1.0).gradient
    torch.testing.assert_close(found, torch.linalg.solve(fisher, gradient), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("d", "m"), [(1, 2), (3, 1), (4, 1)])
def test_other_dimensions_against_samples(d, m):
    rng = np.random.default_rng(d)
    draw = lambda *shape: f64(rng.standard_normal(shape))  # noqa: E731
    eye = torch.eye(d, dtype=torch.float64)
    model = Linear(
        0.8 * eye + 0.1 * draw(d, d), 0.3 * draw(d, m), eye, 0.1 * torch.eye(m).double(),
        0.1 + draw(d).abs() / 5, draw(d), draw(d).abs() / 3, 4,
    )  # fmt: skip
    pi = policy(d, m)
    theta = torch.cat([0.2 * draw(1, d * m + m), -0.5 + 0.1 * draw(1, m)], 1)
    found = Problem(placed(model, pi, theta)).estimate(BASE, 2)
    torch.testing.assert_close(
        found.mean, solve(model, pi, theta, 1.0).gradient, rtol=1e-8, atol=1e-8
    )
    g = sampled(model, pi, theta, rng, 200_000)
    trace = float(g.var(0).sum())
    squares = (g - g.mean(0)).square().sum(1)
    error = float(squares.std()) / math.sqrt(len(g))
    assert found.trace_cov == pytest.approx(trace, abs=5 * error)


def sampled(model, pi, theta, rng, count):
    """So many trajectories' gradients of reward-to-go."""
    d, m = model.B.shape
    draw = lambda size: f64(rng.standard_normal((count, size)))  # noqa: E731
    gain, bias = theta[0, : m * d].reshape(m, d), theta[0, m * d : m * d + m]
    std = theta[0, -m:].exp()
    state = model.start_mean + model.start_std * draw(d)
    states, actions, rewards = [], [], []
    for _ in range(model.horizon):
        action = state @ gain.T + bias + std * draw(m)
        states.append(state)
        actions.append(action)
        rewards.append(model.reward(state, action))
        state = model.following(state, action) + model.noise * draw(d)
    rewards = torch.stack(rewards, 1)
    weights = rewards.flip(1).cumsum(1).flip(1)
    rows = torch.stack(states, 1)[None].flatten(1, 2), torch.stack(actions, 1)[None].flatten(1, 2)
    factors, _ = pi.score_factors(theta, *rows)
    return trajectory_gradients(factors, weights[None], pi.num_params)[0]


@pytest.mark.parametrize(("growth", "horizon"), [(1.5, 10), (1.5, 30), (2.0, 12), (3.0, 8)])
def test_a_system_that_runs_away_is_exact_too(growth, horizon):
    """Its states differ by orders of magnitude from time to time: each time has its own nodes."""
    model, pi, theta = scalar(horizon)
    model = replace(model, A=f64([[growth]]))
    at = placed(model, pi, theta)
    assert len(at.model.start) == 7 * horizon
    solution = solve(model, pi, theta, 1.0)
    value, q = tables(at.model, solution)
    problem = Problem(at, value=value, q=q)
    for more in ({}, {"phi": "total_return"}, {"phi": "gae", "lam": 0.5}, {"baseline": "value"}):
        config = replace(BASE, **more)
        found = problem.estimate(config, 2)
        torch.testing.assert_close(found.mean, solution.gradient, rtol=1e-6, atol=1e-6)
        assert problem.parts(config, found).total == pytest.approx(found.trace_cov, rel=1e-5)
    if growth == 1.5 and horizon == 10:
        g = sampled(model, pi, theta, np.random.default_rng(0), 400_000)
        squares = (g - g.mean(0)).square().sum(1)
        error = float(squares.std()) / math.sqrt(len(g))
        found = problem.estimate(BASE, 2)
        assert found.trace_cov == pytest.approx(float(g.var(0).sum()), abs=5 * error)


def test_what_never_varies_and_a_single_step():
    """No noise at all but the policy's, one fixed start; and a horizon of one."""
    model, pi, theta = scalar(3)
    still = replace(model, noise=f64([0.0]), start_std=f64([0.0]))
    problem = Problem(placed(still, pi, theta))
    parts = problem.parts(BASE, problem.estimate(BASE, 2))
    assert (parts.start, parts.dynamics) == pytest.approx((0.0, 0.0), abs=1e-9)
    model, pi, theta = scalar(1)
    found = Problem(placed(model, pi, theta)).estimate(BASE, 2)
    gradient = solve(model, pi, theta, 1.0).gradient
    torch.testing.assert_close(found.mean, gradient, rtol=1e-12, atol=1e-12)


def test_the_size_of_the_table_is_known_before_it_is_made():
    for model, pi, theta in (scalar(), plane()):
        assert size(model, pi, theta) == len(placed(model, pi, theta).model.state)
    d = m = 4
    eye = torch.eye(4, dtype=torch.float64)
    model = Linear(0.9 * eye, 0.5 * eye, eye, eye, *(torch.ones(4).double() for _ in "nms"), 10)
    theta = torch.zeros(1, d * m + 2 * m, dtype=torch.float64)
    assert size(model, policy(d, m), theta) == 210**2 * 625
    assert solve(model, policy(d, m), theta, 1.0).objective < 0  # needs no table


def test_only_a_linear_policy_is_one():
    assert is_linear(policy(2, 1))
    assert is_linear(replace(policy(2, 1), normalized=Normalized(None)))
    assert not is_linear(replace(policy(2, 1), normalized=Normalized(10.0)))
    assert not is_linear(Policy(Mlp((2, 8, 1), "tanh", True), Gaussian(1)))
    assert not is_linear(Policy(Mlp((2, 1), "tanh", True), Gaussian(1, squashed=(True,))))
    assert not is_linear(Policy(Mlp((2, 2), "tanh", True), Gaussian(1, state_std=True)))
