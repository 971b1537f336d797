"""`pg report`: group the runs on disk by what differs, compare the groups over their seeds."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

from pgcli.errors import ConfigError
from pgcli.pictures.curves import MOST, Curve, Panel, draw
from pgcli.reports import claims, document, kept, page, sensitivity
from pgcli.reports import tables as findings
from pgcli.reports.document import Block, Paragraph, Picture
from pgcli.reports.groups import Group, group, shared
from pgcli.reports.results import common_range, compare, curves, noise_along
from pgcli.reports.sensitivity import ALL
from pgcli.runs.directory import made, write_atomically
from pgcli.runs.progress import Progress
from pgcli.runs.saved import Run, find, read
from pgcli.runs.tags import RECENT, RETURN, VARIANCE

TITLE = "pg report"
USUAL = "outputs"  # where runs lie unless a line says otherwise
WHERE = "outputs/report/%Y-%m-%d/%H-%M-%S"
DESCRIPTION = """\
Group runs by the settings in which they differ and compare the groups over their seeds: a table,
learning curves, report.md, report.html, report.csv and a TensorBoard run per group. With --page
instead a page of results beside what others have published, and what it rests on.
"""
EXAMPLE = """\
examples:
  pg report outputs                           all runs at any depth below outputs
  pg report outputs/multirun/2026-01-31 --threshold 450
  pg report outputs --over optimizer.lr       every group at each of its learning rates
  pg report outputs --split update            a panel of the pictures for each update rule
  pg report outputs --page results.md         and results/, from which it can be written again;
                                              results/notes.md ends the page, where it is there
"""


def report(argv: Sequence[str]) -> int:
    """Run `pg report <argv>`: exit code 0, or ConfigError before anything is written."""
    args = _arguments(argv)
    runs = [read(directory) for directory in find(args.paths)]
    groups = group(runs, args.unfinished)
    _check_seeds(args.paths, runs, groups)
    left_out = [(run, run.reason) for run in runs if run.config is None]
    left_out += [one for g in groups for one in g.left_out]

    line = f"{shlex.join(['pg', 'report', *argv])} ({datetime.now():%Y-%m-%d %H:%M})"
    if args.page is not None:
        shown = page.write(groups, kept.evaluations(args.paths), args.page, line, left_out)
        Progress(math.inf).say(f"{shown}\n{args.page}")
        return 0

    environments = list(dict.fromkeys(g.environment for g in groups))
    thresholds = {name: _threshold(name, args.threshold) for name in environments}
    ranges = {name: common_range(groups, name) for name in environments}
    results = compare(groups, thresholds, ranges)
    lines = {} if args.over is None else sensitivity.lines(results, args.over)
    table = findings.results_table(results, thresholds)
    progress = Progress(math.inf)
    notes = findings.adjustment(results)
    progress.say(findings.terminal(table, notes, left_out))
    claimed = claims.check(groups)
    if claimed:
        progress.say(findings.verdicts(claimed))

    returns, variances = curves(groups, RETURN), curves(groups, VARIANCE)
    noise, ratio = noise_along(groups), "ratio of means"
    places = _places(groups, args.split)
    pictures = {
        "return": _picture(places, returns, "mean return of a batch (reward)", thresholds),
        "variance": _picture(places, variances, "variance of ĝ, tr Σ̂/N (norm²)"),
        "noise": _picture(places, noise, "noise scale (episodes)", shows=ratio),
    }
    if args.over is not None:
        pictures["over"] = draw(
            sensitivity.panels(lines), f"return (last {RECENT})", over=args.over
        )
    seen = {name: files for name, files in pictures.items() if files}
    blocks: list[Block] = [
        Paragraph(line),
        Paragraph(_counts(runs, groups, len(left_out))),
        *findings.claims_table(claimed),
        table,
        *map(Paragraph, notes),
        *(Picture(name, _shows(name, args.over), files["svg"]) for name, files in seen.items()),
        *(sensitivity.table(lines, args.over) if lines else ()),
        *findings.explanation(ranges),
        *findings.differences(groups),
        *findings.left_out_table(left_out),
        *findings.common(shared(runs)),
    ]
    files = {
        "report.csv": findings.as_csv(results, thresholds, ranges).encode(),
        "report.md": document.markdown(TITLE, blocks).encode(),
        "report.html": document.page(TITLE, blocks).encode(),
        **{f"{name}.{kind}": x for name, both in seen.items() for kind, x in both.items()},
    }
    from pgcli.reports import tensorboard as aggregate  # brings torch: when all else is done

    path = args.out or Path(f"{datetime.now():{WHERE}}")
    with made(path, args.out is not None, is_bare=lambda _: True) as directory:
        for name, content in files.items():
            write_atomically(directory / name, content)
        tags = {RETURN: returns, VARIANCE: variances}
        aggregate.write(
            directory / "tensorboard",
            {
                label: {tag: by_label[label] for tag, by_label in tags.items() if label in by_label}
                for label in returns
            },
        )
    progress.say(f"{directory / 'report.html'}\ntensorboard --logdir {directory / 'tensorboard'}")
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=TITLE,
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.error = _refuse  # type: ignore[method-assign]
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="a run, or a folder with runs (default: outputs)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where to write (default: outputs/report/<date>/<time>)"
    )
    parser.add_argument(
        "--threshold",
        metavar="RETURN",
        help="mean return to reach (default: the one that Gymnasium's registry has)",
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="let runs count that have not finished"
    )
    parser.add_argument(
        "--over",
        metavar="KEY",
        help="also the return against this setting, a number in which runs differ",
    )
    parser.add_argument(
        "--split",
        metavar="KEY",
        help="a panel of the pictures for each value of this setting, in which runs differ",
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        help="write a page of results and, in the folder of its name, what it rests on",
    )
    try:
        args, unknown = parser.parse_known_intermixed_args(list(argv))
    except argparse.ArgumentError as error:
        raise ConfigError(error.argument_name or "flag", "", error.message) from error
    if unknown:
        raise ConfigError(unknown[0], "", "no such flag; pg report --help lists them")
    if not args.paths and Path(USUAL).is_dir():
        args.paths = [USUAL]
    if not args.paths:
        raise ConfigError("PATH", "", "name a run or a folder with runs, e.g. outputs")
    args.paths = [Path(path) for path in args.paths]
    for path in args.paths:
        if not path.is_dir():
            raise ConfigError("PATH", path, "no such directory")
    args.threshold = None if args.threshold is None else _finite("--threshold", args.threshold)
    args.out = None if args.out is None else Path(args.out)
    if args.out is not None and args.out.exists():
        raise ConfigError("--out", args.out, "is there already: choose another")
    if args.page is not None:
        args.page = Path(args.page)
        _check_page(args)
    return args


def _check_page(args: argparse.Namespace) -> None:
    """ConfigError where what was typed beside it would mean nothing, or it is no page's name."""
    if args.page.suffix != ".md":
        raise ConfigError("--page", args.page, "must end with .md")
    if not args.page.parent.is_dir():
        raise ConfigError("--page", args.page, f"{args.page.parent} is no directory")
    page.check(args.page)
    for name in ("out", "threshold", "unfinished", "over", "split"):
        if getattr(args, name) not in (None, False):
            raise ConfigError(f"--{name}", getattr(args, name), "has no effect with --page")


def _refuse(message: str) -> NoReturn:
    raise ConfigError("command line", "", message)


def _finite(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(key, text, "must be a finite number")
    return number


def _check_seeds(paths: Sequence[Path], runs: Sequence[Run], groups: Sequence[Group]) -> None:
    """ConfigError where there is nothing to compare."""
    given = f"{paths[0]}{f' and {len(paths) - 1} more' * (len(paths) > 1)}"
    if not runs:
        raise ConfigError("PATH", given, "no run there: no metrics.csv at any depth")
    if not any(g.seeds for g in groups):
        states = Counter(run.state.name for run in runs)
        counts = ", ".join(f"{number} {state}" for state, number in states.items())
        hint = "; --unfinished lets them count" if states["unfinished"] else f": {runs[0].reason}"
        raise ConfigError("PATH", given, f"no finished run there ({counts}){hint}")


def _threshold(environment: str, given: float | None) -> float:
    """The return to reach; NaN where neither the user nor Gymnasium names one."""
    if given is not None:
        return given
    import gymnasium

    spec = gymnasium.registry.get(environment)
    return math.nan if spec is None or spec.reward_threshold is None else spec.reward_threshold


WORDS = re.compile(r", (?=[\w.]+=)")  # between those of a label


class Place(NamedTuple):
    """Where a group is drawn."""

    environment: str
    panel: str
    label: str  # in it


def _places(groups: Sequence[Group], split: str | None) -> dict[str, Place]:
    """By label: a panel for each environment and, where asked for, each value of a setting."""
    if split is None:
        return {g.label: Place(g.environment, g.environment, g.label) for g in groups}
    places, several = {}, len({g.environment for g in groups}) > 1
    for g in groups:
        words = dict(word.split("=", 1) for word in WORDS.split(g.label) if "=" in word)
        if split not in words:
            allowed = f"must be told in every label, as in {g.label}"
            raise ConfigError("--split", split, allowed)
        panel = f"{split}={words.pop(split)}"
        if several:
            panel += f", {g.environment}"
        words.pop("env", None)
        label = ", ".join(f"{key}={text}" for key, text in words.items()) or ALL
        places[g.label] = Place(g.environment, panel, label)
    return places


def _picture(
    places: Mapping[str, Place],
    by_label: Mapping[str, Curve],
    y_label: str,
    thresholds: Mapping[str, float] | None = None,
    shows: str = "IQM",
) -> dict[str, bytes]:
    """Curves in their panels, with thresholds where these are returns; {} for none."""
    panels: dict[tuple[str, str], list[Curve]] = {}
    for label, place in places.items():
        if label in by_label:
            curve = by_label[label]._replace(label=place.label)
            panels.setdefault((place.environment, place.panel), []).append(curve)
    levels = thresholds or {}
    return draw(
        [
            Panel(panel, mine, levels.get(environment, math.nan), shows)
            for (environment, panel), mine in panels.items()
        ],
        y_label,
        log=thresholds is None,
    )


def _shows(name: str, over: str | None) -> str:
    return f"return against {over}" if name == "over" else f"{name} against steps"


def _counts(runs: Sequence[Run], groups: Sequence[Group], left_out: int) -> str:
    seeds = sum(len(g.seeds) for g in groups)
    text = f"Runs: {len(runs)}; groups: {len(groups)}; seeds that count: {seeds}"
    text += f"; runs left out, see below: {left_out}." if left_out else "."
    most = len({g.series for g in groups if g.seeds})
    return text + (f" The pictures show the first {MOST} of {most} settings." * (most > MOST))
