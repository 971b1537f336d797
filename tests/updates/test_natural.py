"""Conjugate gradients, natural and trust-region steps: against dense solves and closed forms."""

from dataclasses import replace

import pytest
import torch
from settings import train_config

from pgcli.comparison.exact import Problem
from pgcli.gradients.around import Batched
from pgcli.gradients.fisher import Fisher as Products
from pgcli.gradients.truth import action_probabilities, placed, solve
from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.proof.listed import TinyMdp, tabular
from pgcli.settings.schema import FisherKind, StepLength
from pgcli.updates.natural import Natural, conjugate_gradients
from pgcli.updates.rule import Start
from pgcli.updates.trust_region import TrustRegion

SOLVER = {"damping": 0.0, "cg_iterations": 50, "cg_tolerance": 0.0}
RNG = torch.Generator().manual_seed(0)


def start(theta):
    return Start(
        theta, train_config("optimizer.schedule=constant", "optimizer.lr=1").optimizer, [0]
    )


def positive(s=3, p=6):
    root = torch.randn(s, p, p, dtype=torch.float64, generator=RNG)
    return root @ root.mT + 0.5 * torch.eye(p, dtype=torch.float64)


def test_conjugate_gradients_solve_what_a_dense_solver_does():
    a = positive()
    b = torch.randn(3, 6, dtype=torch.float64, generator=RNG)
    solved = conjugate_gradients(lambda v: (a @ v.unsqueeze(-1)).squeeze(-1), b, 50, 1e-14)
    torch.testing.assert_close(solved.x, torch.linalg.solve(a, b), rtol=1e-9, atol=1e-10)
    assert solved.usable.all()
    assert (solved.residual < 1e-12).all()


def test_a_seed_is_solved_as_if_alone_and_ends_by_itself():
    a = positive()
    a[1] = torch.eye(6, dtype=torch.float64)  # solved in one iteration
    b = torch.randn(3, 6, dtype=torch.float64, generator=RNG)
    b[2] = 0
    both = conjugate_gradients(lambda v: (a @ v.unsqueeze(-1)).squeeze(-1), b, 20, 1e-10)
    assert both.iterations.tolist()[1:] == [1, 0]
    for s in range(3):
        one = conjugate_gradients(lambda v, s=s: v @ a[s], b[s : s + 1], 20, 1e-10)
        torch.testing.assert_close(one.x[0], both.x[s], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("broken", ["negative", "nan", "zero"])
def test_a_matrix_that_is_not_positive_gives_no_direction(broken):
    """And the seed beside it is served all the same."""
    a = positive(2)
    bad = {"negative": -a[0], "nan": a[0] * torch.nan, "zero": 0 * a[0]}[broken]
    a = torch.stack([bad, a[1]])
    b = torch.ones(2, 6, dtype=torch.float64)
    solved = conjugate_gradients(lambda v: (a @ v.unsqueeze(-1)).squeeze(-1), b, 50, 1e-12)
    assert solved.usable.tolist() == [False, True]
    torch.testing.assert_close(solved.x[1], torch.linalg.solve(a[1], b[1]), rtol=1e-8, atol=1e-9)


def weighted_batch(seed=0):
    """All trajectories of a small MDP, each as often as its chance says, as weights of scores."""
    mdp = TinyMdp.random(seed)
    policy = Policy(Mlp((mdp.states, mdp.actions), bias=False), Categorical(mdp.actions))
    theta = torch.randn(1, policy.num_params, dtype=torch.float64, generator=RNG)
    return mdp, policy, theta


@pytest.mark.parametrize("by_state", [False, True])
def test_a_tables_natural_gradient_is_its_advantage_but_for_a_constant_in_each_state(by_state):
    """F⁺∇J = Σ_t d_t A_t/Σ_t d_t + c(s): γ^t goes into the numerator only (Kakade 2001)."""
    mdp, policy, theta = weighted_batch()
    model, gamma = tabular(mdp), 0.9
    solution = solve(model, policy, theta, gamma)
    problem = Problem(placed(model, policy, theta))
    pi = action_probabilities(policy, theta, mdp.states)
    visits = problem.visits()  # [T, states]
    psi = problem.psi  # [states, actions, P]
    fisher = torch.einsum("ts,sa,sap,saq->pq", visits, pi, psi, psi)
    config = replace(train_config().estimator, gamma=gamma, discount_state=by_state)
    estimate = problem.estimate(config, 2).mean
    if by_state:
        torch.testing.assert_close(estimate, solution.gradient, rtol=1e-10, atol=1e-12)
    solved = conjugate_gradients(lambda v: v @ fisher, estimate[None], 60, 1e-13)
    natural = solved.x[0].reshape(mdp.states, mdp.actions)
    advantage = solution.action_value[:, :-1] - solution.value[:-1, :-1].unsqueeze(-1)
    discount = gamma ** torch.arange(mdp.horizon).double() if by_state else torch.ones(mdp.horizon)
    above = torch.einsum("t,ts,tsa->sa", discount.double(), visits, advantage)
    expected = above / visits.sum(0).unsqueeze(-1)
    seen = visits.sum(0) > 0
    centred = [x - x.mean(-1, keepdim=True) for x in (natural, expected)]
    torch.testing.assert_close(centred[0][seen], centred[1][seen], rtol=1e-8, atol=1e-8)


@pytest.fixture
def place():
    mdp = TinyMdp.random(1)
    policy = mdp.policy()
    theta = torch.randn(1, policy.num_params, dtype=torch.float64, generator=RNG)
    weights = torch.randn(mdp.batch.mask.shape, dtype=torch.float64, generator=RNG)
    weights = weights * mdp.batch.mask
    around = Batched(policy, theta.clone(), mdp.batch, weights)
    free = theta.clone().requires_grad_()
    rows = mdp.batch.obs.flatten(1, 2), mdp.batch.act.flatten(1, 2)
    logp = policy.log_prob(free, *rows).reshape(weights.shape)
    total = (logp * weights).sum() / mdp.batch.mask.shape[1]
    (estimate,) = torch.autograd.grad(total, free)
    return policy, mdp.batch, theta, around, estimate


@pytest.mark.parametrize("kind", FisherKind)
def test_a_natural_step_is_a_dense_solve(place, kind):
    policy, batch, theta, around, estimate = place
    products = Products(policy, theta, batch, sampled=kind is FisherKind.sampled)
    eye = torch.eye(policy.num_params, dtype=torch.float64)
    matrix = torch.cat([products.product(row[None]) for row in eye])
    damped = matrix + 0.1 * around.length * eye  # of a step, as delta is
    settings = {**SOLVER, "damping": 0.1}
    rule = Natural(start(theta), step=StepLength.lr, fisher=kind, **settings)
    before = theta.clone()
    told = rule.step(theta, estimate, 0.0, around)
    expected = torch.linalg.solve(damped, estimate[0])
    torch.testing.assert_close(theta[0] - before[0], expected, rtol=1e-8, atol=1e-9)
    assert told["cg_residual"].item() < 1e-9


def test_a_small_delta_is_met(place):
    """To first order; with the exact matrix, whichever gave the direction."""
    _policy, _batch, theta, around, estimate = place
    old = theta.clone()
    for kind in FisherKind:
        settings = {**SOLVER, "damping": 0.01}
        rule = Natural(start(theta), step=StepLength.delta, delta=1e-8, fisher=kind, **settings)
        moved = old.clone()
        rule.step(moved, estimate, 0.0, around)
        assert around.divergence(moved).item() == pytest.approx(1e-8, rel=1e-3)


class Wrong:
    """A place whose quadratic model is wrong on purpose: its Fisher matrix is far too small."""

    def __init__(self, around, factor):
        self._around, self._factor = around, factor

    def fisher(self, *, sampled):
        product = self._around.fisher(sampled=sampled)
        return lambda v: self._factor * product(v)

    def __getattr__(self, name):
        return getattr(self._around, name)


@pytest.mark.parametrize("factor", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("delta", [0.01, 0.3])
def test_the_divergence_stays_within_the_region_whatever_the_model_says(place, factor, delta):
    _policy, _batch, theta, around, estimate = place
    old = theta.clone()
    settings = {**SOLVER, "damping": 1e-3, "backtracks": 60, "shrink": 0.8}
    rule = TrustRegion(start(theta), delta=delta, fisher=FisherKind.exact, **settings)
    told = rule.step(theta, estimate, 0.0, Wrong(around, factor))
    assert told["accepted"].item() == 1
    assert around.divergence(theta).item() <= delta
    assert around.surrogate(theta).item() > 0
    if factor < 1:
        assert told["backtracks"].item() > 0
    assert not torch.equal(theta, old)


def test_where_no_step_is_accepted_nothing_moves(place):
    _policy, _batch, theta, around, estimate = place
    old = theta.clone()
    settings = {"delta": 0.01, "fisher": FisherKind.exact, "backtracks": 3, "shrink": 0.5, **SOLVER}
    rule = TrustRegion(start(theta), **{**settings, "damping": 1e-3})
    told = rule.step(theta, -estimate, 0.0, around)  # downhill: nothing improves
    assert torch.equal(theta, old)
    assert (told["accepted"].item(), told["backtracks"].item()) == (0, 4)
    told = rule.step(theta, estimate, 0.0, Wrong(around, -1.0))  # no such matrix
    assert torch.equal(theta, old)
    assert told["step_norm"].item() == 0
