"""Do the sampled intervals cover the exact figures as often as they say? Slow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.collection.rollout import Quota, collect
from pgcli.comparison.exact import Problem
from pgcli.comparison.paired import samples
from pgcli.comparison.resampled import Comparison, Resamples
from pgcli.environments.choose import open_engine
from pgcli.environments.tabular import tabular_model
from pgcli.estimators.phi import Episodes
from pgcli.gradients.truth import placed, solve
from pgcli.policies.actor import PolicyActor
from pgcli.policies.build import build_policy

BATCH, BATCHES, UNITS, REPETITIONS = 32, 64, 4, 120


@pytest.mark.slow
def test_intervals_cover_exact_variances_on_frozen_lake():
    """At 95 %, 120 times 2,048 episodes, of which about one in seventy has a reward at all."""
    config = train_config("env=FrozenLake-v1", "policy=tabular")
    base = config.estimator
    estimators = {
        "total": replace(base, phi="total_return"),
        "rtg": base,
        "mean": replace(base, baseline="mean"),
        "value": replace(base, baseline="value"),
        "gae": replace(base, phi="gae"),
    }
    engine = open_engine(config.env, 64)
    policy = build_policy(config.policy, config.behaviour, engine)
    theta = policy.init(config.policy, [0])
    model = tabular_model(config.env)
    solution = solve(model, policy, theta, 1.0)
    problem = Problem(placed(model, policy, theta), value=solution.value)
    exact = {name: problem.estimate(est, BATCH) for name, est in estimators.items()}
    hits = {(kind, name): 0 for kind in ("trace", "ratio") for name in estimators}
    time = torch.arange(model.horizon)
    for repetition in range(REPETITIONS):
        actor = PolicyActor(policy, theta, [0], repetition, 64)
        batch = collect(engine, actor, Quota(BATCH * BATCHES, None), [0], repetition)
        value = solution.value[time[: batch.mask.shape[2]], batch.obs.argmax(-1)] * batch.mask
        looks = Episodes(
            batch.rew, batch.mask, batch.truncated, value, torch.zeros(batch.truncated.shape)
        )
        found = samples(
            policy, theta, batch, {k: (e, looks) for k, e in estimators.items()}, BATCH, UNITS
        )
        rng = np.random.default_rng(repetition)
        comparison = Comparison(found, BATCH, Resamples(BATCHES, UNITS, 400, rng))
        for name in estimators:
            verdict = comparison.verdict(name, "total", None, unbiased=True)
            wanted = {
                "trace": (verdict.trace_cov, exact[name].trace_cov),
                "ratio": (verdict.variance_ratio, exact[name].trace_cov / exact["total"].trace_cov),
            }
            for kind, (figure, truth) in wanted.items():
                slack = 1e-6 * truth  # total and rtg are the same here, up to rounding
                hits[kind, name] += figure.lower - slack <= truth <= figure.upper + slack
    coverage = {key: count / REPETITIONS for key, count in hits.items()}
    print(coverage)
    # 95 % less three standard errors of 120 repetitions; a ratio of whole batches has 64 of them.
    assert all(rate >= (0.89 if key[0] == "trace" else 0.85) for key, rate in coverage.items())
