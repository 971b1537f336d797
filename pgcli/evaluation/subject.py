"""Whose return `pg eval` looks at: the policies of a run, and where they act."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pgcli.environments.choose import check_environment, choose_engine
from pgcli.environments.spaces import Spaces
from pgcli.errors import ConfigError, NonFinite
from pgcli.policies.build import build_policy
from pgcli.policies.policy import Policy
from pgcli.runs import checkpoint
from pgcli.settings.schema import BEST, BehaviourConfig, EnvConfig, PolicyConfig
from pgcli.settings.schema import Engine as EngineName

ITSELF = BehaviourConfig(temperature=1.0, epsilon=0.0, checkpoint=None, iteration=None)


@dataclass(frozen=True)
class Trained:
    """A run that is evaluated, by its settings."""

    label: str  # its place below the directory that was named; "": that one itself
    directory: Path
    env: EnvConfig  # where it is evaluated
    policy: PolicyConfig
    seed: int  # the first of its seeds
    elsewhere: tuple[str, object] | None = None  # a setting by which that is not where it trained


@dataclass(frozen=True)
class Subject:
    """The policies of a run's S seeds, as they were after an iteration."""

    trained: Trained
    spaces: Spaces
    policy: Policy
    theta: Tensor  # [S, P]
    iterations: list[int]  # of each seed

    @property
    def seeds(self) -> list[int]:
        """Of its policies."""
        return [self.trained.seed + i for i in range(len(self.theta))]


def load(trained: Trained, iteration: int | str | None) -> Subject:
    """The policies saved after that iteration, or the newest; for the environment of `trained`.

    NoCheckpoint where there is none, ConfigError where the spaces are not those that the policy
    was trained with, NonFinite where it is no policy any more.
    """
    ckpt = checkpoint.load(trained.directory, iteration)
    spaces = check_environment(trained.env)
    key, value = trained.elsewhere or ("checkpoint", str(trained.directory))
    known = ckpt.meta.get("spaces", spaces.told)  # none is noted in older ones
    for name, here in spaces.told.items():
        if known.get(name) != here:
            allowed = f"its {name} space is {here}, and the policy's {known.get(name)}"
            raise ConfigError(key, value, allowed)
    policy, theta = build_policy(trained.policy, ITSELF, spaces), ckpt.arrays["theta"]
    if theta.shape[1:] != (policy.width,):
        allowed = f"a policy there has {policy.width} parameters, and this one {theta.shape[1]}"
        raise ConfigError(key, value, allowed)
    if not np.isfinite(theta).all():
        text = f"the policy of iteration {ckpt.iteration} is not finite"
        raise NonFinite(f"checkpoint={trained.directory}: {text}")
    each = ckpt.arrays.get("iteration" if iteration == BEST else "tally/done")
    own = [ckpt.iteration] * len(theta) if each is None else each.tolist()
    return Subject(trained, spaces, policy, torch.from_numpy(theta), own)


def repeatable(config: EnvConfig) -> EnvConfig:
    """With an engine that seeds every copy by itself, where it is free to choose.

    A native one has a generator for all of them, and no episode of it can be played again alone.
    """
    if config.engine is EngineName["auto"] and choose_engine(config) == "native":
        return replace(config, engine=EngineName["sync"])
    return config
