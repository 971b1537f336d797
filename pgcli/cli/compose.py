"""From a command line to checked configurations, before Hydra writes anything.

Every refusal is a ConfigError: the key, the value, what is allowed, and a close match.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from pgcli.cli.commands import COMMANDS, schemas
from pgcli.cli.guest import composing
from pgcli.cli.sources import EnvironmentSearchPath, conf_dir, register
from pgcli.errors import ConfigError, did_you_mean, one_of
from pgcli.settings.schema import TrainConfig, budget, check, check_combination

MOST_COMBINATIONS = 50  # of a sweep that are composed in advance; beyond, each value by itself
# The classes that Hydra itself makes from a configuration: nobody else's `_target_` may run.
PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.", "optuna.samplers.")
EXTRAS = {  # what brings the options of Hydra's groups
    "hydra/launcher": {
        "joblib": "joblib",
        "ray": "ray",
        "submitit_local": "submitit",
        "submitit_slurm": "submitit",
    },
    "hydra/sweeper": {"optuna": "optuna"},
}
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
Again = Callable[[Sequence[str]], DictConfig]  # the same composition, with further lines


class Brought(NamedTuple):
    """What stands before a command line's own overrides, and what its user must know of it."""

    overrides: list[str]
    says: list[str]


Before = Callable[[Sequence[str], DictConfig, Again], Brought]  # of lines, composed so


@dataclass(frozen=True)
class Asked:
    """What a command line asks a sweep for."""

    fixed: list[str]  # overrides that all jobs share
    swept: dict[str, str]  # what is swept over, by key
    jobs: list[list[str]] | None  # the overrides of each job; None: they are a sweeper's choice


@dataclass(frozen=True)
class Composed:
    """One configuration of a command line, and where Hydra would put its run."""

    config: Any  # of the command's schema
    brought: Brought  # by its own overrides
    run_dir: Path
    sweep_dir: Path
    asked: Asked | None  # of the sweep that it is of, by -m or by hydra.mode in a file
    named: bool  # whether its user fixed that place, no time in its name
    here: bool  # whether a sweep's jobs run in this process

    @property
    def multirun(self) -> bool:
        """Whether it is one of a sweep."""
        return self.asked is not None


def compose_all(
    command: str,
    lines: Sequence[str],
    config_dir: str | None,
    multirun: bool,
    config_name: str | None = None,
    before: Before | None = None,
) -> list[Composed]:
    """Every configuration that the command line asks for, checked; ConfigError for a bad one.

    `before` gives the overrides that each brings along, from its own and what they compose to.
    """
    with composing():
        return _composed_all(command, lines, config_dir, multirun, config_name, before)


def _composed_all(
    command: str,
    lines: Sequence[str],
    config_dir: str | None,
    multirun: bool,
    config_name: str | None,
    before: Before | None,
) -> list[Composed]:
    register(schemas())
    name = config_name or command
    search_also(config_dir, _groups(name, config_dir))
    overrides, schema = parse(lines), COMMANDS[command].schema
    with initialize_config_dir(str(conf_dir()), job_name=command, version_base="1.3"):
        for override in overrides:
            override.config_loader = GlobalHydra.instance().config_loader()  # glob() asks it
        _refuse_lists(overrides)
        first = [line for choice in _choices(overrides) for line in choice[:1]]
        node = _composed(name, first, schema)
        multirun = multirun or node.hydra.mode is RunMode.MULTIRUN
        if not multirun:
            _refuse_sweep(overrides)
            return [_checked(name, node, first, None, schema, before)]
        basic = node.hydra.sweeper._target_ == BASIC_SWEEPER
        given = {o.get_key_element() for o in overrides}
        swept = OmegaConf.select(node, "hydra.sweeper.params") or {}
        params = {key: str(value) for key, value in swept.items() if key not in given}
        for override in overrides:
            if params and override.is_sweep_override() and override.key_or_group == "experiment":
                raise ConfigError("experiment", _text(override), "a sweep by itself: one at a time")
        if basic:
            overrides = [*parse([f"{k}={v}" for k, v in params.items()]), *overrides]
        _refuse_unsweepable(overrides, basic)
        choices = _choices(overrides)
        asked = _asked(overrides, params, basic)
        return [
            _checked(name, _composed(name, lines, schema), lines, asked, schema, before)
            for lines in _combinations(choices)
        ]


def _asked(overrides: Sequence[Override], params: Mapping[str, str], basic: bool) -> Asked:
    """The sweep that is typed, or that a file has under hydra.sweeper.params."""
    typed = {o.get_key_element().lstrip("+~"): _text(o) for o in overrides if o.is_sweep_override()}
    own = [o for o in overrides if not o.is_hydra_override()]
    return Asked(
        fixed=[str(o.input_line) for o in own if not o.is_sweep_override()],
        swept={**params, **typed},
        jobs=BasicSweeper.split_arguments(own, None)[0] if basic else None,
    )


def search_also(config_dir: str | None, groups: frozenset[str] | None = None) -> None:
    """Look in this directory (--config-dir) before `conf/`; ConfigError where it is none.

    `groups`: those of the command, in which an environment may choose; None: all there are.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError("--config-dir", config_dir, "no such directory")
    EnvironmentSearchPath.config_dir = None if config_dir is None else Path(config_dir)
    EnvironmentSearchPath.groups = groups


def _groups(name: str, config_dir: str | None) -> frozenset[str] | None:
    """The groups of a primary configuration; None where it has methods, and so all of them."""
    paths = [Path(place) / f"{name}.yaml" for place in (config_dir, conf_dir()) if place]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    found = re.findall(r"^ *- (\w+):", texts[0], re.MULTILINE) if texts else ["method"]
    return None if "method" in found else frozenset(found)


def parse(lines: Sequence[str]) -> list[Override]:
    """The overrides of a command line; ConfigError for one that Hydra cannot read."""
    parser = OverridesParser.create()
    overrides = []
    for line in lines:
        try:
            overrides.append(parser.parse_override(line))
        except HydraException as error:
            key, _, value = line.partition("=")
            reason = " ".join(str(error).splitlines()[0].split())
            raise ConfigError(
                key.lstrip("+~"), value, f"not of the form key=value: {reason}"
            ) from error
    return overrides


def to_config(node: DictConfig, schema: type) -> Any:
    """The dataclass of a composed configuration; ConfigError for what cannot work."""
    _refuse_unknown(node, schema)
    _refuse_targets(OmegaConf.to_container(node, resolve=False))
    config = OmegaConf.to_object(node)
    if not isinstance(config, schema):
        raise ConfigError("--config-name", "", "a primary config must begin with its schema")
    check(config)
    if isinstance(config, TrainConfig):
        config.iterations, config.total_steps = budget(config.iterations, config.total_steps)
    check_combination(config)
    return config


def explained(error: Exception, lines: Sequence[str], schema: type) -> ConfigError:
    """The error of Hydra or OmegaConf in the user's terms."""
    overrides = parse(lines)
    if type(error) is ValueError:  # a group was given something else than a name
        for override in overrides:
            options = _files(override.key_or_group)
            if options and not isinstance(override.value(), (str, list)):
                return ConfigError(override.key_or_group, _text(override), one_of("", options))
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        path, line = Path(error.problem_mark.name), error.problem_mark.line + 1
        return ConfigError(path.parent.name, path.stem, f"{path}, line {line}: {error.problem}")
    if isinstance(error, MissingConfigException):
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        if group and (extra := EXTRAS.get(group, {}).get(name)):
            return ConfigError(group, name, f"needs the extra {extra}")
        if group:
            return ConfigError(group, name, one_of(name, error.options or []))
        return ConfigError("--config-name", name, one_of(name, _files("")))
    cause: BaseException | None = error
    while cause is not None and not getattr(cause, "full_key", None):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OmegaConfBaseException):
        return _explained_key(cause, error, overrides, schema)
    for override in overrides:
        if override.input_line and override.input_line in str(error):
            key = override.key_or_group
            hint = (
                ""
                if key in known_keys(schema)
                else f"no such setting{did_you_mean(key, known_keys(schema))}"
            )
            text = " ".join(str(error).split("\n")[0].split())
            return ConfigError(key, _text(override), hint or text)
    return ConfigError("command line", "", " ".join(str(error).split("\nSee")[0].split()))


def _explained_key(
    cause: OmegaConfBaseException, error: Exception, overrides: Sequence[Override], schema: type
) -> ConfigError:
    key = re.sub(r"\[\d+\]$", "", str(cause.full_key))  # an item of a list: the list is meant
    reason = str(cause).splitlines()[0]
    quoted = re.search(r"[Vv]alue '(.*)'(?: of type|,| is not)", reason)
    value, where = quoted[1] if quoted else "", ""
    for override in overrides:
        if override.key_or_group == key or override.key_or_group.startswith(f"{key}."):
            key, value = override.key_or_group, _text(override)
    if in_file := re.match(r"In '(.*?)':", str(error)):
        where = f" (in {in_file[1]}.yaml)"
    if isinstance(cause, InterpolationResolutionError):
        return ConfigError(key, value, reason + where)
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return ConfigError(
            key, value, f"no such setting{did_you_mean(key, known_keys(schema))}{where}"
        )
    kind = settings(schema).get(key)
    return ConfigError(key, value, (reason if kind is None else _allowed(value, kind)) + where)


def settings(schema: type, prefix: str = "") -> dict[str, Any]:
    """Every setting of a schema by its dotted key, with its type."""
    kinds: dict[str, Any] = {}
    hints = get_type_hints(schema)
    for f in fields(schema):
        kind = hints[f.name]
        if is_dataclass(kind):
            kinds |= settings(kind, f"{prefix}{f.name}.")  # type: ignore[arg-type]
        else:
            kinds[prefix + f.name] = kind
    return kinds


def known_keys(schema: type) -> list[str]:
    """What may stand before the `=`: every setting, every section and every config group."""
    leaves = list(settings(schema))
    sections = {key.partition(".")[0] for key in leaves if "." in key}
    return [*leaves, *sections, *(path.name for path in conf_dir().iterdir() if path.is_dir())]


def _composed(name: str, lines: Sequence[str], schema: type) -> DictConfig:
    try:
        return compose(name, list(lines), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError, MarkedYAMLError) as error:
        raise explained(error, lines, schema) from error


def _checked(
    name: str,
    node: DictConfig,
    lines: Sequence[str],
    asked: Asked | None,
    schema: type,
    before: Before | None,
) -> Composed:
    try:

        def again(more: Sequence[str]) -> DictConfig:
            return _composed(name, [*lines, *more], schema)

        brought = Brought([], []) if before is None else before(lines, node, again)
        if brought.overrides:
            node = _composed(name, [*brought.overrides, *lines], schema)
        with open_dict(node):
            hydra = node.pop("hydra")
        written: Any = OmegaConf.to_container(hydra, resolve=False)
        _refuse_targets({"hydra": written})
        config = to_config(node, schema)
        named = "${now:" not in written["run" if asked is None else "sweep"]["dir"]
        places = Path(hydra.run.dir), Path(hydra.sweep.dir)
        here = str(hydra.launcher._target_) == BASIC_LAUNCHER
        return Composed(config, brought, *places, asked, named, here)
    except OmegaConfBaseException as error:
        raise explained(error, lines, schema) from error


def _choices(overrides: Sequence[Override]) -> list[list[str]]:
    """The lines that each override stands for: one, or one per value of a sweep.

    None for what a sweeper draws (interval): it is checked when its job starts.
    """
    choices = []
    for override in overrides:
        if not override.is_sweep_override():
            choices.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            try:
                values = [f"{key}={value}" for value in override.sweep_string_iterator()]
            except ValueError as error:  # range() with a step of 0
                raise ConfigError(key, _text(override), str(error)) from error
            if not values:
                raise ConfigError(key, _text(override), "gives no value at all")
            choices.append(values)
    return choices


def _combinations(choices: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The lines of each job of a sweep, in the order that finds a bad value soonest.

    Composing takes 60 ms: first every value by itself, shortest list first, then the others.
    """
    first = tuple(choice[0] for choice in choices)
    alone = [
        (*first[:i], line, *first[i + 1 :])
        for i in sorted(range(len(choices)), key=lambda i: len(choices[i]))
        for line in choices[i]
    ]
    few = math.prod(map(len, choices)) <= MOST_COMBINATIONS
    return list(dict.fromkeys([first, *alone, *(itertools.product(*choices) if few else ())]))


def _refuse_lists(overrides: Sequence[Override]) -> None:
    """Of several options of a group Hydra would take each, and the last one would hold."""
    for override in overrides:
        key = override.key_or_group
        if (conf_dir() / key).is_dir() and isinstance(override.value(), list):
            raise ConfigError(key, _text(override), "one name, not a list; -m sweeps over a,b")


def _refuse_sweep(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError(override.key_or_group, _text(override), "several values need -m")


def _refuse_unsweepable(overrides: Sequence[Override], basic: bool) -> None:
    for override in overrides:
        key, text = override.key_or_group, _text(override)
        if override.is_sweep_override() and override.is_hydra_override():
            raise ConfigError(key, text, "a setting of Hydra's own has one value in a sweep")
        if override.is_sweep_override() and basic and not override.is_discrete_sweep():
            raise ConfigError(key, text, "an interval needs a sweeper that draws, e.g. optuna")


def _refuse_unknown(
    node: DictConfig, schema: type, prefix: str = "", root: type | None = None
) -> None:
    """`+key=value` adds what no schema knows."""
    hints = get_type_hints(schema)
    for key in map(str, node):
        name = prefix + key
        if key not in hints:
            known = known_keys(root or schema)
            raise ConfigError(name, node[key], f"no such setting{did_you_mean(name, known)}")
        if is_dataclass(hints[key]):
            _refuse_unknown(node[key], hints[key], f"{name}.", root or schema)


def _refuse_targets(tree: Any, key: str = "") -> None:
    """Refuse every `_target_`, except where Hydra keeps its own plugins."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            where = f"{key}.{name}" if key else str(name)
            plugin = where.startswith(("hydra.launcher.", "hydra.sweeper."))
            if name == "_target_" and not (plugin and str(value).startswith(PLUGINS)):
                raise ConfigError(where, value, "_target_ is not allowed: it runs code")
            _refuse_targets(value, where)
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            _refuse_targets(value, f"{key}.{i}")


def _files(group: str) -> list[str]:
    """The names that `conf/` has for a group, or for the primary configurations."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def _text(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]


def _allowed(value: str, kind: Any) -> str:
    optional = type(None) in get_args(kind)
    if optional:
        kind = next(k for k in get_args(kind) if k is not type(None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return one_of(value, [member.name for member in kind])
    named = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        list[int]: "a list of whole numbers, e.g. [64,64]",
        list[str]: "a list of names, e.g. [this,that]",
        list[Any]: "a list, e.g. [this,that]",
    }
    return f"must be {named.get(kind, 'a dictionary, e.g. {key: value}')}{' or null' * optional}"


def literal(value: Any) -> str:
    """A value as Hydra's grammar writes it; every text comes back as it is."""
    return Override._get_value_element_as_str(_quoted(value))


def _quoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _quoted(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_quoted(x) for x in value]
    if isinstance(value, Enum):
        return value.name
    return QuotedString(value, Quote.single) if isinstance(value, str) else value
