"""The model of an environment, of whatever kind it is."""

from __future__ import annotations

from pgcli.environments.linear import Linear, linear_model
from pgcli.environments.tabular import Tabular, tabular_model
from pgcli.settings.schema import EnvConfig


def known_model(config: EnvConfig) -> Tabular | Linear | None:
    """What the environment says of itself; None where it says nothing.

    Raises EnvironmentFailed where that contradicts itself.
    """
    table = tabular_model(config)
    return linear_model(config) if table is None else table
