"""Weights & Biases without a network."""

import os
import struct

import pytest
from test_cli import TRAIN, only_run, pg

OFFLINE = {"WANDB_MODE": "offline"}


def pieces(content: bytes):
    """The records of a LevelDB log, as W&B keeps them: 7 bytes of header, blocks of 32 KiB."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block too small for a record
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last of several
            yield whole
            whole = b""


def recorded(run):
    """The history of each offline run, by seed."""
    from wandb.proto import wandb_internal_pb2

    found = {}
    for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        history, seed = [], None
        for piece in pieces(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(piece)
            for item in record.run.config.update:
                if item.key == "seed":
                    seed = int(item.value_json)
            if record.HasField("history"):
                row = {(i.key or i.nested_key[0]): i.value_json for i in record.history.item}
                history.append(row)
        found.setdefault(seed, []).extend(history)
    return found


@pytest.mark.slow
def test_each_seed_is_a_run_there(tmp_path):
    pytest.importorskip("wandb")
    line = ["seeds=2", "seed=5", "log.wandb=mine", *TRAIN]
    done = pg("train", *line, cwd=tmp_path, env=OFFLINE)
    assert done.returncode == 0, done.stderr
    found = recorded(only_run(tmp_path))
    assert sorted(found) == [5, 6]
    for history in found.values():
        assert [row["iteration"] for row in history] == ["1", "2", "3"]
        assert float(history[-1]["gradient/variance"]) > 0
        assert int(history[-1]["env_steps"]) > 12


def test_without_the_package_it_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'wandb' else find(name, *a)\n"
    )
    env = {"PYTHONPATH": os.fspath(tmp_path)}
    done = pg("train", "log.wandb=mine", *TRAIN, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (2, "pg: log.wandb=mine: needs the extra wandb\n")
    assert not (tmp_path / "outputs").exists()
