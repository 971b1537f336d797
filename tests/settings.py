"""Configurations for tests: the shipped ones, composed as `pg` composes them."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

from pgcli.cli.compose import compose_all
from pgcli.settings.schema import TrainConfig


@cache
def _composed(overrides: tuple[str, ...]) -> TrainConfig:
    (found,) = compose_all("train", overrides, None, multirun=False)
    return found.config


def train_config(*overrides: str, **values: object) -> TrainConfig:
    """The shipped configuration, with overrides as typed and top-level values as given."""
    return replace(deepcopy(_composed(overrides)), **values)
