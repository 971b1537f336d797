"""What a typed word takes back from presets, where the order of conf/train.yaml cannot say it.

And what the preset of an environment brings, to be said.

A group that was typed has its own numbers: those that were tuned for another choice are dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pgcli.cli.compose import Again, Brought, literal, parse
from pgcli.cli.sources import chosen_group, files, is_whole
from pgcli.settings.schema import Collect

TUNED = "tuned"  # the group of the numbers of a pair
UNTUNED = "none"  # no file of it
BUDGET = "iterations", "total_steps"
COUNTED = ("collect", "batch_steps", "batch_size")
# Where another one counts.
OTHERWISE: dict[str, Collect | None] = {"collect": Collect.episodes, "batch_steps": None}


def taken_back(lines: Sequence[str], node: DictConfig, again: Again) -> Brought:
    """What `lines`, which `node` is composed of, undo in presets by what they name."""
    typed = {override.key_or_group for override in parse(lines)}
    overrides, says = [], []
    if (
        "estimator" in typed
        and "method" not in typed
        and (method := _chosen_by_env(node).get("method"))
    ):
        # Whoever studies an estimator does not ask for a whole method around it.
        overrides.append(f"method={UNTUNED}")
        says.append(f"estimator= is given: method={method} of the environment's preset is left out")
        composed, again = again, lambda more: composed([*overrides[:1], *more])
        node = again([])
    # What says how a batch is counted: only one of these can count, that which has the last word.
    last = next((key for key in COUNTED if key in typed), _last_of_batch(node))
    for key, value in OTHERWISE.items():
        own = node.get(key)
        if last is not None and key not in (last, *typed) and own not in (value, None):
            overrides.append(f"{key}={'null' if value is None else value.name}")  # a preset's
    for one, other in (BUDGET, BUDGET[::-1]):
        if one in typed and other not in typed and node.get(other) is not None:
            overrides.append(f"{other}=null")  # a preset's: whoever types a budget means it
    groups = [group for group in node.hydra.runtime.choices if group in typed and group in node]
    if groups and TUNED not in typed and (pair := _tuned(node)) is not None:
        plain = again([f"{TUNED}={UNTUNED}"])
        for group in groups:
            changed = _changed(node[group], plain[group])
            overrides += [f"++{group}.{key}={literal(value)}" for key, value in changed.items()]
            if changed:
                keys = ", ".join(f"{group}.{key}" for key in changed)
                says.append(f"{group}= is given: what is tuned for {pair} is dropped of {keys}")
    if "update" in groups and (foreign := _foreign(node, typed)):
        overrides += [f"++update.{key}=null" for key in foreign]
        keys, rule = ", ".join(f"update.{key}" for key in foreign), node["update"].name
        says.append(f"update={rule} is given: presets' {keys} are dropped, it has none")
    return Brought(overrides, [*_comes_with(typed, node), *says])


def _foreign(node: DictConfig, typed: Collection[str]) -> list[str]:
    """Settings that presets give to an update rule and the chosen one does not have."""
    from pgcli.updates.rule import settings_of  # which takes its time

    known = settings_of(node["update"].name)
    given = {str(key): value for key, value in node["update"].items() if value is not None}
    return [key for key in given if key not in {"name", *known} and f"update.{key}" not in typed]


def _comes_with(typed: Collection[str], node: DictConfig) -> list[str]:
    """A line on what the preset of an environment has chosen and set, and nobody has typed."""
    env, presets = str(node.hydra.runtime.choices.get("env")), files("env")
    if env not in presets:
        return []
    tree: Any = OmegaConf.to_container(OmegaConf.load(presets[env]), resolve=False)
    tree.pop("defaults", None)
    chosen = _chosen_by_env(node).items()
    parts = [f"{group}={choice}" for group, choice in chosen if group not in typed]
    values = leaves(tree, "" if is_whole(presets[env]) else "env.")
    values.pop("env.id", None)
    if (pair := _tuned(node)) is not None:
        tuned = leaves(OmegaConf.to_container(OmegaConf.load(_file(pair)), resolve=False))
        values |= {key: x for key, x in tuned.items() if key.partition(".")[0] not in typed}
    for key, value in values.items():
        there = OmegaConf.select(node, key)
        if key not in typed and value in (there, getattr(there, "name", there)):
            parts.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    if not parts:
        return []
    return [f"{env} comes with settings that learn: {', '.join(parts)}; --cfg job shows all"]


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a tree by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _file(pair: str) -> Path:
    group, _, name = pair.rpartition("/")
    return files(f"{TUNED}/{group}")[name]


def _chosen_by_env(node: DictConfig) -> dict[str, str]:
    """What the preset of the environment chooses, by group, where that is what there is."""
    choices, presets = node.hydra.runtime.choices, files("env")
    if (env := str(choices.get("env"))) not in presets:
        return {}
    tree: Any = OmegaConf.to_container(OmegaConf.load(presets[env]), resolve=False)
    items = [item for item in tree.get("defaults", []) if isinstance(item, dict)]
    chosen = {chosen_group(item): next(iter(item.values())) for item in items}
    return {group: choice for group, choice in chosen.items() if choices.get(group) == choice}


def _last_of_batch(node: DictConfig) -> str | None:
    """Which of COUNTED the last preset that has one of them sets."""
    last = None
    for group in ("method", TUNED, "experiment"):  # the order of conf/train.yaml
        place, _, name = f"{group}/{node.hydra.runtime.choices.get(group)}".rpartition("/")
        if name in (presets := files(place)):
            tree: Any = OmegaConf.load(presets[name])
            last = next((key for key in COUNTED if key in tree), last)
    return last


def _tuned(node: DictConfig) -> str | None:
    """The pair whose numbers are in a composition."""
    choice = node.hydra.runtime.choices.get(TUNED)
    group, _, name = str(choice).rpartition("/")
    return choice if name in files(f"{TUNED}/{group}") else None


def _changed(one: DictConfig, other: DictConfig) -> dict[str, Any]:
    """The values of `other` where `one` has others."""
    own, values = (OmegaConf.to_container(x) for x in (one, other))
    assert isinstance(own, dict)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if own[key] != value}
