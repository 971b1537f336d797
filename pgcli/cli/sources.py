"""Where configurations come from: `conf/`, the schema, and Gymnasium's registry for `env=<id>`."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

GROUP = "env"
LONGEST = 120  # letters of a job's directory


def conf_dir() -> Path:
    """`conf/` inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register(schemas: Mapping[str, type]) -> None:
    """Make the schemas of commands and `env=<any id>` known to Hydra; may be called again."""
    for command, schema in schemas.items():  # in no group: no choice
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)
    plugins = Plugins.instance()
    for kind, plugin in (
        (ConfigSource, EnvironmentSource),
        (ConfigSource, PlainEnvironments),
        (SearchPathPlugin, EnvironmentSearchPath),
    ):
        if plugin not in plugins.discover(kind):
            plugins.register(plugin)
    _plugins(ours=True)


def forget(schemas: Mapping[str, type]) -> None:
    """Take away what `register` brought: another program's group `env` is its own."""
    store = ConfigStore.instance()
    for command in schemas:
        store.repo.pop(f"{command}_schema.yaml", None)
    for known in Plugins.instance().plugin_type_to_subclass_list.values():
        if EnvironmentSearchPath in known:
            known.remove(EnvironmentSearchPath)
    _plugins(ours=False)


def files(group: str) -> dict[str, Path]:
    """The files of a group by name, those of --config-dir first."""
    places = [conf_dir(), EnvironmentSearchPath.config_dir]
    found: dict[str, Path] = {}
    for place in filter(None, places):
        found |= {path.stem: path for path in sorted((place / group).glob("*.yaml"))}
    return found


def is_whole(preset: Path) -> bool:
    """Whether a file's settings are the run's, and not its group's; its header read as by Hydra."""
    header = ConfigSource._get_header_dict(preset.read_text(encoding="utf-8"))
    return header.get("package") == "_global_"


def chosen_group(item: Any) -> str:
    """The group in which an item of a defaults list makes a choice."""
    (key,) = item if isinstance(item, Mapping) else (item,)
    return str(key).removeprefix("override ").lstrip("/")


def _plugins(ours: bool) -> None:
    """Let Hydra's plugins take what suits us where nothing is said, or what they took before."""

    def direct(sweeper: Any) -> None:
        sweeper.direction = "maximize" if ours else "minimize"  # a job's value is a return

    def store(launcher: Any) -> None:
        init = launcher.ray.init
        if ours:
            init.object_store_memory = None  # with a size, it refuses a cluster that runs
        else:
            init.pop("object_store_memory", None)

    known = ConfigStore.instance()
    for group, name, change in (
        ("hydra/sweeper", "optuna", direct),
        ("hydra/launcher", "ray", store),
    ):
        if f"{name}.yaml" in known.list(group):
            plugin = known.load(f"{group}/{name}.yaml")
            change(plugin.node)
            known.store(name, plugin.node, group, plugin.package, plugin.provider)


def name_jobs() -> None:
    """Make `subdirectory` known to OmegaConf, in whatever process a job runs."""
    OmegaConf.register_new_resolver("job_name", job_name, replace=True)


def subdirectory(keys: Sequence[str]) -> str:
    """The value of hydra.sweep.subdir that names each job by what it was given for these keys."""
    return f"${{job_name:${{hydra.overrides.task}},[{','.join(keys)}]}}"


def job_name(typed: Sequence[str], keys: Sequence[str]) -> str:
    """The directory of a sweep's job: what it was given for the swept keys, `lr@0.1+seed@0`.

    Not its number, so that the same settings lie in the same place when a sweep is typed again;
    and no sign that would need quotes in `resume=...`. Where a name cannot hold what was typed, a
    digest tells it from others.
    """
    values = dict(line.lstrip("+~").split("=", 1) for line in typed if "=" in line)
    text = "+".join(f"{key}@{values[key]}" for key in keys if key in values)
    name = re.sub(r"[^\w.@+-]+", "-", text)[:LONGEST]
    if name != text:
        name += "-" + hashlib.sha256(text.encode()).hexdigest()[:6]
    return name or "job"


class EnvironmentSource(ConfigSource):
    """Answers `env/<id>` with `id: <id>`; whether there is such an environment is asked later."""

    @staticmethod
    def scheme() -> str:
        """The scheme of its search path."""
        return "gymnasium"

    def load_config(self, config_path: str) -> ConfigResult:
        """The configuration of one environment."""
        env_id = config_path.removeprefix(f"{GROUP}/").removesuffix(".yaml")
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://",
            config=OmegaConf.create({"id": env_id}),
            header={"package": GROUP},
        )

    def available(self) -> bool:
        """Always there."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only `env` itself."""
        return config_path.rstrip("/") == GROUP

    def is_config(self, config_path: str) -> bool:
        """Any name under `env/`."""
        return config_path.startswith(f"{GROUP}/")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The registered ids, where a shell asks for completions; help shows only the files."""
        completing = any(arg in ("-sc", "--shell-completion") for arg in sys.argv)
        if not completing or config_path.rstrip("/") != GROUP or results_filter is ObjectType.GROUP:
            return []
        import gymnasium

        return sorted(gymnasium.registry)


class PlainEnvironments(FileConfigSource):
    """Answers `env/<name>` as its file does, without what it chooses in groups that are not there.

    `pg compare` has no methods.
    """

    @staticmethod
    def scheme() -> str:
        """The scheme of its search path."""
        return "environments"

    def load_config(self, config_path: str) -> ConfigResult:
        """The configuration of one environment."""
        result = super().load_config(config_path)
        if isinstance(result.config, DictConfig) and "defaults" in result.config:
            there = EnvironmentSearchPath.groups or frozenset()
            result.config.defaults = [
                item for item in result.config.defaults if chosen_group(item) in there
            ]
        return result

    def available(self) -> bool:
        """Always there."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only `env` itself."""
        return config_path.rstrip("/") == GROUP and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """The files of `env/`."""
        return config_path.startswith(f"{GROUP}/") and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """What the files themselves list already."""
        return []


class EnvironmentSearchPath(SearchPathPlugin):
    """Puts the source behind all files, so a YAML of that name wins."""

    config_dir: Path | None = None  # of --config-dir, which the Compose API has no argument for
    # Of the command, for an environment's file to choose in; None: all that there are.
    groups: frozenset[str] | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append it."""
        places = [conf_dir()]
        if self.config_dir is not None:
            place = self.config_dir.absolute()
            search_path.prepend(provider="command-line", path=f"file://{place}")
            places.append(place)
        if self.groups is not None:
            for place in places:
                path = f"{PlainEnvironments.scheme()}://{place}"
                search_path.prepend(provider=PlainEnvironments.scheme(), path=path)
        search_path.append(provider="gymnasium", path="gymnasium://")
