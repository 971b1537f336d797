"""From a command line to checked configurations, before Hydra writes anything.

Every refusal is a ConfigError: the key, the value, what is allowed, and a close match.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pgcli.config.schema import TrainConfig, check, check_combination
from pgcli.config.sources import EnvironmentSearchPath, conf_dir, register
from pgcli.errors import ConfigError

MOST_COMBINATIONS = 50  # of a sweep that are composed in advance; beyond, each value by itself
HYDRA_TARGETS = ("hydra._internal.core_plugins.", "hydra_plugins.", "hydra._internal.sweep")


@dataclass(frozen=True)
class Composed:
    """One configuration of a command line, and where Hydra would put its run."""

    config: TrainConfig
    run_dir: Path
    sweep_dir: Path


def compose_all(
    command: str, overrides: Sequence[str], config_dir: str | None, multirun: bool
) -> list[Composed]:
    """Every configuration that the command line asks for, checked; ConfigError for a bad one."""
    register()
    parsed = _parse(overrides)
    EnvironmentSearchPath.config_dir = None
    if config_dir is not None:
        EnvironmentSearchPath.config_dir = str(Path(config_dir).absolute())
        if not Path(config_dir).is_dir():
            raise ConfigError("--config-dir", config_dir, "no such directory")
    found = []
    with initialize_config_dir(str(conf_dir()), job_name=command, version_base="1.3"):
        for lines in _combinations(parsed, multirun):
            try:
                node = compose(command, lines, return_hydra_config=True)
                with open_dict(node):
                    hydra = node.pop("hydra")
                _refuse_hydra_targets(hydra)
                paths = Path(hydra.run.dir), Path(hydra.sweep.dir)
                found.append(Composed(to_config(node), *paths))
            except (HydraException, OmegaConfBaseException) as error:
                raise explained(error, _parse(lines)) from error
    return found


def to_config(node: DictConfig) -> TrainConfig:
    """The dataclass of a composed configuration; ConfigError for what cannot work."""
    _refuse_unknown(node, TrainConfig)
    _refuse_targets(OmegaConf.to_container(node, resolve=False))
    config = OmegaConf.to_object(node)
    if not isinstance(config, TrainConfig):
        raise ConfigError("--config-name", "", "a primary config must begin with schema/train")
    check(config)
    check_combination(config)
    return config


def explained(error: Exception, overrides: Sequence[Override]) -> ConfigError:
    """The error of Hydra or OmegaConf in the user's terms."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group:
            return ConfigError(group, name, _one_of(name, error.options or []))
    cause: BaseException | None = error
    while cause is not None and not getattr(cause, "full_key", None):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key)
        value = next((_text(o) for o in overrides if o.key_or_group == key), "")
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
            return ConfigError(key, value, f"no such setting{_hint(key, known_keys())}")
        kind = settings(TrainConfig).get(key)
        if kind is not None:
            return ConfigError(key, value, _allowed(value, kind))
        return ConfigError(key, value, str(cause).splitlines()[0])
    for override in overrides:
        if override.input_line and override.input_line in str(error):
            key = override.key_or_group
            hint = "" if key in known_keys() else f"no such setting{_hint(key, known_keys())}"
            text = " ".join(str(error).split("\n")[0].split())
            return ConfigError(key, _text(override), hint or text)
    return ConfigError("command line", "", " ".join(str(error).split("\nSee")[0].split()))


def settings(schema: type, prefix: str = "") -> dict[str, Any]:
    """Every setting of a schema by its dotted key, with its type."""
    found: dict[str, Any] = {}
    hints = get_type_hints(schema)
    for f in fields(schema):
        kind = hints[f.name]
        if is_dataclass(kind):
            found |= settings(kind, f"{prefix}{f.name}.")  # type: ignore[arg-type]
        else:
            found[prefix + f.name] = kind
    return found


def known_keys() -> list[str]:
    """What may stand before the `=`: every setting, every section and every config group."""
    leaves = list(settings(TrainConfig))
    sections = {key.partition(".")[0] for key in leaves if "." in key}
    return [*leaves, *sections, *(path.name for path in conf_dir().iterdir() if path.is_dir())]


def _parse(lines: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    found = []
    for line in lines:
        try:
            found.append(parser.parse_override(line))
        except HydraException as error:
            key, _, value = line.partition("=")
            reason = " ".join(str(error).splitlines()[0].split())
            raise ConfigError(key, value, f"not of the form key=value: {reason}") from error
        if "_target_" in line:
            raise ConfigError(*line.partition("=")[::2], "_target_ is not allowed: it runs code")
    return found


def _combinations(overrides: list[Override], multirun: bool) -> Iterator[list[str]]:
    """The override lines of each job of a sweep, or of the one run."""
    choices: list[list[str]] = []
    for override in overrides:
        if not override.is_sweep_override():
            choices.append([override.input_line or ""])
        elif not multirun:
            raise ConfigError(override.key_or_group, _text(override), "several values need -m")
        elif override.is_discrete_sweep() and "glob(" not in (override.input_line or ""):
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        # What a sweeper draws (interval, glob) is checked when its job starts.
    count = 1
    for choice in choices:
        count *= len(choice)
    if count <= MOST_COMBINATIONS:
        yield from (list(lines) for lines in itertools.product(*choices))
        return
    first = [choice[0] for choice in choices]
    for i, choice in enumerate(choices):
        yield from ([*first[:i], line, *first[i + 1 :]] for line in choice)


def _refuse_unknown(node: DictConfig, schema: type, prefix: str = "") -> None:
    """`+key=value` adds what no schema knows."""
    hints = get_type_hints(schema)
    for key in map(str, node):
        name = prefix + key
        if key not in hints:
            raise ConfigError(name, node[key], f"no such setting{_hint(name, known_keys())}")
        if is_dataclass(hints[key]):
            _refuse_unknown(node[key], hints[key], f"{name}.")


def _refuse_targets(tree: Any, key: str = "") -> None:
    if isinstance(tree, dict):
        for name, value in tree.items():
            where = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                raise ConfigError(where, value, "_target_ is not allowed: it runs code")
            _refuse_targets(value, where)
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            _refuse_targets(value, f"{key}.{i}")


def _refuse_hydra_targets(hydra: DictConfig) -> None:
    """Hydra's own plugins name a class by `_target_`; nobody else may."""
    tree = OmegaConf.to_container(hydra, resolve=False)
    assert isinstance(tree, dict)
    for plugin in ("launcher", "sweeper"):
        target = str((tree.get(plugin) or {}).pop("_target_", HYDRA_TARGETS[0]))
        if not target.startswith(HYDRA_TARGETS):
            raise ConfigError(f"hydra.{plugin}._target_", target, "only Hydra's plugins may run")
    sweeper = tree.pop("sweeper", None) or {}
    (sweeper.get("sampler") or {}).pop("_target_", None)
    tree.pop("job_logging", None)
    tree.pop("hydra_logging", None)
    _refuse_targets({"hydra": {**tree, "sweeper": sweeper}})


def _text(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]


def _allowed(value: str, kind: Any) -> str:
    optional = type(None) in get_args(kind)
    if optional:
        kind = next(k for k in get_args(kind) if k is not type(None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of(value, [member.name for member in kind])
    named = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        list[int]: "a list of whole numbers, e.g. [64,64]",
    }
    return f"must be {named.get(kind, 'a dictionary, e.g. {key: value}')}{' or null' * optional}"


def _one_of(value: str, options: Iterable[str]) -> str:
    return f"must be one of {', '.join(sorted(options))}{_hint(value, options)}"


def _hint(value: str, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(value, list(options), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
