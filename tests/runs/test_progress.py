"""What a terminal and what a pipe is shown."""

import io

import numpy as np
import pytest

from pgcli.errors import StorageFailed
from pgcli.runs import progress as module
from pgcli.runs.progress import Progress, Series, begin_job, series, table

TAGS = ("rollout/ep_rew_mean", "gradient/variance", "gradient/snr", "time/fps")
METRICS = {tag: np.array([2.0]) for tag in TAGS}


class Terminal(io.StringIO):
    def __init__(self, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


def shown(monkeypatch, tty, columns=60):
    """Everything that ten iterations print."""
    terminal = Terminal(tty)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(module, "REDRAW", 0)
    progress = Progress(interval=1e-9)
    progress.say("hello")
    for i in range(1, 11):
        progress.update(i / 10, i, np.array([i * 1000]), METRICS)
    progress.close()
    return terminal.getvalue()


def test_a_pipe_gets_plain_lines(monkeypatch):
    lines = shown(monkeypatch, tty=False).splitlines()
    assert lines[0] == "hello"
    assert lines[-1].startswith("100%  return 2  2 steps/s  iteration 10  steps 10k")
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("columns", [20, 60])
def test_a_terminal_gets_one_live_line_that_fits(monkeypatch, columns):
    text = shown(monkeypatch, tty=True, columns=columns)
    drawn = text.removeprefix("hello\n").removesuffix("\n").split("\r\x1b[K")
    assert "\n" not in "".join(drawn)
    assert max(map(len, drawn)) <= columns - 1


@pytest.mark.parametrize(
    ("columns", "words"),
    [(80, ["return", "left", "steps/s", "iteration"]), (60, ["return", "left", "steps/s"]),
     (40, ["return", "left"])],
)  # fmt: skip
def test_a_narrow_terminal_keeps_what_matters_most_in_whole_words(monkeypatch, columns, words):
    line = shown(monkeypatch, tty=True, columns=columns).split("\r")[5].removeprefix("\x1b[K")
    assert len(line) < columns
    told = [word for word in (*words, "iteration", "variance") if word in line]
    assert told[: len(words)] == words
    assert line.split("  ")[-1].endswith(("left", "steps/s", "iteration 5", "k", "2", "hello\n"))


def test_the_time_left_counts_from_the_first_iteration(monkeypatch):
    terminal = Terminal(tty=False)
    monkeypatch.setattr("sys.stdout", terminal)
    clock = iter([0.0, 100.0, 101.0])  # a slow start is not a slow iteration
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    progress = Progress(interval=0)
    for i in (1, 2):
        progress.update(i / 10, i, np.array([i]), METRICS)
    assert "  0:08 left  " in terminal.getvalue().splitlines()[-1]


def test_an_ascii_pipe_is_no_reason_to_fail(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Progress(interval=1).say("Φ ─")
    assert raw.getvalue() == b"? ?\n"


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_full_disk_behind_standard_output_is_named(monkeypatch):
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(StorageFailed, match="standard output: No space left"):
        Progress(interval=1).say("hello")


def test_table_aligns():
    lines = table([["1", "22"], ["333", "4"]], ["a", "bb"]).splitlines()
    assert [line.rstrip() for line in lines] == ["  a  bb", "───  ──", "  1  22", "333   4"]


def test_jobs_of_a_series_share_a_line_and_leave_none(monkeypatch):
    terminal = Terminal(tty=True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setattr(module, "REDRAW", 0)
    with series(Series(2)):
        for name in ("a", "b"):
            begin_job(name)
            progress = Progress(interval=1e-9)
            progress.say("careful")
            progress.update(0.5, 1, np.array([1000]), METRICS)
            progress.conclude("a table")
            progress.close()
    said, *drawn = terminal.getvalue().replace("\r\x1b[K", "\n").split("\n")
    assert said == "a: careful"  # once
    first, second = [line for line in drawn if line]
    assert " 25%  job 1 of 2" in first
    assert " 75%  job 2 of 2" in second
    assert terminal.getvalue().endswith("\x1b[K")
