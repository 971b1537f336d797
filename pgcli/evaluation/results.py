"""What `pg eval` leaves: a table in the terminal, eval.json, and what was asked for beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgcli.evaluation.subject import Trained
from pgcli.runs import summary
from pgcli.runs.directory import EVALUATION
from pgcli.runs.progress import Progress, short, table
from pgcli.settings.schema import Acting, EvalConfig

WIDTH = 80  # of a terminal


@dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated."""

    trained: Trained
    iterations: list[int]  # of each seed
    seeds: list[int]
    engine: str
    each: Mapping[Acting, list[dict[str, Any]]]  # figures of each seed
    overall: Mapping[Acting, dict[str, Any]] | None  # None: there is one seed
    notices: list[str]
    video: dict[str, Any] | None
    exported: list[str]  # files, as named from the directory of results

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for eval.json."""
        seeds = [
            {"seed": seed, "iteration": iteration, **{a.name: x[i] for a, x in self.each.items()}}
            for i, (seed, iteration) in enumerate(zip(self.seeds, self.iterations, strict=True))
        ]
        overall = {a.name: x for a, x in (self.overall or {}).items()}
        return {
            "run": str(self.trained.directory),
            "environment": self.trained.env.id,
            "engine": self.engine,
            "seeds": seeds,
            **({"overall": overall} if overall else {}),
            **({"video": self.video} if self.video else {}),
            **({"exported": self.exported} if self.exported else {}),
            "notices": self.notices,
        }


def write(
    directory: Path, config: EvalConfig, found: Sequence[Evaluated], progress: Progress
) -> None:
    """Write eval.json and show the table."""
    facts = {
        "checkpoint": config.checkpoint,
        "episodes": config.episodes,
        "seed": config.seed,
        "level": config.level,
        "runs": [one.facts for one in found],
    }
    summary.write(directory, facts, EVALUATION)  # last: it says that the rest is there
    for notice in dict.fromkeys(notice for one in found for notice in one.notices):
        progress.say(f"note: {notice}")
    progress.say(heading(config, found))
    progress.say(shown(found))
    for one in found:
        place = directory / one.trained.label
        if one.video is not None:
            progress.say(
                f"{place / one.video['file']}: seed {one.video['seed']}, "
                f"return {short(one.video['return'])}, {one.video['length']} steps"
            )
        for name in one.exported:
            progress.say(f"{place / name}")
    progress.conclude(f"{directory}: {EVALUATION}")


def heading(config: EvalConfig, found: Sequence[Evaluated]) -> str:
    """What the table's figures are of."""
    ids = list(dict.fromkeys(one.trained.env.id for one in found))
    where = ids[0] if len(ids) == 1 else f"{len(ids)} environments"
    numbers = {iteration for one in found for iteration in one.iterations}
    which = f"iteration {numbers.pop()}" if len(numbers) == 1 else "iterations of their own"
    several = [one.overall is not None for one in found]
    over = "episodes"
    if any(several):
        over = "seeds" if all(several) else "seeds, or episodes where there is one"
        over = over if len(found) > 1 else "episodes; of all over seeds"
    return (
        f"{where}, {which}, {config.episodes} episodes a seed; "
        f"± {config.level:.0%} interval over {over}"
    )


def shown(found: Sequence[Evaluated]) -> str:
    """One table, no wider than WIDTH: the seeds of a run, or one line of each of several runs."""
    if len(found) == 1:
        heads, lines = ["seed", "actions"], _seeds(found[0])
    else:
        heads, lines = ["run", "actions"], [line for one in found for line in _run(one)]
    told = any(figures["success_rate"] is not None for _, figures in lines)
    entries = list(dict.fromkeys(name for _, figures in lines for name in figures["info"]))
    heads += ["mean", "IQM", "length", *(["success"] if told else []), *entries]
    rows = [
        [*names, *_cells(figures, told), *(_entry(figures["info"].get(x)) for x in entries)]
        for names, figures in lines
    ]
    rest = sum(2 + max(map(len, column)) for column in list(zip(heads, *rows, strict=True))[1:])
    for row in rows:
        row[0] = _cut(row[0], max(8, WIDTH - rest))
    return table(rows, heads)


def _seeds(one: Evaluated) -> list[tuple[list[str], dict[str, Any]]]:
    lines = [
        ([str(seed), acting.name], figures[i])
        for i, seed in enumerate(one.seeds)
        for acting, figures in one.each.items()
    ]
    return lines + [(["all", acting.name], x) for acting, x in (one.overall or {}).items()]


def _run(one: Evaluated) -> list[tuple[list[str], dict[str, Any]]]:
    whole = one.overall or {acting: x[0] for acting, x in one.each.items()}
    return [([one.trained.label, acting.name], x) for acting, x in whole.items()]


def _cells(figures: Mapping[str, Any], told: bool) -> list[str]:
    rate = figures["success_rate"]
    success = ["" if rate is None else f"{rate:.0%}"] if told else []
    return [
        *(_with_error(figures, name) for name in ("mean", "iqm")),
        short(figures["length"]),
        *success,
    ]


def _entry(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _with_error(figures: Mapping[str, Any], name: str) -> str:
    """Both intervals are Student's: as far up as down."""
    half = figures[f"{name}_hi"] - figures[name]
    return short(figures[name]) + ("" if math.isnan(half) else f" ± {short(half)}")


def _cut(text: str, width: int) -> str:
    """The text, its middle left out where it is longer: jobs differ at their ends too."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
