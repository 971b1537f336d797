"""`pg compare` over the policies of a training: several iterations, several seeds."""

import csv
import json

import numpy as np
import pytest
from command_line import pg

from pgcli.comparison.course import course
from pgcli.statistics.intervals import mean_interval

FEW = ("estimators=[rtg,gae]", "critic=exact", "episodes=128", "batch_size=16", "resamples=200")


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("trained")
    done = pg("train", "env=LQG", "estimator=rtg", "seeds=3", "iterations=6", "checkpoint.every=2",
              "checkpoint.keep=null", "hydra.run.dir=run", cwd=cwd)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cwd


def test_every_figure_is_the_mean_over_seeds_at_each_iteration(trained):
    done = pg("compare", "checkpoint=run", "iteration=all", "seeds=3", *FEW,
              "hydra.run.dir=course", cwd=trained)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, points = read(trained / "course/compare.csv"), read(trained / "course/course.csv")
    assert [(r["iteration"], r["seed"]) for r in rows[::2]] == [
        (i, s) for i in "246" for s in "012"
    ]
    assert len(points) == 6
    for point in points:
        own = [r for r in rows if (r["estimator"], r["iteration"]) == (
            point["estimator"], point["iteration"])]  # fmt: skip
        for figure in ("nsr_exact", "trace_cov_exact"):
            told = mean_interval(np.log([float(r[figure]) for r in own]))
            found = [float(point[f"{figure}{end}"]) for end in ("", "_lo", "_hi")]
            np.testing.assert_allclose(found, np.exp(told), rtol=1e-12)
        cosine = np.mean([float(r["cos_to_true"]) for r in own])
        assert float(point["cos_to_true"]) == pytest.approx(cosine)
    assert (trained / "course/course.png").stat().st_size > 10_000
    told = json.loads((trained / "course/compare.json").read_text())
    assert [one["iteration"] for one in told["policies"]] == [2, 2, 2, 4, 4, 4, 6, 6, 6]
    objective = [one["objective"] for one in told["policies"]]
    assert np.mean(objective[6:]) > np.mean(objective[:3])


def test_each_policy_is_looked_at_as_if_it_were_alone(trained):
    done = pg("compare", "checkpoint=run", "iteration=[2,6]", "seeds=2", *FEW, "pictures=false",
              "hydra.run.dir=several", cwd=trained)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = pg("compare", "checkpoint=run", "iteration=6", "seed=1", *FEW, "pictures=false",
              "hydra.run.dir=alone", cwd=trained)  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = read(trained / "alone/compare.csv")
    own = [
        {k: x for k, x in row.items() if k in alone[0] and k != "seconds"}
        for row in read(trained / "several/compare.csv")
        if (row["iteration"], row["seed"]) == ("6", "1")
    ]
    assert own == [{k: x for k, x in row.items() if k != "seconds"} for row in alone]


def test_fresh_policies_of_several_seeds_need_no_run(tmp_path):
    done = pg("compare", "env=FrozenLake-v1", "policy=tabular", "policy.output_gain=1", "seeds=2",
              "env.max_episode_steps=12", *FEW, "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path / "run/compare.csv")
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert {row["iteration"] for row in rows} == {"0"}


def test_one_seed_has_its_own_limits_and_what_is_not_known_is_left_out():
    nothing = float("nan")
    row = {"estimator": "rtg", "kl": nothing, "iteration": 5, "seed": 0, "trace_cov": 2.0,
           "trace_cov_lo": 1.0, "trace_cov_hi": 3.0, "nsr": 4.0, "nsr_lo": 2.0, "nsr_hi": 9.0,
           "cos_to_true": 0.5, "cos_to_true_lo": 0.4, "cos_to_true_hi": 0.6, "bias_exact": nothing,
           "trace_cov_exact": nothing, "nsr_exact": nothing}  # fmt: skip
    (point,) = course([row], 0.95)
    assert (point["nsr"], point["nsr_lo"], point["nsr_hi"]) == (4.0, 2.0, 9.0)
    others = [{**row, "nsr": x} for x in (1.0, 4.0, float("inf"), -2.0)]
    (point,) = course(others, 0.95)
    assert (point["seeds"], point["nsr"]) == (4, 2.0)


def test_the_newest_is_told_by_its_number_and_ladders_by_policy(trained):
    done = pg("compare", "checkpoint=run", "seeds=2", "estimators=[gae]", "estimator.lam=[0,1]",
              "episodes=128", "batch_size=16", "resamples=200", "pictures=false", "sizes=[8]",
              "critic=exact", "hydra.run.dir=rungs", cwd=trained)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read(trained / "rungs/compare.csv")
    assert {(row["iteration"], row["seed"]) for row in rows} == {("6", "0"), ("6", "1")}
    best = read(trained / "rungs/best.csv")
    assert [(row["seed"], row["batch_size"]) for row in best] == [
        ("0", "8"), ("0", "16"), ("1", "8"), ("1", "16")
    ]  # fmt: skip
    assert len(read(trained / "rungs/ladder.csv")) == 8


def test_what_is_exact_of_some_only_hides_no_sampled_figure(trained):
    done = pg("compare", "checkpoint=run", "iteration=[2,6]", "estimators=[rtg,gae]",
              "fit_episodes=16", "critic.epochs=1", "episodes=128", "batch_size=16",
              "resamples=200", "hydra.run.dir=mixed", cwd=trained)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = [x for x in done.stdout.splitlines() if x.split()[:2] == ["gae", "6"]]
    assert float(row.split()[3]) > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["iteration=all"], "needs a checkpoint"),
        (["checkpoint=run", "iteration=[4,2]"], "whole numbers >= 1 that grow"),
        (["checkpoint=run", "iteration=[]"], "whole numbers >= 1 that grow"),
        (["checkpoint=run", "iteration=[2,a]"], "whole numbers >= 1 that grow"),
        (["checkpoint=run", "iteration=some"], "must be a whole number >= 1, best, all or null"),
        (["checkpoint=run", "seeds=4"], "run trained 3"),
        (["checkpoint=run", "seeds=2", "iteration=best"], "each seed has its own"),
        (["checkpoint=run", "seed=2", "seeds=2"], "run trained the seeds 0 to 2"),
        (["checkpoint=run", "seeds=2", "updates=[natural]"], "only [] with several"),
    ],
)
def test_what_cannot_be_is_one_line(trained, words, said):
    done = pg("compare", *words, *FEW, "hydra.run.dir=never", cwd=trained)
    assert (done.returncode, done.stderr.strip().count("\n")) == (2, 0), done.stderr
    assert said in done.stderr
    assert not (trained / "never").exists()


def test_an_iteration_that_is_not_saved_is_told(trained):
    done = pg("compare", "checkpoint=run", "iteration=[2,3]", *FEW, cwd=trained)
    assert done.returncode == 4
    assert "no checkpoint of iteration 3; saved: 2, 4, 6" in done.stderr
