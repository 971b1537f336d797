"""`pg reproduce`: the line that gives a run again, bit for bit, and what else that asks for."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from omegaconf import OmegaConf

from pgcli.cli.commands import COMMANDS
from pgcli.cli.compose import compose_all, literal, parse
from pgcli.cli.origins import as_told, brought
from pgcli.errors import ConfigError, NoCheckpoint, PgError
from pgcli.runs import saved
from pgcli.runs.directory import content
from pgcli.runs.provenance import differences, provenance
from pgcli.runs.saved import HYDRAS
from pgcli.settings.schema import Role, before, budget, flat, role_of

RUNS = ("checkpoint", "behaviour.checkpoint", "init.checkpoint")  # settings that name another run
NOT_TYPED = ("++", "hydra.", "hydra/", "resume=")  # what Hydra notes beside what was typed
DESCRIPTION = """\
Print the line that gives each run again, bit for bit, here and with the presets of today; before
it, as comments, what was otherwise when it was made: versions, processor, commit of the folder.
"""
EXAMPLE = """\
examples:
  pg reproduce outputs/<date>/<time>
  pg reproduce outputs/multirun/<date>/<time>   every run below, a line each
"""


class Origin(NamedTuple):
    """How a run was begun."""

    command: str
    flags: list[str]  # --config-dir and --config-name
    typed: list[str]
    folder: str | None  # in which it was typed


def answer(argv: Sequence[str]) -> int:
    """Run `pg reproduce <argv>`: exit code 0, or ConfigError where there is no run."""
    parser = argparse.ArgumentParser(
        "pg reproduce",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN", help="or where they lie")
    parser.error = _refuse  # type: ignore[method-assign]
    here = provenance()
    for path in parser.parse_args(argv).paths:
        if not path.is_dir():
            raise ConfigError("RUN", path, "no such directory")
        runs = [path] if (path / HYDRAS).is_dir() else saved.find([path])
        if not runs:
            raise ConfigError("RUN", path, "no run there")
        for run in runs:
            print("\n".join(reproduced(run, here)))
    return 0


def reproduced(run: Path, here: dict[str, Any]) -> list[str]:
    """Comments, then the line; NoCheckpoint where its settings cannot be read."""
    then = _noted(run)
    origin = _origin(run)
    comments = [f"{run}", *differences(then, here)]
    if origin.folder is not None and origin.folder != os.getcwd():
        comments.append(f"typed in {origin.folder}")
    line = ["pg", origin.command, *origin.flags, *_line(run, origin)]
    return [*(f"# {text}" for text in comments), shlex.join(line)]


def _line(run: Path, origin: Origin) -> list[str]:
    """What was typed, and whatever would be otherwise today."""
    told = _settings(run)
    try:
        return _completed(origin, origin.typed, told)
    except PgError:  # a preset that is no more: all of it
        try:
            return _completed(origin, [], told)
        except PgError:
            return as_told(run)


def _completed(origin: Origin, typed: list[str], told: dict[str, Any]) -> list[str]:
    flags = dict(zip(origin.flags[::2], origin.flags[1::2], strict=True))
    (now,) = compose_all(
        origin.command,
        typed,
        flags.get("--config-dir"),
        multirun=False,
        config_name=flags.get("--config-name"),
        before=brought,
    )
    earlier = before(COMMANDS[origin.command].schema)
    moved = []
    for key, value in flat(now.config).items():
        was = told.get(key, earlier.get(key, value))
        if _same(was, value) or key == "resume" or role_of(key) is Role.BOOKKEEPING:
            continue
        name = {"env.id": "env"}.get(key, f"++{key}" if isinstance(was, dict) else key)
        moved.append(f"{name}={_word(was)}")
    overridden = {line.partition("=")[0].lstrip("+") for line in moved}
    return [x for x in typed if x.partition("=")[0].lstrip("+") not in overridden] + moved


def _word(value: Any) -> str:
    """A value as it would be typed: quoted only where it would else be another."""
    if isinstance(value, str):
        with suppress(PgError):
            if parse([f"x={value}"])[0].value() == value:
                return value
    return literal(value)


def _same(was: Any, value: Any) -> bool:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return True  # claims and the like
    return bool(was == value)


def _settings(run: Path) -> dict[str, Any]:
    """What a run was told, by dotted key as deep as a dataclass goes; NoCheckpoint."""
    try:
        tree = saved.settings(run)
    except saved.Unreadable as error:
        raise NoCheckpoint(f"{run}: {error}") from error
    told: dict[str, Any] = {}
    for name, section in tree.items():
        if isinstance(section, dict):
            told |= {f"{name}.{key}": value for key, value in section.items()}
        told[name] = section
    if "iterations" in told:
        told["iterations"], _ = budget(told["iterations"], told.get("total_steps"))
    return told


def _origin(run: Path) -> Origin:
    """As Hydra noted it; a run that Python began has all its settings instead."""
    try:
        note = OmegaConf.load(run / HYDRAS / "hydra.yaml").hydra
        command, folder = str(note.job.name), str(note.runtime.cwd)
        places = [str(x.path) for x in note.runtime.config_sources if x.provider == "command-line"]
        name = str(note.job.config_name)
    except (OSError, AttributeError):
        return Origin("train", [], [], None)
    flags = [flag for place in places[:1] for flag in ("--config-dir", place)]
    flags += ["--config-name", name] if name != command else []
    typed = [x for x in saved.overrides(run) if not x.startswith(NOT_TYPED)]
    return Origin(command, flags, [_placed(x, folder) for x in typed], folder)


def _placed(line: str, folder: str) -> str:
    """A line as it would be typed, a relative path to a run as where that was."""
    key, _, text = line.partition("=")
    value = parse([line])[0].value()
    if key == "env" and isinstance(value, str):
        return f"{key}={_word(value)}"
    place = Path(folder, text.strip("'\""))
    return f"{key}={_word(str(place))}" if key in RUNS and place.is_dir() else line


def _noted(run: Path) -> dict[str, Any]:
    """The provenance that a run noted; {} where it has not ended yet."""
    for name in ("summary.json", *(one.result for one in COMMANDS.values() if one.result)):
        with suppress(OSError, ValueError):
            noted = json.loads(content(run / name))
            if isinstance(noted, dict):
                return noted
    return {}


def _refuse(message: str) -> NoReturn:
    raise ConfigError("RUN", "", message)
