"""Figures of groups whose answers can be worked out by hand."""

import math

import numpy as np
import pytest
from made_runs import made_run, write_summary

from pgcli.reports.groups import group
from pgcli.reports.results import RETURN, VARIANCE, common_range, compare, curves, noise_along
from pgcli.runs.saved import find, read
from pgcli.statistics.intervals import iqm


def compared(directory, threshold=math.nan):
    groups = group([read(run) for run in find([directory])])
    names = {g.environment for g in groups}
    ranges = {name: common_range(groups, name) for name in names}
    return compare(groups, dict.fromkeys(names, threshold), ranges)


def change(run, column, value):
    path = run / "metrics.csv"
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    for row in rows:
        row[header.index(column)] = value
    path.write_text("\n".join(map(",".join, [header, *rows])) + "\n")


def test_final_return_is_of_the_last_hundred_episodes(tmp_path):
    made_run(tmp_path / "a", seeds=(0, 1, 2, 3, 4))  # 10 episodes per iteration
    (found,) = compared(tmp_path)
    finals = [np.linspace(0, 100 + s, 20)[-10:].mean() for s in range(5)]
    assert found.final.value == pytest.approx(iqm(np.array(finals)))
    assert found.final.lower < found.final.value < found.final.upper


def test_steps_to_a_threshold_are_the_median_seeds(tmp_path):
    made_run(tmp_path / "a", seeds=(0, 100, 200), height=100)  # the last hundred climb to 76 %
    (found,) = compared(tmp_path, threshold=101)
    mean = np.array([np.linspace(0, 200, 20)[max(0, i - 9) : i + 1].mean() for i in range(20)])
    assert found.steps == 100 * (1 + np.flatnonzero(mean >= 101)[0])
    assert found.reached == 2
    (found,) = compared(tmp_path, threshold=200)
    assert (found.steps, found.reached) == (np.inf, 1)
    (found,) = compared(tmp_path)
    assert math.isnan(found.steps)


def test_a_lucky_first_batch_reaches_nothing(tmp_path):
    run = made_run(tmp_path / "a", rows=9)
    change(run, RETURN, "500.0")
    (found,) = compared(tmp_path, threshold=475)  # 90 episodes
    assert found.reached == 0
    made_run(tmp_path / "b", seeds=(1,), rows=10)
    change(tmp_path / "b", RETURN, "500.0")
    (found,) = compared(tmp_path, threshold=475)
    assert found.reached == 1


def test_the_area_is_over_the_steps_that_all_groups_cover(tmp_path):
    made_run(tmp_path / "a", rows=20)
    made_run(tmp_path / "b", rows=11, lr=0.1)
    long, short = compared(tmp_path)
    assert short.area.value == pytest.approx(50)  # a ramp from 0 to 100
    assert long.area.value == pytest.approx(np.linspace(0, 100, 20)[:11].mean())


def test_the_noise_scale_pools_noise_and_signal_apart(tmp_path):
    made_run(tmp_path / "a", seeds=(0,))
    change(made_run(tmp_path / "b", seeds=(1,)), "gradient/norm_sq_unbiased", "-3.0")
    (found,) = compared(tmp_path)
    assert found.noise_scale == pytest.approx((40 + 40) / (8 - 3))
    change(tmp_path / "b", "gradient/norm_sq_unbiased", "-9.0")
    (found,) = compared(tmp_path)
    assert math.isnan(found.noise_scale)  # the signal is lost
    assert found.variance.value == 4


def test_the_noise_scale_along_training_is_that_of_each_tenth(tmp_path):
    """Over five seeds with ‖G‖² of 4 to 8, then with one whose signal drowns the others'."""
    for seed, square in enumerate(("8.0", "4.0", "6.0", "5.0", "7.0")):
        one = made_run(tmp_path / str(seed), seeds=(seed,))
        change(one, "gradient/norm_sq_unbiased", square)
    (curve,) = noise_along(group([read(run) for run in find([tmp_path])])).values()
    assert len(curve.steps) == 10
    assert curve.band.value == pytest.approx(40 / 6)
    logs = np.log([160 / (30 - one) for one in (8, 4, 6, 5, 7)])  # without each
    half = 2.7764451 * np.sqrt(4 * logs.var())
    assert curve.band.upper == pytest.approx(40 / 6 * np.exp(half), rel=1e-5)
    assert curve.band.lower == pytest.approx(40 / 6 * np.exp(-half), rel=1e-5)
    change(tmp_path / "0", "gradient/norm_sq_unbiased", "-30.0")
    assert not noise_along(group([read(run) for run in find([tmp_path])]))


def test_what_was_not_measured_is_nan(tmp_path):
    change(made_run(tmp_path / "a", seeds=(0, 1)), VARIANCE, "nan")
    (found,) = compared(tmp_path)
    assert np.isnan(found.variance).all()
    groups = [found.group]
    assert curves(groups, VARIANCE) == {}
    assert list(curves(groups, RETURN)) == [found.group.label]


def test_a_group_is_compared_with_the_first_of_its_environment(tmp_path):
    for i, environment in enumerate(("CartPole-v1", "Acrobot-v1")):
        for height in (100, 200):
            made_run(
                tmp_path / f"{i}{height}", seeds=(0, 1), environment=environment, height=height,
                lr=height,
            )  # fmt: skip
    found = compared(tmp_path)
    assert [r.better.chance.value for r in found[1::2]] == [1, 1]
    assert all(math.isnan(r.better.chance.value) for r in found[::2])


def test_a_group_without_seeds_has_no_figures_and_is_no_reference(tmp_path):
    failed = made_run(tmp_path / "a", lr=1.0)
    write_summary(failed, status="NonFinite", reason="NaN", iterations=20)
    made_run(tmp_path / "b", lr=0.1)
    made_run(tmp_path / "c", lr=0.2, height=50)
    none, first, second = compared(tmp_path, threshold=1)
    assert np.isnan([*none.final, none.steps, none.noise_scale, *none.better.chance]).all()
    assert math.isnan(first.better.chance.value)
    assert second.better.chance.value == 0
    assert list(curves([r.group for r in (none, first)], RETURN)) == [first.group.label]


def test_intervals_do_not_depend_on_the_other_groups(tmp_path):
    made_run(tmp_path / "b", seeds=range(6))
    (alone,) = compared(tmp_path)
    made_run(tmp_path / "a", seeds=range(9), lr=0.1)
    _, beside = compared(tmp_path)
    assert beside.final == alone.final


def test_a_curve_ends_where_half_of_its_seeds_have(tmp_path):
    for seed, rows in enumerate((5, 10, 20)):
        made_run(tmp_path / str(seed), seeds=(seed,), rows=rows)
    groups = group([read(run) for run in find([tmp_path])])
    (curve,) = curves(groups, RETURN).values()
    there = np.isfinite(curve.band.value)
    assert curve.steps[there].max() == pytest.approx(1000, abs=15)
    assert (curve.band.seeds[curve.steps <= 500] == 3).all()
