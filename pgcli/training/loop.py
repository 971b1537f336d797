"""`pg train`: collect whole episodes, weigh their scores, step up the gradient, measure it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.collection.episodes import episodes
from pgcli.collection.rollout import Quota, few_slots
from pgcli.environments.choose import slots_per_seed
from pgcli.errors import NonFinite
from pgcli.estimators import estimator
from pgcli.estimators.baselines import baseline
from pgcli.estimators.importance import exponentiated, log_prefix
from pgcli.estimators.phi import Episodes
from pgcli.gradients.around import Batched, mean_kl
from pgcli.gradients.critics import cross_compatible, state_values
from pgcli.gradients.estimate import weighted_sums
from pgcli.gradients.statistics import measure
from pgcli.gradients.trajectory import (
    Sums,
    entropy_gradient,
    gradient_sums,
    group_size,
    log_probs,
)
from pgcli.machine import cores
from pgcli.machine.randomness import seeding
from pgcli.policies.actor import PolicyActor
from pgcli.policies.critic import Work
from pgcli.policies.policy import Policy
from pgcli.runs import tags
from pgcli.settings.registry import blamed
from pgcli.settings.schema import Collect, Schedule, TrainConfig
from pgcli.training import exact, metrics
from pgcli.training.build import (
    behaviour_parameters,
    devices,
    facts,
    fastest,
    spaces_of,
)
from pgcli.training.cohort import Cohort
from pgcli.training.counts import Counters
from pgcli.training.evaluations import Evaluations
from pgcli.training.learner import Learner
from pgcli.training.outlook import Outlook
from pgcli.training.session import Session, Stateful
from pgcli.training.warm import begun_with
from pgcli.updates.ascent import learning_rates
from pgcli.updates.rule import registered
from pgcli.updates.schedules import scheduled_each


def run(config: TrainConfig, directory: Path, composed: str | None = None) -> None:
    """Train `config.seeds` agents side by side; everything they leave lies in `directory`.

    `composed`: the configuration as a command line gave it, to be kept in place of its values.
    """
    seeds = [config.seed + i for i in range(config.seeds)]
    quota = Quota(None if config.batch_steps else config.batch_size, config.batch_steps)
    changed = config.behaviour if config.behaviour.changes else None
    candidates = devices(config.device)
    rated = registered(config.update).rated(config.update)
    moving = "optimizer.lr" if registered(config.update).optimizer else "update.delta"
    truth = exact.Truth(config) if config.estimator.exact else None
    cores.begin()
    with Session(config, directory, seeds, composed) as session:
        parts = config.collect is Collect.steps
        slots = slots_per_seed(config.env, None if parts else quota.episodes)
        cohort = session.enter(Cohort(config, seeds, slots))
        device = fastest(candidates, config, cohort.engine)
        cohort.begin(device)
        policy, spaces = cohort.learner.policy, spaces_of(cohort.engine)
        begun = begun_with(config, cohort.learner, spaces, seeds)
        others = other = behaviour_parameters(config, cohort.engine, device)
        counters, outlook = Counters.start(len(seeds)), Outlook.start(len(seeds))
        evaluations = session.enter(Evaluations(config, seeds, policy.width))
        kept: list[Stateful] = [cohort, evaluations, outlook]
        known = facts(config, cohort.engine, policy, device, begun)
        session.begin(counters, kept, known)
        seeded = seeding(session.format)
        if session.format == 1 and cohort.engine.renewed:
            session.notice(f"{cohort.engine.renewed} than in the version of pg that began this run")

        while session.goes_on(left := (spent := counters.spent(config)) < 1):
            clock = time.perf_counter()
            if cohort.narrow(left) and others is not None:
                other = others[cohort.index]
            ran, seeds, learner, noise = cohort.index, cohort.seeds, cohort.learner, cohort.noise
            policy, done = learner.policy, counters.done[ran]
            old_theta = learner.theta.detach().clone()
            source = old_theta if other is None else other
            actor = PolicyActor(policy, source, seeds, done, slots, changed)
            if quota.steps is not None and config.env.num_envs is None and not counters.every_slot:
                longest = cohort.engine.max_episode_steps
                length = np.where(done > 0, counters.length[ran], longest)
                quota = replace(quota, slots=few_slots(quota.steps, length))
            batch = cohort.collect(actor, quota, done, seeded).to(device)
            for text in cohort.engine.notices():
                session.notice(text)
            ended = batch.ended()

            if truth is not None:
                truth.see(batch)
            record = metrics.rollout(ended, counters.mean_return[ran])
            record |= metrics.info(batch, config.env.info)
            if config.batch_steps is not None:
                record[tags.DISCARDED] = batch.discarded
            # Critics learn beside the policy: what serves this batch has not seen it.
            looked, work, figures = with_critics(config, learner, batch, done)
            record |= figures
            fitted = cores.started(work)

            if config.off_policy:
                source_logp = log_probs(policy, source, batch, changed)
                log_ratio = log_probs(policy, old_theta, batch) - source_logp
            coef = entropy_coefs(config, spent[ran], device)
            own = config.policy
            if own.entropy_coef and own.entropy_schedule is not Schedule.constant:
                record[tags.ENTROPY_COEF] = coef
            for update in range(config.updates_per_batch):
                target_theta = learner.theta.detach().clone()  # whose gradient is estimated
                if update > 0:
                    log_ratio = log_probs(policy, target_theta, batch) - source_logp
                if update > 0 or config.behaviour.differs:
                    looked = replace(looked, log_ratio=log_ratio)
                terms = estimator.terms(config.estimator, looked)
                sums, weights = sums_of(config, learner, batch, terms, session)
                measured = measure(sums)
                check_finite(measured.gradient, "the gradient", done, seeds)
                if update == 0:  # what is reported: no update of this batch has moved it yet
                    first, entropy = measured, sums.entropy / batch.steps
                step = measured.gradient
                if truth is not None:
                    step, objective = truth.gradient(policy, target_theta)
                    if update == 0:
                        record |= exact.figures(step, objective, measured.gradient)
                if config.policy.entropy_coef:  # outside of what is measured
                    bonus = entropy_gradient(policy, learner.theta, batch)
                    step = step + coef.unsqueeze(1).to(bonus) * bonus
                around = Batched(policy, target_theta, batch, weights, seeds, done, coef)
                with blamed("update.name", config.update.name):
                    learned = policy.learned(learner.theta)
                    told = learner.rule.step(learned, step, spent[ran], around)
                record |= {tags.update(name): x for name, x in told.items()}
                check_finite(learner.theta, "a parameter of the policy", done, seeds, moving)
            if rated:
                rates = learning_rates(config.optimizer, spent[ran])
                record[tags.LEARNING_RATE] = torch.tensor(rates, dtype=torch.float64, device=device)
            noise.update(first)
            simulated = batch.simulated.cpu().numpy()
            counters.add(ended.returns.cpu().numpy(), ended.length.cpu().numpy(), simulated, ran)

            if (alike := counters.alike()) is not None:
                session.notice(alike)
            record |= {
                **metrics.gradient(first, noise, batch.units),
                tags.ENTROPY: entropy,
                tags.KL: mean_kl(policy, old_theta, learner.theta, batch),
            }
            if config.off_policy:
                record |= metrics.importance(terms, log_ratio, batch.mask)
                distance = mean_kl(policy, source, target_theta, batch, changed)
                record[tags.BEHAVIOUR_KL] = distance
            if config.gradient.score:
                ratio = log_ratio if config.off_policy else None
                record |= mean_score(policy, target_theta, batch, ratio)
            fitted()
            learner.see(batch)  # what is normalised by is that of earlier batches, always
            for name, state in learner.critics().items():
                for tensor in state.values():
                    check_finite(tensor, f"the {name} critic", done, seeds, "critic.lr")
            record[tags.FPS] = batch.simulated / (time.perf_counter() - clock)
            now = counters.spent(config)
            record |= evaluations.after(
                policy, learner.theta, ran, counters.done[ran], now[ran] >= 1
            )
            logged = {tag: x.cpu().numpy() for tag, x in record.items()}
            outlook.add(logged, ran)
            for text in outlook.tells(float(now.mean()), policy.head):
                session.notice(text)
            session.record(logged, ran)


def entropy_coefs(config: TrainConfig, spent: np.ndarray, device: torch.device) -> Tensor:
    """The coefficient of each seed's entropy bonus [S], of whose budget so much is spent [S]."""
    own = config.policy
    coefs = scheduled_each(own.entropy_coef, own.entropy_schedule, spent)
    return torch.tensor(coefs, dtype=torch.float64, device=device)


def with_critics(
    config: TrainConfig, learner: Learner, batch: Batch, done: np.ndarray
) -> tuple[Episodes, list[Work], dict[str, Tensor]]:
    """What the estimator may look at, what the critics have yet to learn from it, their figures.

    done [S]: iterations of each seed.
    """
    est, shift = config.estimator, config.env.reward_shift
    theta, states, q = learner.theta, learner.states, learner.q
    kinds = estimator.critics(est) | states.keys()  # a V that is there is to learn
    value = state_values(kinds, states, q, learner.policy, theta, batch)
    along = None if q is None else q.along(theta, batch)
    looked = episodes(batch, shift, value=value, q=along, scale=learner.reward_scale)
    if "compatible" in kinds:
        looked = cross_compatible(learner.policy, theta, batch, est, config.critic, looked)
    work: list[Work] = []
    figures: dict[str, Tensor] = {}
    if learner.value is not None:
        target = estimator.value_target(est, config.critic, looked)
        figures |= metrics.critic("critic", looked.value, target, batch.mask)
        obs = learner.policy.inputs(theta, batch.obs)
        work += learner.value.fits(obs, batch.mask, target, done, batch.age)
    if q is not None:
        target = estimator.q_target(est, config.critic, looked)
        figures |= metrics.critic("q_critic", looked.q, target, batch.mask)
        work += q.fits(theta, batch, target, done)
    return looked, work, figures


def sums_of(
    config: TrainConfig, learner: Learner, batch: Batch, terms: estimator.Terms, session: Session
) -> tuple[Sums, Tensor | None]:
    """One pass over the batch with the estimator's weights, fitted baseline included.

    And the weights of single steps [S, N, T] that make the estimate, where there are any.
    """
    policy, theta = learner.policy, learner.theta
    name, base = config.estimator.baseline, baseline(config.estimator)
    if bool((batch.units < base.fewest).any()):
        session.notice(f"a batch of one episode has no others: {name} is 0 there")
    group = 1
    if base.fitted not in (None, "time"):
        needed = 2 * batch.length.numel() * policy.num_params * 8 / 2**20
        if needed > config.gradient.memory_mb:
            session.notice(f"{name} holds the gradients of all episodes: {needed:.0f} MB")
    else:
        group = group_size(batch.length.shape[1], policy.num_params, config.gradient)
        if group > 1 and config.gradient.measure and batch.unit is None:
            session.notice(
                f"variance from groups of {group} episodes: the gradients of all of them, "
                f"{policy.num_params} numbers each, exceed gradient.memory_mb"
            )
    return weighted_sums(policy, theta, batch, terms, base.fitted, group)


def mean_score(
    policy: Policy, theta: Tensor, batch: Batch, log_ratio: Tensor | None
) -> dict[str, Tensor]:
    """The mean score at theta, whose expectation is zero; log_ratio [S, N, T] of others' data."""
    weight = batch.mask.double()
    if log_ratio is not None:  # without its weight the mean would not be zero
        weight = exponentiated(log_prefix(log_ratio), batch.mask).weight * weight
    return metrics.score(measure(gradient_sums(policy, theta, batch, weight)))


def check_finite(
    x: Tensor, what: str, done: np.ndarray, seeds: list[int], blame: str = "optimizer.lr"
) -> None:
    """Stop before a NaN or an infinity in x [S, ...] spreads, after `done` [S] iterations."""
    rows = x.flatten(1) if x.ndim > 1 else x.reshape(-1, 1)
    bad = (~torch.isfinite(rows).all(dim=1)).nonzero()
    if len(bad):
        raise NonFinite(
            f"{what} of seed {seeds[int(bad[0])]} is NaN or infinite after {done[int(bad[0])]} "
            f"iterations; a smaller {blame} may help"
        )
