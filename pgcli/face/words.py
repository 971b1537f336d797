"""Settings as Python has them, in the words of the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pgcli.errors import ConfigError
from pgcli.face.runs import Run

HELP = ("-h", "--help", "--hydra-help", "--info", "--cfg", "-c")
SWEEPS = ("-m", "--multirun")


def line(
    command: str,
    words: Sequence[str],
    directory: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
) -> list[str]:
    """The command line of a call: words, then settings with `__` for a dot, or by sections.

    ConfigError for what cannot be a setting.
    """
    from pgcli.cli.commands import COMMANDS
    from pgcli.cli.compose import literal
    from pgcli.cli.compose import settings as all_of

    lines = [str(word) for word in words]
    if asked := [word for word in lines if word in HELP]:
        raise ConfigError("words", asked[0], "settings, and -m; help is the command line's")
    sections = {key.rpartition(".")[0] for key in all_of(COMMANDS[command].schema)}
    for key, value in _flat(settings, sections):
        lines.append(f"{key}={literal(_plain(key, value))}")
    if directory is not None:
        kind = "sweep" if any(word in SWEEPS for word in lines) else "run"
        lines.append(f"hydra.{kind}.dir={literal(os.fspath(directory))}")
    return lines


def _flat(settings: Mapping[str, Any], sections: set[str], within: str = "") -> list[Any]:
    """Pairs of a dotted key and its value; a dictionary for a section has settings of its own."""
    pairs: list[tuple[str, Any]] = []
    for name, value in settings.items():
        key = within + name.replace("__", ".")
        if isinstance(value, Mapping) and key in sections:
            pairs += _flat(value, sections, f"{key}.")
        else:
            pairs.append((key, value))
    return pairs


def _plain(key: str, value: Any) -> Any:
    """A value that a command line can have."""
    if isinstance(value, Run):
        return str(value.path)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray | np.generic):
        return _plain(key, value.tolist())
    if isinstance(value, Mapping):
        return {str(name): _plain(key, x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, x) for x in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(key, type(value).__name__, "a number, a text, true or false, None, or a list")
