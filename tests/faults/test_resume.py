"""Resuming what is finished, damaged or no run at all."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import pg

from pgcli.runs.checkpoint import iterations

LINE = ("env=CartPole-v1", "batch_size=2", "policy.hidden=[4]", "checkpoint.every=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = pg("train", *LINE, "iterations=4", "hydra.run.dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def left(folder):
    """Every file with its content and its time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files]


@pytest.mark.parametrize("line", [(), ("log.interval=1",), ("iterations=4",)])
def test_a_finished_run_stays_as_it_is(run, line):
    before = left(run)
    done = pg("train", "resume=run", *line, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert "the budget is spent already" in done.stdout
    assert left(run) == before


def test_a_finished_run_goes_on_with_a_larger_budget(run):
    done = pg("train", "resume=run", "iterations=5", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert iterations(run)[-1] == 5


def saved(array):
    from io import BytesIO

    content = BytesIO()
    np.save(content, array)
    return content.getvalue()


def header(shape):
    """Of an array of that shape, and none of its numbers."""
    whole = saved(np.zeros(1))
    return whole.replace(b"(1,)", shape).ljust(len(whole))


META = {
    "a list": b"[1, 2]",
    "null": b"null",
    "no object": b'{"arrays": [], "meta": 3}',
    "no settings": b'{"arrays": [], "meta": {}}',
    "deep": b"[" * 100_000,
    "text": b"\xff\xfe",
}
THETA = {
    "words": saved(np.array([["a", "b"]])),
    "objects": b"\x93NUMPY\x01\x00"
    + b"v\x00"
    + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117)
    + b"\n",
    "endless": header(b"(9" + b"9" * 11 + b",)"),
    "no array": b"nothing",
}


@pytest.mark.parametrize("kind", [*META, *THETA])
def test_a_damaged_newest_checkpoint_is_passed_over(run, kind):
    """With one line, for the one before it."""
    path = run / "checkpoint" / "00000004.npz"
    entry, content = ("meta.json", META[kind]) if kind in META else ("theta.npy", THETA[kind])
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()} | {entry: content}
    with zipfile.ZipFile(path, "w") as archive:
        for name, one in entries.items():
            archive.writestr(name, one)
    done = pg("train", "resume=run", "iterations=6", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "passed over" in line]
    assert len(said) == 1, done.stdout
    assert "00000004.npz" in said[0]
    assert json.loads((run / "summary.json").read_text())["iterations"] == 6


def test_odd_names_beside_checkpoints_are_none(run):
    folder = run / "checkpoint"
    for name in ("٣.npz", "0x5.npz", "5.npz", "-1.npz", " 7.npz"):
        shutil.copyfile(folder / "00000004.npz", folder / name)
    (folder / "00000009.npz").mkdir()
    assert iterations(run) == [2, 4]
    done = pg("train", "resume=run", "iterations=5", cwd=run.parent)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_run_stays_empty(tmp_path):
    (tmp_path / "mine").mkdir()
    done = pg("train", "resume=mine", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert not list((tmp_path / "mine").iterdir())
