"""Where configurations come from: `conf/`, the schema, and Gymnasium's registry for `env=<id>`."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from pgcli.config.schema import CompareConfig, TrainConfig

GROUP = "env"
SCHEMAS: dict[str, type] = {"train": TrainConfig, "compare": CompareConfig}  # by command


def conf_dir() -> Path:
    """`conf/` inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register() -> None:
    """Make the schema and `env=<any id>` known to Hydra; may be called again."""
    for command, schema in SCHEMAS.items():  # in no group: no choice
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)
    plugins = Plugins.instance()
    for plugin in (EnvironmentSource, EnvironmentSearchPath):
        if plugin not in plugins.discover(plugin.__mro__[1]):
            plugins.register(plugin)


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


class EnvironmentSearchPath(SearchPathPlugin):
    """Puts the source behind all files, so a YAML of that name wins."""

    config_dir: Path | None = None  # of --config-dir, which the Compose API has no argument for

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append it."""
        if self.config_dir is not None:
            search_path.prepend(
                provider="command-line", path=f"file://{self.config_dir.absolute()}"
            )
        search_path.append(provider="gymnasium", path="gymnasium://")
