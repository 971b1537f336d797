"""Estimators by the names of their presets, as `pg compare` lists them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgcli.cli.sources import conf_dir, files
from pgcli.errors import ConfigError, one_of
from pgcli.settings.schema import (
    CompareConfig,
    EstimatorConfig,
    check,
    check_switches,
)

UNWEIGHTED = "rtg_value"  # what the presets with importance weights are without them


def estimator_configs(config: CompareConfig) -> dict[str, EstimatorConfig]:
    """The estimators to compare, their settings checked; ConfigError for one that cannot be.

    A preset overrides the values of train.yaml, `config.estimator` overrides the preset.
    """
    presets = files("estimator")
    names = config.estimators or list(presets)
    configs = {}
    for name in names:
        if name not in presets and ":" not in name:
            raise ConfigError("estimators", name, one_of(name, [*presets, "module:name"]))
        configs[name] = _merged(presets.get(name), name, config.estimator)
    if not config.estimators:
        configs = {
            name: est for name, est in configs.items() if _fits(name, est, config.off_policy)
        }
    for est in configs.values():
        check(est, "estimator.")
        check_switches(est)
    reference = config.reference
    if reference is not None and reference not in configs:
        raise ConfigError("reference", reference, one_of(reference, list(configs)))
    return configs


def _fits(name: str, config: EstimatorConfig, off_policy: bool) -> bool:
    if off_policy:
        return config.weighted or name == UNWEIGHTED
    return not config.weighted


def _merged(preset: Path | None, name: str, shared: dict[str, Any]) -> EstimatorConfig:
    chosen: Any = {"phi": name}
    if preset is not None:
        tree = OmegaConf.load(preset)
        whole = preset.read_text(encoding="utf-8").startswith("# @package _global_")
        chosen = tree.get("estimator", {}) if whole and isinstance(tree, DictConfig) else tree
    try:
        config = OmegaConf.to_object(OmegaConf.merge(_defaults(), chosen, shared))
    except OmegaConfBaseException as error:
        key = f"estimator.{error.full_key or ''}".rstrip(".")
        leaf = str(error.full_key or "").rpartition(".")[2]
        raise ConfigError(key, shared.get(leaf, ""), str(error).splitlines()[0]) from error
    assert isinstance(config, EstimatorConfig)
    return config


@cache
def _defaults() -> Any:
    """The values of train.yaml, typed; nobody may change them."""
    tree = OmegaConf.load(conf_dir() / "train.yaml").estimator
    return OmegaConf.merge(OmegaConf.structured(EstimatorConfig), tree)
