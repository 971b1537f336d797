"""Where an estimator's bias comes from, in words: said to the user, never silently corrected."""

from pgcli.config.schema import Baseline, EstimatorConfig, Importance, Phi


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
    form = config.importance
    complete = form in (Importance["trajectory"], Importance["per_decision"])
    later_rewards = config.phi not in (Phi["q"], Phi["advantage"], Phi["td"])
    found = {
        "learned Q: Φ is what the critic says, so its error biases the gradient": config.phi
        in (Phi["q"], Phi["advantage"]),
        "learned V: Φ leans on it after one step, so its error biases the gradient": config.phi
        is Phi["td"],
        f"learned V: Φ leans on it after {config.n} steps, so its error biases the gradient": (
            config.phi is Phi["n_step"]
        ),
        "learned V: GAE leans on it at λ < 1, so its error biases the gradient": config.phi
        is Phi["gae"]
        and config.lam < 1,
        "learned V: Φ goes on with it at a time limit, so its error biases the gradient": (
            config.phi is Phi["gae"] and config.lam == 1 and config.bootstrap
        ),
        "missing γ^t: with γ < 1 this is the gradient of no objective (Nota & Thomas 2020); "
        "estimator.discount_state=true restores it": config.phi is not Phi["total_return"]
        and config.gamma < 1
        and not config.discount_state,
        "own mean: a batch mean that includes the own return shrinks the gradient by 1 − 1/N; "
        "estimator.baseline=mean leaves it out": config.baseline is Baseline["own_mean"],
        "normalised Φ: its mean and deviation come from the same batch, O(1/N)": config.normalize,
        "batch_steps: the mean is over a random number of episodes, O(1/N)": counted_by_steps,
        "no importance weight: the data are another policy's": off_policy
        and form is Importance["none"],
        "first-order importance: the states are the behaviour policy's": off_policy
        and form is Importance["first_order"],
        "dropped importance factors: what follows a step is the behaviour policy's": off_policy
        and not complete
        and form is not Importance["none"]
        and later_rewards,
        "self-normalised weights: consistent, O(1/N)": off_policy
        and config.self_normalize
        and form is not Importance["none"],
        "clipped importance weights": off_policy
        and config.clip_ratio is not None
        and form is not Importance["none"],
        "reuse: after its first update the policy has seen the batch that it is weighed on": reused,
    }
    return [note for note, applies in found.items() if applies]
