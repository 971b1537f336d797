"""The model of an environment, of whatever kind it is."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from pgcli.environments.linear import Linear, read_linear
from pgcli.environments.tabular import Tabular, asked, read_model
from pgcli.settings.schema import EnvConfig


def known_model(config: EnvConfig) -> Tabular | Linear | None:
    """What the environment says of itself; None where it says nothing.

    Raises EnvironmentFailed where that contradicts itself.
    """
    return asked(config, _read)


def _read(env: gym.Env[Any, Any], horizon: int) -> Tabular | Linear | None:
    if (table := read_model(env, horizon)) is not None:
        return table
    return read_linear(env, horizon)
