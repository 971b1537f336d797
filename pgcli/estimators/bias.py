"""Where an estimator's bias comes from, in words: said to the user, never silently corrected."""

from pgcli.config.schema import Baseline, EstimatorConfig, Importance
from pgcli.estimators.phi import phi


def bias_notes(
    config: EstimatorConfig,
    *,
    counted_by_steps: bool = False,
    off_policy: bool = False,
    reused: bool = False,
) -> list[str]:
    """One sentence per source of bias of this combination; none: unbiased for ∇J_γ at every N.

    `off_policy`: another policy's data; `reused`: several updates from one batch.
    """
    form, weight = phi(config), config.importance
    complete = weight in (Importance["trajectory"], Importance["per_decision"])
    weighted = off_policy and weight is not Importance["none"]
    found = {
        "missing γ^t: with γ < 1 this is the gradient of no objective (Nota & Thomas 2020); "
        "estimator.discount_state=true restores it": not form.from_start
        and config.gamma < 1
        and not config.discount_state,
        "own mean: a batch mean that includes the own return shrinks the gradient by 1 − 1/N; "
        "estimator.baseline=mean leaves it out": config.baseline is Baseline["own_mean"],
        "normalised Φ: the gradient's length is another, and its direction off by O(1/N), for mean "
        "and deviation come from the same batch": config.normalize,
        "batch_steps: the mean is over a random number of episodes, O(1/N)": counted_by_steps,
        "no importance weight: the data are another policy's": off_policy and not weighted,
        "first-order importance: the states are the behaviour policy's": off_policy
        and weight is Importance["first_order"],
        "dropped importance factors: what follows a step is the behaviour policy's": weighted
        and not complete
        and form.later,
        "self-normalised weights: consistent, O(1/N)": weighted and config.self_normalize,
        "clipped importance weights": weighted and config.clip_ratio is not None,
        "reuse: after its first update the policy has seen the batch that it is weighed on": reused,
    }
    own = form.bias(config)
    found["critic of the behaviour: it is fitted on another policy's returns"] = (
        off_policy and own is not None and bool(form.needs)
    )
    return [*([own] if own else []), *(note for note, applies in found.items() if applies)]
