"""The way from a command line to a Hydra run, the same for every command.

Hydra makes a run's directory before it calls the run; so all that can be refused is refused first.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgcli.cli import sweep
from pgcli.cli.commands import COMMANDS, schemas
from pgcli.cli.compose import (
    Composed,
    compose_all,
    explained,
    known_keys,
    literal,
    parse,
    search_also,
)
from pgcli.cli.effects import without_effect
from pgcli.cli.job import Job
from pgcli.cli.meanings import annotated, comments, grouped, with_limits
from pgcli.cli.origins import as_begun, as_told, brought, brought_along, names_runs, pins
from pgcli.cli.sources import conf_dir, job_name, register, subdirectory
from pgcli.errors import ConfigError, NoCheckpoint, RunDirectoryError
from pgcli.policies import demand
from pgcli.policies.fit import check_fit
from pgcli.runs import checkpoint, saved
from pgcli.runs.directory import LOCK, holds_run, is_locked, lock, made
from pgcli.runs.progress import tell
from pgcli.runs.provenance import typed
from pgcli.runs.saved import HYDRAS, SETTINGS
from pgcli.settings.schema import Collect, CompareConfig, TrainConfig, allowed

if TYPE_CHECKING:  # it would bring Gymnasium
    from pgcli.environments.spaces import Spaces

HYDRAS_OWN = {HYDRAS, LOCK}  # what a directory may hold without a result


def _note(lines: Sequence[str]) -> None:
    for line in lines:
        tell(f"note: {line}")


def launch(
    command: str,
    argv: Sequence[str],
    placed: Callable[[Path], None] = lambda directory: None,
    noted: Callable[[Sequence[str]], None] = _note,
) -> int:
    """Run `pg <command> <argv>` through Hydra: an exit code, or PgError where it cannot be.

    `placed` is told where everything will lie, `noted` what was given and has no effect.
    """
    register(schemas())
    args = _arguments(command, argv)
    free = COMMANDS[command].free
    lines = [f"++{line}" if line.startswith(free) else line for line in args.overrides]
    flags = _flags(argv, args.overrides)
    if args.hydra_help or args.shell_completion:
        search_also(args.config_dir)
        _hydra(command, flags, lines, program="pg" if args.shell_completion else f"pg {command}")
        return 0
    given = lines
    resumed = _resumed(parse(lines), args.multirun) if COMMANDS[command].resumes else None
    if resumed is not None:
        flags += _restored_flags(resumed, args)
        lines = _restored_overrides(resumed, lines)
        args = _arguments(command, [*flags, *lines])
    composed = compose_all(
        command, lines, args.config_dir, args.multirun, args.config_name, brought
    )
    if not composed[0].multirun:
        lines = [*composed[0].brought.overrides, *lines]
    if args.help:
        with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
            _hydra(command, flags, lines)
        meanings = with_limits(comments(command), allowed(COMMANDS[command].schema))
        print(annotated(grouped(text.getvalue()), meanings), end="")
        return 0
    if args.cfg is not None or args.info is not None:
        _hydra(command, flags, lines)
        return 0
    spaces = _spaces(command, [c.config for c in composed])
    for config, own in zip((c.config for c in composed), spaces, strict=True):
        if (check := COMMANDS[command].check) is not None:
            check(config)
        if own is not None:
            _check_policy(config, own)
            _check_runs(config, own)
    idle = without_effect(command, given, composed, spaces)
    if resumed is not None:
        newest = checkpoint.load_for(resumed, composed[0].config)
        noted(idle)
        placed(resumed)
        if saved.is_complete(resumed, newest, composed[0].config):
            tell(f"the budget is spent already\ntensorboard --logdir {resumed}")
            return 0
        _hydra(command, flags, [*lines, f"hydra.run.dir={literal(str(resumed))}"])
        return 0
    if any(getattr(c.config, "resume", None) is not None for c in composed):
        raise ConfigError("resume", composed[0].config.resume, "belongs on the command line")
    for said in dict.fromkeys(said for c in composed for said in c.brought.says):
        tell(said)
    noted(idle)
    if composed[0].multirun:
        return _sweep(command, flags, lines, composed, args, placed)
    run_dir, named = composed[0].run_dir, composed[0].named
    if named and holds_run(run_dir):
        goes_on = COMMANDS[command].resumes and (run_dir / "metrics.csv").exists()
        what = f"resume={run_dir} continues it" if goes_on else "choose another hydra.run.dir"
        raise RunDirectoryError(f"{run_dir} holds a run: {what}")
    if named and sweep.holds_sweep(run_dir):
        raise RunDirectoryError(f"{run_dir} holds a sweep: choose another hydra.run.dir")
    lines += pins(composed[0].config)
    with made(run_dir, named, _is_bare) as directory:
        placed(directory)
        _hydra(command, flags, [*lines, f"hydra.run.dir={literal(str(directory))}"])
    return 0


def _sweep(
    command: str,
    flags: list[str],
    lines: list[str],
    composed: Sequence[Composed],
    args: argparse.Namespace,
    placed: Callable[[Path], None],
) -> int:
    """Run the jobs of a sweep, or what is left of an earlier one that was asked for the same."""
    first = composed[0]
    asked = first.asked
    assert asked is not None
    sweep_dir, named = first.sweep_dir, first.named
    names = None
    if not any(override.key_or_group == "hydra.sweep.subdir" for override in parse(lines)):
        keys = list(asked.swept)
        lines = [*lines, f"hydra.sweep.subdir='{subdirectory(keys)}'"]
        if asked.jobs is not None:
            names = list(dict.fromkeys(job_name(job, keys) for job in asked.jobs))
    origin = [str(args.config_dir), str(args.config_name)]
    each = [c.brought.overrides for c in composed]
    shared = each[0] if all(one == each[0] for one in each) else []
    budget = sweep.common_budget([c.config for c in composed], asked.swept)
    fixed = [*shared, *asked.fixed]
    plan = sweep.Plan(command, origin, fixed, asked.swept, names, budget)
    earlier = sweep.to_continue(plan, sweep_dir, named)
    place = made(sweep_dir, named, sweep.is_bare) if earlier is None else nullcontext(earlier)
    completing = (
        brought_along if any(each) or any(names_runs(c.config) for c in composed) else nullcontext
    )
    with place as directory, completing(directory):
        placed(directory)
        for claim in getattr(first.config, "claims", []):
            tell(f"to be tested: {claim.says}")
        lines = [*lines, f"hydra.sweep.dir={literal(str(directory))}"]
        return sweep.run(
            plan,
            directory,
            lambda only: _hydra(command, flags, lines, only=only),
            first.config.log.interval,
            first.here,
        )


def _hydra(
    command: str,
    flags: Sequence[str],
    lines: Sequence[str],
    program: str | None = None,
    only: Sequence[str] | None = None,
) -> None:
    """Hydra's own main; its failures and the run's come back as they are raised."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [program or f"pg {command}", *flags, *lines]
    job = Job(command, only)
    try:
        with typed(sys.argv):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, lines, COMMANDS[command].schema) from error
    if job.error is not None:
        raise job.error


def _arguments(command: str, argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides; ConfigError for flags that cannot be, alone or together."""
    parser = get_args_parser()
    parser.exit_on_error = False
    parser.allow_abbrev = False
    parser.error = _refuse  # type: ignore[method-assign]
    try:
        args, unknown = parser.parse_known_intermixed_args(list(argv))
    except argparse.ArgumentError as error:
        name = (error.argument_name or "flag").partition("/")[0]
        raise ConfigError(name, "", error.message) from error
    if unknown:
        hint = "pg train --hydra-help lists them"
        name, _, value = unknown[0].lstrip("-").partition("=")
        known = known_keys(COMMANDS[command].schema)
        if name in known:
            rest = argv[list(argv).index(unknown[0]) + 1 :]
            hint = f"settings have no dashes: {name}={value or ' '.join(rest[:1]) or '...'}"
        raise ConfigError(unknown[0], "", f"no such flag; {hint}")
    if args.config_path is not None:
        raise ConfigError("--config-path", args.config_path, "--config-dir adds a directory")
    if args.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun", args.experimental_rerun, "unpickles: not allowed")
    asked = {
        "--run": args.run,
        "-m": args.multirun,
        "--cfg": args.cfg is not None,
        "--info": args.info is not None,
        "-sc": args.shell_completion,
    }
    together = [flag for flag, is_given in asked.items() if is_given]
    if len(together) > 1:
        raise ConfigError(" ".join(together), "", "only one of them at a time")
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError("--resolve", "", "only with --cfg or --help")
    return args


def _refuse(message: str) -> NoReturn:
    raise ConfigError("command line", "", message)


def _flags(argv: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The arguments that are not overrides: Hydra 1.3 wants its flags before them."""
    rest = list(argv)
    for override in overrides:
        rest.remove(override)
    return rest


def _is_bare(directory: Path) -> bool:
    """Whether no file lies here but Hydra's own."""
    files = (path for path in directory.rglob("*") if not path.is_dir())
    return all(HYDRAS_OWN & set(path.relative_to(directory).parts) for path in files)


def _resumed(overrides: Sequence[Override], multirun: bool) -> Path | None:
    """The run directory that `resume=` names; NoCheckpoint where there is nothing to go on from."""
    given = [o for o in overrides if o.key_or_group == "resume"]
    if not given or given[-1].value() is None:
        return None
    if multirun or given[-1].is_sweep_override():
        text = (given[-1].input_line or "").partition("=")[2]
        raise ConfigError("resume", text, "continues one run: no -m")
    directory = Path(str(given[-1].value()))
    if holds_run(directory) or is_locked(directory):
        with lock(directory):  # another process may be about to write the first one
            pass
    if not checkpoint.iterations(directory):
        raise NoCheckpoint(f"resume={directory}: no checkpoint there")
    return directory


def _spaces(command: str, configs: Sequence[Any]) -> Sequence[Spaces | None]:
    """What each configuration's environment looks like; None where it has not one of its own."""
    if not COMMANDS[command].inhabited:
        return [None] * len(configs)
    # Only now: Gymnasium takes longer to import than a bad value takes to be told.
    from pgcli.environments.choose import check_environment

    seen = {repr(config.env): config.env for config in configs}
    spaces = {key: check_environment(env) for key, env in seen.items()}
    return [spaces[repr(config.env)] for config in configs]


def _check_policy(config: Any, spaces: Spaces) -> None:
    """What a policy is asked to be must go with the actions."""
    if isinstance(config, (TrainConfig, CompareConfig)):
        check_fit(config.policy, config.behaviour, spaces.action)
        _check_memory(config, spaces)


def _check_memory(config: TrainConfig | CompareConfig, spaces: Spaces) -> None:
    """More than the machine has is refused, not taken until it stands still."""
    own = config.policy.hidden
    given = {"policy.hidden": max(own, default=1)}
    if isinstance(config, TrainConfig):
        seeds = given["seeds"] = config.seeds
        if config.collect is Collect.steps:
            steps = given["horizon"] = config.horizon
        elif config.batch_steps is not None:
            steps = given["batch_steps"] = config.batch_steps
        else:
            steps = given["batch_size"] = config.batch_size
    else:
        seeds, steps = 1, config.batch_size
        given["batch_size"] = steps
    width = demand.parameters(spaces.obs_dim, own, 1)
    demand.check(seeds, width, steps, spaces.obs_dim, given)


def _check_runs(config: Any, spaces: Spaces) -> None:
    """The runs that a configuration names must be there, and fit."""
    if names_runs(config):
        from pgcli.runs.policies import check_saved

        check_saved(config, spaces)
    if isinstance(config, TrainConfig) and config.init.checkpoint is not None:
        from pgcli.training import warm

        warm.check(config, spaces)


def _restored_overrides(directory: Path, lines: Sequence[str]) -> list[str]:
    """What the run was started with, then what the command line adds."""
    new = {line.partition("=")[0].lstrip("+") for line in lines}
    note = _hydras_note(directory, "overrides")
    old = as_told(directory) if note is None else [str(line) for line in note]
    # A job of a sweep goes on by itself, even where a file asks for a sweep.
    kept = [line for line in old if line.partition("=")[0].lstrip("+") not in new]
    # Presets may bring other values by now: it keeps what it had, and what it does not know has the
    # value by which it did as it did.
    did = [
        f"++{key}={literal(value)}"
        for key, value in saved.unknown(directory).items()
        if key not in new
    ]
    return [*as_begun(directory, new), *did, *kept, *lines, "hydra.mode=RUN"]


def _restored_flags(directory: Path, args: argparse.Namespace) -> list[str]:
    """Where the run's configuration came from, unless the command line says it."""
    note = _hydras_note(directory, "hydra")
    flags: list[str] = []
    if note is None:
        return flags
    if args.config_name is None:
        flags += ["--config-name", str(note.hydra.job.config_name)]
    if args.config_dir is None:
        sources = note.hydra.runtime.config_sources
        paths = [str(s.path) for s in sources if s.provider == "command-line"]
        flags += [flag for path in paths[:1] for flag in ("--config-dir", path)]
    return flags


def _hydras_note(directory: Path, name: str) -> Any:
    """What Hydra wrote when the run began; None where no command line began it."""
    path = directory / HYDRAS / f"{name}.yaml"
    if not path.exists() and (directory / SETTINGS).exists():
        return None
    try:
        return OmegaConf.load(path)
    except OSError as error:
        raise NoCheckpoint(f"resume={directory}: {path}: {error.strerror}") from error
