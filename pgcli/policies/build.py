"""The policy that an environment asks for."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from pgcli.errors import ConfigError
from pgcli.policies.heads import make_head
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.settings.schema import BehaviourConfig, PolicyConfig


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
    return Policy(Mlp(sizes, settings.activation.name, settings.bias), head)
