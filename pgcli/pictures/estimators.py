"""Pictures of a comparison of estimators, fit for a slide: plain numbers in, PNG out."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pgcli.pictures.curves import COLOURS, DASHES, STYLE

if TYPE_CHECKING:  # takes a second to import: only where a picture is drawn
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = "osD^vP*X<>hd"
SHADES = ("#bbbbbb", "#9ecae1", "#08306b", "#fd8d3c")  # of what lies in one bar


class Bar(NamedTuple):
    """One estimator's figure with its limits, and its exact value; NaN for what is not known."""

    label: str
    value: float
    lower: float
    upper: float
    exact: float = np.nan
    limit: bool = False  # whether that is of ever larger batches, so that the interval may miss it


class Line(NamedTuple):
    """One estimator's figures along an axis."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


class Band(NamedTuple):
    """Figures along an axis with their limits, where they have any."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    lower: Sequence[float] = ()
    upper: Sequence[float] = ()


class Dot(NamedTuple):
    """One estimator in the plane of bias and variance."""

    label: str
    bias: float
    variance: float


def bars(rows: Sequence[Bar], x_label: str, title: str) -> bytes:
    """Horizontal bars on a logarithmic axis, their intervals, and a diamond where it is exact."""
    with _figure(10.5, 1.6 + 0.42 * len(rows)) as (figure, axes):
        y = np.arange(len(rows))[::-1]
        value = np.array([row.value for row in rows])
        limits = np.array([(row.lower, row.upper) for row in rows])
        error = np.abs(limits.T - value)
        error[~np.isfinite(error)] = 0
        axes.barh(y, value, color="#9ecae1", height=0.66)
        axes.errorbar(value, y, xerr=error, fmt="none", ecolor="#08306b", capsize=3, label="95 %")
        exact = np.array([row.exact for row in rows])
        limit = np.array([row.limit for row in rows], bool)
        for name, which, face in (("exact", ~limit, COLOURS[1]), ("exact, N → ∞", limit, "none")):
            if np.isfinite(exact[which]).any():
                axes.plot(
                    exact[which], y[which], "D", label=name, markersize=7,
                    markeredgecolor=COLOURS[1], markerfacecolor=face,
                )  # fmt: skip
        if np.isfinite(exact).any():
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
        seen = np.concatenate([value, limits.ravel()])
        seen = seen[np.isfinite(seen) & (seen > 0)]
        if len(seen):
            axes.set_xscale("log")
            axes.set_xlim(seen.min() / 1.5, seen.max() * 1.5)
        axes.set_yticks(y, [row.label for row in rows])
        axes.set_xlabel(x_label)
        figure.suptitle(title)
        return _png(figure)


def stacked(
    labels: Sequence[str], parts: Mapping[str, Sequence[float]], x_label: str, title: str
) -> bytes:
    """Horizontal bars in parts from 0 on, with a legend of what they are."""
    with _figure(10.5, 1.6 + 0.42 * len(labels)) as (figure, axes):
        y, left = np.arange(len(labels))[::-1], np.zeros(len(labels))
        for (name, values), colour in zip(parts.items(), SHADES, strict=False):
            if np.any(values):
                axes.barh(y, values, left=left, color=colour, height=0.66, label=name)
            left = left + np.array(values)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
        axes.set_axisbelow(True)
        axes.set_xlim(0, 1.02 * left.max())
        axes.set_yticks(y, list(labels))
        axes.set_xlabel(x_label)
        figure.suptitle(title)
        return _png(figure)


def lines(
    rows: Sequence[Line],
    labels: tuple[str, str],
    title: str,
    *,
    log_y: bool = False,
    slope: float | None = None,
) -> bytes:
    """Lines over a logarithmic axis; `slope`: a grey line of that slope in log-log for the eye."""
    with _figure(12.0, max(5.5, 0.9 + 0.36 * len(rows))) as (figure, axes):
        for i, row in enumerate(rows):
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
            mark = MARKS[i % len(MARKS)]
            axes.plot(row.x, row.y, color=colour, linestyle=dash, marker=mark, label=row.label)
        if slope is not None and rows and np.nanmax([0.0, *rows[0].y]) > 0:
            x = np.array(rows[0].x, float)
            y = np.nanmax(rows[0].y) * (x / x[0]) ** slope
            axes.plot(x, y, color="#bbbbbb", lw=4, zorder=0, label=f"slope {slope:g}")
        _logarithmic(axes, [p for row in rows for p in zip(row.x, row.y, strict=True)], y=log_y)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.suptitle(title)
        return _png(figure)


def scatter(rows: Sequence[Dot], labels: tuple[str, str], title: str) -> bytes:
    """Bias against variance, each on a logarithmic axis; what has no bias stands at the left."""
    with _figure(12.0, max(5.5, 0.9 + 0.36 * len(rows))) as (figure, axes):
        seen = [row.bias for row in rows if row.bias > 0]
        floor = min(seen) / 3 if seen else 1e-3
        for i, row in enumerate(rows):
            axes.plot(
                row.bias if row.bias > 0 else floor, row.variance, linestyle="none", markersize=11,
                marker=MARKS[i % len(MARKS)], color=COLOURS[i % len(COLOURS)], label=row.label,
            )  # fmt: skip
        axes.axvspan(floor / 1.5, floor * 1.5, color="#eeeeee", zorder=0)
        _logarithmic(axes, [(max(row.bias, floor), row.variance) for row in rows], y=True)
        axes.set_xlabel(labels[0] + "   (grey: none, or none resolved)")
        axes.set_ylabel(labels[1])
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.suptitle(title)
        return _png(figure)


def ladder(panels: Mapping[str, Sequence[Line]], x_label: str, title: str) -> bytes:
    """Panels side by side over a common logarithmic axis, each named by what it shows."""
    with _styled():
        figure, all_axes = _subplots(len(panels), (5.6 * len(panels), 5.6))
        for axes, (y_label, rows) in zip(all_axes, panels.items(), strict=True):
            for i, row in enumerate(rows):
                axes.plot(row.x, row.y, color=COLOURS[i % len(COLOURS)], marker=MARKS[i],
                          label=row.label)  # fmt: skip
            points = [p for row in rows for p in zip(row.x, row.y, strict=True)]
            _logarithmic(axes, points, y=all(y > 0 for _, y in points if np.isfinite(y)))
            axes.set_xlabel(x_label)
            axes.set_title(y_label)
        handles, names = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(title)
        return _png(figure)


def bands(
    panels: Mapping[str, Sequence[Band]], x_label: str, title: str, log: Collection[str] = ()
) -> bytes:
    """Panels side by side over a common axis, lines with the area between their limits.

    `log`: the panels whose figures are drawn on a logarithmic axis.
    """
    with _styled():
        figure, all_axes = _subplots(len(panels), (6.0 * len(panels), 5.2))
        for axes, (y_label, rows) in zip(all_axes, panels.items(), strict=True):
            for i, row in enumerate(rows):
                colour = COLOURS[i % len(COLOURS)]
                mark = MARKS[i % len(MARKS)]
                axes.plot(row.x, row.y, color=colour, marker=mark, label=row.label)
                if len(row.lower):
                    axes.fill_between(row.x, row.lower, row.upper, color=colour, alpha=0.2, lw=0)
            if y_label in log:
                axes.set_yscale("log")
            else:
                axes.axhline(0, color="#bbbbbb", lw=1, zorder=0)
            axes.set_xlabel(x_label)
            axes.set_title(y_label)
            axes.legend(frameon=False)
        figure.suptitle(title)
        return _png(figure)


def _logarithmic(axes: Axes, points: Sequence[tuple[float, float]], *, y: bool) -> None:
    """Logarithmic x axis, and y axis if asked for; where nothing can be drawn they stay linear."""
    shown = [p for p in points if np.isfinite(p).all()]
    if any(p[0] > 0 for p in shown):
        axes.set_xscale("log")
    if y and any(p[1] > 0 for p in shown):
        axes.set_yscale("log")


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    with _styled():
        figure, (axes,) = _subplots(1, (width, height))
        yield figure, axes


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE), np.errstate(invalid="ignore"):  # zeros on logarithmic axes
        yield


def _subplots(count: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    """Beside pyplot: its figures, and what they are shown by, are its user's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
