"""The expectation of an estimate, without sampling, against ∇J: in float64, over all batches.

A combination must be exact if and only if it carries no bias note: the notes that users read are
themselves proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pgcli.estimators.baselines import baseline
from pgcli.estimators.bias import Circumstances, bias_notes
from pgcli.estimators.estimator import terms
from pgcli.estimators.phi import Episodes
from pgcli.gradients.control import controlled, less_in_time
from pgcli.gradients.trajectory import step_products, trajectory_gradients
from pgcli.policies.policy import Factor, Policy
from pgcli.proof.combinations import PLAIN, Case
from pgcli.proof.listed import TinyMdp
from pgcli.settings.schema import EstimatorConfig

EXACT, BIASED = 1e-10, 1e-4  # of ‖∇J‖: an error below, or above
DISCOUNTS = (0.0, 0.9, 1.0)
BATCH = 2  # episodes


@dataclass(frozen=True)
class Problem:
    """All pairs of trajectories at θ; what does not depend on the estimator is computed once."""

    mdp: TinyMdp

    @cached_property
    def policy(self) -> Policy:
        """Whose gradient it is."""
        return self.mdp.policy()

    @cached_property
    def theta(self) -> Tensor:
        """Its parameters [1, P]."""
        return self._drawn(7)

    @cached_property
    def other(self) -> Tensor:
        """Those of another policy, [1, P]."""
        return self.theta + 0.3 * self._drawn(8)

    @cached_property
    def factors(self) -> list[Factor]:
        """The scores of all steps of all trajectories."""
        return self.policy.score_factors(self.theta, *self._rows)[0]

    @cached_property
    def pair(self) -> Tensor:
        """[n², 2]: the batch axis N = 2."""
        n = len(self.mdp.trajectories)
        return torch.cartesian_prod(torch.arange(n), torch.arange(n))

    @cached_property
    def sampled(self) -> dict[bool, tuple[Tensor, Tensor]]:
        """Of the policy itself and off-policy: probabilities [n], log π/μ [n, T]."""
        return {off: self._sampled_by(self.other if off else self.theta) for off in (False, True)}

    @cached_property
    def truths(self) -> dict[float, Tensor]:
        """∇J_γ [1, P] by γ."""
        return {g: self.mdp.gradient(self.policy, self.theta, g) for g in DISCOUNTS}

    def _drawn(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.policy.num_params, dtype=torch.float64, generator=generator)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        return self.mdp.batch.obs.flatten(1, 2), self.mdp.batch.act.flatten(1, 2)

    def _sampled_by(self, behaviour: Tensor) -> tuple[Tensor, Tensor]:
        ratio = self.policy.log_prob(self.theta, *self._rows)
        ratio = ratio - self.policy.log_prob(behaviour, *self._rows)
        mask = self.mdp.batch.mask
        log_ratio = (ratio.reshape(mask.shape) * mask)[0].detach()
        return self.mdp.probabilities(self.policy, behaviour).detach(), log_ratio


class Verdict(NamedTuple):
    """What came out for one combination in one problem."""

    error: float  # ‖E[ĝ] − ∇J‖ / ‖∇J‖
    notes: list[str]  # the bias that is claimed; none: that there is none
    steps: int  # of an episode, at most

    @property
    def holds(self) -> bool:
        """Whether what is claimed is so."""
        return self.error > BIASED if self.notes else self.error < EXACT


def problems(case: Case) -> list[Problem]:
    """Those in which a combination is looked at."""
    return _PROBLEMS if case.config.baseline in PLAIN else _PROBLEMS[:2]


# Two drawn at random, and one of a single step: nothing comes before it or after.
_DRAWN = ((0, 3), (1, 3), (0, 1))  # by seed, steps
_PROBLEMS = [Problem(TinyMdp.random(seed, horizon=steps)) for seed, steps in _DRAWN]


def verdict(problem: Problem, case: Case) -> Verdict:
    """Whether a combination is exact, with critics that are wrong everywhere."""
    config, off = case
    mdp, truth = problem.mdp, problem.truths[config.gamma]
    estimate = expected_gradient(problem, off, config, *arbitrary_values(mdp), arbitrary_q(mdp))
    error = ((estimate - truth).norm() / truth.norm()).item()
    notes = bias_notes(config, Circumstances(mdp.horizon, off_policy=off))
    return Verdict(error, notes, mdp.horizon)


def expected_gradient(
    problem: Problem,
    off: bool,
    config: EstimatorConfig,
    value: Tensor,
    final_value: Tensor,
    q: Tensor,
) -> Tensor:
    """E[ĝ] [1, P]: the production code on all pairs of trajectories, weighted by probability.

    value [n, T], final_value [n], q [n, T] of the n trajectories; `off`: of another policy's data.
    """
    b, policy, pair = problem.mdp.batch, problem.policy, problem.pair
    p, log_ratio = problem.sampled[off]
    first, second = pair.T
    found = terms(
        config,
        Episodes(b.rew[0][pair], b.mask[0][pair], b.truncated[0][pair], value[pair],
                 final_value[pair], q[pair], log_ratio[pair], q[pair]),
    )  # fmt: skip
    chance = (p[first] * p[second]).unsqueeze(-1)
    fitted, weights = baseline(config).fitted, found.weights
    if fitted == "time":
        w = found.weights[:: len(p) + 1, 0]  # as below
        x = trajectory_gradients(problem.factors, w[None], policy.num_params)
        products = (y[0][pair] for y in step_products(problem.factors, x))
        weights = less_in_time(weights, found.control, *products)
    elif fitted is not None:
        # No coupling but through the fitted coefficient: one trajectory's terms are its own.
        n = len(p)
        own = torch.stack([found.weights[:: n + 1, 0], found.control[:: n + 1, 0]])
        x, s = (trajectory_gradients(problem.factors, w[None], policy.num_params)[0] for w in own)
        g = controlled(x[pair], s[pair], per_parameter=fitted == "per_parameter")
        return (0.5 * chance * g.sum(1)).sum(0, keepdim=True)
    # ĝ is linear in the weights: gather the expected weight of every trajectory's scores.
    mean_w = torch.zeros_like(b.rew[0])
    for member in range(BATCH):
        mean_w.index_add_(0, pair[:, member], 0.5 * chance * weights[:, member])
    return trajectory_gradients(problem.factors, mean_w.unsqueeze(0), policy.num_params).sum(1)


def arbitrary_values(mdp: TinyMdp) -> tuple[Tensor, Tensor]:
    """V at every step [n, T] and at the end [n], of no policy."""
    state, final = mdp.states_and_times()
    v = torch.tensor([1.7, -0.6, 0.0], dtype=torch.float64)  # of the terminal state: 0
    return v[state], v[final]


def arbitrary_q(mdp: TinyMdp) -> Tensor:
    """Q at every step [n, T], of no policy."""
    state, _ = mdp.states_and_times()
    q = torch.tensor([[0.4, -1.1], [2.0, 0.3], [0.0, 0.0]], dtype=torch.float64)
    return q[state, mdp.batch.act[0]]
