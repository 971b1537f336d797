"""Configurations for tests: the shipped ones, composed as `pg` composes them."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

from pgcli.cli.compose import compose_all
from pgcli.cli.origins import brought
from pgcli.settings.schema import TrainConfig


@cache
def _composed(overrides: tuple[str, ...]) -> TrainConfig:
    (found,) = compose_all("train", overrides, None, multirun=False)
    return found.config


def train_config(*overrides: str, **values: object) -> TrainConfig:
    """The shipped configuration, with overrides as typed and top-level values as given.

    Without the method that an environment's preset may choose.
    """
    alone = any(one.startswith("method=") for one in overrides)
    given = overrides if alone else (*overrides, "method=none")
    return replace(deepcopy(_composed(given)), **values)


def as_typed(*overrides: str) -> TrainConfig:
    """What `pg train` makes of a line, presets and what typed words take back of them included."""
    (found,) = compose_all("train", overrides, None, multirun=False, before=brought)
    return found.config
