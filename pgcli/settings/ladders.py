"""One setting of the estimators of `pg compare`, given as a list: an estimator for each value."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple


def told(value: float) -> str:
    """As names have it."""
    return f"{value:.10g}"


class Rung(NamedTuple):
    """An estimator with one value of each setting that is a list."""

    base: str  # the estimator
    values: dict[str, float]  # of the settings that are lists, and have an effect on it

    @property
    def name(self) -> str:
        """`gae lam=0.9`."""
        return " ".join([self.base, *(f"{key}={told(x)}" for key, x in self.values.items())])

    def without(self, key: str) -> str:
        """Its name but for one setting: what it shares with the other rungs of a ladder."""
        return Rung(self.base, {k: v for k, v in self.values.items() if k != key}).name


def rung_of(name: str, config: object) -> Rung:
    """The rung of that name, whose values stand in its estimator's settings."""
    base, *given = name.split(" ")
    return Rung(base, {key: getattr(config, key) for key in (x.split("=")[0] for x in given)})


def listed(shared: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings that are lists, as given."""
    return {key: value for key, value in shared.items() if isinstance(value, list)}


def rungs(base: str, ladders: Mapping[str, list[float]]) -> list[Rung]:
    """Every combination of the values, in order."""
    return [
        Rung(base, dict(zip(ladders, values, strict=True)))
        for values in itertools.product(*ladders.values())
    ]
