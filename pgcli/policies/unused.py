"""Which settings of a policy and of critics can have no effect beside the others.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection

from pgcli.policies.fit import Acted
from pgcli.settings.registry import is_own
from pgcli.settings.schema import (
    ActionValue,
    CriticConfig,
    Init,
    PolicyConfig,
    Target,
)

BESIDE = {ActionValue.dueling, ActionValue.compatible}  # V, and an advantage


def unused_of_policy(settings: PolicyConfig, action: Acted) -> dict[str, str]:
    """The settings `policy.<name>` that have no effect with these actions: why, by key."""
    idle = {}
    if not settings.normalize_obs:
        idle["clip_obs"] = "policy.normalize_obs is false"
    if not settings.hidden:
        idle["activation"] = "policy.hidden is empty"
    if settings.init is not Init.orthogonal:
        idle["output_gain"] = f"policy.init is {settings.init.name}"
    if action.kind.name != "GAUSSIAN":
        idle["log_std"] = "the actions are not continuous"
    if not settings.entropy_coef:
        idle["entropy_schedule"] = "policy.entropy_coef is 0"
    return {f"policy.{name}": why for name, why in idle.items()}


def unused_of_critics(settings: CriticConfig, kinds: Collection[str]) -> dict[str, str]:
    """The settings `critic.<name>` that have no effect: why, by key.

    `kinds`: the critics that are asked for, see `estimators.estimator.critics`.
    """
    names = list(vars(settings))
    if not kinds:
        none = dict.fromkeys(names, "the estimator has no critic")
        return {f"critic.{name}": why for name, why in none.items()}
    idle = {}
    asks_q = "q" in kinds
    form = settings.q
    advantage = asks_q and form in BESIDE
    value = "value" in kinds or (advantage and "linear" not in kinds)
    linear, own = settings.kind == "linear", is_own(settings.kind) and value
    network = (value and not linear) or (asks_q and form is not ActionValue.compatible)
    if not value:
        idle["kind"] = "no V is learned here, or a linear one by its baseline"
    if not network:
        for name in ("hidden", "activation", "lr", "epochs", "minibatches", "clip"):
            idle[name] = "no critic here is a network"
    elif not own:  # who knows what that reads
        if not settings.hidden:
            idle["activation"] = "critic.hidden is empty"
        if settings.epochs * settings.minibatches == 1:
            idle["clip"] = "a fit is one step, before which nothing has moved"
    if settings.target is Target.monte_carlo:
        idle["lam"] = "critic.target is monte_carlo"
    if not asks_q:
        idle["q"] = "the estimator has no Q"
    if "compatible" not in kinds and not (asks_q and form is ActionValue.compatible):
        idle["ridge"] = "it is for ψᵀw: estimator.phi=compatible, or a Q with critic.q=compatible"
    return {f"critic.{name}": why for name, why in idle.items()}
