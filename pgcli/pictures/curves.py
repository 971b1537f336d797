"""Pictures of curves over seeds, fit for a slide: arrays and names in, PNG and SVG out."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from pgcli.statistics.curves import Band

if TYPE_CHECKING:  # takes a second to import: only where a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, told apart with any colour vision; their yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
Dash = Literal["solid", "dashed", "dotted"]
DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted")  # with each colour: 21 lines that differ
FAR = 1e9  # times a value: no axis shows more
MOST = len(COLOURS) * len(DASHES)
FEW = 12  # points of a curve that are seen one by one
MARGIN = 1.2  # beside the first and the last value of a setting
WIDTH, HEIGHT = 9.6, 5.0  # of a panel, in inches
FONT, LETTER, LINE, HANDLE = 15, 0.114, 0.31, 0.95  # of the legend: points, then inches
ROWS = 7  # of the legend, if they can be that few
STYLE: Any = {
    "font.size": FONT,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "savefig.dpi": 160,
    "figure.constrained_layout.w_pad": 0.15,  # inches
    "figure.constrained_layout.h_pad": 0.1,
    "svg.hashsalt": "pg",  # the same picture is the same file
}


class Curve(NamedTuple):
    """One setting: its band [P] over `seeds` seeds, at steps [P]."""

    label: str
    steps: np.ndarray
    band: Band
    seeds: int


class Panel(NamedTuple):
    """The curves of one environment; `level` is a return to reach, NaN for none."""

    title: str
    curves: Sequence[Curve]
    level: float = math.nan
    shows: str = "IQM"  # of the seeds


def draw(
    panels: Sequence[Panel], y_label: str, log: bool = False, over: str | None = None
) -> dict[str, bytes]:
    """A picture of all panels as {"png": ..., "svg": ...}; at most MOST labels in it.

    `over`: the setting whose values stand in the place of steps. A line is thin where some of its
    seeds have ended. Without panels there is no picture: {}.
    """
    if not panels:
        return {}
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    looks = {
        label: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS)])
        for i, label in enumerate(labels[:MOST])
    }
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    columns, scale = _fitting(list(looks), WIDTH * across)
    legend = LINE * scale * (math.ceil(len(looks) / columns) + 1)
    with rc_context(STYLE):
        figure = Figure((WIDTH * across, HEIGHT * down + legend), layout="constrained")
        for i, panel in enumerate(panels):
            axes = figure.add_subplot(down, across, i + 1)
            for curve in panel.curves:
                if curve.label in looks:
                    _line(axes, curve, *looks[curve.label], log)
            _dress(axes, panel, y_label, log)
            if over is None:
                _steps(axes)
            else:
                _values(axes, panel, over)
        keys = [Line2D([], [], color=c, linestyle=d, linewidth=3) for c, d in looks.values()]
        figure.legend(
            keys,
            [_literal(label) for label in looks],
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=FONT * scale,
        )
        return {kind: _file(figure, kind) for kind in ("png", "svg")}


def _line(axes: Axes, curve: Curve, colour: str, dash: Dash, log: bool) -> None:
    steps, band = curve.steps, curve.band
    lower, upper = band.lower, band.upper
    if log:  # few seeds may reach beyond what an axis can hold
        lower, upper = np.maximum(lower, band.value / FAR), np.minimum(upper, band.value * FAR)
    whole = np.where(band.seeds == curve.seeds, band.value, np.nan)
    mark = "o" if len(steps) <= FEW else ""  # so that one between two that are lost is seen
    axes.plot(
        steps, band.value, color=colour, linestyle=dash, linewidth=1.2, marker=mark, markersize=5
    )
    axes.plot(steps, whole, color=colour, linestyle=dash, linewidth=2.8)
    axes.fill_between(steps, lower, upper, color=colour, alpha=0.18, linewidth=0)


def _dress(axes: Axes, panel: Panel, y_label: str, log: bool) -> None:
    if log and any((curve.band.value > 0).any() for curve in panel.curves):
        axes.set_yscale("log", nonpositive="mask")
    if not math.isnan(panel.level):
        axes.axhline(panel.level, color="#666666", linewidth=1.2, linestyle=(0, (8, 4)))
        right = axes.get_yaxis_transform()  # x in widths of the axes, y in returns
        axes.text(1.005, panel.level, f"{panel.level:g}", transform=right, va="center", fontsize=12)
    axes.set_title(_literal(panel.title), loc="left", fontsize=17, fontweight="bold")
    fewest, most = (choice(curve.seeds for curve in panel.curves) for choice in (min, max))
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    note = "one seed" if most == 1 else f"{panel.shows} and 95 % band over {number} seeds"
    axes.set_title(note, loc="right", fontsize=12, color="#555555")
    axes.set_ylabel(y_label)
    _frame(axes, panel, axes.get_yscale() == "log")


def _steps(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel("environment steps per seed")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _values(axes: Axes, panel: Panel, name: str) -> None:
    """Let the axis below tell values of a setting: each is a point, by its logarithm if it can."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    values = np.unique(np.concatenate([curve.steps for curve in panel.curves]))
    for line in axes.get_lines():
        line.set_marker("o")
    axes.set_xlabel(name)
    low, high = values[0], values[-1]
    if low > 0:
        axes.set_xlim(low / MARGIN, high * MARGIN)
        axes.set_xscale("log")
    else:
        margin = (MARGIN - 1) * (high - low)
        axes.set_xlim(low - margin, high + margin)
    axes.set_xticks(values)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _frame(axes: Axes, panel: Panel, log: bool) -> None:
    """No band of two or three seeds presses the curves flat: it may triple their height."""
    seen = np.concatenate([curve.band.value for curve in panel.curves] + [[panel.level]])
    seen = seen[np.isfinite(seen) & ((seen > 0) | (not log))]
    if not seen.size or seen.min() == seen.max():
        return
    low, high = seen.min(), seen.max()
    margin = high / low if log else high - low
    bottom, top = (low / margin, high * margin) if log else (low - margin, high + margin)
    now = axes.get_ylim()
    axes.set_ylim(max(now[0], bottom), min(now[1], top))


def _literal(text: str) -> str:
    """No formula for matplotlib, whatever it holds."""
    return text.replace("$", r"\$")


def _fitting(labels: Sequence[str], width: float) -> tuple[int, float]:
    """Columns of a legend within `width` inches, and a factor to its font: smaller where many."""
    lengths = [len(label) for label in labels]
    columns, scale = 1, 1.0
    for scale in (1.0, 0.9, 0.8, 0.7):
        for columns in range(len(labels), 0, -1):
            parts = np.array_split(lengths, columns)  # as matplotlib does
            inches = LETTER * sum(int(part.max()) for part in parts) + HANDLE * columns
            if inches * scale <= width:
                break
        if inches * scale <= width and len(parts[0]) <= ROWS:
            break
    return columns, min(scale, width / inches)


def _file(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()
