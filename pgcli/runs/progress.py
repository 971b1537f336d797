"""What the terminal shows: one live line where there is a terminal, else a line per interval."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from pgcli.errors import StorageFailed
from pgcli.runs import tags

BAR = 20  # characters
REDRAW = 0.1  # seconds


class Series:
    """Jobs of a sweep that run in this process, one after the other: one bar, each note once.

    `total`: how many there will be; None: nobody knows. Where all are `silent`, another process
    tells of them.
    """

    def __init__(self, total: int | None, silent: bool = False) -> None:
        self.total, self.silent = total, silent
        self.begun, self.name = 0, ""
        self.said: set[str] = set()
        self.start = self.shown = time.perf_counter()

    def begin(self, name: str) -> None:
        """The next job, by its name in the sweep."""
        self.begun, self.name = self.begun + 1, name


_series: ContextVar[Series | None] = ContextVar("series", default=None)  # of this thread


@contextmanager
def series(one: Series) -> Iterator[Series]:
    """What is shown in here belongs to the jobs of one sweep; silent where it lies in silence."""
    one.silent = one.silent or is_silent()
    token = _series.set(one)
    try:
        yield one
    finally:
        _series.reset(token)


def is_silent() -> bool:
    """Whether nothing is shown here."""
    outer = _series.get()
    return outer is not None and outer.silent


def begin_job(name: str) -> None:
    """A job begins, in a series where there is one."""
    if (jobs := _series.get()) is not None:
        jobs.begin(name)


def tell(text: str) -> None:
    """Print a line before there is any progress."""
    if not is_silent():
        print(text)


class Progress:
    """Shows how far a run is; `spent` is the fraction of its budget in [0, 1]."""

    def __init__(self, interval: float) -> None:
        self._series = _series.get()
        self._out = sys.stdout
        if isinstance(self._out, io.TextIOWrapper):
            self._out.reconfigure(errors="replace")  # an ASCII or Windows pipe has no Φ and no ─
        self._live = self._out.isatty()
        self._interval = REDRAW if self._live else interval
        self._shown = time.perf_counter()
        self._start: tuple[float, float] | None = None  # clock and `spent` at the first update
        self._words: list[str] = []

    def say(self, message: str) -> None:
        """Print a message of its own; in a series once, with the name of the first job it is of."""
        if self._series is not None:
            if message in self._series.said:
                return
            self._series.said.add(message)
            message = f"{self._series.name}:{chr(10) if chr(10) in message else ' '}{message}"
        self._print(f"{self._erasing()}{message}\n")

    def conclude(self, message: str) -> None:
        """Print what stands at the end of a run by itself; a sweep has an end of its own."""
        if self._series is None:
            self.say(message)

    def update(
        self,
        spent: float,
        iteration: int,
        env_steps: np.ndarray,
        metrics: Mapping[str, np.ndarray],
    ) -> None:
        """Take note of an iteration; env_steps and metrics are [S], shown as means over seeds."""
        words = [
            f"return {short(float(np.mean(metrics[tags.RETURN])))}",
            f"{_short(float(np.sum(metrics[tags.FPS])))} steps/s",
            f"iteration {iteration}",
            f"steps {_short(float(env_steps.sum()))}",
            f"variance {np.mean(metrics[tags.VARIANCE]):.3g}",
            f"SNR {np.mean(metrics[tags.SNR]):.3g}",
        ]
        self.advance(spent, words)

    def advance(self, spent: float, words: Sequence[str]) -> None:
        """Show how far it is, in these words, the most needed first: a terminal may be narrow."""
        now = time.perf_counter()
        if (jobs := self._series) is not None:
            which = f"job {jobs.begun}" + (f" of {jobs.total}" if jobs.total else "")
            words = [which, *words[:1], jobs.name, *words[1:]]
            spent = (jobs.begun - 1 + spent) / jobs.total if jobs.total else 0.0
            self._start, self._shown = (jobs.start, 0.0), max(self._shown, jobs.shown)
        self._start = self._start or (now, spent)
        clock, done = now - self._start[0], spent - self._start[1]
        left = (1 - spent) * clock / done if done > 0 and spent < 1 else None
        time_left = [] if left is None else [f"{_clock(left)} left"]
        self._words = [f"{spent:4.0%}", *words[:1], *time_left, *words[1:]]
        self._spent = spent
        if now - self._shown >= self._interval:
            self._shown = now
            if jobs is not None:
                jobs.shown = now
            self._show()

    def close(self) -> None:
        """Show the last state for good; that of a job in a series makes room for the next one's."""
        if self._words:
            if self._series is not None:
                self._print(self._erasing())
            else:
                self._show()
                if self._live:
                    self._print("\n")
            self._words = []

    def _show(self) -> None:
        if not self._live:
            self._print("  ".join(self._words) + "\n")
            return
        width = shutil.get_terminal_size().columns - 1
        bar = min(BAR, width // 6)
        full = round(bar * self._spent)
        line = f"{'━' * full}{'─' * (bar - full)} {self._words[0]}"
        for word in self._words[1:]:  # whole words, as many as there is room for
            if len(line) + 2 + len(word) > width:
                break
            line += f"  {word}"
        self._print(f"{self._erasing()}{line[:width]}")

    def _erasing(self) -> str:
        return "\r\x1b[K" if self._live and self._words else ""

    def _print(self, text: str) -> None:
        if self._series is not None and self._series.silent:
            return
        try:
            print(text, end="", file=self._out, flush=True)
        except BrokenPipeError:  # the reader left, as `head` does
            raise
        except OSError as error:
            raise StorageFailed(f"standard output: {error.strerror}") from error


def table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """Rows of text under their headers, numbers to the right."""
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [headers, ["─" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def short(x: float) -> str:
    """A return: one decimal, or three digits where it is small."""
    return f"{x:.1f}" if abs(x) >= 10 or x == 0 else f"{x:.3g}"


def fitting(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How many of the columns there is room for, where a terminal shows them; the first at least.

    Elsewhere all of them.
    """
    if not sys.stdout.isatty():
        return len(headers)
    width, taken = shutil.get_terminal_size().columns, -2
    for count, column in enumerate(zip(headers, *rows, strict=True)):
        taken += 2 + max(map(len, column))
        if taken > width and count:
            return count
    return len(headers)


def _short(x: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:.3g}{unit}"
    return f"{x:.0f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
