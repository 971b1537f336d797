"""`pg compare`: estimators side by side, at one frozen policy, on the same episodes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from pgcli.comparison import course, results, steps
from pgcli.comparison.belief import Belief
from pgcli.comparison.exact import Exact, Problem
from pgcli.comparison.ladder import Laddered, climbed
from pgcli.comparison.paired import MOST_UNITS, Sample, joined, samples
from pgcli.comparison.resampled import Comparison, Resamples
from pgcli.comparison.results import Finding, Found, Looks
from pgcli.comparison.subject import Critics, Subject
from pgcli.environments.choose import open_engine, slots_per_seed
from pgcli.environments.choose import unused as unused_of_environment
from pgcli.environments.engine import Engine
from pgcli.environments.linear import Linear
from pgcli.environments.tabular import Tabular
from pgcli.errors import Stopped
from pgcli.estimators.bias import Circumstances, bias_notes
from pgcli.estimators.estimator import check_estimator, couples, critics
from pgcli.estimators.importance import effective_sample_size, log_prefix
from pgcli.estimators.unused import unused as unused_of_estimator
from pgcli.gradients.linear import size
from pgcli.gradients.truth import Solution, placed, solve
from pgcli.machine import cores
from pgcli.machine.randomness import Purpose, generator
from pgcli.machine.signals import noted
from pgcli.policies.fit import Acted
from pgcli.policies.unused import unused_of_critics, unused_of_policy
from pgcli.runs.directory import lock
from pgcli.runs.policies import compared, halfway, passed_over
from pgcli.runs.progress import Progress
from pgcli.runs.provenance import provenance
from pgcli.settings.ladders import listed, rung_of
from pgcli.settings.schema import EXACT, CompareConfig, ComparedEstimator, UpdateConfig
from pgcli.updates.rule import registered

ROUNDS = 16  # in which episodes are collected: what a signal interrupts is one of them
FEWEST = 4  # batches from which figures can be told
FIRST = "total"  # the reference where nothing else is said
MOST = 5_000_000  # transitions of a table: some gigabytes
AFFORDABLE = 1.5e9  # transitions × time steps × parameters: half a minute per estimator


@dataclass(frozen=True)
class Study:
    """What is compared, and on what."""

    config: CompareConfig
    estimators: dict[str, ComparedEstimator]
    notes: dict[str, list[str]]  # sources of bias, by estimator
    subject: Subject
    critics: Critics
    model: Tabular | Linear | None
    solution: Solution | None
    updates: dict[str, UpdateConfig]  # whose steps are looked at


def check(
    config: CompareConfig,
    estimators: dict[str, ComparedEstimator],
    updates: dict[str, UpdateConfig],
) -> None:
    """Raise ConfigError for a part of one that is not there, or does not go with another."""
    for one in estimators.values():
        check_estimator(one)
    stepping = {name: estimators[name] for name in steps.stepped_on(config, estimators)}
    steps.check(stepping, updates, config.optimizer)


def unused(
    config: CompareConfig,
    estimators: dict[str, ComparedEstimator],
    updates: dict[str, UpdateConfig],
    action: Acted,
) -> dict[str, str]:
    """The settings that can have no effect on any of them, whatever their values: why, by key."""
    kinds = {name: critics(est) for name, est in estimators.items()}
    asked = {kind for one in kinds.values() for kind in one}
    exact = config.critic.kind == EXACT
    learned = asked - {"value", "q"} if exact else asked
    idle = unused_of_critics(config.critic, learned) | unused_of_policy(config.policy, action)
    idle |= unused_of_environment(config.env)
    if exact and learned != asked:
        idle.pop("critic.kind", None)
    if "compatible" not in asked:
        returns = "pg compare regresses critics on returns"
        idle |= {"critic.target": returns, "critic.lam": returns}
    each = [
        unused_of_estimator(
            est, config.critic if "compatible" in kinds[name] else None, config.off_policy
        )
        for name, est in estimators.items()
    ]
    idle |= {key: why for key, why in each[0].items() if all(key in one for one in each)}
    idle.pop("estimator.gamma", None)  # of the objective, whoever estimates its gradient
    for name in ("coef", "schedule"):
        idle[f"policy.entropy_{name}"] = "the bonus is no part of an estimate: it is for pg train"
    if config.checkpoint is None:
        idle["policy.normalize_obs"] = "a fresh policy has seen nothing to normalise by"
    else:
        for name in ("init", "output_gain", "log_std"):
            idle[f"policy.{name}"] = "checkpoint has its parameters"
    if not learned - {"compatible"}:
        idle["fit_episodes"] = "no critic is learned"
    if config.checkpoint is None:
        idle["iteration"] = "checkpoint names no run"
        if config.behaviour.checkpoint is None:
            idle["behaviour.iteration"] = "no checkpoint names a run"
    if config.along is None:
        idle["scales"] = "along names no update rule"
    if all(couples(est) for est in estimators.values()):
        idle["sizes"] = "no estimate here is a mean over episodes: its variance at other sizes"
    rules = [(registered(one), one) for one in updates.values()]
    stepping = any(rule.optimizer for rule, _ in rules)
    rated = any(rule.rated(one) for rule, one in rules)
    for f in fields(config.optimizer):
        if not (stepping or (rated and f.name == "lr")):
            idle[f"optimizer.{f.name}"] = "no update rule here steps by it"
    idle["optimizer.schedule"] = "only the first step is looked at"
    only_train = ("log.seeds", "log.wandb", "log.recorder", "env.info")
    idle |= dict.fromkeys(only_train, "it is for pg train")
    return idle


def run(
    config: CompareConfig,
    estimators: dict[str, ComparedEstimator],
    updates: dict[str, UpdateConfig],
    directory: Path,
) -> None:
    """Compare the estimators, by name; tables and pictures lie in `directory`."""
    config = replace(config, env=replace(config.env, info=[]))  # which is for pg train
    cores.begin()
    made_with = provenance()
    with lock(directory), noted() as signals:
        progress = Progress(config.log.interval)
        slots = slots_per_seed(config.env, max(config.episodes // ROUNDS, config.batch_size))
        engine = open_engine(config.env, slots, shared=True)
        found: list[Found] = []
        try:
            for one in compared(config):
                found.append(_studied(one, estimators, updates, engine, slots, progress, signals))
                if signals:
                    break
        finally:
            engine.close()
            progress.close()
        said = [note for one in updates.values() for note in registered(one).notes(one)]
        notices = [notice for one in found for notice in one.notices]
        for notice in dict.fromkeys([*notices, *engine.notices(), *said]):
            progress.say(f"note: {notice}")
        if config.several:
            course.write(directory, config, found, made_with, progress)
        else:
            results.write(directory, found[0], made_with, progress)
        if signals:
            raise Stopped(signals[0])


def _studied(
    config: CompareConfig,
    estimators: dict[str, ComparedEstimator],
    updates: dict[str, UpdateConfig],
    engine: Engine,
    slots: int,
    progress: Progress,
    signals: list[int],
) -> Found:
    """What is found of one policy."""
    subject = Subject(config, engine, slots)
    subject.believe(belief := Belief(config, subject.policy))
    solution = _solution(config, subject, belief.model)
    known = solution if config.critic.kind == EXACT else None
    fitted = Critics(subject, estimators, known)
    right = Circumstances(
        horizon=engine.max_episode_steps,
        critic="learned" if known is None else "exact",
        off_policy=config.off_policy,
        gamma=config.gamma,
    )
    wrong = replace(right, critic="learned")
    notes = {
        name: bias_notes(est, wrong if est.value_error else right)
        for name, est in estimators.items()
    }
    study = Study(config, estimators, notes, subject, fitted, belief.model, solution, updates)
    findings, looks = _compared(study, belief, progress, signals)
    told = [_silent(config, subject), belief.notice, passed_over(config)]
    if isinstance(belief.model, Linear) and config.exact is not False and not config.off_policy:
        told += [
            f"{name}: nothing exact: its critic is no polynomial of the state"
            for name, est in estimators.items()
            if not fitted.quadratic(est)
        ]
    if listed(config.estimator) and solution is None and all(notes.values()):
        told.append("no ladder: all of these estimators are biased, so none tells ∇J; add rtg")
    notices = [text for text in told if text]
    known = solution if belief.model is not None else None
    return Found(config, findings, looks, known, notices)


def _silent(config: CompareConfig, subject: Subject) -> str | None:
    """That every episode gave the same return, so that no estimator can tell anything."""
    if subject.least != subject.most:
        return None
    text = (
        f"every episode of this policy gave the same return, {subject.most:g}: ∇J is 0 as far as "
        "anybody can see, and what is compared is noise"
    )
    if config.checkpoint is None:
        return text
    found = halfway(Path(config.checkpoint), config.seed)
    if found is None:
        return text
    return f"{text}; iteration={found[0]}, where the return was {found[1]:.3g}, tells more"


def _solution(
    config: CompareConfig, subject: Subject, model: Tabular | Linear | None
) -> Solution | None:
    return None if model is None else solve(model, subject.policy, subject.theta, config.gamma)


def _compared(
    study: Study, belief: Belief, progress: Progress, signals: list[int]
) -> tuple[list[Finding], Looks]:
    """Every estimator on the data of every source; exact figures while the model is believed."""
    findings: list[Finding] = []
    looks = Looks()
    sources = study.subject.sources()
    for i, (kl, theta) in enumerate(sources):
        taken = _steps(study, len(sources))
        sampled, ess = _sampled(study, theta, (i, len(sources)), taken, progress, signals)
        if belief.model is None and study.model is not None:
            study = replace(study, model=None, solution=None)
            if findings:  # judged by it: once more, without
                return _compared(study, belief, progress, signals)
        exact = _exact(study, theta, progress, signals)
        comparison, truth = _comparison(study, sampled, i)
        findings += _findings(study, sampled, comparison, truth, ess, exact, kl)
        if taken is not None:
            looks = _looks(study, taken, comparison, truth, progress, signals)
        found = _ladders(study, comparison, truth, exact, kl)
        looks = looks._replace(
            ladder=[*looks.ladder, *found.points], best=[*looks.best, *found.best]
        )
        if signals:
            break
    return findings, looks


def _steps(study: Study, sources: int) -> steps.Steps | None:
    """What takes the steps of update rules, where any are asked for."""
    names = steps.stepped_on(study.config, study.estimators)
    if not names:
        return None
    fresh = sources * (study.config.episodes // study.config.batch_size)
    stepping = {name: study.estimators[name] for name in names}
    return steps.Steps(study.subject, stepping, study.updates, study.model, fresh)


def _sampled(
    study: Study,
    theta: Tensor,
    part: tuple[int, int],
    taken: steps.Steps | None,
    progress: Progress,
    signals: list[int],
) -> tuple[dict[str, Sample], dict[str, float]]:
    """Every estimator on episodes that theta collects; mean effective sample sizes of a batch.

    A signal ends it as soon as there are the fewest batches.
    """
    config, subject = study.config, study.subject
    total = config.episodes // config.batch_size
    each, units = max(1, total // ROUNDS), max(1, MOST_UNITS // total)
    parts: list[dict[str, Sample]] = []
    ess: dict[str, list[float]] = {name: [] for name in study.estimators}
    done = 0
    while done < total and not (signals and done >= FEWEST):
        count = min(each, total - done)
        batch = subject.collect(count * config.batch_size, part[0] * total + done, theta)
        ratio = subject.log_ratio(batch, theta) if config.off_policy else None
        cases = {}
        for name, est in study.estimators.items():
            episodes = replace(study.critics.episodes(batch, est), log_ratio=ratio)
            cases[name] = est, episodes
            if ratio is not None:
                per_batch, mask = (x[0].unflatten(0, (count, -1)) for x in (ratio, batch.mask))
                drawn = mask.any(-1, keepdim=True).expand_as(mask)
                whole = effective_sample_size(log_prefix(per_batch), drawn)[:, -1]
                ess[name].append(float(whole.mean()))
        parts.append(samples(subject.policy, subject.theta, batch, cases, config.batch_size, units))
        if taken is not None:
            taken.take(batch, cases)
        done += count
        spent = (part[0] + done / total) / part[1]
        progress.advance(spent, [f"episodes {round(spent * part[1] * config.episodes)}"])
    return joined(parts), {name: float(np.mean(x)) for name, x in ess.items() if x}


def _exact(study: Study, theta: Tensor, progress: Progress, signals: list[int]) -> dict[str, Exact]:
    """Exact mean and variance of the estimators for which they are known."""
    config, subject, model = study.config, study.subject, study.model
    if model is None or config.exact is False:
        return {}
    if isinstance(model, Linear) and config.off_policy:
        progress.say("note: no exact variances: weights of Gaussians are no polynomials")
        return {}
    count = transitions_of(model, subject)
    cost = count * model.horizon * subject.policy.num_params
    if count > MOST:
        progress.say(f"note: no exact variances: they would take a table of {count:,} transitions")
        return {}
    if config.exact is None and not config.parts and cost > AFFORDABLE:
        progress.say("note: exact variances would take long here; exact=true computes them")
        return {}
    at = placed(model, subject.policy, subject.theta)
    acting = subject.probabilities(theta, at.model.states) if config.off_policy else None
    problems: dict[tuple[str, ...], Problem] = {}  # estimators with the same critics share one
    exact = {}
    for i, (name, est) in enumerate(study.estimators.items()):
        if signals:
            break
        key = (*sorted(critics(est)), str(est.value_error))
        if isinstance(model, Linear) and not study.critics.quadratic(est):
            continue
        if key not in problems:
            value, q = study.critics.tables(est, at.model)
            problems[key] = Problem(at, behaviour=acting, value=value, q=q)
        known = problems[key].estimate(est, config.batch_size)
        if known is not None and config.parts:
            known = replace(known, parts=problems[key].parts(est, known))
        if known is not None:
            exact[name] = known
        progress.advance((i + 1) / len(study.estimators), [f"exact {name}"])
    return exact


def transitions_of(model: Tabular | Linear, subject: Subject) -> int:
    """How large the table is on which exact figures are computed."""
    if isinstance(model, Linear):
        return size(model, subject.policy, subject.theta)
    return len(model.state)


def _comparison(
    study: Study, sampled: dict[str, Sample], index: int
) -> tuple[Comparison, Tensor | str | None]:
    """The paired figures of one source's data, and what ∇J is taken to be."""
    config, some = study.config, next(iter(sampled.values()))
    batches, units = len(some.mean), max(one.mean.shape[1] for one in sampled.values())
    rng = generator(config.seed, index, Purpose.BOOTSTRAP)
    resamples = Resamples(batches, units, config.resamples, rng)
    comparison = Comparison(sampled, config.batch_size, resamples, config.level)
    if study.solution is not None:
        return comparison, study.solution.gradient
    unbiased = [name for name, notes in study.notes.items() if not notes]
    return comparison, min(unbiased, key=comparison.noise, default=None)


def _findings(
    study: Study,
    sampled: dict[str, Sample],
    comparison: Comparison,
    truth: Tensor | str | None,
    ess: dict[str, float],
    exact: dict[str, Exact],
    kl: float | None,
) -> list[Finding]:
    """The figures of every estimator with their intervals."""
    config = study.config
    reference = config.reference or (FIRST if FIRST in sampled else next(iter(sampled)))
    return [
        Finding(
            name=name,
            config=est,
            notes=study.notes[name],
            kl=kl,
            episodes=len(sampled[name].mean) * config.batch_size,
            verdict=comparison.verdict(name, reference, truth, unbiased=not study.notes[name]),
            variances=[] if couples(est) else comparison.variances(name, config.sizes),
            exact=exact.get(name),
            ess=ess.get(name),
            seconds=sampled[name].seconds,
        )
        for name, est in study.estimators.items()
    ]


def _ladders(
    study: Study,
    comparison: Comparison,
    truth: Tensor | str | None,
    exact: dict[str, Exact],
    kl: float | None,
) -> Laddered:
    """Bias, variance and error over the settings that were given as lists."""
    config, estimators = study.config, study.estimators
    if not listed(config.estimator) or truth is None:
        return Laddered([], [])
    sizes = {
        name: [config.batch_size] if couples(est) else sorted({*config.sizes, config.batch_size})
        for name, est in estimators.items()
    }
    return climbed(
        {name: rung_of(name, est) for name, est in estimators.items()},
        comparison,
        truth,
        {name: not notes for name, notes in study.notes.items()},
        sizes,
        exact,
        None if study.solution is None else study.solution.gradient,
        kl,
    )


def _looks(
    study: Study,
    taken: steps.Steps,
    comparison: Comparison,
    truth: Tensor | str | None,
    progress: Progress,
    signals: list[int],
) -> Looks:
    """What the rules' steps are, and the objective along one of them."""
    config = study.config
    best = comparison.batch_means(truth) if isinstance(truth, str) else None
    found = taken.findings(comparison, truth, best)
    if config.along is None or signals:
        return Looks(found)
    progress.advance(0.0, [f"along {config.along}"])
    points = taken.along(config.scales)
    if not points:
        progress.say(f"note: along={config.along}: it steps from none of these batches")
    unbiased = study.estimators[truth] if isinstance(truth, str) else None
    return Looks(found, points, taken.passes(unbiased, study.critics, signals))
