"""Wrappers that a user names: `module:name`, or `{wrapper: module:name, argument: value}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym

from pgcli.environments.guard import FAULTS, quiet, told
from pgcli.errors import ConfigError
from pgcli.settings.registry import imported

KEY, NAME = "env.wrappers", "wrapper"


class Wrapping(NamedTuple):
    """A wrapper and its arguments."""

    name: str
    arguments: dict[str, Any]


def wrappings(wrappers: Sequence[Any]) -> list[Wrapping]:
    """What `env.wrappers` names, in order; ConfigError where an item is of neither form."""
    return [_wrapping(item) for item in wrappers]


def _wrapping(item: Any) -> Wrapping:
    if isinstance(item, str):
        return Wrapping(item, {})
    if isinstance(item, Mapping) and isinstance(item.get(NAME), str):
        return Wrapping(item[NAME], {str(k): x for k, x in item.items() if k != NAME})
    allowed = "each is module:name, or {wrapper:module:name,argument:value}"
    shown = sorted(map(str, item)) if isinstance(item, Mapping) else item  # a value may be secret
    raise ConfigError(KEY, shown, allowed)


def wrapped(env: gym.Env[Any, Any], wrappers: Sequence[Any]) -> gym.Env[Any, Any]:
    """The environment in all of them, the first innermost; ConfigError where one cannot be."""
    for name, arguments in wrappings(wrappers):
        with quiet():
            make = imported(KEY, name)
        given = f" with {', '.join(arguments)}" if arguments else ""
        try:
            env = make(env, **arguments)
        except FAULTS as error:
            raise ConfigError(KEY, name, f"cannot be made{given}: {told(error)}") from error
        if not isinstance(env, gym.Env):
            raise ConfigError(KEY, name, f"made a {type(env).__name__}, and no gymnasium.Env")
    return env
