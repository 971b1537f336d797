"""What came of a command: runs with their figures and policies, and results."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgcli.errors import ConfigError, NoCheckpoint
from pgcli.runs import checkpoint, saved, summary
from pgcli.runs.directory import content, text_lines

if TYPE_CHECKING:
    from torch import nn

WHOLE = ("iteration", "seed", "env_steps")


def load(path: str | os.PathLike[str]) -> Run | list[Run]:
    """The run that lies there, by whomever it was made; the list of those below, if it is none.

    ConfigError where there is none.
    """
    place = Path(path).absolute()
    if _is_run(place):
        return Run(place)
    runs = saved.find([place]) if place.is_dir() else []
    if not runs:
        raise ConfigError("path", os.fspath(path), "no run there")
    return [Run(run) for run in runs]


def _is_run(place: Path) -> bool:
    """A run is begun by the command line, or has records."""
    return (place / saved.HYDRAS / "hydra.yaml").exists() or (place / "metrics.csv").exists()


@dataclass(frozen=True)
class Run:
    """A run on disk; everything is read when it is asked for, and read again by `load`.

    ConfigError where there is none.
    """

    path: Path

    def __post_init__(self) -> None:
        """Any kind of path will do."""
        place = Path(self.path).absolute()
        if not _is_run(place):
            raise ConfigError("path", os.fspath(self.path), "no run there")
        object.__setattr__(self, "path", place)

    @cached_property
    def metrics(self) -> dict[str, np.ndarray]:
        """metrics.csv by column, [R] each, a row per iteration and seed.

        As pandas.DataFrame takes it.
        """
        names, *rows = csv.reader(text_lines(self.path / "metrics.csv"))
        columns = zip(*rows, strict=True) if rows else [[] for _ in names]
        return {
            name: np.array(column, np.int64 if name in WHOLE else np.float64)
            for name, column in zip(names, columns, strict=True)
        }

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json; {} before the run has ended."""
        return summary.read(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What it was told, by section, interpolations unresolved."""
        try:
            return saved.settings(self.path)
        except saved.Unreadable as error:
            raise NoCheckpoint(f"{self.path}: {error}") from error

    @property
    def seeds(self) -> list[int]:
        """Of its agents."""
        return [self.config["seed"] + i for i in range(self.config["seeds"])]

    @property
    def iterations(self) -> list[int]:
        """Those that are saved."""
        return checkpoint.iterations(self.path)

    @cached_property
    def policy(self) -> Policy:
        """That of the first seed, as it was saved last; others by `policy_of`."""
        return self.policy_of(self.seeds[0])

    def policy_of(self, seed: int, iteration: int | str | None = None) -> Policy:
        """That of a seed, after a saved iteration, "best" too; NoCheckpoint where none is saved."""
        from pgcli.cli.compose import compose_all, literal
        from pgcli.cli.evaluated import trained
        from pgcli.cli.guest import as_guest
        from pgcli.evaluation.subject import load as subject

        if seed not in self.seeds:
            raise ConfigError("seed", seed, f"one of {', '.join(map(str, self.seeds))}")
        place = f"checkpoint={literal(str(self.path))}"
        with as_guest():
            (one,) = compose_all("eval", [place], None, multirun=False)
            (run,) = trained(one.config)
            return Policy(subject(run, iteration), self.seeds.index(seed))


class Policy:
    """A policy of a run: called with raw observations it gives actions as the environment takes."""

    def __init__(self, subject: Any, place: int) -> None:
        """`subject`: an `evaluation.subject.Subject`; place: of its seed."""
        from pgcli.evaluation.export import exported

        self._subject, self._place = subject, place
        self._module = exported(subject, place)

    def __call__(
        self, obs: Any, greedy: bool = True, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """The action for one observation [*shape], or the actions for a batch [B, *shape].

        greedy: the likeliest; else drawn, from `rng`.
        """
        import torch

        seen = self._subject.spaces.seen
        x = np.asarray(obs, seen.dtype)
        single = x.shape == (seen.shape or ())
        batch = torch.from_numpy(np.ascontiguousarray(x[None] if single else x))
        with torch.no_grad():
            action = self._module(batch)[0].numpy() if greedy else self._drawn(batch, rng)
        return np.asarray(action[0] if single else action)

    def module(self) -> nn.Module:
        """As an nn.Module: raw observations [B, *shape] to (action, parameters...).

        The names of what it gives are its `names`; what observations are normalised by is inside.
        """
        from pgcli.cli.guest import as_guest
        from pgcli.evaluation.export import exported

        with as_guest():
            return exported(self._subject, self._place)

    def _drawn(self, batch: Any, rng: np.random.Generator | None) -> np.ndarray:
        policy, spaces = self._subject.policy, self._subject.spaces
        out, extra = self._module.outputs(batch)
        noise = policy.head.noise(rng or np.random.default_rng(), 1, len(batch))[0]
        act = policy.head.sample(out.numpy(), extra.numpy(), noise)
        told: np.ndarray = np.asarray(spaces.action.to_env(policy.head.emitted(act)))
        return told


@dataclass(frozen=True)
class Result:
    """What `compare` or `evaluate` left."""

    path: Path
    name: str  # of the file
    rows: str  # where in it they are

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The whole file."""
        told: dict[str, Any] = json.loads(content(self.path / self.name))
        return told

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """Its rows by column, None where one has no such figure; as pandas.DataFrame takes it."""
        rows = self.summary[self.rows]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}
