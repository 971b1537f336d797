"""Checkpoints, the lock, the tally and the summary."""

import json
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
from settings import train_config

from pgcli.errors import NoCheckpoint, RunDirectoryError, StorageFailed
from pgcli.runs import checkpoint, summary
from pgcli.runs.directory import lock, write_atomically
from pgcli.runs.progress import Progress, table
from pgcli.runs.tally import RECENT, Tally

ARRAYS = {
    "theta": np.arange(6, dtype=np.float32).reshape(2, 3),
    "critic/optimizer/step": np.array(3.0),
    "file": np.array([np.nan, np.inf]),
    "tally/env_steps": np.array([2**40]),
}


def test_arrays_come_back_bit_for_bit_without_pickle(tmp_path):
    checkpoint.save(tmp_path, 7, ARRAYS, {"settings": {"a": "b"}}, keep=None)
    found = checkpoint.load(tmp_path)
    assert (found.iteration, found.meta) == (7, {"settings": {"a": "b"}})
    assert list(found.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    with np.load(tmp_path / "checkpoint" / "00000007.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["theta"], ARRAYS["theta"])
    with pytest.raises(ValueError, match="Object arrays"):
        checkpoint.save(tmp_path, 8, {"x": np.array([{}])}, {}, keep=None)


def test_only_the_newest_are_kept(tmp_path):
    for i in range(1, 6):
        checkpoint.save(tmp_path, i, ARRAYS, {}, keep=2)
    assert checkpoint.iterations(tmp_path) == [4, 5]
    assert checkpoint.load(tmp_path, 4).iteration == 4


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_newest_one_falls_back(tmp_path, damage):
    for i in (1, 2):
        checkpoint.save(tmp_path, i, ARRAYS, {}, keep=None)
    path = tmp_path / "checkpoint" / "00000002.npz"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[data.index(b"NUMPY") + 140] ^= 0xFF
    path.write_bytes({"truncate": data[:100], "flip": data, "empty": b""}[damage])
    assert checkpoint.load(tmp_path).iteration == 1
    path.with_name("00000001.npz").unlink()
    with pytest.raises(NoCheckpoint, match=r"00000002\.npz"):
        checkpoint.load(tmp_path)


def test_none_at_all(tmp_path):
    with pytest.raises(NoCheckpoint, match="no usable checkpoint"):
        checkpoint.load(tmp_path)


def test_only_the_budget_may_change(tmp_path):
    config = train_config()
    meta = {"settings": checkpoint.fingerprints(config)}
    checkpoint.save(tmp_path, 1, ARRAYS, meta, keep=None)
    checkpoint.load_for(tmp_path, replace(config, iterations=999, total_steps=5))
    other = replace(config, optimizer=replace(config.optimizer, lr=0.5))
    with pytest.raises(RunDirectoryError, match=r"another optimizer\.lr;"):
        checkpoint.load_for(tmp_path, other)


def test_no_secret_is_in_a_checkpoint(tmp_path):
    config = train_config()
    config.env.kwargs = {"token": "hunter2"}
    meta = {"settings": checkpoint.fingerprints(config)}
    checkpoint.save(tmp_path, 1, ARRAYS, meta, keep=None)
    assert b"hunter2" not in (tmp_path / "checkpoint" / "00000001.npz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed, match=r"x\.json: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _try(directory, queue):
    try:
        with lock(directory):
            queue.put("held")
    except RunDirectoryError as error:
        queue.put(str(error))


def test_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with lock(tmp_path):
        other = context.Process(target=_try, args=(tmp_path, queue))
        other.start()
        assert "in use" in queue.get(timeout=60)
        other.join()
    with lock(tmp_path):
        pass


def test_tally_counts_and_forgets():
    tally = Tally.start(2)
    tally.add(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[2, 2], [4, 0]]))
    assert tally.env_steps.tolist() == [4, 4]
    assert tally.mean_return.tolist() == [2.0, 5.0]
    tally.add(np.full((2, RECENT), 7.0), np.ones((2, RECENT), int))
    assert tally.mean_return.tolist() == [7.0, 7.0]
    other = Tally.start(2)
    other.load(tally.arrays())
    assert other.iteration == 2
    np.testing.assert_array_equal(other.returns, tally.returns)


def test_budget_is_whichever_limit_is_nearer():
    tally = Tally(5, np.array([100, 300]), np.zeros((2, 1)))
    assert tally.spent(train_config(iterations=10, total_steps=None)) == 0.5
    assert tally.spent(train_config(iterations=None, total_steps=200)) == 0.5
    assert tally.spent(train_config(iterations=10, total_steps=125)) == 0.8
    assert tally.spent(train_config(iterations=5, total_steps=1000)) == 1


def test_summary_is_json_without_nan(tmp_path):
    summary.write(tmp_path, {"x": [1.5, float("nan")], "y": float("inf")})
    found = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert (found["x"], found["y"]) == ([1.5, None], None)
    assert {"python", "torch", "gymnasium"} <= set(found["versions"])


class Terminal:
    def __init__(self, tty):
        self.tty, self.text = tty, ""

    def isatty(self):
        return self.tty

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("tty", [False, True])
def test_progress(tty, monkeypatch):
    terminal = Terminal(tty)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    progress = Progress(interval=1e-9)
    monkeypatch.setattr("pgcli.runs.progress.REDRAW", 0)
    tags = ("rollout/ep_rew_mean", "gradient/variance", "gradient/snr", "time/fps")
    metrics = {tag: np.array([2.0]) for tag in tags}
    progress.say("hello")
    for i in range(1, 11):
        progress.update(i / 10, i, np.array([i * 1000]), metrics)
    progress.close()
    assert ("\x1b" in terminal.text) == tty
    assert "iteration 10" in terminal.text
    if tty:
        longest = max(len(x) for x in terminal.text.replace("\x1b[K", "").split("\r"))
        assert longest <= 61
    else:
        assert terminal.text.count("\n") >= 10


def test_table_aligns():
    lines = table([["1", "22"], ["333", "4"]], ["a", "bb"]).splitlines()
    assert [line.rstrip() for line in lines] == ["  a  bb", "───  ──", "  1  22", "333   4"]
