"""What `pg compare` leaves: a table in the terminal, CSV, JSON, TensorBoard and pictures."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import text

from pgcli.comparison.exact import Exact
from pgcli.comparison.ladder import Best
from pgcli.comparison.ladder import Point as Rise
from pgcli.comparison.parts import Parts
from pgcli.comparison.resampled import Figure, Verdict
from pgcli.comparison.steps import PassFinding, Point, StepFinding
from pgcli.gradients.truth import Solution
from pgcli.pictures import estimators as slides
from pgcli.runs import summary
from pgcli.runs.directory import write_atomically
from pgcli.runs.events import Events
from pgcli.runs.progress import Progress, table
from pgcli.settings.schema import CompareConfig, EstimatorConfig

INTERVALS = ("trace_cov", "nsr", "snr", "variance_ratio", "cos_between", "cos_to_true", "bias")

MODEL_IS_WRONG = "the environment does something else than its model says"


@dataclass(frozen=True)
class Finding:
    """One estimator on the data of one behaviour."""

    name: str
    config: EstimatorConfig
    notes: list[str]  # sources of bias; none: unbiased
    kl: float | None  # KL(behaviour‖policy), where that is configured
    episodes: int
    verdict: Verdict
    variances: list[tuple[int, float]]  # (batch size, tr Var(ĝ)) measured
    exact: Exact | None
    ess: float | None  # episodes, of a batch; None: on-policy
    seconds: float


class Looks(NamedTuple):
    """What is told beside the estimators themselves: of update rules, and of ladders."""

    steps: Sequence[StepFinding] = ()
    along: Sequence[Point] = ()
    passes: Sequence[PassFinding] = ()
    ladder: Sequence[Rise] = ()  # figures over the values of settings that are lists
    best: Sequence[Best] = ()


@dataclass(frozen=True)
class Found:
    """All that is found of one policy."""

    config: CompareConfig  # of that policy
    findings: Sequence[Finding]
    looks: Looks
    solution: Solution | None  # by the model
    notices: Sequence[str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of compare.csv, the least squared error first."""
        return sorted((row_of(f, self.config, self.solution) for f in self.findings), key=_rank)


def write(directory: Path, found: Found, made_with: Mapping[str, Any], progress: Progress) -> None:
    """Write everything into `directory` and show the table."""
    config, findings, looks, solution = found.config, found.findings, found.looks, found.solution
    rows = found.rows
    write_atomically(directory / "compare.csv", csv_of(rows).encode())
    shown = shown_table(rows, config.level)
    tables = {
        "updates": [step_row(one) for one in looks.steps],
        "along": [point_row(one) for one in looks.along],
        "passes": [pass_row(one) for one in looks.passes],
        "ladder": [ladder_row(one) for one in looks.ladder],
        "best": [best_row(one) for one in looks.best],
    }
    for name, made in tables.items():
        if made:
            write_atomically(directory / f"{name}.csv", csv_of(made).encode())
    against = [label(f) for f in findings if contradicts(f)]
    facts = {
        "environment": config.env.id,
        "batch_size": config.batch_size,
        "gamma": config.gamma,
        "objective": None if solution is None else solution.objective,
        "gradient_norm": None if solution is None else float(solution.gradient.norm()),
        "estimators": rows,
        "notes": {f.name: f.notes for f in findings},
        "contradicted": against,  # exact figures that the sampled ones exclude
        "variance_by_batch_size": {label(f): f.variances for f in findings if f.variances},
        **{name: made for name, made in tables.items() if made},
        **made_with,
    }
    pictures = drawn(findings, rows, config) if config.pictures else {}
    if config.pictures:
        pictures |= drawn_looks(looks, config)
    for name, png in pictures.items():
        write_atomically(directory / f"{name}.png", png)
    number = config.iteration if isinstance(config.iteration, int) else 0
    _write_events(directory, rows, shown, pictures, number)
    summary.write(directory, facts, "compare.json")  # last: it says that the rest is there
    say_biases(findings, progress)
    for one in against:
        progress.say(
            f"note: {one}: what was sampled contradicts the exact figures: {MODEL_IS_WRONG}"
        )
    if solution is not None:
        progress.say(f"J = {solution.objective:.6g}, ‖∇J‖ = {float(solution.gradient.norm()):.6g}")
    progress.say(shown)
    if parts := parts_table(rows):
        progress.say(parts)
    for name, made in tables.items():
        if made and name in COLUMNS:
            progress.say(looks_table(name, made, config))
    written = ", ".join(f"{name}.csv" for name, made in {"compare": rows, **tables}.items() if made)
    progress.say(f"{directory}: {written}, compare.json, {len(pictures)} pictures")
    progress.conclude(f"tensorboard --logdir {directory}")


def say_biases(findings: Sequence[Finding], progress: Progress) -> None:
    """A line for each source of bias of each estimator."""
    for finding in {f.name: f for f in findings}.values():
        for note in finding.notes:
            progress.say(f"biased: {finding.name}: {note}")


def label(finding: Finding) -> str:
    """The estimator, and how far the behaviour is where that varies."""
    return finding.name if finding.kl is None else f"{finding.name} at KL {finding.kl:g}"


def row_of(finding: Finding, config: CompareConfig, solution: Solution | None) -> dict[str, Any]:
    """One row of compare.csv; NaN for what does not apply."""
    verdict, est, exact = finding.verdict, finding.config, finding.exact
    bias_exact = nsr_exact = math.nan
    trace_exact = math.nan if exact is None or exact.trace_cov is None else exact.trace_cov
    if exact is not None and solution is not None and (length := solution.gradient.norm()) > 0:
        bias_exact = float((exact.mean - solution.gradient).norm() / length)
        nsr_exact = trace_exact / float(length) ** 2
    row: dict[str, Any] = {
        "estimator": finding.name,
        "phi": est.phi,
        "baseline": est.baseline,
        "importance": est.importance,
        "kl": math.nan if finding.kl is None else finding.kl,
        "episodes": finding.episodes,
        "batch_size": config.batch_size,
        "grad_norm": verdict.grad_norm,
        "norm_sq_unbiased": verdict.signal.value,
        "norm_sq_unbiased_lo": verdict.signal.lower,
        "norm_sq_unbiased_hi": verdict.signal.upper,
    }
    for name in INTERVALS:
        figure: Figure = getattr(verdict, name)
        row |= {name: figure.value, f"{name}_lo": figure.lower, f"{name}_hi": figure.upper}
    squared_bias = 0.0
    if finding.notes and not math.isnan(verdict.bias.value):
        squared_bias = max(0.0, verdict.bias.value) ** 2 * verdict.truth_square
    return row | {
        "zero_batches": verdict.zero_batches,
        "mse": squared_bias + verdict.trace_cov.value / config.batch_size,
        "bias_exact": bias_exact,
        "trace_cov_exact": trace_exact,
        "nsr_exact": nsr_exact,
        "exact_in_the_limit": "" if exact is None else int(exact.limit),
        **{f"part_{name}": x for name, x in _parts(exact).items()},
        "ess": math.nan if finding.ess is None else finding.ess,
        "seconds": finding.seconds,
    }


def _parts(exact: Exact | None) -> dict[str, float]:
    """By name, N · tr Var(ĝ) each; NaN where not known."""
    if exact is None or exact.parts is None:
        return dict.fromkeys(Parts._fields, math.nan)
    return exact.parts._asdict()


def _limits(name: str, figure: Figure) -> dict[str, float]:
    return {name: figure.value, f"{name}_lo": figure.lower, f"{name}_hi": figure.upper}


def step_row(finding: StepFinding) -> dict[str, Any]:
    """One row of updates.csv."""
    row: dict[str, Any] = {
        "estimator": finding.estimator,
        "update": finding.update,
        "batches": finding.batches,
    }
    for name in ("cos_to_true", "cos_to_natural", "step_norm", "kl", "surrogate_gain", "gain"):
        row |= _limits(name, getattr(finding, name))
    own = {k: x for k, x in finding.told.items() if k not in row}
    return row | {"told": ", ".join(f"{name} {short(x)}" for name, x in own.items())}


def point_row(point: Point) -> dict[str, Any]:
    """One row of along.csv."""
    row = {"scale": point.scale, "surrogate_gain": point.surrogate, "kl": point.kl}
    return row | _limits("gain", point.gain) | {"exact": int(point.exact)}


def pass_row(finding: PassFinding) -> dict[str, Any]:
    """One row of passes.csv."""
    cosine = _limits("cos_to_true", finding.cos_to_true)
    kl = _limits("kl", finding.kl)
    return {"pass": finding.number, "batches": finding.batches, **cosine, **kl}


def ladder_row(point: Rise) -> dict[str, Any]:
    """One row of ladder.csv."""
    row = _of_ladder(point) | {"value": point.value}
    row |= _limits("squared_bias", point.bias) | _limits("variance", point.variance)
    row |= _limits("mse", point.mse) | {"least_in": point.share}
    exact = point.bias_exact, point.variance_exact, point.bias_exact + point.variance_exact
    names = ("squared_bias_exact", "variance_exact", "mse_exact")
    return row | dict(zip(names, exact, strict=True))


def best_row(best: Best) -> dict[str, Any]:
    """One row of best.csv."""
    row = _of_ladder(best) | _limits("best", best.value)
    return row | {"least_in": best.share, "best_exact": best.exact}


def _of_ladder(one: Rise | Best) -> dict[str, Any]:
    kl = math.nan if one.kl is None else one.kl
    return {
        "estimator": one.estimator,
        "setting": one.setting,
        "kl": kl,
        "batch_size": one.size,
    }


def contradicts(finding: Finding) -> bool:
    """Whether what was sampled cannot be of the model from which the exact figures are.

    Beyond any doubt: a mean more than five standard errors off, or a variance three times as far
    off as its interval reaches. Never under importance weights: their moments are made by rare
    trajectories, of which a sample may have none.
    """
    exact, verdict = finding.exact, finding.verdict
    if exact is None or exact.trace_cov is None or exact.limit:
        return False
    if finding.kl is not None or finding.config.weighted:
        return False
    figure = verdict.trace_cov
    noise = max(exact.trace_cov, figure.value) / finding.episodes
    off = float((verdict.mean - exact.mean).square().sum())
    if off > 25 * noise + (1e-5 * verdict.grad_norm) ** 2:
        return True
    if not (figure.lower > 0 and exact.trace_cov > 0):
        return False
    distance = math.log(exact.trace_cov / figure.value)
    reach = math.log((figure.upper if distance > 0 else figure.lower) / figure.value)
    return abs(distance) > 3 * abs(reach) + 1e-5


def _rank(row: Mapping[str, Any]) -> tuple[float, float]:
    """By distance, then the mean squared error of one batch's estimate."""
    kl, mse = row["kl"], row["mse"]
    return (0.0 if math.isnan(kl) else kl), (math.inf if math.isnan(mse) else mse)


def shown_table(rows: Sequence[Mapping[str, Any]], level: float) -> str:
    """The rows for a terminal, the least squared error first."""
    known = any(not math.isnan(row["bias_exact"]) for row in rows)
    far = any(not math.isnan(row["kl"]) for row in rows)
    weighted = any(not math.isnan(row["ess"]) for row in rows)
    silent = any(row["zero_batches"] for row in rows)
    headers = [
        *(["KL"] if far else []), "estimator", "tr Σ", f"{level:.0%}", "ratio", "SNR",
        "cos to ∇J", *(["no gradient"] if silent else []),
        "bias", *(["exact bias", "exact tr Σ"] if known else []),
        *(["ESS"] if weighted else []), "seconds",
    ]  # fmt: skip
    lines = [
        [
            *([f"{row['kl']:g}"] if far else []), row["estimator"], short(row["trace_cov"]),
            f"{short(row['trace_cov_lo'])}–{short(row['trace_cov_hi'])}",
            short(row["variance_ratio"]), short(row["snr"]), short(row["cos_to_true"]),
            *([_silent(row)] if silent else []),
            _resolved(row),
            *([short(row["bias_exact"]), _exact_trace(row)] if known else []),
            *([short(row["ess"])] if weighted else []), f"{row['seconds']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    return table(lines, headers)


PARTS = {  # of the variance, by column: as tables and pictures call them
    "part_start": "first state",
    "part_actions": "actions",
    "part_dynamics": "dynamics",
    "part_batch": "batch",
}


def parts_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where the variance of the rows comes from, for a terminal; empty where it is not known."""
    known = [row for row in rows if not math.isnan(row["part_actions"])]
    lines = []
    for row in known:
        total = sum(row[name] for name in PARTS)
        share = [f"{row[name] / total:.1%}" if total > 0 else "—" for name in PARTS]
        lines.append([named(row), *share, short(row["part_floor"]), short(total)])
    if not lines:
        return ""
    headers = ["tr Σ from", *PARTS.values(), "floor", "tr Σ"]
    return "\n".join([table(lines, headers), *_room(known)])


def _room(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What another baseline could still take off the least and the most noisy of the rows."""
    rows = [row for row in rows if not math.isnan(row["part_floor"])]
    if not rows:
        return []
    sizes = [sum(row[name] for name in PARTS) for row in rows]
    least, most = sizes.index(min(sizes)), sizes.index(max(sizes))
    return [
        f"{named(rows[i])}: no baseline of states and times takes more than "
        f"{1 - rows[i]['part_floor'] / sizes[i]:.1%} off"
        for i in dict.fromkeys((least, most))
        if sizes[i] > 0
    ]


def named(row: Mapping[str, Any]) -> str:
    """The estimator of a row, and how far the behaviour is where that varies."""
    return row["estimator"] if math.isnan(row["kl"]) else f"{row['estimator']} at KL {row['kl']:g}"


LIMITS = "limits"  # of the figure, in the place of a column's name
COLUMNS = {  # of the tables on update rules: what is said above each, and which figure it shows
    "updates": [
        ("step of", "update"), ("on", "estimator"), ("cos to ∇J", "cos_to_true"),
        (LIMITS, "cos_to_true"), ("cos to F⁻¹∇J", "cos_to_natural"), ("KL", "kl"),
        ("L gained", "surrogate_gain"), ("J gained", "gain"), (LIMITS, "gain"),
    ],
    "along": [
        ("along {}, × its step", "scale"), ("KL", "kl"), ("L gained", "surrogate_gain"),
        ("J gained", "gain"), (LIMITS, "gain"),
    ],
    "passes": [
        ("pass of {}", "pass"), ("batches", "batches"), ("cos to ∇J there", "cos_to_true"),
        (LIMITS, "cos_to_true"), ("KL so far", "kl"),
    ],
    "best": [
        ("least error of", "estimator"), ("over", "setting"), ("batch", "batch_size"),
        ("at", "best"), (LIMITS, "best"), ("in so many resamples", "least_in"),
        ("exactly at", "best_exact"),
    ],
}  # fmt: skip


def looks_table(name: str, rows: Sequence[Mapping[str, Any]], config: CompareConfig) -> str:
    """One of the tables on update rules, for a terminal."""

    def cell(row: Mapping[str, Any], column: str, key: str) -> str:
        if column == LIMITS:
            return _interval(row, key)
        return short(row[key]) if isinstance(row[key], float) else str(row[key])

    level, columns = f"{config.level:.0%}", COLUMNS[name]
    headers = [level if c == LIMITS else c.format(config.along) for c, _ in columns]
    return table([[cell(row, *column) for column in columns] for row in rows], headers)


def _interval(row: Mapping[str, Any], name: str) -> str:
    if row.get("exact"):
        return "exact"
    return f"{short(row[f'{name}_lo'])} to {short(row[f'{name}_hi'])}"


def _resolved(row: Mapping[str, Any]) -> str:
    if math.isnan(row["bias"]):
        return "—"
    return short(row["bias"]) if row["bias_lo"] > 0 else "not resolved"


def _silent(row: Mapping[str, Any]) -> str:
    return f"{row['zero_batches']} of {row['episodes'] // row['batch_size']} batches"


def _exact_trace(row: Mapping[str, Any]) -> str:
    exact = row["trace_cov_exact"]
    limit = row["exact_in_the_limit"] == 1 and not math.isnan(exact)
    return short(exact) + " (N→∞)" * limit


def short(x: float) -> str:
    """A figure for a table."""
    return "—" if math.isnan(x) else f"{x:.3g}"


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table as a file, its first row telling the columns; NaN is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        empty = {k: "" for k, v in row.items() if isinstance(v, float) and math.isnan(v)}
        writer.writerow({**row, **empty})
    return out.getvalue()


def _write_events(
    directory: Path,
    rows: Sequence[Mapping[str, Any]],
    shown: str,
    pictures: Mapping[str, bytes],
    step: int,
) -> None:
    """The table and the pictures; figures in one run per estimator, at the policy's iteration."""
    events = Events(directory, None)
    try:
        events.add(text("compare", f"```\n{shown}\n```"), step)
        for name, png in pictures.items():
            width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
            image = Summary.Image(
                height=height, width=width, colorspace=4, encoded_image_string=png
            )
            events.add(Summary(value=[Summary.Value(tag=f"compare/{name}", image=image)]), step)
    finally:
        events.close()
    for row in rows:
        kl = "" if math.isnan(row["kl"]) else f"-kl-{row['kl']:g}"
        one = Events(directory / f"{re.sub('[: ]', '-', row['estimator'])}{kl}", None)
        numbers = ((k, v) for k, v in row.items() if isinstance(v, float) and math.isfinite(v))
        one.add_scalars(((f"compare/{k}", v) for k, v in numbers), step)
        one.close()


def drawn(
    findings: Sequence[Finding], rows: Sequence[Mapping[str, Any]], config: CompareConfig
) -> dict[str, bytes]:
    """The pictures by name."""
    where = f"{config.env.id}, {rows[0]['episodes']} episodes"
    if any(f.kl is not None for f in findings):
        return {"importance": _ladder(rows, where)}
    bars = [
        slides.Bar(r["estimator"], r["trace_cov"], r["trace_cov_lo"], r["trace_cov_hi"],
                   r["trace_cov_exact"], r["exact_in_the_limit"] == 1)
        for r in rows
    ]  # fmt: skip
    ranked = sorted(findings, key=lambda f: [r["estimator"] for r in rows].index(f.name))
    aligned = [
        slides.Line(f.name, config.sizes, [f.verdict.alignment_at(n) for n in config.sizes])
        for f in ranked
    ]
    measured = [
        slides.Line(f.name, [n for n, _ in f.variances], [v for _, v in f.variances])
        for f in ranked
        if f.variances
    ]
    dots = [
        slides.Dot(r["estimator"], _bias_to_show(r), r["trace_cov"] / config.batch_size)
        for r in rows
    ]
    split = [r for r in rows if not math.isnan(r["part_actions"])]
    # Nothing to see is no picture.
    told = {
        "parts": any(r[name] > 0 for r in split for name in PARTS),
        "variance": any(bar.value > 0 for bar in bars),
        "alignment": any(math.isfinite(y) for line in aligned for y in line.y),
        "batch_size": any(y > 0 for line in measured for y in line.y),
        "bias_variance": any(math.isfinite(dot.bias) and dot.variance > 0 for dot in dots),
    }
    of_batch = f"variance tr Var(ĝ) of a batch of {config.batch_size}"
    draw: dict[str, Callable[[], bytes]] = {
        "parts": lambda: slides.stacked(
            [r["estimator"] for r in split],
            {name: [r[key] for r in split] for key, name in PARTS.items()},
            "exact tr Σ per trajectory", f"Where the noise comes from: {config.env.id}",
        ),
        "variance": lambda: slides.bars(bars, "tr Σ per trajectory", f"Gradient noise: {where}"),
        "alignment": lambda: slides.lines(
            aligned, ("episodes per batch", "⟨E[ĝ], ∇J⟩ / (‖∇J‖ √E‖ĝ‖²)"), f"Direction: {where}"
        ),
        "batch_size": lambda: slides.lines(
            measured, ("episodes per batch", "variance tr Var(ĝ)"), f"Batch size: {where}",
            log_y=True, slope=-1.0,
        ),
        "bias_variance": lambda: slides.scatter(
            dots, ("relative bias ‖E[ĝ] − ∇J‖ / ‖∇J‖", of_batch), f"Bias and variance: {where}"
        ),
    }  # fmt: skip
    return {name: make() for name, make in draw.items() if told[name]}


def drawn_looks(looks: Looks, config: CompareConfig) -> dict[str, bytes]:
    """The pictures of what update rules do, by name."""
    pictures = {}
    if looks.along:
        x = [point.scale for point in looks.along]
        gains = [slides.Band("return J", x, *zip(*(p.gain for p in looks.along), strict=True))]
        surrogates = [p.surrogate for p in looks.along]
        if not any(map(math.isnan, surrogates)):
            gains.append(slides.Band("surrogate L", x, surrogates))
        kl = [slides.Band("KL(π_θ‖π_θ')", x, [p.kl for p in looks.along])]
        panels = {"gained": gains, "nats per state": kl}
        title = f"Along a step of {config.along}: {config.env.id}"
        pictures["along"] = slides.bands(panels, "× the step", title)
    if looks.passes:
        x = [one.number for one in looks.passes]
        panels = {
            name: [slides.Band(str(config.along), x, *zip(*figures, strict=True))]
            for name, figures in (
                ("cosine to ∇J where it is", [one.cos_to_true for one in looks.passes]),
                ("KL from θ, nats per state", [one.kl for one in looks.passes]),
            )
        }
        title = f"Passes over one batch: {config.env.id}"
        pictures["passes"] = slides.bands(panels, "pass", title)
    for key in dict.fromkeys((p.estimator, p.setting, p.kl) for p in looks.ladder):
        own = [p for p in looks.ladder if (p.estimator, p.setting, p.kl) == key]
        name = "_".join(["ladder", key[1], *re.findall(r"[\w.]+", key[0])])
        name += "" if key[2] is None else f"_kl_{key[2]:g}"
        pictures[name] = _climbing(own, config)
    return pictures


SHOWN = 4  # batch sizes in the picture of a ladder


def _climbing(points: Sequence[Rise], config: CompareConfig) -> bytes:
    """Bias, variance and error of one ladder."""
    first = points[0]
    sizes = sorted({p.size for p in points})
    at = config.batch_size if config.batch_size in sizes else sizes[-1]
    own = [p for p in points if p.size == at]
    x = [p.value for p in own]
    parts = [
        slides.Band("squared bias", x, *zip(*(p.bias for p in own), strict=True)),
        slides.Band("variance", x, *zip(*(p.variance for p in own), strict=True)),
        slides.Band("their sum", x, *zip(*(p.mse for p in own), strict=True)),
    ]
    exact = [p.bias_exact + p.variance_exact for p in own]
    if not any(map(math.isnan, exact)):
        parts.append(slides.Band("their sum, exact", x, exact))
    count = min(SHOWN, len(sizes))
    some = [sizes[i * (len(sizes) - 1) // max(1, count - 1)] for i in range(count)]
    errors = []
    for size in some:
        rows = [p for p in points if p.size == size]
        known = [p.bias_exact + p.variance_exact for p in rows]
        mse = [p.mse.value for p in rows] if any(map(math.isnan, known)) else known
        errors.append(slides.Band(f"{size} episodes", x, [y / min(mse) for y in mse]))
    panels = {f"error of a batch of {at}": parts, "error over the least, by batch": errors}
    title = f"{first.estimator} over {first.setting}: {config.env.id}"
    return slides.bands(panels, f"estimator.{first.setting}", title)


def _bias_to_show(row: Mapping[str, Any]) -> float:
    """The exact bias where it is known, else what is resolved from zero."""
    if not math.isnan(row["bias_exact"]):
        return row["bias_exact"] if row["bias_exact"] > 1e-9 else 0.0
    return row["bias"] if row["bias_lo"] > 0 else 0.0


def _ladder(rows: Sequence[Mapping[str, Any]], where: str) -> bytes:
    names = list(dict.fromkeys(row["estimator"] for row in rows))

    def lines(figure: Any) -> list[slides.Line]:
        series = []
        for name in names:
            own = [row for row in rows if row["estimator"] == name]
            series.append(slides.Line(name, [r["kl"] for r in own], [figure(r) for r in own]))
        return series

    def bias(row: Mapping[str, Any]) -> float:
        return _bias_to_show(row) or math.nan

    def noise(row: Mapping[str, Any]) -> float:
        exact = row["trace_cov_exact"]
        return row["trace_cov"] if math.isnan(exact) else exact

    panels = {
        "relative bias": lines(bias),
        "tr Σ per trajectory, exact where known": lines(noise),
        "ESS of a batch, episodes": lines(lambda r: r["ess"]),
    }
    return slides.ladder(panels, "KL(behaviour‖policy), nats per state", f"Importance: {where}")
