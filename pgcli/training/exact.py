"""∇J itself, for estimator.exact=true: the curve without noise beside which others are seen."""

from __future__ import annotations

import torch
from torch import Tensor

from pgcli.collection.batch import Batch
from pgcli.collection.trial import trial
from pgcli.environments.choose import check_environment
from pgcli.environments.known import known_model
from pgcli.environments.linear import Linear
from pgcli.environments.tabular import Tabular
from pgcli.errors import ConfigError, EnvironmentFailed
from pgcli.gradients.linear import WANTED, is_linear
from pgcli.gradients.truth import solve
from pgcli.policies.build import build_policy
from pgcli.policies.policy import Policy
from pgcli.runs import tags
from pgcli.settings.schema import TrainConfig

KEY = "estimator.exact"


def checked(config: TrainConfig) -> Tabular | Linear:
    """The model that an exact gradient is of; ConfigError where there is none, or none such."""
    model = known_model(config.env)
    if model is None:
        allowed = f"{config.env.id} does not expose its model: only false, or FrozenLake-v1, LQG"
        raise ConfigError(KEY, True, allowed)
    if config.estimator.scale_rewards:
        raise ConfigError("estimator.scale_rewards", True, f"only false with {KEY}=true")
    if isinstance(model, Linear):
        spaces = check_environment(config.env)
        if not is_linear(build_policy(config.policy, config.behaviour, spaces)):
            raise ConfigError(KEY, True, WANTED)
    return model


class Truth:
    """J and ∇J of each seed's policy, while nothing that is collected contradicts the model."""

    def __init__(self, config: TrainConfig) -> None:
        model = checked(config)
        self._id, self._gamma = config.env.id, config.estimator.gamma
        self._trial, self._model = trial(model), model.shifted(config.env.reward_shift)

    def see(self, batch: Batch) -> None:
        """Hold a batch against the model; EnvironmentFailed where they contradict each other."""
        if (fault := self._trial.add(batch)) is not None:
            raise EnvironmentFailed(f"{self._id}: its model is not what it does: {fault}")

    def gradient(self, policy: Policy, theta: Tensor) -> tuple[Tensor, Tensor]:
        """∇J [S, P] and J [S] at theta [S, P], float64."""
        found = [solve(self._model, policy, one[None].cpu(), self._gamma) for one in theta]
        objective = torch.tensor([one.objective for one in found], dtype=torch.float64)
        return torch.stack([one.gradient for one in found]).to(theta.device), objective


def figures(gradient: Tensor, objective: Tensor, estimate: Tensor) -> dict[str, Tensor]:
    """Of ∇J and of an estimate beside it, [S, P] each."""
    norm, other = gradient.norm(dim=1), estimate.norm(dim=1)
    cosine = (gradient * estimate).sum(1) / (norm * other)  # NaN where there is no direction
    return {tags.EXACT_J: objective, tags.EXACT_NORM: norm, tags.EXACT_COS: cosine}
