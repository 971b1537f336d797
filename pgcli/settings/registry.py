"""Parts by name: those that come with `pg`, and `module:name` of one's own."""

from __future__ import annotations

import importlib
from typing import Generic, TypeVar

from pgcli.errors import ConfigError, one_of

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """What one setting may name. A part is registered where it is written, with its facts."""

    def __init__(self, key: str, home: str) -> None:
        """`key`: the setting. `home`: whose parts need no module in their names, all below too."""
        self._key, self._home = key, home
        self._parts: dict[str, tuple[str, Part]] = {}  # each with the module that registered it

    def add(self, name: str, part: Part, module: str) -> None:
        """Register a part of that module; ValueError for a name that another one has taken."""
        owner, _ = self._parts.get(name, (module, None))
        if owner != module:
            raise ValueError(f"{self._key}={name} is registered by {owner} already")
        self._parts[name] = module, part

    def find(self, value: str) -> Part:
        """The part that a setting names; `module:name` imports the module, which registers it.

        ConfigError where there is none.
        """
        module, colon, name = value.rpartition(":")
        if colon and (not module or self._is_home(module)):
            allowed = "module:name is a module of your own; the names here need no module"
            raise ConfigError(self._key, value, allowed)
        if module:
            try:
                importlib.import_module(module)
            except (Exception, SystemExit) as error:
                allowed = f"the module does not import: {type(error).__name__}: {error}"
                raise ConfigError(self._key, value, allowed) from error
        own = self.names
        if module:
            own = [key for key, (where, _) in self._parts.items() if where == module]
        if name not in own:
            raise ConfigError(self._key, value, one_of(name, own if module else [*own, OWN]))
        return self._parts[name][1]

    @property
    def names(self) -> list[str]:
        """Of the parts that come with `pg`."""
        return [name for name, (module, _) in self._parts.items() if self._is_home(module)]

    def _is_home(self, module: str) -> bool:
        return module == self._home or module.startswith(self._home + ".")


OWN = "module:name"


def is_own(value: str) -> bool:
    """Whether it names a part of the user's."""
    return ":" in value
