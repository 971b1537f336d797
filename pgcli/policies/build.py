"""The policy that an environment asks for, and the critics beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Protocol

import torch

from pgcli.errors import ConfigError
from pgcli.policies.critic import Critic, LinearCritic
from pgcli.policies.heads import make_head
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Normalized, Policy
from pgcli.settings.schema import BehaviourConfig, CriticConfig, CriticKind, PolicyConfig


class Acted(Protocol):
    """An action space, as heads need to know it."""

    @property
    def kind(self) -> Enum:
        """Whose name is that of a head: see `make_head`."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of its components."""
        ...


class Inhabited(Protocol):
    """What a policy must know of where it lives."""

    @property
    def obs_dim(self) -> int:
        """D, the length of an encoded observation."""
        ...

    @property
    def action(self) -> Acted:
        """What it may do."""
        ...


def build_policy(settings: PolicyConfig, behaviour: BehaviourConfig, spaces: Inhabited) -> Policy:
    """The policy that fits the environment's spaces."""
    kind = spaces.action.kind
    if behaviour.epsilon and kind.name == "GAUSSIAN":
        allowed = "only 0: a continuous action space has no uniform policy"
        raise ConfigError("behaviour.epsilon", behaviour.epsilon, allowed)
    head = make_head(kind.name, spaces.action.sizes)
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
) -> dict[str, Critic | LinearCritic]:
    """Those of "value" and "linear" that are asked for, by these names.

    V is what `settings.kind` says; "linear" is linear whatever that says.
    """

    def linear() -> LinearCritic:
        return LinearCritic(obs_dim, horizon, len(seeds), device, settings.time_input)

    def value() -> Critic | LinearCritic:
        if settings.kind is CriticKind.linear:
            return linear()
        return Critic(settings, obs_dim, horizon, seeds, device)

    made = {"value": value, "linear": linear}
    return {kind: made[kind]() for kind in made if kind in set(kinds)}
