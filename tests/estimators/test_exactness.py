"""Every estimator against ∇J, by listing all trajectories in float64: no tolerance for sampling.

The combinations are generated from what is registered, so a new part cannot escape. `pg test` asks
the same of parts of one's own.
"""

from dataclasses import replace

import pytest
import torch
from settings import train_config

from pgcli.estimators.bias import Circumstances, bias_notes
from pgcli.gradients.trajectory import trajectory_gradients
from pgcli.proof.combinations import PARTS, Case, combinations
from pgcli.proof.listed import TinyMdp
from pgcli.proof.proof import Problem, expected_gradient, problems, verdict
from pgcli.settings.schema import EstimatorConfig

CASES = list(combinations(*(parts.names for parts in PARTS.values())))


@pytest.fixture(scope="module", params=[0, 1])
def problem(request):
    return Problem(TinyMdp.random(request.param))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_exact_if_and_only_if_without_a_bias_note(case):
    for problem in problems(case):
        found = verdict(problem, case)
        assert found.holds, found


def test_a_claim_that_does_not_hold_is_found(monkeypatch):
    """Both ways: the own mean without its note, and a note where there is no bias."""
    plain = replace(CASES[0].config, phi="reward_to_go", baseline="none")
    mean = Case(replace(plain, baseline="own_mean"), False)
    one = problems(mean)[0]
    assert verdict(one, mean).holds
    monkeypatch.setattr("pgcli.proof.proof.bias_notes", lambda config, run: [])
    assert not verdict(one, mean).holds
    monkeypatch.setattr("pgcli.proof.proof.bias_notes", lambda config, run: ["biased"])
    assert not verdict(one, Case(plain, False)).holds


@pytest.mark.parametrize("importance", ["none", "trajectory", "per_decision"])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("phi", ["q", "advantage", "td", "n_step", "gae"])
def test_exact_critics_leave_no_bias(problem, phi, importance, gamma, bootstrap):
    """V_t(s) and Q_t(s, a) of the time-limited task, V_T = 0: bootstrapping there adds nothing."""
    mdp = problem.mdp
    off = importance != "none"
    config = EstimatorConfig(
        phi, "none", importance, gamma, 0.6, True, False, False, False, bootstrap,
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
