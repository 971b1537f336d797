"""The runs that `pg eval checkpoint=...` names, by what each was told, and what is typed beside."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgcli.errors import ConfigError, NoCheckpoint
from pgcli.evaluation.subject import Trained
from pgcli.runs import checkpoint, saved
from pgcli.settings.schema import (
    EnvConfig,
    EvalConfig,
    EvaluatedEnvConfig,
    PolicyConfig,
    TrainConfig,
    before,
)


def trained(config: EvalConfig) -> list[Trained]:
    """Every run at or below the directory that it names, in natural order.

    Below it, runs that saved nothing are left out. ConfigError where nothing is named, NoCheckpoint
    where there is no run.
    """
    if config.checkpoint is None:
        allowed = "names what is to be evaluated: a run directory, or one with runs below it"
        raise ConfigError("checkpoint", None, allowed)
    place = Path(config.checkpoint)
    if checkpoint.iterations(place):
        return [_trained(place, "", config.env)]
    runs = [run for run in saved.find([place]) if checkpoint.iterations(run)]
    if not runs:
        raise NoCheckpoint(f"checkpoint={place}: no run with a checkpoint there")
    return [_trained(run, os.path.relpath(run, place), config.env) for run in runs]


def _trained(run: Path, label: str, asked: EvaluatedEnvConfig) -> Trained:
    try:
        tree: Any = OmegaConf.create(saved.settings(run))
        policy: Any = _typed(PolicyConfig, "policy", tree)
        env: Any = _typed(EnvConfig, "env", tree)
        seed = int(tree.seed)
    except (saved.Unreadable, OmegaConfBaseException, AttributeError, TypeError, ValueError) as e:
        text = " ".join(str(e).split())
        raise NoCheckpoint(f"{run}: no settings of a run there: {text}") from e
    elsewhere: tuple[str, object] | None = None
    if asked.id is not None and asked.id != env.id:
        env.id, env.kwargs, env.max_episode_steps = asked.id, {}, None
        elsewhere = "env", asked.id
    if asked.kwargs:
        env.kwargs = {**env.kwargs, **asked.kwargs}
        elsewhere = elsewhere or ("env.kwargs", asked.kwargs)
    if asked.max_episode_steps is not None:
        env.max_episode_steps = asked.max_episode_steps
    if asked.engine is not None:
        env.engine = asked.engine
    if asked.info is not None:
        env.info = list(asked.info)
    env.num_envs = asked.num_envs
    return Trained(label, run, env, policy, seed, elsewhere)


def _typed(schema: type, section: str, tree: Any) -> Any:
    """A section of a run's settings; what it does not know as it did without."""
    earlier = {
        key.partition(".")[2]: value
        for key, value in before(TrainConfig).items()
        if key.startswith(f"{section}.")
    }
    told: Any = OmegaConf.to_container(tree[section], resolve=True)
    known = {f.name for f in fields(schema)}
    layers = earlier, {key: value for key, value in told.items() if key in known}
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), *layers))
