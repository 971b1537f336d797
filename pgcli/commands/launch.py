"""The way from a command line to a Hydra run, the same for every command.

Hydra makes a run's directory before it calls the run; so all that can be refused is refused first.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pgcli.config.compose import Composed, compose_all, to_config
from pgcli.config.sources import conf_dir, register
from pgcli.errors import ConfigError, NoCheckpoint, PgError, RunDirectoryError
from pgcli.runs import checkpoint
from pgcli.runs.directory import holds_run, lock


def launch(command: str, argv: Sequence[str]) -> None:
    """Run `pg <command> <argv>` through Hydra; PgError where it cannot be."""
    register()
    args = _arguments(argv)
    # A constructor's arguments are the user's own: none needs a `+` to be new.
    overrides = [f"++{o}" if o.startswith("env.kwargs") else o for o in args.overrides]
    asks_only = args.help or args.hydra_help or args.shell_completion or args.info is not None
    if not asks_only:
        resumed = _resume_dir(overrides)
        if resumed is not None:
            overrides = _resumed_overrides(resumed, overrides)
        composed = compose_all(command, overrides, args.config_dir, args.multirun)
        if args.cfg is None:
            # Only now: Gymnasium takes longer to import than a bad value takes to be told.
            from pgcli.environments.engines import check_environment

            for config in {c.config.env.id: c.config for c in composed}.values():
                check_environment(config.env)
            if resumed is not None:
                checkpoint.load_for(resumed, composed[0].config)
            directory = resumed or _directory(composed[0], overrides, args.multirun)
            key = "hydra.sweep.dir" if args.multirun else "hydra.run.dir"
            overrides = [*overrides, f"{key}='{directory}'"]
    # Failures come back as they are raised, to end with their own line and exit code.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    name = "pg" if args.shell_completion else f"pg {command}"
    sys.argv = [name, *_flags(argv, args.overrides), *overrides]
    job = _Job(command)
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)()
    if job.error is not None:
        raise job.error
    if args.multirun:
        print(f"tensorboard --logdir {directory}")


class _Job:
    """What Hydra calls for each run; a class, so that launchers can send it to other processes."""

    def __init__(self, command: str) -> None:
        self._command = command
        self.__module__ = f"pgcli.commands.{command}"  # names Hydra's job
        self.error: PgError | None = None

    def __call__(self, node: DictConfig) -> None:
        directory = Path(HydraConfig.get().runtime.output_dir)
        sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        try:
            run = importlib.import_module(f"pgcli.commands.{self._command}").run
            run(to_config(node), directory)
        except PgError as error:
            if isinstance(error, ConfigError) and not holds_run(directory):
                _remove(directory)
            if not sweep:
                self.error = error  # raised after Hydra, which would print more than a line
                return
            print(f"pg: {directory}: {error}", file=sys.stderr)
            raise


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        args, unknown = parser.parse_known_intermixed_args(list(argv))
    except argparse.ArgumentError as error:
        raise ConfigError(error.argument_name or "flag", "", error.message) from error
    if unknown:
        raise ConfigError(unknown[0], "", "no such flag; pg train --hydra-help lists them")
    return args


def _flags(argv: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The arguments that are not overrides: Hydra 1.3 wants its flags before them."""
    rest = list(argv)
    for override in overrides:
        rest.remove(override)
    return rest


def _directory(composed: Composed, overrides: Sequence[str], multirun: bool) -> Path:
    """A directory that is this process's alone, or the one that the user names."""
    key, wanted = "hydra.run.dir=", composed.run_dir
    if multirun:
        key, wanted = "hydra.sweep.dir=", composed.sweep_dir
    if not any(o.startswith(key) for o in overrides):
        return _reserve(wanted)
    if holds_run(wanted):
        raise RunDirectoryError(f"{wanted} holds a run: resume={wanted} continues it")
    return wanted


def _reserve(wanted: Path) -> Path:
    """Make `wanted`, or `wanted-1`, `wanted-2`, ... where another run was faster."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    number, candidate = 0, wanted
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = wanted.with_name(f"{wanted.name}-{number}")


def _remove(directory: Path) -> None:
    """Undo a reservation, and the date's folder if nothing else is in it."""
    shutil.rmtree(directory, ignore_errors=True)
    for parent in directory.parents[:2]:
        try:
            parent.rmdir()
        except OSError:
            return


def _resume_dir(overrides: Sequence[str]) -> Path | None:
    given = [o.partition("=")[2].strip("'\"") for o in overrides if o.startswith("resume=")]
    if not given or given[-1] in ("", "null"):
        return None
    directory = Path(given[-1])
    if directory.is_dir():
        with lock(directory):  # another process may be about to write the first one
            pass
    if not checkpoint.iterations(directory):
        raise NoCheckpoint(f"resume={directory}: no checkpoint there")
    return directory


def _resumed_overrides(directory: Path, overrides: Sequence[str]) -> list[str]:
    """What the run was started with, then what the command line adds."""
    saved = directory / ".hydra" / "overrides.yaml"
    if not saved.exists():
        raise NoCheckpoint(f"resume={directory}: {saved} is missing")
    new = {o.partition("=")[0] for o in overrides}
    old = [str(o) for o in OmegaConf.load(saved)]
    return [*(o for o in old if o.partition("=")[0] not in new), *overrides]
