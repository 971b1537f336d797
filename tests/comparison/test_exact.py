"""The exact means and variances against enumeration: all trajectories, or all pairs, listed."""

import itertools
from dataclasses import replace

import pytest
import torch
from settings import train_config

from pgcli.comparison.exact import Problem
from pgcli.environments.tabular import Tabular
from pgcli.estimators.baselines import BASELINES
from pgcli.estimators.estimator import terms
from pgcli.estimators.importance import IMPORTANCES
from pgcli.estimators.phi import PHIS, Episodes
from pgcli.gradients.trajectory import step_products, trajectory_gradients
from pgcli.gradients.truth import action_probabilities, placed, solve
from pgcli.proof.listed import TinyMdp, tabular


@pytest.fixture(scope="module", params=[0, 1])
def case(request):
    mdp = TinyMdp.random(request.param)
    policy = mdp.policy()
    rng = torch.Generator().manual_seed(7)
    theta, step = torch.randn(2, 1, policy.num_params, dtype=torch.float64, generator=rng)
    value = torch.randn(mdp.horizon + 1, mdp.states + 1, dtype=torch.float64, generator=rng)
    value[:, -1] = 0
    q = torch.randn(mdp.horizon, mdp.states + 1, mdp.actions, dtype=torch.float64, generator=rng)
    q[:, -1] = 0
    return mdp, policy, theta, theta + 0.3 * step, value, q


def listed(case, config, off, n):
    """E[ĝ] and n · tr Var(ĝ) of the production code, over all n-tuples of trajectories."""
    chance, g = estimates(case, config, off, n)
    mean = (chance[:, None] * g).sum(0)
    return mean, float(n * (chance * (g - mean).square().sum(-1)).sum())


def estimates(case, config, off, n):
    """The chance of every n-tuple of trajectories [k] and ĝ of it [k, P]."""
    mdp, policy, theta, other, value, q = case
    b, behaviour = mdp.batch, other if off else theta
    p = mdp.probabilities(policy, behaviour).detach()
    rows = b.obs.flatten(1, 2), b.act.flatten(1, 2)
    ratio = policy.log_prob(theta, *rows) - policy.log_prob(behaviour, *rows)
    log_ratio = (ratio.reshape(b.mask.shape) * b.mask)[0].detach()
    state, final = mdp.states_and_times()
    time = torch.arange(mdp.horizon)
    v, last = value[time, state], value[mdp.horizon, final]
    qs = q[time, state, b.act[0]]
    index = torch.cartesian_prod(*[torch.arange(len(p))] * n).reshape(-1, n)
    batch = Episodes(b.rew[0][index], b.mask[0][index], b.truncated[0][index], v[index],
                     last[index], qs[index], log_ratio[index] if off else None)  # fmt: skip
    weights = terms(config, batch).weights  # [tuples, n, T]
    factors, _ = policy.score_factors(theta, *rows)
    scores = torch.stack(
        [trajectory_gradients(factors, (torch.arange(mdp.horizon) == t).double().expand(
            1, len(p), -1), policy.num_params)[0] for t in range(mdp.horizon)], 1
    )  # [N, T, P]  # fmt: skip
    chance = p[index].prod(-1)
    return chance, torch.einsum("knt,kntp->kp", weights, scores[index]) / n


def problem(case, off):
    mdp, policy, theta, other, value, q = case
    behaviour = action_probabilities(policy, other, mdp.states) if off else None
    return Problem(placed(tabular(mdp), policy, theta), behaviour=behaviour, value=value, q=q)


def exact(case, config, off, n):
    return problem(case, off).estimate(config, n)


def revealed(case, config, off):
    """Start, actions, dynamics: squared increments of E[g | history], history by history."""
    chance, g = estimates(case, config, off, 1)
    histories = []
    for states, actions, rewards, final, _ in case[0].trajectories:
        known, own = (states[0],), [(), (states[0],)]
        for action, reward, state in zip(actions, rewards, [*states[1:], final], strict=True):
            own += [known := (*known, action), known := (*known, reward, state)]
        histories.append(own + [known] * (2 + 2 * case[0].horizon - len(own)))
    parts, before = [0.0, 0.0, 0.0], (chance[:, None] * g).sum(0).expand(len(g), -1)
    for level in range(1, 2 + 2 * case[0].horizon):
        keys = [own[level] for own in histories]
        group = torch.tensor([list(dict.fromkeys(keys)).index(key) for key in keys])
        total = torch.zeros(len(g), g.shape[1], dtype=g.dtype)
        total.index_add_(0, group, chance[:, None] * g)
        mass = torch.zeros(len(g), dtype=g.dtype).index_add_(0, group, chance)
        now = (total / mass.clamp(min=1e-300)[:, None])[group]
        parts[0 if level == 1 else 1 + level % 2] += float(
            (chance * (now - before).square().sum(-1)).sum()
        )
        before = now
    return parts


def combinations(phi, form):
    """All settings with this Φ and form that the recursion claims to know; whether off policy."""
    for base, by_state, gamma in itertools.product(BASELINES.names, (False, True), (1.0, 0.9)):
        if PHIS.find(phi).subtracts_value and base != "none":
            continue
        if BASELINES.find(base).exact not in ("state", "mean", "own_mean"):
            continue  # not known, or in the limit only
        options = [{}]
        if phi in ("td", "n_step", "gae"):
            options += [{"bootstrap": True}]
        if form == "first_order":
            options += [{"clip_ratio": 1.1}]
        for off in {form != "none", True}:
            for option in options:
                config = replace(
                    train_config().estimator, phi=phi, baseline=base, importance=form,
                    discount_state=by_state, gamma=gamma, lam=0.7, n=2, constant=1.3, **option,
                )  # fmt: skip
                yield config, off


@pytest.mark.parametrize("phi", [name for name in PHIS.names if not PHIS.find(name).couples])
@pytest.mark.parametrize("form", IMPORTANCES.names)
def test_mean_and_variance_agree_with_enumeration(case, phi, form):
    """To 1e-10 relative, for every combination that the recursion claims to know."""
    checked = 0
    for config, off in combinations(phi, form):
        coupled = config.baseline in ("mean", "own_mean")
        found = exact(case, config, off, 2)
        assert found is not None
        assert not found.limit
        mean, trace = listed(case, config, off, 2 if coupled else 1)
        scale = 1e-10 * (1 + mean.abs().max().item())
        torch.testing.assert_close(found.mean, mean, rtol=1e-10, atol=scale)
        if found.trace_cov is not None:
            assert found.trace_cov == pytest.approx(trace, rel=1e-9)
            checked += 1
    assert checked


@pytest.mark.parametrize("phi", [name for name in PHIS.names if not PHIS.find(name).couples])
@pytest.mark.parametrize("form", IMPORTANCES.names)
def test_parts_of_the_variance_agree_with_enumeration(case, phi, form):
    """The three, history by history, and their sum with the variance from another recursion."""
    checked = 0
    for config, off in combinations(phi, form):
        one = problem(case, off)
        found = one.estimate(config, 2)
        parts = one.parts(config, found)
        if parts is None:
            assert found.trace_cov is None
            continue
        assert parts.total == pytest.approx(found.trace_cov, rel=1e-10)
        if config.baseline in ("mean", "own_mean"):
            config = replace(config, baseline="constant", constant=float(found.constant))
        expected = revealed(case, config, off)
        assert parts[:3] == pytest.approx(expected, rel=1e-9, abs=1e-11 * sum(expected))
        checked += 1
    assert checked


@pytest.mark.parametrize("phi", ["total_return", "reward_to_go", "gae"])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_a_baseline_changes_the_actions_part_alone(case, phi, gamma):
    """Start + dynamics is the floor: the same with none, V, a constant; and of total and rtg."""
    config = replace(train_config().estimator, phi=phi, gamma=gamma, bootstrap=True, lam=0.7)
    if phi == "total_return":
        config = replace(config, discount_state=True)
    one = problem(case, False)
    names = ["none"] if phi == "gae" else ["none", "constant", "value", "optimal", "time", "mean"]
    floors = []
    for name in names:
        chosen = replace(config, baseline=name, constant=1.3)
        found = one.estimate(chosen, 4)
        if found is None or found.trace_cov is None:
            continue
        parts = one.parts(chosen, found)
        floors.append((parts.start, parts.dynamics))
    for start, dynamics in floors[1:]:
        assert start == pytest.approx(floors[0][0], rel=1e-10)
        assert dynamics == pytest.approx(floors[0][1], rel=1e-10)
    assert len(floors) >= min(len(names), 4)


def test_no_floor_is_told_where_a_baseline_would_bias(case):
    """Off policy without weights, or with clipped ones, scores do not have mean zero."""
    one = problem(case, True)
    for changes, told in (
        ({"importance": "none"}, False),
        ({"importance": "first_order", "clip_ratio": 1.1}, False),
        ({"importance": "first_order"}, True),
        ({"importance": "trajectory"}, True),
    ):
        config = replace(train_config().estimator, baseline="constant", constant=1.3, **changes)
        floor = one.parts(config, one.estimate(config, 2)).floor
        assert (floor == floor) == told, changes
        other = replace(config, constant=-4.0)
        parts = one.parts(other, one.estimate(other, 2))
        if told:
            assert parts.floor == pytest.approx(floor, rel=1e-10)
        elif changes["importance"] == "none":
            before = one.parts(config, one.estimate(config, 2))
            assert abs(parts.start + parts.dynamics - before.start - before.dynamics) > 1e-3


def test_nothing_exact_is_claimed_of_what_is_fitted_within_the_batch(case):
    config = replace(train_config().estimator, phi="compatible", baseline="none")
    assert exact(case, config, False, 2) is None


def test_dynamic_programming_with_autograd(case):
    mdp, policy, theta, *_ = case
    for gamma in (1.0, 0.9):
        found = solve(tabular(mdp), policy, theta, gamma)
        pi = mdp.action_probabilities(policy, theta).detach()
        assert found.objective == pytest.approx(mdp.objective(pi, gamma).item(), rel=1e-12)
        truth = mdp.gradient(policy, theta, gamma)[0]
        torch.testing.assert_close(found.gradient, truth, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.value, mdp.values(pi, gamma))
        torch.testing.assert_close(found.action_value, mdp.action_values(pi, gamma))


@pytest.mark.parametrize("phi", ["total_return", "reward_to_go"])
@pytest.mark.parametrize("form", ["none", "trajectory", "per_decision"])
def test_optimal_baselines_are_least_among_constants(case, phi, form):
    off = form != "none"
    config = replace(train_config().estimator, phi=phi, importance=form)

    def trace(name, constant=0.0):
        chosen = replace(config, baseline=name, constant=constant)
        return exact(case, chosen, off, 2).trace_cov

    best = trace("optimal")
    curve = [trace("constant", b) for b in (-1.0, 0.0, 1.0)]
    # The variance is a parabola in the constant: three values give its least one.
    a, slope = (curve[0] + curve[2]) / 2 - curve[1], (curve[2] - curve[0]) / 2
    assert best == pytest.approx(curve[1] - slope**2 / (4 * a), rel=1e-9)
    assert trace("optimal_per_parameter") <= best


@pytest.mark.parametrize("phi", ["total_return", "reward_to_go"])
@pytest.mark.parametrize(("gamma", "by_state"), [(1.0, False), (0.8, False), (0.8, True)])
def test_the_limit_of_the_best_baseline_in_time(case, phi, gamma, by_state):
    """b_t = E⟨X, s_t⟩/E‖s_t‖² by listing all trajectories, and no other number is better."""
    mdp, policy, theta, *_ = case
    config = replace(
        train_config().estimator, phi=phi, baseline="optimal_time", gamma=gamma,
        discount_state=by_state,
    )  # fmt: skip
    problem = Problem(placed(tabular(mdp), policy, theta))
    found = problem.estimate(config, 2)
    assert found.limit
    b = problem._best_in_time(config)

    p, batch = mdp.probabilities(policy, theta).detach(), mdp.batch
    episodes = Episodes(batch.rew[0], batch.mask[0], batch.truncated[0])
    told = terms(replace(config, baseline="none"), episodes)
    factors, _ = policy.score_factors(theta, batch.obs.flatten(1, 2), batch.act.flatten(1, 2))
    x = trajectory_gradients(factors, told.weights[None], policy.num_params)
    along, square = (y[0] for y in step_products(factors, x))
    above = (p[:, None] * along * told.control).sum(0)
    below = (p[:, None] * square * told.control.square()).sum(0)
    torch.testing.assert_close(b, above / below, rtol=1e-9, atol=1e-12)

    def trace(b):
        return problem._trace(problem._with(config, b).moments())

    assert found.trace_cov == pytest.approx(trace(b), rel=1e-12)
    for t in range(mdp.horizon):
        for step in (-0.1, 0.1):
            assert trace(b + step * torch.eye(mdp.horizon, dtype=b.dtype)[t]) > found.trace_cov
    for other in ("optimal", "time"):
        rival = problem.estimate(replace(config, baseline=other), 2)
        assert rival is None or found.trace_cov <= rival.trace_cov + 1e-12
    assert problem.parts(config, found).total == pytest.approx(found.trace_cov, rel=1e-10)


def test_the_limit_of_the_time_baseline(case):
    """b_t = E[G_t | the episode still runs at t], by listing all trajectories."""
    mdp, policy, theta, *_ = case
    config = replace(train_config().estimator, baseline="time")
    p, b = mdp.probabilities(policy, theta).detach()[:, None], mdp.batch
    to_go = b.rew[0].flip(-1).cumsum(-1).flip(-1) * b.mask[0]
    mean = (p * to_go).sum(0) / (p * b.mask[0]).sum(0)
    factors, _ = policy.score_factors(theta, b.obs.flatten(1, 2), b.act.flatten(1, 2))
    weights = ((to_go - mean) * b.mask[0]).unsqueeze(0)
    g = trajectory_gradients(factors, weights, policy.num_params)[0]
    expected = (p * (g - (p * g).sum(0)).square()).sum().item()
    found = exact(case, config, False, 2)
    assert found.limit
    assert found.trace_cov == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("switch", ["normalize", "self_normalize", "clip_ratio", "phi"])
def test_what_is_no_recursion_is_not_claimed(case, switch):
    value = {"normalize": True, "self_normalize": True, "clip_ratio": 2.0, "phi": "my:own"}[switch]
    config = replace(train_config().estimator, importance="per_decision", **{switch: value})
    assert exact(case, config, True, 2) is None


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("mu", [0.0, 1.5])
def test_closed_forms_on_a_chain(steps, mu):
    """One state, T steps, two actions s_t = ±1 of equal chance, reward μ + s_t, softmax logits.

    The score is ψ_t = s_t v with v = (1, −1)/2, ‖v‖² = 1/2. With M = Σ_t s_t, E M² = T,
    E M³ = 0, E M⁴ = 3T² − 2T, and ∇J = T v. N · tr Var(ĝ) for batches of N:

    total return     g = v M (Tμ + M)                      ½ (T³μ² + 2T² − 2T)
      − constant b   g = v M (Tμ − b + M)                  ½ (T (Tμ − b)² + 2T² − 2T), b* = Tμ
      − mean of the others: b has mean Tμ and variance T/(N−1), and shares a trajectory with the
        b of each other one: E‖g‖² gains ½ T²/(N−1), N−1 covariances ‖E[R S]‖²/(N−1)² as much again
                                                           T² − T + T²/(N−1)
    reward-to-go     g = v (Σ_t s_t (T−t) μ + T + Σ_{t<k} s_t s_k)
                                                           ½ (μ² T(T+1)(2T+1)/6 + T(T−1)/2)
      − constant b   kμ − b for k = T − t in place of kμ   b* = μ(T+1)/2: ½ (μ² T(T²−1)/12 + …)
      − V_t = (T−t)μ                                       ½ T(T−1)/2
    """
    n, t = 4, steps
    one = torch.ones(2, dtype=torch.float64)
    model = Tabular(
        one[:1], torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0, 0]), one,
        mu + torch.tensor([1.0, -1.0]).double(), 2, t,
    )  # fmt: skip
    policy = TinyMdp.random(0, states=1).policy(())
    theta = torch.zeros(1, policy.num_params, dtype=torch.float64)
    policy = replace(policy, net=replace(policy.net, bias=False))
    theta = theta[:, : policy.num_params]
    solution = solve(model, policy, theta, 1.0)
    problem = Problem(placed(model, policy, theta), value=solution.value)
    pairs = t * (t - 1) / 2
    expected = {
        ("total_return", "none"): (t**3 * mu**2 + 2 * t**2 - 2 * t) / 2,
        ("total_return", "optimal"): t**2 - t,
        ("total_return", "optimal_per_parameter"): t**2 - t,
        ("total_return", "mean"): t**2 - t + t**2 / (n - 1),
        ("reward_to_go", "none"): (mu**2 * t * (t + 1) * (2 * t + 1) / 6 + pairs) / 2,
        ("reward_to_go", "optimal"): (mu**2 * t * (t**2 - 1) / 12 + pairs) / 2,
        ("reward_to_go", "value"): pairs / 2,
        ("reward_to_go", "time"): pairs / 2,
    }
    for (phi, base), trace in expected.items():
        config = replace(train_config().estimator, phi=phi, baseline=base)
        found = problem.estimate(config, n)
        assert found.trace_cov == pytest.approx(trace, rel=1e-10, abs=1e-12), (phi, base)
        torch.testing.assert_close(found.mean, t * torch.tensor([0.5, -0.5]).double())


@pytest.mark.parametrize("base", ["none", "mean", "time", "optimal", "optimal_per_parameter"])
def test_a_variance_that_is_lost_to_rounding_is_not_told(base):
    """A shift of all rewards leaves it as it is, and of the squares that make it only rounding."""
    mdp = TinyMdp.random(0, horizon=1)
    policy = mdp.policy()
    theta = 0.3 * torch.ones(1, policy.num_params, dtype=torch.float64)
    config = replace(train_config().estimator, phi="reward_to_go", baseline=base, gamma=1.0)
    model = tabular(mdp)
    plain = Problem(placed(model, policy, theta)).estimate(config, 8).trace_cov
    for shift in (1e2, 1e4, 1e6, 1e8, 1e10):
        shifted = replace(model, reward=model.reward + shift)
        found = Problem(placed(shifted, policy, theta)).estimate(config, 8).trace_cov
        if base == "none":
            assert found > plain
        elif found is None:
            assert shift >= 1e6
        else:
            assert found == pytest.approx(plain, rel=1e-5)
