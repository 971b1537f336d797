"""What groups of runs come to over the values of one setting: every one tuned as the others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pgcli.errors import ConfigError
from pgcli.pictures.curves import Curve, Panel
from pgcli.reports import tables
from pgcli.reports.document import Block, Heading, Paragraph, Table
from pgcli.reports.groups import Group
from pgcli.reports.results import Result
from pgcli.runs.tags import RECENT
from pgcli.statistics.curves import Band

ALL = "all"  # of groups that differ in nothing else
BEST = (
    f"Return (last {RECENT}), IQM over seeds with its 95 % interval; * the highest of a row. The "
    "best of several values is better by chance, too: settle it with fresh seeds."
)
Line = Mapping[float, Result]  # by value of the setting
Lines = Mapping[str, Mapping[str, Line]]  # by environment, then by what else the groups are


def lines(results: Sequence[Result], key: str) -> dict[str, dict[str, dict[float, Result]]]:
    """The results by what else they differ in; ConfigError where the setting is no such number."""
    found: dict[str, dict[tuple[str, ...], dict[float, Result]]] = {}
    for result in results:
        settings = result.group.settings
        if key not in settings:
            differing = [k for k, text in settings.items() if _number(text) is not None]
            allowed = ", ".join(differing) or "none: no number differs"
            raise ConfigError("--over", key, f"must be a number in which runs differ: {allowed}")
        number = _number(settings[key])
        if number is None:
            raise ConfigError("--over", key, f"must be a number, and is {settings[key]}")
        if result.group.seeds:
            others = tuple(text for k, text in settings.items() if k != key)
            mine = found.setdefault(result.group.environment, {})
            mine.setdefault(others, {})[number] = result
    return {
        environment: {_label(line, key): dict(sorted(line.items())) for line in by_rest.values()}
        for environment, by_rest in found.items()
    }


def panels(found: Lines) -> list[Panel]:
    """The return at the end against the setting, a panel for each environment."""
    return [
        Panel(environment, [_curve(label, line) for label, line in by_label.items()])
        for environment, by_label in found.items()
    ]


def table(found: Lines, key: str) -> list[Block]:
    """A row for each line, a column for each value."""
    blocks: list[Block] = [Heading(f"Over {key}"), Paragraph(BEST)]
    for environment, by_label in found.items():
        values = sorted({x for line in by_label.values() for x in line})
        rows = []
        for label, line in by_label.items():
            best = max(line, key=lambda x: float(line[x].final.value))
            cells = [
                tables.interval(line[x].final) + " *" * (x == best) if x in line else tables.NONE
                for x in values
            ]
            rows.append([label, *cells])
        blocks.append(Table([environment, *(f"{x:g}" for x in values)], rows))
    return blocks


def _curve(label: str, line: Line) -> Curve:
    value, lower, upper = np.array([result.final for result in line.values()]).T
    seeds = np.array([len(result.group.seeds) for result in line.values()])
    return Curve(label, np.array(list(line)), Band(value, lower, upper, seeds), int(seeds.max()))


def _label(line: Mapping[float, Result], key: str) -> str:
    group: Group = next(iter(line.values())).group
    words = [word for word in group.series.split(", ") if word.partition("=")[0] != key]
    return ", ".join(words) or ALL


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
