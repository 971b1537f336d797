"""Whether what an environment says of itself is to be believed."""

from __future__ import annotations

from pgcli.environments.batch import Batch
from pgcli.environments.engines import hidden_model, tabular_model
from pgcli.environments.tabular import Tabular, Trial
from pgcli.errors import ConfigError, EnvironmentFailed
from pgcli.settings.schema import CompareConfig, CriticKind


class Belief:
    """The environment's model, as long as nothing that is collected contradicts it."""

    model: Tabular | None

    def __init__(self, config: CompareConfig) -> None:
        """ConfigError where a model is asked for and there is none."""
        self._id, self.notice, self.model = config.env.id, "", tabular_model(config.env)
        exact_critic = config.critic.kind is CriticKind["exact"]
        self._needed = exact_critic or config.exact is True
        if self.model is not None:
            self._trial = Trial(self.model, config.env.reward_shift)
            return
        missing = f"{self._id} does not expose its model"
        if (wrapper := hidden_model(config.env)) is not None:
            missing += f": its wrapper {wrapper} has no P of its own"
            self.notice = f"no exact figures: {missing}"
        if exact_critic:
            raise ConfigError("critic.kind", "exact", missing)
        if config.exact:
            raise ConfigError("exact", True, f"only false: {missing}")

    def see(self, batch: Batch) -> None:
        """Hold a batch against the model, and give it up where they contradict each other.

        EnvironmentFailed where it was asked for.
        """
        if self.model is None or (fault := self._trial.add(batch)) is None:
            return
        if self._needed:
            raise EnvironmentFailed(f"{self._id}: its model is not what it does: {fault}")
        self.model = None
        self.notice = (
            f"no exact figures: the model that {self._id} exposes is not what it does: {fault}"
        )
