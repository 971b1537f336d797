"""Entries of `info` that a run logs: which of them, and what is made of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pgcli.environments.spaces import described
from pgcli.errors import ConfigError, one_of

Array = np.ndarray

WAYS = ("mean", "end", "sum")
FLAGS = ("is_success", "success")  # plain, they are what an episode came to at its end
NUMBERS = "biuf"  # kinds of NumPy's types


class Logged(NamedTuple):
    """An entry as `env.info` names it: `name`, or `name@way`."""

    text: str
    name: str
    way: str  # mean over steps, at the episode's end, or its sum: see `training.metrics.info`


def logged(entries: Sequence[str]) -> list[Logged]:
    """What `env.info` asks for; ConfigError for a way that is none, or one entry twice."""
    found = []
    for text in entries:
        name, at, way = text.rpartition("@")
        if not at:
            name, way = text, "end" if text in FLAGS else "mean"
        if not name or way not in WAYS:
            allowed = f"after the @ {one_of(way, WAYS)}" if name else "name, or name@way"
            raise ConfigError("env.info", text, allowed)
        found.append(Logged(text, name, way))
    for one in found:
        if sum(one[1:] == other[1:] for other in found) > 1:
            raise ConfigError("env.info", one.text, f"{one.name}@{one.way} is there twice")
    return found


def names(entries: Sequence[str]) -> list[str]:
    """The K names in them, each once."""
    return list(dict.fromkeys(one.name for one in logged(entries)))


def picked(info: Any, names: Sequence[str]) -> list[float]:
    """The entries of these names [K], NaN where there is none; TypeError for one that is no number.

    None and NaN count as not there.
    """
    if not isinstance(info, Mapping):
        raise TypeError(f"its info is {described(info)}, and must be a dictionary")
    return [_number(name, info.get(name)) for name in names]


def _number(name: str, x: Any) -> float:
    if x is None:
        return np.nan
    if not isinstance(x, (float, int)) and (
        np.ndim(x) > 0 or np.asarray(x).dtype.kind not in NUMBERS
    ):
        raise TypeError(f'its info["{name}"] is {described(x)}, and must be a number: env.info')
    return float(x)


class Entries:
    """What E copies of an environment said at their last step."""

    def __init__(self, names: Sequence[str], num_envs: int) -> None:
        self.names = list(names)
        self.values = np.full((num_envs, len(names)), np.nan)  # [E, K]
        self._seen = np.zeros(len(names), bool)
        self._others: set[str] = set()  # what else was there, while any of them was not
        self._ended = False
        self._said: list[str] | None = None

    def at(self, slot: int, info: Any) -> None:
        """Note what one copy's step gave; TypeError where an entry is no number."""
        self.values[slot] = picked(info, self.names)
        if self._said is None and not self._seen.all():
            self._others |= {str(name) for name in info}

    def all(self, values: Array | None, there: Array | None) -> None:
        """Note what all copies' step gave, [E, K], of those that are `there` [E]; None: nowhere."""
        self.values[:] = np.nan
        if values is not None:
            self.values[there] = values[there]

    def over(self, ended: Array) -> None:
        """After a step of all copies, in which `ended` [E] of their episodes did."""
        self._seen |= ~np.isnan(self.values).all(0)
        self._ended = self._ended or bool(ended.any())

    def notices(self) -> list[str]:
        """Which entries have not appeared, after a first batch in which an episode ended."""
        if self._said is None and self._ended:
            missing = [name for name, seen in zip(self.names, self._seen, strict=True) if not seen]
            there = ", ".join(sorted(self._others)) or "nothing"
            beside = f"; what is there: {there}" if self._others else ""
            text = f"env.info: the first episodes' info had no {', '.join(missing)}{beside}"
            self._said = [text] if missing else []
        return self._said or []
