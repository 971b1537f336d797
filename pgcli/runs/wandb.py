"""The records of a run, sent to Weights & Biases as well (extra `wandb`)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pgcli.errors import ConfigError
from pgcli.machine.randomness import per_seed
from pgcli.runs.directory import write_atomically
from pgcli.runs.logbook import Metrics, Places
from pgcli.runs.tags import EVALUATED

STEPS = "env_steps"
IDENTITY = ".wandb-id"


class WeightsAndBiases:
    """One W&B run per seed, in a group named by the run directory; x is environment steps.

    `WANDB_MODE=offline` records without a network. A resumed run goes on with the same W&B runs,
    known by an id that lies in the directory. What fails there later costs no training: it is
    said once, and nothing more is sent.
    """

    def __init__(
        self,
        project: str,
        directory: Path,
        seeds: Sequence[int],
        settings: Mapping[str, bool | int | float | str],
        notice: Callable[[str], None],
    ) -> None:
        """ConfigError where W&B will not have it, as without a key."""
        import wandb

        self._runs: list[Any] = []
        self._notice = notice
        place = directory.resolve()
        identity = _identity(directory / IDENTITY)
        try:
            for seed in seeds:
                run = wandb.init(
                    project=project,
                    group=place.name,
                    name=f"{place.name}/seed-{seed}",
                    id=f"{identity}-{seed}",
                    resume="allow",
                    reinit="create_new",
                    dir=str(place),
                    config={**settings, "seed": seed},
                    settings=wandb.Settings(silent=True, console="off"),
                )
                run.define_metric("*", step_metric=STEPS)
                self._runs.append(run)
        except Exception as error:
            self._attempt(self._finish, {})
            reason = " ".join(str(error).split())
            allowed = f"{reason}; WANDB_MODE=offline records without a network"
            raise ConfigError("log.wandb", project, allowed) from error

    def write(
        self, iteration: ArrayLike, env_steps: np.ndarray, metrics: Metrics, ran: Places = None
    ) -> None:
        """Record an iteration of the seeds at the places `ran` [n]; None: of all.

        Their numbers and env_steps, of all seeds [S]; metrics [n] each.
        """
        places = range(len(env_steps)) if ran is None else ran
        self._attempt(self._log, per_seed(iteration, len(env_steps)), env_steps, metrics, places)

    def close(self, final: Metrics) -> None:
        """Write the final metrics [S] and end the runs."""
        self._attempt(self._finish, final)

    def _log(
        self,
        iterations: Sequence[int],
        env_steps: np.ndarray,
        metrics: Metrics,
        places: Sequence[int],
    ) -> None:
        for k, i in enumerate(places if self._runs else ()):
            row = {tag: float(x[k]) for tag, x in metrics.items()}
            row = {tag: x for tag, x in row.items() if tag not in EVALUATED or not math.isnan(x)}
            counts = {"iteration": iterations[i], STEPS: int(env_steps[i])}
            # As its step: of an iteration that is done again, W&B keeps the first record.
            self._runs[i].log({**counts, **row}, step=iterations[i])

    def _finish(self, final: Metrics) -> None:
        for i, run in enumerate(self._runs):
            run.summary.update({tag: float(x[i]) for tag, x in final.items()})
            run.finish()

    def _attempt(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except Exception as error:
            self._runs.clear()
            self._notice(f"Weights & Biases gets no more records: {' '.join(str(error).split())}")


def _identity(path: Path) -> str:
    """What the W&B runs of a directory are known by, made when it is asked for first."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(8).encode())
    return path.read_text()
