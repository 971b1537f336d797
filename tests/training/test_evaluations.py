"""Evaluations along the way change nothing of training, and keep the best policies."""

import numpy as np
import pytest
from command_line import rows
from settings import train_config

from pgcli.runs import checkpoint
from pgcli.runs.tags import EVAL_RETURN, EVALUATED
from pgcli.training.loop import run

LINE = ["env=CartPole-v1", "estimator=rtg_value", "batch_size=4", "seeds=2"]
EVAL = ["eval.every=3", "eval.episodes=4"]


def trained(directory, *more, resume=None):
    run(train_config(*LINE, *more, resume=None if resume is None else str(resume)), directory)
    return table(directory)


def table(directory):
    header, *lines = rows(directory)
    kept = [i for i, name in enumerate(header) if not name.startswith("time/")]
    return {header[i]: [line[i] for line in lines] for i in kept}


@pytest.mark.parametrize("engine", ["sync", "compiled"])
def test_training_does_not_see_it(engine, tmp_path):
    if engine == "compiled":
        pytest.importorskip("numba")
    plain = trained(tmp_path / "a", "iterations=7", f"env.engine={engine}")
    seen = trained(tmp_path / "b", "iterations=7", f"env.engine={engine}", *EVAL)
    assert set(seen) - set(plain) == set(EVALUATED)
    for name, column in plain.items():
        assert seen[name] == column, name
    one, other = (checkpoint.load(tmp_path / x).arrays["theta"] for x in "ab")
    np.testing.assert_array_equal(one, other)


def test_it_comes_when_it_is_due_and_at_the_end(tmp_path):
    told = trained(tmp_path, "iterations=7", "env.engine=sync", *EVAL)
    iterations = np.array(told["iteration"], int)
    there = ~np.isnan(np.array(told[EVAL_RETURN], float))
    assert sorted(set(iterations[there].tolist())) == [3, 6, 7]
    assert there[np.isin(iterations, [3, 6, 7])].all()


def test_a_resumed_run_evaluates_as_one_that_went_on(tmp_path):
    whole = trained(tmp_path / "a", "iterations=8", "env.engine=sync", *EVAL)
    trained(tmp_path / "b", "iterations=6", "env.engine=sync", *EVAL, "optimizer.schedule=constant")
    whole = trained(
        tmp_path / "c", "iterations=8", "env.engine=sync", *EVAL, "optimizer.schedule=constant"
    )
    resumed = trained(
        tmp_path / "b", "iterations=8", "env.engine=sync", *EVAL, "optimizer.schedule=constant",
        resume=tmp_path / "b",
    )  # fmt: skip
    assert whole == resumed
    one, other = (checkpoint.load(tmp_path / x, "best").arrays for x in "bc")
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_the_best_is_the_first_of_the_highest(tmp_path):
    told = trained(tmp_path, "iterations=9", "env.engine=sync", "checkpoint.every=3", *EVAL)
    best = checkpoint.load(tmp_path, "best").arrays
    for s, seed in enumerate(("0", "1")):
        mine = [
            (float(ret), int(iteration))
            for ret, iteration, of in zip(
                told[EVAL_RETURN], told["iteration"], told["seed"], strict=True
            )
            if of == seed and ret != "nan"
        ]
        top = max(ret for ret, _ in mine)
        first = next(iteration for ret, iteration in mine if ret == top)
        assert (best["return"][s], best["iteration"][s]) == (top, first)
        theta = checkpoint.load(tmp_path, first).arrays["theta"][s]
        np.testing.assert_array_equal(best["theta"][s], theta)


def test_a_run_that_began_without_goes_on_with_it(tmp_path):
    trained(tmp_path, "iterations=2", "env.engine=sync")
    told = trained(tmp_path, "iterations=4", "env.engine=sync", *EVAL, resume=tmp_path)
    assert told[EVAL_RETURN][:4] == ["nan"] * 4
    assert "nan" not in told[EVAL_RETURN][4:6]  # iteration 3
