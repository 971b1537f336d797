"""Checkpoints: whole or not at all, and damage is noticed."""

from dataclasses import replace

import numpy as np
import pytest
from settings import train_config

from pgcli.errors import NoCheckpoint, RunDirectoryError
from pgcli.runs import checkpoint

SOME = {"settings": {}}
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
        checkpoint.save(tmp_path, i, ARRAYS, SOME, keep=2)
    assert checkpoint.iterations(tmp_path) == [4, 5]
    assert checkpoint.load(tmp_path, 4).iteration == 4


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_newest_one_falls_back(tmp_path, damage):
    for i in (1, 2):
        checkpoint.save(tmp_path, i, ARRAYS, SOME, keep=None)
    path = tmp_path / "checkpoint" / "00000002.npz"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[data.index(b"NUMPY") + 140] ^= 0xFF
    path.write_bytes({"truncate": data[:100], "flip": data, "empty": b""}[damage])
    found = checkpoint.load(tmp_path)
    assert found.iteration == 1
    assert "00000002.npz" in found.damage
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


def test_a_run_goes_on_by_the_rules_of_the_version_that_began_it(tmp_path):
    settings = checkpoint.fingerprints(train_config())
    checkpoint.save(tmp_path, 1, ARRAYS, {"settings": settings}, keep=None)
    assert checkpoint.load_for(tmp_path, train_config()).format == 1
    newest = {"settings": settings, "format": checkpoint.FORMAT}
    checkpoint.save(tmp_path, 2, ARRAYS, newest, keep=None)
    assert checkpoint.load_for(tmp_path, train_config()).format == checkpoint.FORMAT
    later = {"settings": settings, "format": checkpoint.FORMAT + 1}
    checkpoint.save(tmp_path, 3, ARRAYS, later, keep=None)
    with pytest.raises(RunDirectoryError, match="newer version"):
        checkpoint.load_for(tmp_path, train_config())


def test_no_secret_is_in_a_checkpoint(tmp_path):
    config = train_config()
    config.env.kwargs = {"token": "hunter2"}
    meta = {"settings": checkpoint.fingerprints(config)}
    checkpoint.save(tmp_path, 1, ARRAYS, meta, keep=None)
    assert b"hunter2" not in (tmp_path / "checkpoint" / "00000001.npz").read_bytes()


def test_a_damaged_newer_one_does_not_displace_what_is_saved(tmp_path):
    checkpoint.save(tmp_path, 50, ARRAYS, SOME, keep=1)
    (tmp_path / "checkpoint" / "00000100.npz").write_bytes(b"")
    checkpoint.save(tmp_path, 60, ARRAYS, SOME, keep=1)
    assert checkpoint.load(tmp_path).iteration == 60


def test_every_flipped_bit_is_refused_or_harmless(tmp_path):
    small = {"theta": np.arange(3.0), "n": np.array(2)}
    checkpoint.save(tmp_path, 1, small, {**SOME, "a": "b"}, keep=None)
    path = tmp_path / "checkpoint" / "00000001.npz"
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        try:
            found = checkpoint.load(tmp_path)
        except NoCheckpoint:
            continue
        assert found.meta == {**SOME, "a": "b"}
        np.testing.assert_equal(found.arrays, small)
