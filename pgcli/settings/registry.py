"""Parts by name: those that come with `pg`, and `module:name` of one's own."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pgcli.errors import ConfigError, PartFailed, PgError, did_you_mean, one_of

Part = TypeVar("Part")
OWN = "module:name"
NAMED = re.compile(r'\b(?:register|[A-Z]+\.add)\(\s*"(\w+)"')


class Registry(Generic[Part]):
    """What one setting may name. A part is registered where it is written, with its facts."""

    def __init__(self, key: str, home: str) -> None:
        """`key`: the setting. `home`: whose parts need no module in their names, all below too."""
        self._key, self._home = key, home
        self._parts: dict[tuple[str, str], Part] = {}  # by the module that registered it, and name

    def add(self, name: str, part: Part, module: str) -> None:
        """Register a part of that module; ValueError for a name that another of `pg`'s has."""
        others = (m for m, n in self._parts if n == name and self._is_home(m))
        if self._is_home(module) and (owner := next(others, module)) != module:
            raise ValueError(f"{self._key}={name} is registered by {owner} already")
        self._parts[module, name] = part

    def find(self, value: str) -> Part:
        """The part that a setting names; `module:name` imports the module, which registers it.

        ConfigError where there is none.
        """
        module, colon, name = value.rpartition(":")
        if colon and (not module or self._is_home(module)):
            allowed = "module:name is a module of your own; the names here need no module"
            raise ConfigError(self._key, value, allowed)
        if module:
            _module(self._key, value, module)
        for (where, known), part in self._parts.items():
            if known == name and (where == module if module else self._is_home(where)):
                return part
        own = [known for where, known in self._parts if where == module]
        raise ConfigError(self._key, value, one_of(name, own if module else [*self.names, OWN]))

    def has(self, value: str) -> bool:
        """Whether a part of that name is registered; it imports nothing."""
        module, _, name = value.rpartition(":")
        return any(
            known == name and (where == module if module else self._is_home(where))
            for where, known in self._parts
        )

    def beside(self, value: str) -> list[str]:
        """What is registered where `value` is looked for: in its module, or by `pg`."""
        module, colon, _ = value.rpartition(":")
        if not colon:
            return self.names
        return [f"{where}:{name}" for where, name in self._parts if where == module]

    @property
    def names(self) -> list[str]:
        """Of the parts that come with `pg`."""
        return [name for module, name in self._parts if self._is_home(module)]

    def _is_home(self, module: str) -> bool:
        return module == self._home or module.startswith(self._home + ".")


def imported(key: str, value: str) -> Any:
    """What `module:name` is, to be called; `key` names the setting.

    ConfigError where the module does not import, or has no such thing.
    """
    module, colon, name = value.rpartition(":")
    if not colon or not module or not name:
        raise ConfigError(key, value, f"must be {OWN}")
    found: Any = _module(key, value, module)
    for part in name.split("."):
        if not hasattr(found, part):
            allowed = f"{module} has no {part}{did_you_mean(part, dir(found))}"
            raise ConfigError(key, value, allowed)
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(key, value, f"is a {type(found).__name__}, which cannot be called")
    return found


def load(key: str, value: str) -> ModuleType:
    """Import the module of `module:name`; ConfigError where it does not import."""
    return _module(key, value, value.rpartition(":")[0])


def _module(key: str, value: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(key, value, f"the module does not import: {told}") from error


@contextmanager
def blamed(key: str, value: str) -> Iterator[None]:
    """Whatever a part of the user's raises here is PartFailed, and says where."""
    if not is_own(value):
        yield
        return
    try:
        yield
    except PgError:
        raise
    except (Exception, SystemExit) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise PartFailed(f"{key}={value} failed{_line(value, error)}: {told}") from error


def _line(value: str, error: BaseException) -> str:
    """The last line of the part's own module that it came by."""
    module = sys.modules.get(value.rpartition(":")[0])
    file = getattr(module, "__file__", None)
    lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if x.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if file and lines else ""


def is_own(value: str) -> bool:
    """Whether it names a part of the user's."""
    return ":" in value


@cache
def named_in(files: tuple[Path, ...]) -> list[str]:
    """The names that source files register, without importing what they import."""
    names: list[str] = []
    for file in files:
        code = file.read_text(encoding="utf-8").split('"""', 2)[-1]  # docstrings hold examples
        names += NAMED.findall(code)
    return names
