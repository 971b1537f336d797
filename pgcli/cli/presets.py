"""Estimators and update rules by the names of their presets, as `pg compare` lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Optional, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgcli.cli.sources import conf_dir, files, is_whole
from pgcli.errors import ConfigError, one_of
from pgcli.settings.ladders import listed, rungs, told
from pgcli.settings.registry import OWN, is_own
from pgcli.settings.schema import (
    CompareConfig,
    ComparedEstimator,
    EstimatorConfig,
    UpdateConfig,
    check,
    check_switches,
)

T = TypeVar("T")
UNWEIGHTED = "rtg_value"  # what the presets with importance weights are without them


def estimator_configs(config: CompareConfig) -> dict[str, ComparedEstimator]:
    """The estimators to compare, their settings checked; ConfigError for one that cannot be.

    A preset overrides the values of train.yaml, `config.estimator` overrides the preset.
    """
    presets = files("estimator")
    names = config.estimators or list(presets)
    ladders = _ladders(config)
    shared = config.estimator | {key: values[0] for key, values in ladders.items()}
    shared["gamma"] = config.gamma
    configs = {}
    for name in names:
        if name not in presets and ":" not in name:
            raise ConfigError("estimators", name, one_of(name, [*presets, OWN]))
        configs[name] = _merged(presets.get(name), name, shared)
    if not config.estimators:
        configs = {
            name: est
            for name, est in configs.items()
            if _fits(name, est, config.off_policy) and not est.exact
        }
    for name, est in configs.items():
        if est.exact:
            allowed = "it is ∇J itself, and estimates are compared with it: pg train"
            raise ConfigError("estimators", name, allowed)
    if ladders:
        configs = _climbed(configs, ladders, config.off_policy)
    for est in configs.values():
        check(est, "estimator.")
        check_switches(est)
    reference = config.reference
    if reference is not None and reference not in configs:
        raise ConfigError("reference", reference, one_of(reference, list(configs)))
    return configs


def _ladders(config: CompareConfig) -> dict[str, list[float]]:
    """The settings that are lists of numbers; ConfigError for a list of something else."""
    ladders = listed(config.estimator)
    kinds = get_type_hints(ComparedEstimator)
    for key, values in ladders.items():
        kind = kinds.get(key)
        fitting = (int,) if kind is int else (int, float)
        numbers = all(isinstance(x, fitting) and not isinstance(x, bool) for x in values)
        numeric = kind in (int, float, Optional[float]) and numbers
        if not (numeric and len({told(x) for x in values}) == len(values) > 1):
            whole = "whole " * (kind is int)
            allowed = f"a list of different {whole}numbers, of a setting that is a number"
            raise ConfigError(f"estimator.{key}", values, allowed)
    return ladders


def _climbed(
    configs: Mapping[str, ComparedEstimator], ladders: Mapping[str, list[float]], off_policy: bool
) -> dict[str, ComparedEstimator]:
    """Every estimator once for each value of the lists that have an effect on it."""
    from pgcli.estimators.estimator import critics
    from pgcli.estimators.unused import unused

    found = {}
    for name, est in configs.items():
        idle = unused(est, None, off_policy)
        own = {key: x for key, x in ladders.items() if f"estimator.{key}" not in idle}
        if critics(est):  # which are of the objective's γ
            own.pop("gamma", None)
        for rung in rungs(name, own):
            found[rung.name] = replace(est, **rung.values)  # type: ignore[arg-type]
    for key, values in ladders.items():
        if not any(f" {key}=" in name for name in found):
            raise ConfigError(f"estimator.{key}", values, "it has no effect on any estimator here")
    return found


def _fits(name: str, config: EstimatorConfig, off_policy: bool) -> bool:
    if off_policy:
        return config.weighted or name == UNWEIGHTED
    return not config.weighted


def update_configs(config: CompareConfig) -> dict[str, UpdateConfig]:
    """The update rules whose steps are looked at; ConfigError for one that cannot be.

    `config.update` overrides the values of those presets that have such a setting.
    """
    if not (config.updates or config.update):
        return {}
    from pgcli.updates.rule import settings_of

    presets = files("update")
    configs = {}
    shared = set(config.update)
    for name in config.updates:
        if name not in presets and not is_own(name):
            raise ConfigError("updates", name, one_of(name, [*presets, OWN]))
        own: Any = OmegaConf.load(presets[name]) if name in presets else {"name": name}
        having = {k: v for k, v in config.update.items() if k in settings_of(own["name"])}
        shared -= set(having)
        configs[name] = _typed(UpdateConfig, "update", [own, having], having)
        check(configs[name], "update.")
    for key in sorted(shared):
        allowed = "no setting of updates=" + ",".join(config.updates or ["..."])
        raise ConfigError(f"update.{key}", config.update[key], allowed)
    return configs


def _merged(preset: Path | None, name: str, shared: dict[str, Any]) -> ComparedEstimator:
    chosen: Any = {"phi": name}
    if preset is not None:
        tree = OmegaConf.load(preset)
        whole = is_whole(preset)
        chosen = tree.get("estimator", {}) if whole and isinstance(tree, DictConfig) else tree
    return _typed(ComparedEstimator, "estimator", [chosen, shared], shared)


def _typed(schema: type[T], section: str, layers: Sequence[Any], given: Mapping[str, Any]) -> T:
    """A section from train.yaml's values and layers over them; ConfigError blames `given`."""
    try:
        defaults: Any = _defaults(section, schema)  # type: ignore[arg-type]
        config = OmegaConf.to_object(OmegaConf.merge(defaults, *layers))
    except OmegaConfBaseException as error:
        key = f"{section}.{error.full_key or ''}".rstrip(".")
        leaf = str(error.full_key or "").rpartition(".")[2]
        raise ConfigError(key, given.get(leaf, ""), str(error).splitlines()[0]) from error
    assert isinstance(config, schema)
    return config


@cache
def _defaults(section: str, schema: Any) -> Any:
    """The values of train.yaml, typed; nobody may change them."""
    tree: Any = OmegaConf.load(conf_dir() / "train.yaml")
    return OmegaConf.merge(OmegaConf.structured(schema), tree[section])
