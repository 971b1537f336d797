"""What a typed word takes back from presets, where the order of conf/train.yaml cannot say it.

A group that was typed has its own numbers: those that were tuned for another choice are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pgcli.cli.compose import Again, Brought, literal, parse
from pgcli.cli.sources import files
from pgcli.settings.schema import Collect

TUNED = "tuned"  # the group of the numbers of a pair
UNTUNED = "none"  # no file of it
COUNTED = ("collect", "batch_steps", "batch_size")
# Where another one counts.
OTHERWISE: dict[str, Collect | None] = {"collect": Collect.episodes, "batch_steps": None}


def taken_back(lines: Sequence[str], node: DictConfig, again: Again) -> Brought:
    """What `lines`, which `node` is composed of, undo in presets by what they name."""
    typed = {override.key_or_group for override in parse(lines)}
    overrides, says = [], []
    # What says how a batch is counted: only one of these can count, that which has the last word.
    last = next((key for key in COUNTED if key in typed), _last_of_batch(node))
    for key, value in OTHERWISE.items():
        own = node.get(key)
        if last is not None and key not in (last, *typed) and own not in (value, None):
            overrides.append(f"{key}={'null' if value is None else value.name}")  # a preset's
    groups = [group for group in node.hydra.runtime.choices if group in typed and group in node]
    if groups and TUNED not in typed and (pair := _tuned(node)) is not None:
        plain = again([f"{TUNED}={UNTUNED}"])
        for group in groups:
            changed = _changed(node[group], plain[group])
            overrides += [f"++{group}.{key}={literal(value)}" for key, value in changed.items()]
            if changed:
                keys = ", ".join(f"{group}.{key}" for key in changed)
                says.append(f"{group}= is given: what is tuned for {pair} is dropped of {keys}")
    return Brought(overrides, says)


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
