"""What Hydra calls for each run, in this process or in a launcher's."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pgcli.cli.commands import COMMANDS, Command
from pgcli.cli.compose import to_config
from pgcli.cli.guest import at_host
from pgcli.cli.sources import name_jobs
from pgcli.errors import PgError, RunDirectoryError, Stopped, StorageFailed
from pgcli.runs import checkpoint, saved, summary
from pgcli.runs.directory import append_line, clear_records, holds_run, is_held
from pgcli.runs.progress import Series, begin_job, series

FAILURES = "failures.jsonl"  # of a sweep: one line for each job that ended early
SHARED = ("JoblibLauncher", "RayLauncher")  # their jobs write to one terminal all at once
ON_A_CLUSTER = "SlurmLauncher"  # the queue's jobs outlive the process that sent them
PATIENCE = 0.5  # seconds between looks at the process that launched this one


class Job:
    """A class, so that launchers can send it to other processes.

    A sweep's job never raises for a failure: the others go on, and `FAILURES` tells of it.
    """

    def __init__(self, command: str, only: Collection[str] | None = None) -> None:
        """`only`: directories within the sweep of the jobs that are to run now; None: all."""
        self._command, self._only, self._parent = COMMANDS[command], only, os.getpid()
        self.__module__ = f"pgcli.{command}"  # names Hydra's job
        self.error: PgError | None = None  # of a single run: Hydra would print more than a line

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_folder": os.getcwd()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.chdir(state.pop("_folder"))  # a launcher's process may have begun anywhere
        self.__dict__.update(state)

    def __call__(self, node: DictConfig) -> float | None:
        """Run it. Returns what a sweeper may maximise: the mean return of the last episodes."""
        hydra = HydraConfig.get()
        directory = Path(hydra.runtime.output_dir)
        if hydra.mode is RunMode.MULTIRUN:
            return self._swept(node, directory, Path(hydra.sweep.dir))
        try:
            config = to_config(node, self._command.schema)
            goes_on = self._command.resumes and config.resume is not None
            if not goes_on and holds_run(directory):
                raise RunDirectoryError(f"{directory} holds another run")
            self._run(config, directory)
        except PgError as error:
            self.error = error
        return None

    def _swept(self, node: DictConfig, directory: Path, sweep: Path) -> float | None:
        if self._only is not None and os.path.relpath(directory, sweep) not in self._only:
            return None
        launcher = str(HydraConfig.get().launcher._target_)
        with series(Series(None, silent=True)) if launcher.endswith(SHARED) else nullcontext():
            return self._one_of(node, directory, sweep, launcher)

    def _one_of(
        self, node: DictConfig, directory: Path, sweep: Path, launcher: str
    ) -> float | None:
        elsewhere = os.getpid() != self._parent
        if elsewhere and not launcher.endswith(ON_A_CLUSTER):
            if not is_held(sweep):  # it was stopped before this job's turn came
                return None
            _end_with(sweep)
        try:
            _idle.clear()
            if self._command.resumes:
                _remember(node, directory)
            config = to_config(node, self._command.schema)
            todo = _left(self._command, config, directory)
            if todo is not None:
                begin_job(os.path.relpath(directory, sweep))
                self._run(todo, directory)
            return _objective(directory)
        except PgError as error:
            print(f"pg: {directory}: {error}", file=sys.stderr)
            _note(sweep, directory, error)
        except Stopped as stop:  # this process alone: the sweep goes on without this job
            _note(sweep, directory, stop)
            if not elsewhere:
                raise
        except (Exception, SystemExit) as error:  # as an environment may end a process
            traceback.print_exc()
            _note(sweep, directory, error)
        finally:
            _idle.set()
        return None

    def _run(self, config: Any, directory: Path) -> None:
        assert self._command.run is not None, "Hydra knows only those"
        with at_host():
            self._command.run(config, directory)


def _remember(node: DictConfig, directory: Path) -> None:
    """Give settings that a run in `directory` does not know the value by which it did as it did.

    But for those that were typed.
    """
    typed = {line.partition("=")[0].lstrip("+") for line in HydraConfig.get().overrides.task}
    for key, value in saved.unknown(directory).items():
        if key not in typed:
            OmegaConf.update(node, key, value)


def _left(command: Command, config: Any, directory: Path) -> Any:
    """The configuration that does what is left to do here; None where that is nothing.

    RunDirectoryError where another configuration's run lies here.
    """
    if not command.resumes:
        return None if (directory / command.result).exists() else config
    if not checkpoint.iterations(directory):
        clear_records(directory)
        return config
    ckpt = checkpoint.load_for(directory, config)
    same_budget = ckpt.meta["budget"] == [config.iterations, config.total_steps]
    if same_budget and summary.read(directory).get("status") == "finished":
        return None
    return replace(config, resume=str(directory))


def _objective(directory: Path) -> float | None:
    """Mean over the run's seeds of the return of their last episodes."""
    returns = summary.read(directory).get("return_100")
    if not returns or None in returns:
        return None
    return float(sum(returns) / len(returns))


def _note(sweep: Path, directory: Path, error: BaseException) -> None:
    reason = " ".join(str(error).split())
    name = os.path.relpath(directory, sweep)
    line = {"job": name, "error": type(error).__name__, "reason": reason}
    with suppress(StorageFailed):  # the job's own summary tells less
        append_line(sweep / FAILURES, json.dumps(line))


_watched: set[Path] = set()
_idle = threading.Event()


def _end_with(sweep: Path) -> None:
    """Let this process end, its run saved as by SIGTERM, once nobody holds the sweep any more."""
    if sweep in _watched:
        return
    _watched.add(sweep)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and is_held(sweep):
            time.sleep(PATIENCE)
        if not _idle.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
        while os.getppid() == parent or not _idle.is_set():
            time.sleep(PATIENCE)  # a launcher that lives ends its workers itself
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="pg-parent").start()


name_jobs()  # a launcher's process imports this module before it asks for a job's directory
