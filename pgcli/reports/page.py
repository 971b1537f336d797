"""A page of results: what each task and method came to, beside what others have published."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pgcli.errors import ConfigError
from pgcli.reports import document, kept, tables
from pgcli.reports.document import Block, Heading, Paragraph, Table
from pgcli.reports.groups import Group
from pgcli.reports.published import Published, figure, of, published, task_of, verdict
from pgcli.runs import summary
from pgcli.runs.directory import write_atomically
from pgcli.runs.saved import Run, overrides, recent_return
from pgcli.runs.tags import RECENT
from pgcli.statistics.intervals import FEWEST, mean_interval

TITLE = "Results"
NOTES = "notes.md"  # words of one's own in the folder of its name: they end the page as they are
NONE = tables.NONE
ACTINGS = ("greedy", "sampled")
HOW = (
    f"Return: mean of a seed's last {RECENT} training episodes; mean over the seeds with its 95 % "
    "interval (Student's t). Greedy and sampled: mean return of fresh episodes of the last "
    "policy (pg eval), by the most probable action or as in training. Steps: as simulated, of each "
    "seed. Minutes: of all seeds together, on the cores that were given, which may have had other "
    "work."
)
VERDICTS = (
    "A verdict is given only against a figure that is measured as ours is: over the last "
    f"{RECENT} training episodes, after the same steps, and from {FEWEST} seeds of ours or more; "
    "thresholds have no steps. Above or below: the 95 % interval of the difference (Welch's, with "
    "their spread where they tell it over seeds) leaves 0 out; else reached. The bodies differ "
    "from version to version: from v5 on some pay less while they are unhealthy."
)


@dataclass(frozen=True)
class Row:
    """What a group of runs came to."""

    group: Group
    method: str
    returns: np.ndarray  # [S]
    steps: int  # of a seed
    played: dict[str, np.ndarray]  # mean returns of the seeds that were evaluated, by how they act
    seconds: float
    processors: list[str]
    commands: list[list[str]]  # of its runs, that it takes several of
    own: str = ""  # words of the command that tell it from rows of the same task and method

    @property
    def name(self) -> str:
        """The method, with what tells it apart."""
        return f"{self.method} ({self.own})" if self.own else self.method

    @property
    def place(self) -> tuple[str, str]:
        """The task and the method, which several groups may share."""
        return task_of(self.group.environment), self.method


def write(
    groups: Sequence[Group],
    evaluated: kept.Evaluations,
    file: Path,
    line: str,
    left_out: tables.LeftOut = (),
) -> str:
    """Write the page, and what it rests on into the folder of its name; what a terminal shows."""
    rows = _told_apart([_row(g, evaluated) for g in groups if g.seeds])
    rows.sort(key=lambda row: (row.group.environment, row.name))
    known = published()
    results, compared = _results(rows), _compared(rows, known)
    blocks: list[Block] = [
        Paragraph(line),
        Paragraph(HOW),
        results,
        Heading("Beside what is published"),
        Paragraph(VERDICTS),
        compared,
        *_open(rows, known),
        Heading("How to repeat it"),
        Table(
            ["task", "method", "command"],
            [[r.group.environment, r.name, "; ".join(map(shlex.join, r.commands))] for r in rows],
            words=True,
        ),
        *tables.left_out_table(left_out),
    ]
    for row in rows:
        for run in row.group.sources:
            kept.keep(run, file.with_suffix(""), row.place, evaluated)
    text, notes = document.markdown(TITLE, blocks), file.with_suffix("") / NOTES
    if notes.is_file():
        text += f"\n{_text(notes).strip()}\n"
    write_atomically(file, text.encode())
    return tables.terminal(compared if compared.rows else results, [], left_out)


def check(file: Path) -> None:
    """ConfigError where something else stands in the place of the page or its folder."""
    head = f"# {TITLE}\n\npg report "  # of what `write` has written
    if file.exists() and not (file.is_file() and _text(file).startswith(head)):
        raise ConfigError("--page", file, "is there already, and no page of results")
    folder = file.with_suffix("")
    if folder.exists() and not folder.is_dir():
        raise ConfigError("--page", file, f"keeps runs in {folder}, which is no directory")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _row(group: Group, evaluated: kept.Evaluations) -> Row:
    runs = group.sources
    told = [summary.read(run.directory) for run in runs]
    seeds = list(group.seeds.values())
    played: dict[str, dict[int, float]] = {acting: {} for acting in ACTINGS}
    for run in runs:
        for acting, mine in played.items():
            mine |= kept.played(run, evaluated, acting)
    return Row(
        group,
        method=_method(runs[0]),
        returns=np.array([recent_return(r)[-1] for r in seeds]),
        steps=int(max(r["env_steps"][-1] for r in seeds)),
        played={acting: np.array(list(mine.values())) for acting, mine in played.items()},
        seconds=sum(float(x.get("seconds") or 0) for x in told),
        processors=sorted({_machine(x) for x in told if x.get("processor")}),
        commands=[list(words) for words in dict.fromkeys(map(_words, runs))],
    )


def _words(run: Run) -> tuple[str, ...]:
    return ("pg", "train", *overrides(run.directory))


def _machine(told: Mapping[str, Any]) -> str:
    cores = told.get("cores")
    return str(told["processor"]) if cores is None else f"{cores} × {told['processor']}"


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows with what only they were told, where task and method are those of others too."""
    alike: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.group.environment, row.method), []).append(row)
    named = []
    for row in rows:
        others = alike[row.group.environment, row.method]
        common = set.intersection(*(set(x.commands[0]) for x in others))
        own = [word for word in row.commands[0] if word not in common]
        named.append(replace(row, own=" ".join(own)))
    return named


def _method(run: Run) -> str:
    """As in conf/method, or the estimator where no whole method was chosen."""
    chosen = run.choices.get("method", "none")
    return run.choices.get("estimator", NONE) if chosen == "none" else chosen


def _results(rows: Sequence[Row]) -> Table:
    headers = [
        "task", "method", "steps", "seeds", f"return (last {RECENT})", *ACTINGS, "minutes",
        "cores",
    ]  # fmt: skip
    cells = [
        [
            row.group.environment,
            row.name,
            f"{row.steps:,}",
            f"{row.returns.size}",
            _mean(row.returns),
            *(_mean(row.played[acting]) for acting in ACTINGS),
            f"{row.seconds / 60:.1f}",
            ", ".join(row.processors),
        ]
        for row in rows
    ]
    return Table(headers, cells)


def _compared(rows: Sequence[Row], known: Sequence[Published]) -> Table:
    lines: list[dict[str, Any]] = [
        {
            "task": row.group.environment,
            "method": row.name,
            "ours": _mean(row.returns),
            "verdict": verdict(row.returns, row.steps, other) or NONE,
            **figure(other),
        }
        for row in rows
        for other in of(row.group.environment, row.method, known)
    ]
    headers = list(lines[0]) if lines else ["task", "method"]
    return Table(headers, [list(line.values()) for line in lines], words=True)


def _open(rows: Sequence[Row], known: Sequence[Published]) -> list[Block]:
    """Published figures of a method beside which nothing stands yet."""
    there = {row.place for row in rows}
    waiting: dict[str, list[str]] = {}
    for other in known:
        if other.is_open and (other.task, other.method) not in there:
            mine = waiting.setdefault(other.task, [])
            if other.method not in mine:
                mine.append(other.method)
    lines = [[task, ", ".join(methods)] for task, methods in waiting.items()]
    return [Heading("Open"), Table(["task", "methods"], lines, words=True)] if lines else []


def _mean(x: np.ndarray) -> str:
    return tables.interval(mean_interval(x)) if x.size else NONE
