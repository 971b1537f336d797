"""metrics.csv and TensorBoard, read back."""

import csv
import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from pgcli.errors import StorageFailed
from pgcli.runs.events import Appended
from pgcli.runs.logbook import LOWER, UPPER, Logbook
from pgcli.statistics.intervals import mean_interval

METRICS = {"rollout/ep_rew_mean": [1.5, 2.5, 7.0], "gradient/snr": [0.1, -0.2, np.nan]}


def book(directory, seeds, resume_from=None):
    return Logbook(directory, seeds, "lr: ${oc.env:X}", {"lr": 0.1, "flag": True}, resume_from)


def numbers(seeds, scale=1.0):
    return {tag: scale * np.array(x[:seeds]) for tag, x in METRICS.items()}


def read(directory):
    return EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def scalars(directory, tag):
    return [(e.step, e.value) for e in read(directory).Scalars(tag)]


def write(directory, seeds, iterations, resume_from=None):
    log = book(directory, range(seeds), resume_from)
    for i in iterations:
        log.write(i, np.arange(seeds) + 100 * i, numbers(seeds, scale=i))
    log.close({"rollout/return_100": np.arange(seeds) + 0.5})


def rows(directory):
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_one_seed_writes_into_the_run_directory(tmp_path):
    write(tmp_path, 1, [1, 2])
    assert scalars(tmp_path, "rollout/ep_rew_mean") == [(100, 1.5), (200, 3.0)]
    found = rows(tmp_path)
    assert list(found[0]) == ["iteration", "seed", "env_steps", *METRICS]
    assert (found[1]["iteration"], found[1]["env_steps"]) == ("2", "200")
    assert float(found[1]["gradient/snr"]) == 0.2
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_numbers_survive_the_round_trip(tmp_path):
    log = book(tmp_path, [0])
    values = {"a": np.array([0.1 + 0.2]), "b": np.array([1e-300]), "c": np.array([np.nan])}
    log.write(1, np.array([1]), {**values, "episodes": np.array([32])})
    found = rows(tmp_path)[0]  # flushed
    np.testing.assert_equal([float(found[k]) for k in "abc"], [0.1 + 0.2, 1e-300, np.nan])
    assert found["episodes"] == "32"
    log.close({})


def test_several_seeds_have_a_run_each_and_a_band(tmp_path):
    write(tmp_path, 3, [1, 2])
    for seed in range(3):
        found = scalars(tmp_path / f"seed-{seed}", "rollout/ep_rew_mean")
        assert found[0] == (100 + seed, METRICS["rollout/ep_rew_mean"][seed])
    interval = mean_interval(np.array(METRICS["rollout/ep_rew_mean"]))
    for tag, value in zip(("", LOWER, UPPER), interval, strict=True):
        step, found = scalars(tmp_path, f"{tag}rollout/ep_rew_mean")[0]
        assert (step, found) == (101, pytest.approx(float(value), rel=1e-6))
    layout = read(tmp_path).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"interval_lower/rollout/ep_rew_mean" in layout
    assert [(r["iteration"], r["seed"]) for r in rows(tmp_path)] == [
        (str(i), str(s)) for i in (1, 2) for s in range(3)
    ]


def test_several_seeds_may_have_their_mean_alone(tmp_path):
    log = Logbook(tmp_path, [0, 1], "", {"lr": 0.1}, each=False)
    log.write(1, np.array([10, 20]), {"a": np.array([1.0, 3.0])})
    log.close({"rollout/return_100": np.array([0.5, 1.5])})
    assert len(list(tmp_path.rglob("events*"))) == 1
    assert scalars(tmp_path, "a") == [(15, 2.0)]
    assert scalars(tmp_path, "rollout/return_100") == [(15, 1.0)]
    kept = read(tmp_path).summary_metadata["_hparams_/session_start_info"]
    told = HParamsPluginData.FromString(kept.plugin_data.content).session_start_info.hparams
    assert {key: x.number_value for key, x in told.items()} == {"lr": 0.1, "seeds": 2}


def test_config_and_hparams_make_no_extra_run(tmp_path):
    write(tmp_path, 1, [1])
    tags = read(tmp_path)
    text = tags.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert b"${oc.env:X}" in text  # unresolved
    assert {"_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(
        tags.summary_metadata
    )
    assert scalars(tmp_path, "rollout/return_100") == [(100, 0.5)]
    assert len(list(tmp_path.rglob("events*"))) == 1


def test_a_seed_that_has_ended_writes_no_more_and_stays_in_the_mean(tmp_path):
    tag = "rollout/ep_rew_mean"
    log = book(tmp_path, [5, 6])
    log.write([1, 1], np.array([10, 20]), {tag: np.array([1.0, 3.0])})
    log.write([1, 2], np.array([10, 40]), {tag: np.array([5.0])}, ran=[1])
    assert log.last[tag].tolist() == [1, 5]
    log.close({})
    log = book(tmp_path, [5, 6], resume_from=[1, 2])  # it is known from metrics.csv
    assert log.last[tag].tolist() == [1, 5]
    log.write([1, 3], np.array([10, 60]), {tag: np.array([7.0])}, ran=np.array([1]))
    log.close({})
    assert [(r["iteration"], r["seed"], r["env_steps"], r[tag]) for r in rows(tmp_path)] == [
        ("1", "5", "10", "1.0"), ("1", "6", "20", "3.0"), ("2", "6", "40", "5.0"),
        ("3", "6", "60", "7.0")]  # fmt: skip
    assert scalars(tmp_path / "seed-5", tag) == [(10, 1.0)]
    assert scalars(tmp_path / "seed-6", tag) == [(20, 3.0), (40, 5.0), (60, 7.0)]
    assert scalars(tmp_path, tag) == [(15, 2.0), (25, 3.0), (35, 4.0)]


def test_each_seed_keeps_the_rows_of_its_own_iterations(tmp_path):
    write(tmp_path, 2, [1, 2, 3])
    book(tmp_path, [0, 1], resume_from=[1, 2]).close({})
    assert [(r["iteration"], r["seed"]) for r in rows(tmp_path)] == [
        ("1", "0"), ("1", "1"), ("2", "1")]  # fmt: skip


def test_a_resumed_table_keeps_its_columns(tmp_path):
    write(tmp_path, 1, [1])
    log = book(tmp_path, [0], resume_from=1)
    log.write(2, np.array([200]), {"new": np.array([4]), "gradient/snr": np.array([0.5])})
    found = rows(tmp_path)[1]
    assert list(found) == ["iteration", "seed", "env_steps", *METRICS]
    assert (found["gradient/snr"], found["rollout/ep_rew_mean"]) == ("0.5", "nan")
    log.close({})
    assert scalars(tmp_path, "new") == [(200, 4)]


@pytest.mark.parametrize("seeds", [1, 2])
def test_resuming_drops_what_came_after_the_checkpoint(tmp_path, seeds):
    write(tmp_path, seeds, [1, 2, 3, 4])
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("5,0,50")  # a killed process's half row
    write(tmp_path, seeds, [3, 4, 5], resume_from=2)
    assert [r["iteration"] for r in rows(tmp_path)] == [
        str(i) for i in (1, 2, 3, 4, 5) for _ in range(seeds)
    ]
    place = tmp_path if seeds == 1 else tmp_path / "seed-1"
    steps = [step for step, _ in scalars(place, "rollout/ep_rew_mean")]
    assert steps == [100 * i + (seeds - 1) for i in (1, 2, 3, 4, 5)]


def test_a_full_disk_while_resuming_loses_no_row(tmp_path, monkeypatch):
    write(tmp_path, 1, [1, 2])
    before = (tmp_path / "metrics.csv").read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed, match=r"metrics\.csv: No space left"):
        book(tmp_path, [0], resume_from=1)
    assert (tmp_path / "metrics.csv").read_bytes() == before


@pytest.fixture
def small_files():
    """No file of this process grows beyond 3000 bytes."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_piece_that_fits_only_in_part_is_told(tmp_path, small_files):
    file = Appended(tmp_path / "metrics.csv")
    file.write(b"x" * 2990)
    with pytest.raises(StorageFailed, match=r"metrics\.csv: No space left"):
        file.write(b"x" * 20)
    file.close()


def test_a_disk_that_fills_up_is_told_at_once_and_all_files_are_closed(tmp_path, small_files):
    log = book(tmp_path, [0])

    def write_on():
        for i in range(200):
            log.write(i, np.array([i]), numbers(1))

    with pytest.raises(StorageFailed, match=r"events.*: (No space left|File too large)"):
        write_on()
    with pytest.raises(StorageFailed, match=r"events.*: (No space left|File too large)"):
        log.close({})
    assert log._csv._file.closed
    assert log._events[0]._file._file.closed
