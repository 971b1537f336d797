"""Policies of other runs, wherever one is named."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pgcli.environments.spaces import Spaces
from pgcli.errors import ConfigError, NonFinite
from pgcli.policies.build import build_policy
from pgcli.runs import checkpoint
from pgcli.runs.saved import read, settings
from pgcli.runs.tags import RETURN
from pgcli.settings.schema import ALL, CompareConfig, TrainConfig


def saved_behaviour(config: TrainConfig | CompareConfig) -> tuple[str, int | None] | None:
    """The run whose policy collects, and which iteration of it; None where none is named."""
    behaviour = config.behaviour
    run = behaviour.checkpoint
    if run is None and behaviour.iteration is not None and isinstance(config, CompareConfig):
        run = config.checkpoint
    return None if run is None else (run, behaviour.iteration)


def halfway(run: Path, seed: int) -> tuple[int, float] | None:
    """Of a run's saved iterations that whose return lies most nearly halfway, and its return.

    None where there is none, or its records cannot be read.
    """
    rows = read(run).records.get(seed)
    if rows is None:
        return None
    at = dict(zip(rows["iteration"].tolist(), rows[RETURN].tolist(), strict=True))
    there = {i: at[i] for i in checkpoint.iterations(run) if math.isfinite(at.get(i, math.nan))}
    if not there:
        return None
    told = rows[RETURN][np.isfinite(rows[RETURN])]  # a first batch may end no episode
    middle = (told[0] + told[-1]) / 2
    number = min(there, key=lambda i: abs(there[i] - middle))
    return number, there[number]


def saved_theta(
    key: str,
    run: str,
    iteration: int | str | None,
    config: TrainConfig | CompareConfig,
    spaces: Spaces,
) -> Tensor:
    """theta of the run that `key` names, [S, P] or [1, P] to train beside, [1, P] to compare.

    NoCheckpoint where there is none, ConfigError where the policy is of another kind or has none
    of the seeds, NonFinite where it is no policy any more.
    """
    ckpt = checkpoint.load(Path(run), iteration)
    width = build_policy(config.policy, config.behaviour, spaces).width
    theta = checkpoint.policy(key, run, ckpt, config, spaces.told, width)
    if isinstance(config, TrainConfig) and len(theta) not in (1, config.seeds):
        allowed = f"it has {len(theta)} seeds, this run {config.seeds}: 1, or as many"
        raise ConfigError(key, run, allowed)
    if isinstance(config, CompareConfig) and len(theta) > 1:
        first = int(settings(Path(run))["seed"])
        row = config.seed - first
        if not 0 <= row < len(theta):
            allowed = f"{run} trained the seeds {first} to {first + len(theta) - 1}"
            raise ConfigError("seed", config.seed, allowed)
        theta = theta[row : row + 1]
    if not np.isfinite(theta).all():
        raise NonFinite(f"{key}={run}: the policy of iteration {ckpt.iteration} is not finite")
    return torch.from_numpy(theta)


def passed_over(config: CompareConfig) -> str | None:
    """The newer checkpoints that are damaged, where the newest that is not is looked at."""
    if config.checkpoint is None or config.iteration is not None:
        return None
    damage = checkpoint.load(Path(config.checkpoint)).damage
    return f"passed over {damage}" if damage else None


def check_saved(config: TrainConfig | CompareConfig, spaces: Spaces) -> None:
    """Raise what `saved_theta` would for any policy that a configuration names."""
    named: list[tuple[str, str | None, int | str | None]] = [
        ("behaviour.checkpoint", *(saved_behaviour(config) or (None, None)))
    ]
    if isinstance(config, CompareConfig):
        _check_compared(config, spaces)
    for key, run, iteration in named:
        if run is not None:
            saved_theta(key, run, iteration, config, spaces)


def _check_compared(config: CompareConfig, spaces: Spaces) -> None:
    """The same for every policy that is looked at."""
    if config.checkpoint is None:
        return
    run = Path(config.checkpoint)
    trained = len(checkpoint.load(run).arrays["theta"])
    if config.seeds > trained:
        raise ConfigError("seeds", config.seeds, f"{run} trained {trained}")
    for one in compared(config):
        saved_theta("checkpoint", config.checkpoint, one.iteration, one, spaces)


def compared(config: CompareConfig) -> list[CompareConfig]:
    """A configuration for each policy that is looked at, iteration by iteration."""
    iterations = [config.iteration]
    if isinstance(config.iteration, list):
        iterations = config.iteration
    elif config.iteration is None and config.checkpoint is not None and config.several:
        iterations = [checkpoint.load(Path(config.checkpoint)).iteration]
    elif config.iteration == ALL and config.checkpoint is not None:
        iterations = list(checkpoint.iterations(Path(config.checkpoint)))
    seeds = range(config.seed, config.seed + config.seeds)
    return [replace(config, iteration=i, seed=s, seeds=1) for i in iterations for s in seeds]
