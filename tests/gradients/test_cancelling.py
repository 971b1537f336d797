"""What divides by a sum: scores, returns and errors may cancel, and rounding is no number."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.collection.batch import Batch
from pgcli.comparison.paired import Sample, samples
from pgcli.comparison.resampled import Comparison, Resamples
from pgcli.environments.tabular import Tabular
from pgcli.estimators import baselines
from pgcli.estimators.estimator import standardized, terms
from pgcli.estimators.phi import Episodes
from pgcli.estimators.returns import td_residual
from pgcli.gradients.statistics import measure
from pgcli.gradients.trajectory import fitted_gradient_sums, gradient_sums
from pgcli.gradients.truth import solve
from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.proof.listed import TinyMdp
from pgcli.training import metrics

STATES, STEPS, EPISODES = 4, 60, 8


def uniform_table(actions):
    """A table of zeros in float32, and episodes of whole rewards at it."""
    rng = np.random.default_rng(actions)
    state, act = (
        rng.integers(STATES, size=(1, EPISODES, STEPS)),
        rng.integers(actions, size=(1, EPISODES, STEPS)),
    )
    rew = torch.from_numpy(rng.integers(-9, 10, size=state.shape)).double()
    mask, ended = torch.ones(state.shape, dtype=torch.bool), torch.ones(1, EPISODES).bool()
    obs = torch.eye(STATES)[torch.from_numpy(state)]
    length = torch.full((1, EPISODES), STEPS)
    batch = Batch(obs, torch.from_numpy(act), rew, mask, ended, ~ended, obs[:, :, -1], length)
    policy = Policy(Mlp((STATES, actions), bias=False), Categorical(actions))
    return policy, torch.zeros(1, policy.num_params), batch


def in_whole_numbers(batch, actions, per_parameter):
    """‖ĝ‖ and tr Σ̂ of reward-to-go with the fitted baseline, by fractions: nothing is rounded."""
    x = np.zeros((EPISODES, STATES, actions), object)
    s = np.zeros_like(x)
    rew = batch.rew[0].numpy().astype(int)
    to_go = rew[:, ::-1].cumsum(1)[:, ::-1]
    for n in range(EPISODES):
        for t in range(STEPS):
            score = np.array([-1] * actions, object)  # in units of 1/actions
            score[int(batch.act[0, n, t])] += actions
            at = int(batch.obs[0, n, t].argmax())
            s[n, at] += score
            x[n, at] += score * int(to_go[n, t])
    x, s = x.reshape(EPISODES, -1), s.reshape(EPISODES, -1)
    g = np.zeros(x.shape)
    for n in range(EPISODES):
        others = [m for m in range(EPISODES) if m != n]
        xs, ss = (x[others] * s[others]).sum(0), (s[others] * s[others]).sum(0)
        if not per_parameter:
            xs, ss = (np.full(x.shape[1], y.sum(), object) for y in (xs, ss))
        for j in range(x.shape[1]):
            b = Fraction(int(xs[j]), int(ss[j])) if ss[j] else 0
            g[n, j] = float((int(x[n, j]) - b * int(s[n, j])) / Fraction(actions))
    return np.linalg.norm(g.mean(0)), g.var(0, ddof=1).sum()


@pytest.mark.parametrize("per_parameter", [True, False])
@pytest.mark.parametrize("actions", [2, 3, 4, 5, 6, 7])
def test_a_fitted_baseline_divides_by_no_score_that_has_cancelled(actions, per_parameter):
    """At a uniform policy of 3, 5, 6 or 7 actions a score of 0 comes out as 3e-8 in float32."""
    policy, theta, batch = uniform_table(actions)
    name = "optimal_per_parameter" if per_parameter else "optimal"
    config = train_config(f"estimator=rtg_{name}").estimator
    looks = Episodes(batch.rew, batch.mask, batch.truncated)
    found = terms(config, looks)
    measured = measure(
        fitted_gradient_sums(
            policy, theta, batch, found.weights, found.control, per_parameter=per_parameter
        )[0]
    )
    norm, trace = in_whole_numbers(batch, actions, per_parameter)
    assert float(measured.norm) == pytest.approx(norm, rel=1e-4)
    assert float(measured.trace_cov) == pytest.approx(trace, rel=1e-4)
    compared = samples(policy, theta, batch, {"one": (config, looks)}, EPISODES, 1)["one"]
    assert float(compared.square.sqrt()) == pytest.approx(norm, rel=1e-4)


def test_a_return_that_its_baseline_explains_wholly_leaves_nothing():
    """Ten times the same return of tenths: the mean of the others is off by a rounding or two."""
    rew = torch.full((10, 7), 0.1, dtype=torch.float64)
    looks = Episodes(rew, torch.ones_like(rew).bool(), torch.zeros(10).bool())
    for preset in ("total_mean", "rtg_time", "total_own_mean"):
        config = train_config(f"estimator={preset}").estimator
        assert (terms(config, looks).weights == 0).all(), preset
    same = torch.full((3, 5), 1 / 3, dtype=torch.float64)
    assert (standardized(same, torch.ones_like(same).bool()) == 0).all()
    rew, value, following = torch.tensor([0.1, 0.3 - 0.1 * 2**-50, 0.2], dtype=torch.float64)
    assert td_residual(rew, value, following, 1.0) == 0
    assert td_residual(rew, value + 1e-9, following, 1.0) == pytest.approx(-1e-9)


def test_the_mean_of_the_others_does_not_drown_in_the_own():
    phi = torch.tensor([[1e17], [1.0], [2.0]], dtype=torch.float64)
    mask = torch.ones(3, 1).bool()
    for baseline in (baselines.leave_one_out_mean, baselines.leave_one_out_time_mean):
        assert baseline(phi, mask)[0].item() == 1.5


def test_a_target_that_never_varies_is_not_explained():
    target = torch.full((1, 3, 5), 1 / 3, dtype=torch.float64)
    value, mask = torch.zeros_like(target), torch.ones(1, 3, 5).bool()
    found = metrics.critic("critic", value, target, mask)
    assert float(found["critic/explained_variance"]) == 0


def test_trajectories_that_agree_have_no_variance_and_no_noise_scale():
    """In float32 the squares of equal gradients sum to a hair more, or less, than their mean's."""
    policy, theta, batch = uniform_table(3)
    one = Batch(**{name: x[:, :1].expand(-1, EPISODES, *x.shape[2:]) if x.ndim > 1 else x
                   for name, x in vars(batch).items() if x is not None})  # fmt: skip
    measured = measure(gradient_sums(policy, theta, one, one.rew))
    assert float(measured.norm) > 1
    assert float(measured.trace_cov) == 0
    u = torch.randn(7, generator=torch.Generator().manual_seed(0)).expand(8, 4, 7)
    sample = Sample(u, u.square().sum(-1, dtype=torch.float64), 1, 0.0)
    compared = Comparison({"a": sample}, 4, Resamples(8, 4, 100, np.random.default_rng(0)))
    verdict = compared.verdict("a", "a", None, unbiased=True)
    assert verdict.trace_cov.value == 0
    assert verdict.cos_between.value == pytest.approx(1)


def test_an_objective_that_no_action_moves_has_the_gradient_zero():
    """1/3 a step, whatever is done: ∇J is 0, not 1e-17, and no bias is relative to it."""
    mdp = TinyMdp(np.full((2, 3, 3), [0.5, 0.5, 0.0]), np.full((2, 3, 3), 1 / 3), np.ones(2) / 2, 5)
    k = [(s, a, n) for s in range(2) for a in range(3) for n in range(2)]
    state, action, following = (torch.tensor(x) for x in zip(*k, strict=True))
    half, third = torch.full((len(k),), 0.5).double(), torch.full((len(k),), 1 / 3).double()
    start = torch.from_numpy(mdp.start)
    model = Tabular(start, state, action, following, half, third, 3, 5)
    theta = torch.randn(1, mdp.policy().num_params, generator=torch.Generator().manual_seed(1))
    solution = solve(model, mdp.policy(), theta, 1.0)
    assert solution.objective == pytest.approx(5 / 3)
    assert (solution.gradient == 0).all()


@pytest.mark.parametrize("size", [1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("per_parameter", [False, True])
def test_scores_that_nearly_cancel_are_those_of_double_precision(per_parameter, size):
    """What is left of them is what a baseline divides by, however small it is."""
    policy, _, batch = uniform_table(6)
    theta = size * torch.randn(1, policy.num_params, generator=torch.Generator().manual_seed(1))
    table = theta[0].double().numpy().reshape(STATES, 6)
    pi = np.exp(table) / np.exp(table).sum(1, keepdims=True)
    x, s = np.zeros((2, EPISODES, STATES, 6))
    to_go = batch.rew[0].numpy()[:, ::-1].cumsum(1)[:, ::-1]
    for n, t in np.ndindex(EPISODES, STEPS):
        at = int(batch.obs[0, n, t].argmax())
        score = np.eye(6)[int(batch.act[0, n, t])] - pi[at]
        s[n, at] += score
        x[n, at] += score * to_go[n, t]
    x, s = x.reshape(EPISODES, -1), s.reshape(EPISODES, -1)
    above, below = (x * s, s * s) if per_parameter else (
        (x * s).sum(1, keepdims=True), (s * s).sum(1, keepdims=True)
    )  # fmt: skip
    g = x - s * (above.sum(0) - above) / (below.sum(0) - below)
    weights = torch.from_numpy(to_go.copy())[None]
    found = measure(
        fitted_gradient_sums(
            policy, theta, batch, weights, torch.ones_like(weights), per_parameter=per_parameter
        )[0]
    )
    assert found.norm.item() == pytest.approx(np.linalg.norm(g.mean(0)), rel=1e-6)
    assert found.trace_cov.item() == pytest.approx(g.var(0, ddof=1).sum(), rel=1e-6)
    config = train_config("estimator=rtg_optimal" + "_per_parameter" * per_parameter).estimator
    episodes = Episodes(batch.rew, batch.mask, batch.truncated)
    case = {"it": (config, episodes)}
    (sample,) = samples(policy, theta, batch, case, EPISODES, 1).values()
    assert sample.mean.norm().item() == pytest.approx(np.linalg.norm(g.mean(0)), rel=1e-6)
