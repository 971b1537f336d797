"""The aggregate TensorBoard runs, read back."""

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgcli.pictures.curves import Curve
from pgcli.reports import tensorboard as aggregate
from pgcli.runs.logbook import LOWER, UPPER
from pgcli.statistics.curves import Band

TAG = "rollout/ep_rew_mean"
STEPS = np.array([10.0, 20.0, 30.0])


def curve(value, spread, seeds):
    value = np.array(value)
    return Curve("x", STEPS, Band(value, value - spread, value + spread, np.full(3, seeds)), seeds)


def read(directory):
    return EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def scalars(directory, tag):
    return [(e.step, e.value) for e in read(directory).Scalars(tag)]


def test_a_group_is_a_run_with_a_band(tmp_path):
    curves = {TAG: curve([1, 2, np.nan], 0.5, 3), "gradient/variance": curve([4, 5, 6], 1, 3)}
    aggregate.write(tmp_path, {"estimator=rtg, batch_size=8": curves})
    (folder,) = tmp_path.iterdir()
    assert folder.name == "estimator=rtg,batch_size=8"
    assert scalars(folder, TAG) == [(10, 1), (20, 2)]  # up to where there is a curve
    assert scalars(folder, LOWER + TAG) == [(10, 0.5), (20, 1.5)]
    assert scalars(folder, UPPER + "gradient/variance") == [(10, 5), (20, 6)]
    layout = read(folder).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert (LOWER + TAG).encode() in layout


def test_one_seed_has_a_line_without_a_band(tmp_path):
    aggregate.write(tmp_path, {"a": {TAG: curve([1, 2, 3], np.nan, 1)}})
    assert scalars(tmp_path / "a", TAG) == [(10, 1), (20, 2), (30, 3)]
    assert read(tmp_path / "a").Tags()["scalars"] == [TAG]
    assert "custom_scalars__config__" not in read(tmp_path / "a").Tags()["tensors"]


def test_no_two_groups_share_a_folder(tmp_path):
    one = {TAG: curve([1, 2, 3], 1, 2)}
    aggregate.write(tmp_path, {"a/b": one, "a b": one, "a?b": one, "../x" * 90: one})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[-3:] == ["a-b", "a-b-1", "a-b-2"]
    assert len(names) == 4
    assert max(map(len, names)) <= 104
