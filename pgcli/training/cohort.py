"""The agents of a run that still train, and their environments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pgcli.collection.batch import Batch
from pgcli.collection.horizon import FixedHorizon
from pgcli.collection.rollout import Quota, collect
from pgcli.environments.choose import open_engine
from pgcli.environments.engine import Actor, Engine
from pgcli.errors import EnvironmentFailed, NonFinite
from pgcli.gradients.statistics import NoiseScale
from pgcli.machine.randomness import Seeding
from pgcli.settings.schema import Collect, TrainConfig
from pgcli.training.build import build_learner
from pgcli.training.learner import Learner


class Cohort:
    """Those of a run's S seeds whose budget is not spent: `index` [n] says which.

    While that is all of them nothing is copied. What the others have come to is kept: `arrays()`
    has S rows, always.
    """

    def __init__(self, config: TrainConfig, seeds: Sequence[int], slots: int) -> None:
        self._config, self._all, self._slots = config, list(seeds), slots
        self._kept: dict[str, np.ndarray] = {}
        self._open(np.arange(len(seeds)))

    engine: Engine  # `slots` environments for each of them
    learner: Learner
    noise: NoiseScale
    horizon: FixedHorizon | None  # what collects, where slots play on from batch to batch

    def begin(self, device: torch.device) -> None:
        """Fresh agents, which compute on this device."""
        self._device = device
        self.learner = build_learner(self._config, self.engine, self.seeds, device)
        self.noise = NoiseScale.start(self._config.gradient.smoothing, len(self.seeds))

    def collect(self, actor: Actor, quota: Quota, done: np.ndarray, seeding: Seeding) -> Batch:
        """The next batch, after `done` [n] iterations: whole episodes by quota, or a horizon."""
        try:
            if self.horizon is not None:
                return self.horizon.collect(actor, self.seeds, done, seeding)
            return collect(self.engine, actor, quota, self.seeds, done, seeding)
        except (EnvironmentFailed, NonFinite) as error:
            error.add(f"in iteration {int(done.max()) + 1}")
            raise

    def narrow(self, left: np.ndarray) -> bool:
        """Go on with the seeds that are left [S], as they are; whether these are fewer now."""
        if left.sum() == len(self.index):
            return False
        self._kept = self.arrays()
        self.close()
        self._open(left.nonzero()[0])
        self.begin(self._device)
        self.load({name: rows[self.index] for name, rows in self._kept.items()})
        return True

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of everything that training changes, by name, a row for each of the S seeds."""
        arrays = {**self.learner.arrays(), **self.noise.arrays()}
        if self.horizon is not None:
            arrays |= self.horizon.arrays()
        if len(self.index) == len(self._all):
            return arrays
        whole = {name: self._kept[name].copy() for name in arrays}
        for name, rows in arrays.items():
            whole[name][self.index] = rows
        return whole

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays()` gave, of the seeds that are here; KeyError or ValueError."""
        self.learner.load(arrays)
        self.noise.load(arrays)
        if self.horizon is not None:
            self.horizon.load(arrays)

    def close(self) -> None:
        """Let go of the environments."""
        self.engine.close()

    def _open(self, index: np.ndarray) -> None:
        self.index = index
        self.seeds = [self._all[i] for i in index]
        config, parts = self._config, self._config.collect is Collect.steps
        count, shared = len(index) * self._slots, config.batch_steps is None
        self.engine = open_engine(config.env, count, self._slots, shared, stopping=parts)
        self.horizon = FixedHorizon(self.engine, len(index), config.horizon) if parts else None
