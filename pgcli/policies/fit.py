"""Whether a policy may be what it is asked to be, for the actions there are.

Imports no torch, so that a configuration can be checked before it is loaded.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from pgcli.errors import ConfigError
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

    @property
    def bounded(self) -> tuple[bool, ...]:
        """Of each dimension of a continuous one, whether both its bounds are finite."""
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


def check_fit(settings: PolicyConfig, behaviour: BehaviourConfig, action: Acted) -> None:
    """Raise ConfigError for what does not go with the actions."""
    if action.kind.name == "GAUSSIAN":
        if behaviour.epsilon:
            allowed = "only 0: a continuous action space has no uniform policy"
            raise ConfigError("behaviour.epsilon", behaviour.epsilon, allowed)
        if settings.squash and not any(action.bounded):
            allowed = "no dimension of the action space has two finite bounds: only false"
            raise ConfigError("policy.squash", True, allowed)
        return
    for key, value in settings.gaussian.items():
        plain = "false" if value is True else "null"
        raise ConfigError(key, value, f"the actions are not continuous: only {plain}")
