"""The records of a run, sent to Weights & Biases as well (extra `wandb`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pgcli.errors import ConfigError
from pgcli.runs.logbook import Metrics

STEPS = "env_steps"


class WeightsAndBiases:
    """One W&B run per seed, in a group named by the run directory; x is environment steps.

    `WANDB_MODE=offline` records without a network. A resumed run goes on with the same W&B runs.
    """

    def __init__(
        self,
        project: str,
        directory: Path,
        seeds: Sequence[int],
        settings: Mapping[str, bool | int | float | str],
    ) -> None:
        """ConfigError where W&B will not have it, as without a key."""
        import wandb

        self._runs: list[Any] = []
        place = directory.resolve()
        try:
            for seed in seeds:
                identity = hashlib.sha256(f"{place}/{seed}".encode()).hexdigest()[:16]
                run = wandb.init(
                    project=project,
                    group=place.name,
                    name=f"{place.name}/seed-{seed}",
                    id=identity,
                    resume="allow",
                    reinit="create_new",
                    dir=str(place),
                    config={**settings, "seed": seed},
                    settings=wandb.Settings(silent=True, console="off"),
                )
                run.define_metric("*", step_metric=STEPS)
                self._runs.append(run)
        except Exception as error:
            self.close({})
            reason = " ".join(str(error).split())
            allowed = f"{reason}; WANDB_MODE=offline records without a network"
            raise ConfigError("log.wandb", project, allowed) from error

    def write(self, iteration: int, env_steps: np.ndarray, metrics: Metrics) -> None:
        """Record one iteration: env_steps [S] and metrics [S] each."""
        for i, run in enumerate(self._runs):
            row = {tag: float(x[i]) for tag, x in metrics.items()}
            run.log({"iteration": iteration, STEPS: int(env_steps[i]), **row})

    def close(self, final: Metrics) -> None:
        """Write the final metrics [S] and end the runs."""
        for i, run in enumerate(self._runs):
            run.summary.update({tag: float(x[i]) for tag, x in final.items()})
            run.finish()
