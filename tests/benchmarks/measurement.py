"""What measuring the gradient's variance costs: a policy update with it and without it.

    python tests/benchmarks/measurement.py [result.json]

An update is the score factors, the weighting, the sums and the optimiser's step, for policies of
two hidden layers, on batches like those of CartPole-v1 at the start and at the end of training;
beside it what a plain loss.backward() takes, like all of `pg` with one thread to an operation.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from pairing import interleaved, report

from pgcli.cli.compose import compose_all
from pgcli.collection.batch import Batch
from pgcli.gradients.statistics import measure
from pgcli.gradients.trajectory import gradient_sums
from pgcli.machine.cores import begin
from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.training.learner import Learner

REPETITIONS = 30


def batch(episodes: int, low: int, high: int) -> Batch:
    """Random steps in episodes of random lengths in [low, high]."""
    length = torch.randint(low, high + 1, (1, episodes))
    mask = torch.arange(high) < length.unsqueeze(-1)
    shape = (1, episodes, high)
    ended = torch.ones(1, episodes, dtype=torch.bool)
    return Batch(torch.randn(*shape, 4), torch.randint(0, 2, shape), mask.double(), mask,
                 ended, ~ended, torch.randn(1, episodes, 4), length)  # fmt: skip


def update(policy: Policy, learner: Learner, data: Batch, group: int) -> float:
    """Milliseconds of one update; a single group measures nothing."""
    weights = torch.randn(data.mask.shape) * data.mask
    start = time.perf_counter()
    sums = gradient_sums(policy, learner.theta, data, weights, group)
    gradient = measure(sums).gradient if group == 1 else sums.gradient / data.episodes[:, None]
    learner.rule.step(learner.theta, gradient, 0.0)
    return 1e3 * (time.perf_counter() - start)


def ordinary_update(policy: Policy, learner: Learner, data: Batch) -> float:
    """Milliseconds of the textbook's loss.backward() over the whole batch and a step of Adam."""
    weights = torch.randn(data.mask.shape) * data.mask
    start = time.perf_counter()
    theta = learner.theta.clone().requires_grad_()
    logp = policy.log_prob(theta, data.obs.flatten(1, 2), data.act.flatten(1, 2))
    objective = (logp * weights.flatten(1)).sum() / data.episodes.sum()
    objective.backward()
    learner.rule.step(learner.theta, theta.grad, 0.0)
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    begin()
    torch.manual_seed(0)
    (composed,) = compose_all("train", [], None, multirun=False)
    for width, title, data in (
        (64, "32 episodes of 500 steps", batch(32, 500, 500)),
        (64, "32 episodes of 10 to 40 steps", batch(32, 10, 40)),
        (64, "256 episodes of 10 to 500 steps", batch(256, 10, 500)),
        (256, "32 episodes of 500 steps", batch(32, 500, 500)),
        (256, "256 episodes of 10 to 40 steps", batch(256, 10, 40)),
    ):
        policy = Policy(Mlp((4, width, width, 2)), Categorical(2))
        learner = Learner(composed.config, policy, {}, None, [0], torch.device("cpu"))
        found = interleaved(
            {
                "loss.backward()": partial(ordinary_update, policy, learner, data),
                "without": partial(update, policy, learner, data, data.length.numel()),
                "with": partial(update, policy, learner, data, 1),
            },
            REPETITIONS,
        )
        report(f"one update, 2×{width}, {title}", "ms", found, "without")
