"""Every estimator against ∇J, by listing all trajectories in float64: no tolerance for sampling.

The combinations are generated from the schema, so a new switch cannot escape. A combination must be
exact if and only if it carries no bias note: the notes that users read are themselves proven.
With `--phi module:name`, `--baseline` and `--importance` the same is asked of parts of one's own.
"""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from settings import train_config
from tiny_mdp import TinyMdp

from pgcli.estimators.baselines import BASELINES
from pgcli.estimators.bias import Circumstances, bias_notes
from pgcli.estimators.estimator import terms
from pgcli.estimators.importance import IMPORTANCES
from pgcli.estimators.phi import PHIS, Episodes, phi
from pgcli.gradients.control import controlled
from pgcli.gradients.trajectory import trajectory_gradients
from pgcli.settings.schema import EstimatorConfig

PARTS = {"phi": PHIS, "baseline": BASELINES, "importance": IMPORTANCES}
FITTED = [name for name in BASELINES.names if BASELINES.find(name).fitted]
PLAIN = ("none", "own_mean")  # where a special case is one for all baselines


def combinations(names, bases, forms):
    """Every combination of these parts that is not refused, on-policy and off-policy."""
    for name, base, form, by_state, off in itertools.product(
        names, bases, forms, (False, True), (False, True)
    ):
        if registered(name).subtracts_value and base != "none":
            continue  # refused
        if form != "none" and not off:
            continue  # the weights are 1; test_weights_are_one_on_policy
        options = [{}, {"gamma": 0.9}]
        if base in PLAIN:
            options += [{"gamma": 0.0}]
        if name == "gae":
            options += [{"lam": 0.0}, {"lam": 1.0}, {"lam": 1.0, "bootstrap": True}]
        if name == "n_step":
            options += [
                {"n": 2},
                {"n": 2, "bootstrap": True},
                {"n": 3},
                {"n": 3, "bootstrap": True},
            ]
        if form != "none" and name in ("reward_to_go", "total_return"):
            options += [{"self_normalize": True}, {"clip_ratio": 1.1}]
        if not BASELINES.find(base).fitted and form == "none":
            options += [{"normalize": True}]
        for option in options:
            given = {
                "gamma": 1.0, "lam": 0.7, "normalize": False, "scale_rewards": False,
                "bootstrap": False, "n": 1,
                "constant": 1.3, "self_normalize": False, "clip_ratio": None, **option,
            }  # fmt: skip
            config = EstimatorConfig(name, base, form, discount_state=by_state, **given)
            if IMPORTANCES.find(form).terms and not registered(name).stream:
                continue  # refused
            yield config, off


def registered(name):
    return phi(replace(train_config().estimator, phi=name))


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        given = {part: metafunc.config.getoption(f"--{part}") for part in PARTS}
        own = {part: [value] for part, value in given.items() if value}
        cases = combinations(*(own.get(part, PARTS[part].names) for part in PARTS))
        if "short_problem" in metafunc.fixturenames:
            cases = (case for case in cases if case[0].baseline in PLAIN)
        metafunc.parametrize("case", list(cases), ids=title)


def title(case) -> str:
    config, off = case
    flags = [f"{k}={v}" for k, v in vars(config).items() if not hasattr(v, "name") and v]
    shown = (config.phi, config.baseline, config.importance, *flags)
    return " ".join(shown).replace("gamma", "γ").replace("lam", "λ") + " off-policy" * off


@dataclass(frozen=True)
class Problem:
    """All pairs of trajectories at θ; what does not depend on the estimator is computed once."""

    mdp: TinyMdp

    @cached_property
    def policy(self):
        return self.mdp.policy()

    @cached_property
    def theta(self):
        return self.drawn(7)

    @cached_property
    def other(self):
        return self.theta + 0.3 * self.drawn(8)

    def drawn(self, seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.policy.num_params, dtype=torch.float64, generator=generator)

    @cached_property
    def rows(self):
        return self.mdp.batch.obs.flatten(1, 2), self.mdp.batch.act.flatten(1, 2)

    @cached_property
    def factors(self):
        return self.policy.score_factors(self.theta, *self.rows)[0]

    @cached_property
    def pair(self):
        """[n², 2]: the batch axis N = 2."""
        n = len(self.mdp.trajectories)
        return torch.cartesian_prod(torch.arange(n), torch.arange(n))

    @cached_property
    def sampled(self):
        """Of the policy itself and off-policy: probabilities [n], log π/μ [n, T]."""
        return {off: self.sampled_by(self.other if off else self.theta) for off in (False, True)}

    def sampled_by(self, behaviour):
        ratio = self.policy.log_prob(self.theta, *self.rows)
        ratio = ratio - self.policy.log_prob(behaviour, *self.rows)
        mask = self.mdp.batch.mask
        log_ratio = (ratio.reshape(mask.shape) * mask)[0].detach()
        return self.mdp.probabilities(self.policy, behaviour).detach(), log_ratio

    @cached_property
    def truths(self):
        """∇J_γ by γ."""
        return {g: self.mdp.gradient(self.policy, self.theta, g) for g in (0.0, 0.9, 1.0)}


def expected_gradient(problem, off, config, value, final_value, q):
    """E[ĝ] [1, P]: the production code on all pairs of trajectories, weighted by probability."""
    b, policy, pair = problem.mdp.batch, problem.policy, problem.pair
    p, log_ratio = problem.sampled[off]
    first, second = pair.T
    found = terms(
        config,
        Episodes(b.rew[0][pair], b.mask[0][pair], b.truncated[0][pair], value[pair],
                 final_value[pair], q[pair], log_ratio[pair], q[pair]),
    )  # fmt: skip
    chance = (p[first] * p[second]).unsqueeze(-1)
    if config.baseline in FITTED:
        # No coupling but through the fitted coefficient: one trajectory's terms are its own.
        n = len(p)
        own = torch.stack([found.weights[:: n + 1, 0], found.control[:: n + 1, 0]])
        x, s = (trajectory_gradients(problem.factors, w[None], policy.num_params)[0] for w in own)
        g = controlled(x[pair], s[pair], per_parameter=config.baseline == "optimal_per_parameter")
        return (0.5 * chance * g.sum(1)).sum(0, keepdim=True)
    # ĝ is linear in the weights: gather the expected weight of every trajectory's scores.
    mean_w = torch.zeros_like(b.rew[0])
    for member in range(2):
        mean_w.index_add_(0, pair[:, member], 0.5 * chance * found.weights[:, member])
    return trajectory_gradients(problem.factors, mean_w.unsqueeze(0), policy.num_params).sum(1)


@pytest.fixture(scope="module", params=[0, 1])
def problem(request):
    return Problem(TinyMdp.random(request.param))


@pytest.fixture(scope="module")
def short_problem():
    """Of one step: nothing comes before it or after."""
    return Problem(TinyMdp.random(0, horizon=1))


def arbitrary_values(mdp):
    state, final = mdp.states_and_times()
    v = torch.tensor([1.7, -0.6, 0.0], dtype=torch.float64)  # of the terminal state: 0
    return v[state], v[final]


def arbitrary_q(mdp):
    state, _ = mdp.states_and_times()
    q = torch.tensor([[0.4, -1.1], [2.0, 0.3], [0.0, 0.0]], dtype=torch.float64)
    return q[state, mdp.batch.act[0]]


def test_exact_if_and_only_if_without_a_bias_note(problem, case):
    assert_exact_or_noted(problem, *case)


def test_of_one_step_likewise(short_problem, case):
    assert_exact_or_noted(short_problem, *case)


def assert_exact_or_noted(problem, config, off):
    mdp, truth = problem.mdp, problem.truths[config.gamma]
    estimate = expected_gradient(problem, off, config, *arbitrary_values(mdp), arbitrary_q(mdp))
    error = (estimate - truth).norm() / truth.norm()
    if bias_notes(config, Circumstances(mdp.horizon, off_policy=off)):
        assert error > 1e-4
    else:
        assert error < 1e-10


@pytest.mark.parametrize("importance", ["none", "trajectory", "per_decision"])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("phi", ["q", "advantage", "td", "n_step", "gae"])
def test_exact_critics_leave_no_bias(problem, phi, importance, gamma, bootstrap):
    """V_t(s) and Q_t(s, a) of the time-limited task, V_T = 0: bootstrapping there adds nothing."""
    mdp = problem.mdp
    off = importance != "none"
    config = EstimatorConfig(
        phi, "none", importance, gamma, 0.6, True, False, False, bootstrap,
        2, 0.0, False, None,
    )  # fmt: skip
    pi = mdp.action_probabilities(problem.policy, problem.theta).detach()
    v, q = mdp.values(pi, gamma), mdp.action_values(pi, gamma)
    state, final = mdp.states_and_times()
    time = torch.arange(mdp.horizon)
    estimate = expected_gradient(
        problem, off, config, v[time, state], v[mdp.horizon, final],
        q[time, state, mdp.batch.act[0]],
    )  # fmt: skip
    torch.testing.assert_close(estimate, problem.truths[gamma], rtol=1e-9, atol=1e-10)


def test_what_a_run_adds_to_the_notes():
    config = train_config().estimator

    def notes(config, **circumstances):
        return bias_notes(config, Circumstances(horizon=500, **circumstances))

    assert notes(config) == []
    assert "random number of episodes" in notes(config, counted_by_steps=True)[0]
    weighted = replace(config, importance="per_decision")
    (note,) = notes(weighted, off_policy=True, reused=True)
    assert note.startswith("reuse")
    learned = notes(replace(config, phi="td"), off_policy=True)  # on episodes of the policy itself
    assert not any(note.startswith("critic of the behaviour") for note in learned)
    behaviours = notes(replace(config, phi="td"), off_policy=True, critic_of_behaviour=True)
    assert any(note.startswith("critic of the behaviour") for note in behaviours)


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("name", ["q", "advantage", "td", "n_step", "gae"])
def test_no_error_is_announced_of_a_critic_that_has_none(name, off):
    """Proven by test_exact_critics_leave_no_bias."""
    config = replace(train_config().estimator, phi=name, importance="per_decision")
    assert bias_notes(config, Circumstances(500, critic="exact", off_policy=off)) == []
    assert bias_notes(config, Circumstances(500, off_policy=off)) != []


def test_dynamic_programming_agrees_with_the_listed_trajectories(problem):
    mdp, policy, theta = problem.mdp, problem.policy, problem.theta
    p = mdp.probabilities(policy, theta)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    pi = mdp.action_probabilities(policy, theta)
    discount = 0.9 ** torch.arange(mdp.horizon).double()
    listed = (p * (mdp.batch.rew[0] * discount).sum(-1)).sum()
    torch.testing.assert_close(mdp.objective(pi, 0.9), listed, rtol=1e-12, atol=1e-12)


def test_own_sample_mean_would_shrink_the_gradient_by_one_half(problem):
    """The bias that leave-one-out avoids: with N = 2, subtracting the batch mean halves ∇J."""
    mdp, policy, theta = problem.mdp, problem.policy, problem.theta
    b, p = mdp.batch, mdp.probabilities(policy, theta).detach()
    ret = b.rew[0].sum(-1)
    mean_of_pair = 0.5 * (ret + (p * ret).sum())  # E over the partner of the pair's mean
    w = (p * (ret - mean_of_pair)).unsqueeze(-1) * b.mask[0]
    estimate = trajectory_gradients(problem.factors, w[None], policy.num_params).sum(1)
    torch.testing.assert_close(estimate, problem.truths[1.0] / 2, rtol=1e-10, atol=1e-10)
