"""The commands of `pg`: to add one, write its record here, its conf and its room."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgcli.runs.directory import EVALUATION


@dataclass(frozen=True)
class Command:
    """What the command line knows of a command; it imports nothing heavy."""

    name: str
    does: str  # its line in `pg --help`
    run: Callable[[Any, Path], None] | None = None  # a job: settings, and where all of it is to lie
    # What can be wrong with a job's settings beside their types and bounds; it may import torch.
    check: Callable[[Any], None] | None = None
    # Which settings have no effect beside the others, with these actions: why, by key.
    unused: Callable[[Any, Any], dict[str, str]] | None = None
    answer_name: str = ""  # or else: `module:function`, from its arguments to an exit code
    schema_name: str = ""  # of a job's settings, in `settings.schema`
    free: tuple[str, ...] = ()  # beginnings of keys that may be added without a `+`
    result: str = ""  # the file that says that a job is done; else it resumes, by its checkpoints
    inhabited: bool = True  # whether a job's settings are of one environment, looked at first
    reported: bool = False  # whether `pg report` reads what it leaves

    @property
    def schema(self) -> type:
        """The dataclass of its settings."""
        schema: type = getattr(importlib.import_module("pgcli.settings.schema"), self.schema_name)
        return schema

    @property
    def answer(self) -> Callable[[Sequence[str]], int]:
        """What a command that is no job does with its arguments."""
        module, _, name = self.answer_name.partition(":")
        answer: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), name)
        return answer

    @property
    def resumes(self) -> bool:
        """Whether a job goes on from its checkpoints."""
        return not self.result


def _train(config: Any, directory: Path) -> None:
    from pgcli.runs.saved import as_composed
    from pgcli.training import loop

    loop.run(config, directory, as_composed(directory))


def _check_train(config: Any) -> None:
    from pgcli.training import build

    build.check(config)


def _unused_train(config: Any, action: Any) -> dict[str, str]:
    from pgcli.training import build

    return build.unused(config, action)


def _compare(config: Any, directory: Path) -> None:
    from pgcli.cli.presets import estimator_configs, update_configs
    from pgcli.comparison import study

    study.run(config, estimator_configs(config), update_configs(config), directory)


def _check_compare(config: Any) -> None:
    from pgcli.cli.presets import estimator_configs, update_configs
    from pgcli.comparison import study

    study.check(config, estimator_configs(config), update_configs(config))


def _unused_compare(config: Any, action: Any) -> dict[str, str]:
    from pgcli.cli.presets import estimator_configs, update_configs
    from pgcli.comparison import study

    return study.unused(config, estimator_configs(config), update_configs(config), action)


def _eval(config: Any, directory: Path) -> None:
    from pgcli.cli.evaluated import trained
    from pgcli.evaluation import study

    study.run(config, trained(config), directory)


def _check_eval(config: Any) -> None:
    from pgcli.cli.evaluated import trained
    from pgcli.evaluation import study

    study.check(config, trained(config))


def _unused_eval(config: Any, action: Any) -> dict[str, str]:
    from pgcli.evaluation import study

    return study.unused(config)


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "train",
            "train agents and measure the gradient estimator",
            _train,
            _check_train,
            _unused_train,
            schema_name="TrainConfig",
            free=("env.kwargs",),
            reported=True,
        ),
        Command(
            "compare",
            "bias and noise of gradient estimators, side by side at one frozen policy",
            _compare,
            _check_compare,
            _unused_compare,
            schema_name="CompareConfig",
            free=("env.kwargs", "estimator.", "update."),  # what all that is compared shares
            result="compare.json",
        ),
        Command(
            "eval",
            "the return of trained policies, greedy and sampled; videos, exports",
            _eval,
            _check_eval,
            _unused_eval,
            schema_name="EvalConfig",
            free=("env.kwargs",),
            result=EVALUATION,
            inhabited=False,
        ),
        Command(
            "report",
            "compare runs on disk: a table, curves with bands, report.html",
            answer_name="pgcli.reports.report:report",
        ),
        Command(
            "reproduce",
            "the line that gives a run again, bit for bit",
            answer_name="pgcli.cli.reproduce:answer",
        ),
        Command(
            "test",
            "hold an estimator's parts, yours too, to what they say of their bias",
            answer_name="pgcli.proof.command:test",
        ),
    )
}


def schemas() -> dict[str, type]:
    """The dataclass of the settings of every job, by command."""
    return {one.name: one.schema for one in COMMANDS.values() if one.run is not None}
