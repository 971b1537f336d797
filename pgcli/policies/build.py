"""The policy that an environment asks for, and the critics beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from pgcli.policies.critics import CRITICS, StateCritic, value_critic
from pgcli.policies.fit import Inhabited, check_fit
from pgcli.policies.heads import Gaussian, make_head
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Normalized, Policy
from pgcli.settings.schema import BehaviourConfig, CriticConfig, PolicyConfig


def build_policy(settings: PolicyConfig, behaviour: BehaviourConfig, spaces: Inhabited) -> Policy:
    """The policy that fits the environment's spaces; ConfigError where none does."""
    action = spaces.action
    check_fit(settings, behaviour, action)
    head = make_head(action.kind.name, action.sizes)
    if isinstance(head, Gaussian):
        head = replace(
            head, squashed=action.bounded if settings.squash else (), state_std=settings.state_std,
            min_std=settings.min_std, max_std=settings.max_std,
        )  # fmt: skip
    sizes = (spaces.obs_dim, *settings.hidden, head.num_outputs)
    normalized = Normalized(settings.clip_obs) if settings.normalize_obs else None
    return Policy(Mlp(sizes, settings.activation.name, settings.bias), head, normalized)


def build_state_critics(
    kinds: Iterable[str],
    settings: CriticConfig,
    obs_dim: int,
    horizon: int,
    seeds: Sequence[int],
    device: torch.device,
) -> dict[str, StateCritic]:
    """Those of "value" and "linear" that are asked for, by these names.

    V is what `settings.kind` says; "linear" is linear whatever that says.
    """
    made = {"value": value_critic, "linear": CRITICS.find("linear")}
    shape = settings, obs_dim, horizon, seeds, device
    return {kind: made[kind](*shape) for kind in made if kind in set(kinds)}
