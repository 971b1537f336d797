"""Φ of one's own: what is refused, and in which words."""

from dataclasses import replace

import pytest
import torch
from settings import train_config

from pgcli.errors import ConfigError
from pgcli.estimators.estimator import terms
from pgcli.estimators.phi import PHIS, Episodes, phi, register

BATCH = Episodes(torch.ones(2, 3), torch.ones(2, 3).bool(), torch.zeros(2).bool())


@pytest.fixture
def config(monkeypatch):
    """Of a Φ that this file registers."""
    monkeypatch.setattr(PHIS, "_parts", dict(PHIS._parts))
    return lambda name, **values: replace(
        train_config().estimator, phi=f"{__name__}:{name}", **values
    )


def test_a_tensor_of_another_shape_is_refused(config):
    register("flat")(lambda c, e: e.rew.sum(-1))
    with pytest.raises(ConfigError, match=r"gave the shape \[2\] for rewards \[2, 3\]"):
        terms(config("flat"), BATCH)


def test_a_stream_that_is_none_is_refused(config):
    register("promised", stream=True)(lambda c, e: e.rew)
    with pytest.raises(ConfigError, match="registered as a stream"):
        terms(config("promised", importance="per_decision"), BATCH)
    register("plain")(lambda c, e: e.rew)
    with pytest.raises(ConfigError, match="is no stream"):
        terms(config("plain", importance="per_decision"), BATCH)


def test_needs_and_names_are_checked():
    with pytest.raises(ValueError, match="only value, q, compatible"):
        register("x", needs=("values",))


@pytest.mark.parametrize("name", [":gae", "pgcli.estimators.phi:gae"])
def test_no_second_name_for_what_has_one(name):
    with pytest.raises(ConfigError, match="need no module"):
        phi(replace(train_config().estimator, phi=name))
