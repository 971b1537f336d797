"""A function of the user's after each iteration: further metrics, and an end: `callback`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pgcli.errors import PartFailed
from pgcli.runs import tags
from pgcli.settings.registry import blamed, imported

KEY, STOP = "callback", "stop"


class Callback:
    """What `module:name` is: a function, or a class whose object is called.

    It is called as f(iteration, metrics) with the metrics of the n seeds that ran, [n] each, "seed"
    and "env_steps" among them. What it returns, a dictionary or None, is logged as
    `callback/<name>`: a number, or one for each of them. A true "stop" in it ends the run; a text
    says why.
    """

    def __init__(self, name: str, seeds: Sequence[int], notice: Callable[[str], None]) -> None:
        self._name, self._seeds, self._notice = name, np.asarray(seeds), notice
        found = imported(KEY, name)
        with blamed(KEY, name):
            self._own = found() if isinstance(found, type) else found
        if not callable(self._own):
            raise PartFailed(f"{KEY}={name}: its objects cannot be called")
        self._known: list[str] | None = None
        self.stop: str | None = None  # why the run is to end

    def __call__(
        self, iteration: int, env_steps: np.ndarray, metrics: Mapping[str, np.ndarray], ran: Any
    ) -> dict[str, np.ndarray]:
        """Further metrics [n] by tag; PartFailed where it raises, or gives what is none."""
        given = {"seed": self._seeds[ran], "env_steps": env_steps[ran], **metrics}
        with blamed(KEY, self._name):
            told = self._own(iteration, {tag: np.array(x) for tag, x in given.items()})
        if told is None:
            told = {}
        if not isinstance(told, Mapping):
            kind = type(told).__name__
            raise PartFailed(f"{KEY}={self._name} gave {kind}: a dictionary, or None")
        more = {str(name): x for name, x in told.items()}
        if why := more.pop(STOP, None):
            beside = f": {' '.join(why.split())}" if isinstance(why, str) else ""
            self.stop = f"stopped by {KEY}={self._name} after iteration {iteration}{beside}"
        found = {name: self._numbers(name, x, len(given["seed"])) for name, x in more.items()}
        if self._known is None:
            self._known = list(found)
        for name in found.keys() - set(self._known):
            self._known.append(name)
            tag = tags.callback(name)
            self._notice(f"{tag} came first in iteration {iteration}: metrics.csv has no column")
        nothing = np.full(len(given["seed"]), np.nan)
        return {tags.callback(name): found.get(name, nothing) for name in self._known}

    def _numbers(self, name: str, x: Any, count: int) -> np.ndarray:
        try:
            return np.array(np.broadcast_to(np.asarray(x, np.float64), (count,)))
        except (TypeError, ValueError) as error:
            allowed = f"a number, or one for each of {count} seeds"
            text = f"{KEY}={self._name} gave {name}={str(x)[:80]}: {allowed}"
            raise PartFailed(" ".join(text.split())) from error
