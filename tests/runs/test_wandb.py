"""Weights & Biases without a network."""

import os
import struct
import sys
import types

import numpy as np
import pytest
from command_line import TRAIN, only_run, pg

from pgcli.runs.wandb import WeightsAndBiases

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


class FakeRun:
    def __init__(self):
        self.rows, self.summary, self.ended = [], {}, False

    def define_metric(self, *args, **kwargs):
        pass

    def log(self, row, step):
        if step > 2:
            raise RuntimeError("the network\nis gone")
        self.rows.append((step, row))

    def finish(self):
        self.ended = True


def test_what_fails_there_costs_no_training(tmp_path, monkeypatch):
    made, said = {}, []

    def init(**kwargs):
        return made.setdefault(kwargs["id"], FakeRun())

    fake = types.SimpleNamespace(init=init, Settings=lambda **kwargs: None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):  # the second goes on with the same runs
        sent = WeightsAndBiases("mine", tmp_path, [3, 4], {}, said.append)
        for i in (1, 2, 3, 4):
            sent.write(i, np.array([i, 2 * i]), {"a/b": np.array([0.5, 1.5])})
        sent.close({"c": np.array([1.0, 2.0])})
    assert said == ["Weights & Biases gets no more records: the network is gone"] * 2
    first, second = made.values()
    assert [step for step, _ in first.rows] == [1, 2, 1, 2]
    assert second.rows[1][1] == {"iteration": 2, "env_steps": 4, "a/b": 1.5}
    sent = WeightsAndBiases("mine", tmp_path, [3, 4], {}, said.append)
    sent.write([1, 2], np.array([1, 8]), {"a/b": np.array([2.5])}, ran=[1])  # the first has ended
    assert len(first.rows) == 4
    assert second.rows[-1] == (2, {"iteration": 2, "env_steps": 8, "a/b": 2.5})
    sent.close({"c": np.array([1.0, 2.0])})
    assert (second.summary, second.ended) == ({"c": 2.0}, True)


def test_without_the_package_it_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'wandb' else find(name, *a)\n"
    )
    env = {"PYTHONPATH": os.fspath(tmp_path)}
    done = pg("train", "log.wandb=mine", *TRAIN, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (2, "pg: log.wandb=mine: needs the extra wandb\n")
    assert not (tmp_path / "outputs").exists()
