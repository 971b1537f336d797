"""What update rules make of the estimates of single batches: where they step, and what it buys.

Every batch is a seed of its own to a rule: R of them step side by side from the same θ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.comparison.paired import in_batches
from pgcli.comparison.resampled import Comparison, Figure
from pgcli.comparison.subject import Critics, Subject
from pgcli.environments.linear import Linear
from pgcli.environments.tabular import Tabular
from pgcli.errors import ConfigError
from pgcli.estimators.baselines import baseline
from pgcli.estimators.estimator import terms
from pgcli.estimators.phi import Episodes
from pgcli.gradients.around import Batched
from pgcli.gradients.estimate import weighted_sums
from pgcli.gradients.fisher import Fisher
from pgcli.gradients.statistics import Measurement, measure
from pgcli.gradients.truth import natural_gradient, objective, solve
from pgcli.settings.schema import CompareConfig, ComparedEstimator, OptimizerConfig, UpdateConfig
from pgcli.statistics.intervals import t_quantile
from pgcli.updates import rule as rules
from pgcli.updates.natural import conjugate_gradients

WATCHED = 8  # batches whose passes are followed
USUAL = "rtg_value"  # whose estimates are stepped on where no estimator is named
STATES = 4096  # on which the Fisher matrix of a natural gradient is averaged
# Of that natural gradient: a network's F is nearly singular, its inverse mostly noise. Per step.
DAMPING, ITERATIONS = 0.1, 50


class Taken(NamedTuple):
    """The steps of one rule from R batches."""

    moved: Tensor  # [R, P] float64: θ' − θ
    kl: Tensor  # [R]: D(θ'), on the batch's states
    surrogate: Tensor  # [R]: L(θ') − L(θ); NaN where the estimate has no surrogate
    gain: Tensor  # [R]: J(θ') − J(θ), exact or of fresh episodes
    told: dict[str, Tensor]  # what the rule itself tells, [R] each


class Point(NamedTuple):
    """One place along a step."""

    scale: float  # of the step
    surrogate: float  # L there, on the batch that the step came from; NaN where there is none
    kl: float  # nats per state
    gain: Figure  # J there less J at θ
    exact: bool  # by the model


class First(NamedTuple):
    """The first batch from which a rule steps."""

    batch: Batch  # [1, n, ...]
    weights: Tensor | None
    step: Tensor  # [1, P] float64


class PassFinding(NamedTuple):
    """One pass of a rule over its batch: where its minibatches point, and where J goes up there."""

    number: int  # from 1
    batches: int  # that have a direction in it
    cos_to_true: Figure  # of their mean gradient and ∇J at the θ' where the pass begins
    kl: Figure  # D(θ'), nats per state


class Pass:
    """What a rule asked for in one pass over R batches."""

    def __init__(self, there: Tensor) -> None:
        self.there = there  # [R] bool: batches with rows in it
        self.begins: Tensor | None = None  # θ' [R, P]
        self.total: Tensor | None = None  # of the gradients of its minibatches [R, P]


class Watched:
    """What is around an estimate, and what a rule asks of its minibatches; see `rule.Around`."""

    def __init__(self, around: Batched) -> None:
        self._around = around
        self.passes: list[Pass] = []

    def rows(self, k: int) -> list[tuple[Tensor, Tensor | None, float]]:
        """Of each batch in pass k: θ', the gradient (None: it has no rows) and D(θ')."""
        one = self.passes[k] if k < len(self.passes) else None
        if one is None or one.begins is None or one.total is None:
            return []
        kl = self._around.divergence(one.begins).tolist()
        ways = [way if there else None for way, there in zip(one.total, one.there, strict=True)]
        return list(zip(one.begins, ways, kl, strict=True))

    def minibatches(self, *given: Any, **named: Any) -> Any:
        """A new pass begins."""
        found = self._around.minibatches(*given, **named)
        self.passes.append(Pass(torch.from_numpy(found.sizes.any(0))))
        return found

    def clipped(self, theta: Tensor, *given: Any, **named: Any) -> Any:
        """One minibatch of it."""
        found, one = self._around.clipped(theta, *given, **named), self.passes[-1]
        one.begins = theta.clone() if one.begins is None else one.begins
        gradient = found.gradient.double()
        one.total = gradient if one.total is None else one.total + gradient
        return found

    def climbed(self, *given: Any) -> None:
        """Not in one call, in which nobody could look at a minibatch."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._around, name)


@dataclass(frozen=True)
class StepFinding:
    """The figures of one rule's steps from the estimates of one estimator."""

    estimator: str
    update: str
    batches: int
    cos_to_true: Figure  # mean cosine of a step and ∇J
    cos_to_natural: Figure  # and F⁻¹∇J
    step_norm: Figure
    kl: Figure  # nats per state
    surrogate_gain: Figure
    gain: Figure  # of J
    told: dict[str, float]  # what the rule tells, means


def check(
    estimators: Mapping[str, ComparedEstimator],
    updates: Mapping[str, UpdateConfig],
    optimizer: OptimizerConfig,
) -> None:
    """Raise ConfigError for a rule that is none, or cannot step on one of the estimates."""
    stepping = False
    for update, config in updates.items():
        one = rules.check(config, optimizer)
        stepping |= one.optimizer
        for name, est in estimators.items():
            if one.surrogate and baseline(est).fitted == "per_parameter":
                allowed = f"no weight of a step makes the estimate of {name}: leave one of them out"
                raise ConfigError("updates", update, allowed)
    if updates and not stepping:
        rules.check_unused(optimizer, f"none of updates={','.join(updates)}")


def stepped_on(config: CompareConfig, estimators: Mapping[str, ComparedEstimator]) -> list[str]:
    """The estimators whose estimates the rules get."""
    if not config.updates:
        return []
    named = config.estimators or [USUAL if USUAL in estimators else next(iter(estimators))]
    return list(named)


class Steps:
    """Collects the steps of every rule, round after round of batches."""

    def __init__(
        self,
        subject: Subject,
        estimators: Mapping[str, ComparedEstimator],
        updates: Mapping[str, UpdateConfig],
        model: Tabular | Linear | None,
        fresh: int,
    ) -> None:
        """`model`: to tell J exactly. `fresh`: the first number of episodes nobody else plays."""
        self._subject, self._estimators, self._updates = subject, estimators, updates
        self._model, self._fresh, self._done = model, fresh, 0
        self._rounds: dict[tuple[str, str], list[Taken]] = {}
        self._states: Batch | None = None
        self._first: First | None = None  # of the rule that is followed
        self._watched: list[Watched] = []  # what it asked for in the first rounds

    def take(self, batch: Batch, cases: Mapping[str, tuple[ComparedEstimator, Episodes]]) -> None:
        """Step from each batch of a round: `batch` and what estimators look at, [1, R · n, ...]."""
        subject, config = self._subject, self._subject.config
        rounds = batch.length.shape[1] // config.batch_size
        split = batch.apart(rounds)
        theta = subject.theta.expand(rounds, -1).contiguous()
        seeds, numbers = [config.seed] * rounds, self._done + np.arange(rounds)
        # Exact it is one number; fresh episodes have the same starts at θ and at each θ'.
        few = slice(None) if self._model is None else slice(1)
        base = self._objectives(theta[few], numbers[few])
        for name in self._estimators:
            est, episodes = cases[name]
            weighted = terms(est, in_batches(episodes, rounds))
            fitted = baseline(est).fitted
            sums, weights = weighted_sums(subject.policy, theta, split, weighted, fitted)
            estimate = measure(sums).gradient
            around = Batched(subject.policy, theta, split, weights, seeds, numbers)
            for update, chosen in self._updates.items():
                moved = theta.clone()
                learned = subject.policy.learned(moved)
                made = rules.rule(chosen, rules.Start(learned, config.optimizer, seeds))
                watched = Watched(around)
                told = dict(made.step(learned, estimate, np.zeros(rounds), watched))
                step = subject.policy.learned(moved - theta).double()
                if update == config.along and name == next(iter(self._estimators)):
                    if self._done < WATCHED:
                        self._watched.append(watched)
                    stepping = (moved != theta).any(1)
                    if self._first is None and bool(stepping.any()):
                        one = slice(r := int(stepping.to(torch.int8).argmax()), r + 1)
                        own = None if weights is None else weights[one]
                        self._first = First(split.of_seeds(one), own, step[one])
                gain = self._objectives(moved, numbers) - base
                nothing = torch.full((rounds,), torch.nan, dtype=torch.float64)
                surrogate = around.surrogate(moved) if around.has_surrogate else nothing
                taken = Taken(step, around.divergence(moved), surrogate, gain, told)
                self._rounds.setdefault((name, update), []).append(taken)
        self._states = self._states or batch
        self._done += rounds

    def _objective(self, at: Tensor, episodes: int, number: int) -> Tensor:
        """J at θ' [1, P], the mean of these: itself, or the returns of fresh episodes [N]."""
        if self._model is None:
            return self._subject.played(at, episodes, self._fresh + number)
        gamma = self._subject.config.gamma
        exact = objective(self._model, self._subject.policy, at, gamma)
        return torch.tensor([exact], dtype=torch.float64)

    def _objectives(self, thetas: Tensor, numbers: np.ndarray) -> Tensor:
        """J at each θ' [R, P], for each batch: [R]."""
        n = self._subject.config.batch_size
        each = zip(thetas, numbers, strict=True)
        return torch.stack([self._objective(x[None], n, int(i)).mean() for x, i in each])

    def taken(self, estimator: str, update: str) -> Taken:
        """All of one rule's steps."""
        parts = self._rounds[estimator, update]
        told = {k: torch.cat([part.told[k].double() for part in parts]) for k in parts[0].told}
        moved = torch.cat([part.moved for part in parts])
        kl = torch.cat([part.kl for part in parts])
        surrogate = torch.cat([part.surrogate for part in parts])
        return Taken(moved, kl, surrogate, torch.cat([part.gain for part in parts]), told)

    def along(self, scales: Sequence[float]) -> list[Point]:
        """Surrogate and J along the step of the rule that is followed; none where it never steps.

        Of the first batch that gives one (Ilyas et al. 2020, section 4). J is exact where the model
        is known. Else it is the mean of `episodes` fresh ones, from the same starts everywhere; the
        differences to those at θ give its limits.
        """
        subject, model, config = self._subject, self._model, self._subject.config
        if self._first is None:
            return []
        theta = subject.theta
        around = Batched(subject.policy, theta, self._first.batch, self._first.weights)

        start = self._objective(theta, config.episodes, self._done)
        points = []
        for scale in scales:
            at = theta.double()
            subject.policy.learned(at).add_(scale * self._first.step)
            at = at.to(theta)
            gain = (self._objective(at, config.episodes, self._done) - start).numpy()
            exact = Figure(*[float(gain[0])] * 3)
            limits = exact if model is not None else _mean(gain, config.level)
            surrogate = float(around.surrogate(at)) if around.has_surrogate else math.nan
            kl = float(around.divergence(at))
            points.append(Point(scale, surrogate, kl, limits, model is not None))
        return points

    def passes(
        self, unbiased: ComparedEstimator | None, critics: Critics, signals: Sequence[int] = ()
    ) -> list[PassFinding]:
        """Where the passes of the rule that is followed point; none where it makes none.

        Of the first WATCHED batches, those that have rows in the pass and a direction. ∇J at each
        pass's θ' is exact where the model is known, else an unbiased estimate from `episodes` fresh
        ones, whose length is taken without its noise, over all batches. Limits are of the mean over
        batches. A signal ends it with the passes that are done.
        """
        found: list[PassFinding] = []
        number = self._fresh + self._done + 1  # of fresh episodes
        for k in range(max((len(one.passes) for one in self._watched), default=0)):
            along, square, kl = [], [], []
            rows = [row for one in self._watched for row in one.rows(k)][:WATCHED]
            for at, way, divergence in rows:
                if signals:
                    return found
                if way is None:
                    continue
                kl.append(divergence)
                if not way.any():
                    continue
                known = self._gradient(at[None], unbiased, critics, number)
                number += 1
                if known is None:
                    return []
                along.append(float((way @ known.gradient[0]) / way.norm()))
                square.append(float(known.norm_sq[0]))
            if not along:
                break
            length = np.array(square) if self._model is not None else np.mean(square)
            cosines = np.array(along) / np.sqrt(np.maximum(length, 1e-300))
            level = self._subject.config.level
            mean = Figure(*np.clip(_mean(cosines, level), -1, 1).tolist())
            found.append(PassFinding(k + 1, len(along), mean, _mean(np.array(kl), level)))
        return found

    def _gradient(
        self, theta: Tensor, unbiased: ComparedEstimator | None, critics: Critics, number: int
    ) -> Measurement | None:
        """∇J at theta [1, P]; None where nothing tells it."""
        subject, gamma = self._subject, self._subject.config.gamma
        theta = subject.policy.whole(theta, subject.theta)
        if self._model is not None:
            exact = solve(self._model, subject.policy, theta, gamma).gradient[None]
            square, nothing = exact.square().sum(1), torch.zeros(1)
            return Measurement(exact, square.sqrt(), nothing, nothing, square)
        if unbiased is None:
            return None
        batch = subject.own(theta, subject.config.episodes, number)
        weighted = terms(unbiased, critics.episodes(batch, unbiased))
        fitted = baseline(unbiased).fitted
        return measure(weighted_sums(subject.policy, theta, batch, weighted, fitted)[0])

    def findings(
        self, comparison: Comparison, truth: Tensor | str | None, best: Tensor | None
    ) -> list[StepFinding]:
        """The figures of every rule. `truth`: see `Comparison.verdict`.

        `best` [R, P]: the batches' estimates of an unbiased estimator where ∇J is not known.
        """
        natural = self._natural(best)
        found = []
        for name, update in self._rounds:
            steps = self.taken(name, update)
            found.append(
                StepFinding(
                    name,
                    update,
                    len(steps.moved),
                    comparison.aligned(steps.moved, truth),
                    comparison.aligned(steps.moved, natural),
                    comparison.mean_of(steps.moved.norm(dim=1)),
                    comparison.mean_of(steps.kl),
                    comparison.mean_of(steps.surrogate),
                    comparison.mean_of(steps.gain),
                    {k: float(x.mean()) for k, x in steps.told.items()},
                )
            )
        return found

    def _natural(self, best: Tensor | None) -> Tensor | None:
        """F⁻¹∇J [P], or [R, P] of the batches' estimates by one matrix of many states."""
        subject = self._subject
        if self._model is not None:
            gamma = subject.config.gamma
            return natural_gradient(self._model, subject.policy, subject.theta, gamma)
        if best is None or self._states is None:
            return None
        states = _some(self._states, STATES)
        product = Fisher(subject.policy, subject.theta, states, sampled=False).product
        damping = DAMPING * float(states.steps / states.episodes)

        def damped(v: Tensor) -> Tensor:
            return product(v) + damping * v

        return torch.cat([conjugate_gradients(damped, g[None], ITERATIONS).x for g in best])


def _mean(x: np.ndarray, level: float) -> Figure:
    """Of independent numbers, with Student's limits."""
    mean = float(x.mean())
    if len(x) < 2:
        return Figure(mean, math.nan, math.nan)
    reach = t_quantile(0.5 + level / 2, len(x) - 1) * float(x.std(ddof=1) / len(x) ** 0.5)
    return Figure(mean, mean - reach, mean + reach)


def _some(batch: Batch, steps: int) -> Batch:
    """The first episodes of one seed's batch, until so many steps."""
    return batch.part(slice(int((batch.length[0].cumsum(0) < steps).sum()) + 1))
