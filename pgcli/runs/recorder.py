"""The records of a run, handed to an object of the user's as well: `log.recorder`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pgcli.errors import ConfigError
from pgcli.machine.randomness import per_seed
from pgcli.runs.logbook import Metrics, Places
from pgcli.settings.registry import blamed, imported

KEY = "log.recorder"
METHODS = {
    "start": "start(config)",
    "record": "record(iteration, metrics)",
    "finish": "finish(summary)",
}


class OwnRecorder:
    """What `module:name` makes, told a row of metrics.csv at a time.

    PartFailed where it raises; after that it is told no more.
    """

    def __init__(
        self, name: str, directory: Path, seeds: Sequence[int], config: Mapping[str, Any]
    ) -> None:
        """Make and start it; ConfigError where it has not its three methods."""
        self._name, self._seeds, self._failed = name, seeds, True
        make = imported(KEY, name)
        self._place = str(directory.resolve())
        with blamed(KEY, name):
            self._own = make()
        for method, told in METHODS.items():
            if not callable(getattr(self._own, method, None)):
                raise ConfigError(KEY, name, f"its {type(self._own).__name__} has no {told}")
        self._tell("start", {**config, "directory": self._place})

    def write(
        self, iteration: ArrayLike, env_steps: np.ndarray, metrics: Metrics, ran: Places = None
    ) -> None:
        """Record an iteration of the seeds at the places `ran` [n]; None: of all.

        Their numbers and env_steps, of all seeds [S]; metrics [n] each.
        """
        iterations = per_seed(iteration, len(self._seeds))
        for k, i in enumerate(range(len(self._seeds)) if ran is None else ran):
            keys = {"seed": self._seeds[i], "env_steps": int(env_steps[i])}
            row = {tag: float(x[k]) for tag, x in metrics.items()}
            self._tell("record", int(iterations[i]), {**keys, **row})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Hand it what summary.json says, unless it has failed."""
        if not self._failed:
            self._tell("finish", {**summary, "directory": self._place})

    def _tell(self, method: str, *args: Any) -> None:
        self._failed = True
        with blamed(KEY, self._name):
            getattr(self._own, method)(*args)
        self._failed = False
