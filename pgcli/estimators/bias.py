"""Where an estimator's bias comes from, in words: said to the user, never silently corrected."""

from pgcli.config.schema import EstimatorConfig, Phi


def bias_notes(config: EstimatorConfig, *, counted_by_steps: bool) -> list[str]:
    """One sentence per source of bias of this combination; none: unbiased for ∇J at every N."""
    notes = []
    if config.phi is Phi["gae"] and (config.lam < 1 or config.bootstrap):
        where = "λ < 1" if config.lam < 1 else "a time limit"
        notes.append(f"learned V: GAE leans on it at {where}, so its error biases the gradient")
    if config.phi is not Phi["total_return"] and config.gamma < 1 and not config.discount_state:
        notes.append(
            "missing γ^t: with γ < 1 this is the gradient of no objective "
            "(Nota & Thomas 2020); estimator.discount_state=true restores it"
        )
    if config.normalize:
        notes.append("normalised Φ: its mean and deviation come from the same batch, O(1/N)")
    if counted_by_steps:
        notes.append("batch_steps: the mean is over a random number of episodes, O(1/N)")
    return notes
