"""Whether what an environment says of itself is to be believed."""

from __future__ import annotations

from pgcli.collection.batch import Batch
from pgcli.collection.trial import trial
from pgcli.environments.known import known_model
from pgcli.environments.linear import Linear
from pgcli.environments.tabular import Tabular, hidden_model
from pgcli.errors import ConfigError, EnvironmentFailed
from pgcli.gradients.linear import WANTED, is_linear
from pgcli.policies.policy import Policy
from pgcli.settings.schema import EXACT, CompareConfig


class Belief:
    """The environment's model, as long as nothing that is collected contradicts it."""

    model: Tabular | Linear | None

    def __init__(self, config: CompareConfig, policy: Policy) -> None:
        """ConfigError where a model is asked for and there is none that serves this policy."""
        self._id, self.notice, self.model = config.env.id, "", None
        exact_critic = config.critic.kind == EXACT
        self._needed = exact_critic or config.exact is True or config.parts
        shift = config.env.reward_shift
        model = known_model(config.env)
        if model is not None and (isinstance(model, Tabular) or is_linear(policy)):
            self._trial, self.model = trial(model), model.shifted(shift)
            return
        missing = f"{self._id} does not expose its model"
        if model is not None:
            missing = WANTED
            self.notice = f"no exact figures: {missing}"
        elif (wrapper := hidden_model(config.env)) is not None:
            missing += f": its wrapper {wrapper} has no P of its own"
            self.notice = f"no exact figures: {missing}"
        if exact_critic:
            raise ConfigError("critic.kind", "exact", missing)
        for key in ("exact", "parts"):
            if getattr(config, key):
                raise ConfigError(key, True, f"only false: {missing}")

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
