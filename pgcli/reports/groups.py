"""Runs that differ in nothing but their seed belong together; a name for each such group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pgcli.runs.saved import Run, State
from pgcli.settings.schema import NONE, Role, role_of

UNSET = "unset"  # of a setting that a run's configuration does not have
ALWAYS = ("env", "env.id", "estimator", "estimator.phi")  # said, typed or not
NO_DIFFERENCE = (Role.REPETITION, Role.BOOKKEEPING)


@dataclass(frozen=True)
class Group:
    """Runs of one setting, and the records of their seeds that count."""

    label: str  # as the command line takes it: "env=CartPole-v1, estimator=gae"
    series: str  # what of it differs within an environment, so it can be the same in another
    environment: str
    settings: dict[str, str]  # the keys in which any two groups differ
    runs: list[Run]
    seeds: dict[int, np.ndarray]  # saved.ROW [R] by seed
    sources: list[Run]  # of the runs, those that they come from
    left_out: list[tuple[Run, str]]  # and why

    @property
    def counted(self) -> int:
        """How many runs the seeds come from."""
        return len(self.sources)


def group(runs: Sequence[Run], unfinished: bool = False) -> list[Group]:
    """Groups in the order of their first runs; unfinished runs count only where asked for."""
    readable = [run for run in runs if run.config is not None]
    settings = [_settings(run) for run in readable]
    keys = _differing(settings)
    members: dict[tuple[str, ...], list[Run]] = {}
    for run, mine in zip(readable, settings, strict=True):
        members.setdefault(tuple(mine.get(key, UNSET) for key in keys), []).append(run)
    differences = [dict(zip(keys, values, strict=True)) for values in members]
    words = _words(differences, [mine[0] for mine in members.values()])
    groups = [
        _counted(label, differing, mine, unfinished)
        for label, differing, mine in zip(
            _labels(words, list(members.values())), differences, members.values(), strict=True
        )
    ]
    return [replace(g, series=s) for g, s in zip(groups, _series(groups, words), strict=True)]


def shared(runs: Sequence[Run]) -> dict[str, str]:
    """The settings in which no two runs differ."""
    settings = [_settings(run) for run in runs if run.config is not None]
    differing = set(_differing(settings))
    return {k: v for mine in settings[:1] for k, v in mine.items() if k not in differing}


def _counted(label: str, differing: dict[str, str], runs: list[Run], unfinished: bool) -> Group:
    """Each seed once: the same seed of the same setting is the same run and no new evidence."""
    usable = (State.finished, State.unfinished) if unfinished else (State.finished,)
    seeds: dict[int, np.ndarray] = {}
    source: dict[int, Run] = {}
    for run in (run for run in runs if run.state in usable):
        for seed, rows in run.records.items():
            if seed not in seeds or len(rows) > len(seeds[seed]):
                seeds[seed], source[seed] = rows, run
    left_out = []
    for run in runs:
        if run.state not in usable:
            left_out.append((run, run.reason))
        elif others := [s for s in run.records if source[s] is not run]:
            left_out.append(
                (run, f"seed {others[0]} is counted from {source[others[0]].directory}")
            )
    environment = (runs[0].config or {}).get("env.id", UNSET)
    sources = [run for run in runs if any(run is one for one in source.values())]
    return Group(label, label, environment, differing, runs, seeds, sources, left_out)


def _settings(run: Run) -> dict[str, str]:
    return {
        key: value for key, value in (run.config or {}).items() if role_of(key) not in NO_DIFFERENCE
    }


def _differing(settings: Sequence[dict[str, str]]) -> list[str]:
    """Keys whose values are not all equal, in the order of the configuration."""
    values: dict[str, set[str]] = {}
    for mine in settings:
        for key, value in mine.items():
            values.setdefault(key, set()).add(value)
    everywhere = {k for k in values if all(k in mine for mine in settings)}
    return [k for k in values if len(values[k]) > 1 or k not in everywhere]


def _words(differences: Sequence[dict[str, str]], runs: Sequence[Run]) -> list[list[str]]:
    """Names by what a user would type: an option's name stands for the settings that it brings.

    An option or a setting is left unsaid only where nobody typed it and the words tell it already.
    """
    chosen = [run.choices for run in runs]
    typed = {key for run in runs for key in run.typed}
    options = [o for o in _differing(chosen) if o in typed or all(o in mine for mine in chosen)]
    words: list[list[str]] = [[] for _ in runs]
    for option in sorted(options, key=lambda o: o not in typed):  # what was typed tells most
        values = [mine.get(option, UNSET) for mine in chosen]
        if option in typed or not _told(words, values):
            words = [[*mine, f"{option}={v}"] for mine, v in zip(words, values, strict=True)]
    for key in differences[0] if differences else ():
        values = [mine[key] for mine in differences]
        if key in typed or not _told(words, values):
            words = [[*mine, f"{key}={v}"] for mine, v in zip(words, values, strict=True)]
    return [_estimator(runs[0])] if len(runs) == 1 else words


def _estimator(run: Run) -> list[str]:
    """The name of the only group: its estimator."""
    if "estimator" in run.choices and not any(key.startswith("estimator.") for key in run.typed):
        return [f"estimator={run.choices['estimator']}"]
    keys = [f"estimator.{part}" for part in ("phi", "baseline", "importance")]
    said = [(key, (run.config or {}).get(key, NONE)) for key in keys]
    return [f"{key}={value}" for key, value in said if value != NONE] or ["all"]


def _labels(words: Sequence[list[str]], members: Sequence[Sequence[Run]]) -> list[str]:
    """Of its words each group has those that were typed: the rest follows from them.

    All of them where others would then be called the same.
    """
    short = [
        ", ".join(word for word in mine if _is_said(word, runs)) or ", ".join(mine)
        for mine, runs in zip(words, members, strict=True)
    ]
    return [
        text if short.count(text) == 1 else ", ".join(mine)
        for text, mine in zip(short, words, strict=True)
    ]


def _is_said(word: str, runs: Sequence[Run]) -> bool:
    key = word.partition("=")[0]
    return key in ALWAYS or any(key in run.typed or not run.choices for run in runs)


def _series(groups: Sequence[Group], words: Sequence[list[str]]) -> list[str]:
    """Labels for pictures with a panel per environment; word j is of one setting in all groups."""
    seen: dict[tuple[str, int], set[str]] = {}
    for g, mine in zip(groups, words, strict=True):
        for j, word in enumerate(mine if g.seeds else ()):
            seen.setdefault((g.environment, j), set()).add(word)
    differs = {j for (_, j), values in seen.items() if len(values) > 1}
    telling = [[word for j, word in enumerate(mine) if j in differs] for mine in words]
    members = [g.runs for g in groups]
    return [text or g.label for g, text in zip(groups, _labels(telling, members), strict=True)]


def _told(words: Sequence[Collection[str]], values: Sequence[str]) -> bool:
    """Whether the words of a group determine its value."""
    known: dict[tuple[str, ...], str] = {}
    return all(
        known.setdefault(tuple(mine), value) == value
        for mine, value in zip(words, values, strict=True)
    )
