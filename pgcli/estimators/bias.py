"""Where an estimator's bias comes from, in words: said to the user, never silently corrected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pgcli.estimators.baselines import baseline
from pgcli.estimators.importance import importance
from pgcli.estimators.phi import Phi, phi
from pgcli.settings.schema import EstimatorConfig


@dataclass(frozen=True)
class Circumstances:
    """What of a run decides about bias, beside the estimator itself."""

    horizon: int  # time limit of an episode, in steps
    critic: Literal["learned", "exact"] = "learned"
    critic_of_behaviour: bool = False  # it is fitted on the returns of another policy
    off_policy: bool = False  # another policy's data
    reused: bool = False  # several updates from one batch
    fixed_horizon: bool = False  # slots play on from batch to batch
    counted_by_steps: bool = False  # batches have so many steps, not so many episodes
    gamma: float | None = None  # of the objective; None: the estimator's


def bias_notes(config: EstimatorConfig, run: Circumstances) -> list[str]:
    """One sentence per source of bias of this combination; none: unbiased for ∇J_γ at every N."""
    form, weight = phi(config), importance(config)
    weighted = run.off_policy and config.weighted
    only_first = config.gamma == 0 and (form.from_start or config.discount_state)
    several = run.horizon > 1 and not only_first  # steps that count: what is before or after one
    leaning = _leaning(form, config, run)
    name = config.importance.replace("_", "-")
    sources = {
        form.bias(config): True,
        f"{leaning}, so its error biases the gradient": leaning is not None
        and run.critic == "learned",
        "missing γ^t: with γ < 1 this is the gradient of no objective (Nota & Thomas 2020); "
        "estimator.discount_state=true restores it": not form.from_start
        and config.gamma < 1
        and several
        and not config.discount_state,
        f"it discounts by γ = {config.gamma:g}, and the objective by {run.gamma}": run.gamma
        not in (None, config.gamma),
        baseline(config).bias: True,
        "normalised Φ: the gradient's length is another, and its direction off by O(1/N), for mean "
        "and deviation come from the same batch": config.normalize,
        "scaled rewards: the gradient is that of J/σ, σ the running deviation of the discounted "
        "return in earlier batches: its length is another, and it changes": config.scale_rewards,
        "fixed horizon: its states are those that slots have come to under earlier policies, not "
        "those of episodes from their start": run.fixed_horizon,
        "batch_steps: the mean is over a random number of episodes, O(1/N)": run.counted_by_steps,
        "no importance weight: the data are another policy's": run.off_policy and not weighted,
        f"{name} importance: the states are the behaviour policy's": weighted
        and not weight.before
        and several,
        "dropped importance factors: what follows a step is the behaviour policy's": weighted
        and not weight.after
        and several
        and form.looks_ahead(config),
        weight.bias: weighted,
        "self-normalised weights: consistent, O(1/N)": weighted and config.self_normalize,
        "clipped importance weights": weighted and config.clip_ratio is not None,
        "reuse: after its first update the policy has seen the batch that it is weighed on": (
            run.reused
        ),
        "critic of the behaviour: it is fitted on another policy's returns": leaning is not None
        and run.critic_of_behaviour,
    }
    return [note for note, applies in sources.items() if note and applies]


def _leaning(form: Phi, config: EstimatorConfig, run: Circumstances) -> str | None:
    """Where Φ takes a critic's word for what follows; None where it never does in such a run."""
    after = form.leans(config)
    if after == 0:
        return "learned Q: Φ is what the critic says"
    if config.gamma == 0 or "value" not in form.needs:
        return None  # what follows does not count, or there is nothing to lean on
    if after is not None and after < run.horizon:
        steps = "one step" if after == 1 else f"{after} steps"
        return f"learned V: Φ leans on it after {steps}"
    if run.fixed_horizon:
        return "learned V: Φ goes on with it where a batch ends"
    return "learned V: Φ goes on with it at a time limit" if config.bootstrap else None
