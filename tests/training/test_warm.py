"""A warm start: what a run takes of another, bit for bit, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import yaml
from command_line import pg, rows

from pgcli.runs import checkpoint

GAE = ["estimator=gae", "env=CartPole-v1", "policy.normalize_obs=true", "policy.hidden=[8]",
       "critic.hidden=[8]", "batch_size=4"]  # fmt: skip
STILL = ["optimizer.lr=1e-30", "optimizer.name=sgd", "iterations=1"]  # no parameter moves so far


def train(*args, cwd):
    return pg("train", *GAE, *args, cwd=cwd)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("warm")
    line = ["seed=3", "seeds=2", "iterations=4", "checkpoint.every=2", "hydra.run.dir=source"]
    done = train(*line, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd


@pytest.fixture
def beside(source, tmp_path):
    return shutil.copytree(source, tmp_path / "user")


def test_everything_but_the_optimisers_memory_is_taken_bit_for_bit(source, monkeypatch):
    from settings import train_config

    from pgcli.environments.choose import open_engine
    from pgcli.training.build import build_learner, spaces_of
    from pgcli.training.warm import begun_with

    monkeypatch.chdir(source)
    line = [*GAE, "init.checkpoint=source", "init.iteration=2", "seed=3", "seeds=2"]
    config = train_config(*line, "estimator.scale_rewards=true")
    engine = open_engine(config.env, 2)
    learner = build_learner(config, engine, [4, 3], "cpu")
    fresh = learner.arrays()
    (note,) = begun_with(config, learner, spaces_of(engine), [4, 3])
    assert "no scale_rewards" in note
    had, now = checkpoint.load(source / "source", 2).arrays, learner.arrays()
    kept = {name for name in now if "optimizer/" in name or name.startswith("reward_scale/")}
    assert {"theta", "value/theta", "value/mean", "normalizer/count"} <= now.keys() - kept
    for name, x in now.items():
        expected = fresh[name] if name in kept else had[name][::-1]
        assert np.array_equal(x, expected), name
    engine.close()


def test_a_run_begins_there_and_goes_on_without_its_source(beside):
    done = train("init.checkpoint=source", "seed=4", *STILL, "hydra.run.dir=new", cwd=beside)
    assert done.returncode == 0, done.stderr
    learned = slice(0, checkpoint.load(beside / "new").arrays["theta"].shape[1] - 8)
    had = checkpoint.load(beside / "source").arrays["theta"][1:, learned]
    assert np.array_equal(checkpoint.load(beside / "new").arrays["theta"][:, learned], had)
    told = yaml.safe_load((beside / "new" / "config.yaml").read_text())["init"]
    assert told == {"checkpoint": str(beside / "source"), "iteration": 4}
    shutil.rmtree(beside / "source")
    done = pg("train", "resume=new", "iterations=2", cwd=beside)
    assert done.returncode == 0, done.stderr
    assert len(rows(beside / "new")) == 3


def test_critics_of_a_version_that_saved_less_are_taken(beside):
    """Before a critic's scale followed more targets than those of a batch."""
    run = beside / "source"
    for iteration in checkpoint.iterations(run):
        one = checkpoint.load(run, iteration)
        arrays = dict(one.arrays)
        del arrays["value/seen"]
        checkpoint.save(run, iteration, arrays, one.meta, None)
    line = (*GAE, "init.checkpoint=source", "iterations=2", "hydra.run.dir=warm", "seed=3")
    done = pg("train", *line, cwd=beside)
    assert done.returncode == 0, done.stderr


def test_a_run_of_one_seed_serves_any(beside):
    train("seed=1", "iterations=1", "hydra.run.dir=one", cwd=beside)
    line = ["init.checkpoint=one", "seed=7", "seeds=2", *STILL, "hydra.run.dir=new"]
    assert train(*line, cwd=beside).returncode == 0
    (one,), both = (checkpoint.load(beside / x).arrays["theta"] for x in ("one", "new"))
    assert all(np.array_equal(row[:-8], one[:-8]) for row in both)


def test_another_environment_of_the_same_spaces(beside):
    done = train("init.checkpoint=source", "seed=3", "env=CartPole-v0", *STILL, cwd=beside)
    assert done.returncode == 0, done.stderr


def test_a_critic_that_is_not_there_is_said_to_begin_afresh(beside):
    train("estimator=rtg", "iterations=1", "hydra.run.dir=plain", cwd=beside)
    done = train("init.checkpoint=plain", *STILL, "hydra.run.dir=new", cwd=beside)
    assert done.returncode == 0, done.stderr
    notices = json.loads((beside / "new" / "summary.json").read_text())["notices"]
    assert any("no critic V: it begins afresh" in note for note in notices)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["seed=5"], 2, "trained the seeds 3 to 4, and not 5: one of them, or a run of one seed"),
        (["policy.hidden=[4]"], 2, "another policy.hidden, number of parameters"),
        (["critic.hidden=[4]"], 2, "critic V has another critic.hidden: the same here"),
        (["critic.kind=linear"], 2, "critic V has another critic.kind"),
        (["env=Acrobot-v1"], 2, "another observation space (4 inputs, here 6 inputs)"),
        (["init.iteration=3"], 4, "no checkpoint of iteration 3; saved: 2, 4"),
        (["init.checkpoint=null", "init.iteration=2"], 2, "needs init.checkpoint"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_is_written(line, code, said, source):
    done = train("init.checkpoint=source", "seed=3", *line, cwd=source)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert said in done.stderr
    assert not (source / "outputs").exists()


def test_critics_of_scaled_rewards_are_not_taken_for_plain_ones(beside):
    train("estimator.scale_rewards=true", "iterations=1", "hydra.run.dir=scaled", cwd=beside)
    done = train("init.checkpoint=scaled", cwd=beside)
    assert done.returncode == 2
    assert "estimator.scale_rewards=true" in done.stderr


def test_how_parameters_would_begin_is_told_as_unused(beside):
    done = train("init.checkpoint=source", "seed=3", "policy.init=zeros", *STILL, cwd=beside)
    assert "policy.init=zeros has no effect: init.checkpoint gives the parameters" in done.stdout


def test_a_sweep_keeps_to_the_iteration_that_it_found(beside):
    line = ["-m", "init.checkpoint=source", "seed=3,4", *STILL, "hydra.sweep.dir=sweep"]
    assert train(*line, cwd=beside).returncode == 0
    more = pg("train", "resume=source", "iterations=6", cwd=beside)
    assert more.returncode == 0, more.stderr
    line[2] = "seed=3,4"
    again = train(*line, "optimizer.schedule=constant,linear", cwd=beside)
    assert again.returncode == 3  # another sweep
    again = train(*[x.replace("iterations=1", "iterations=2") for x in line], cwd=beside)
    assert again.returncode == 0, again.stderr
    for seed in (3, 4):
        run = beside / "sweep" / f"seed@{seed}"
        assert yaml.safe_load((run / "config.yaml").read_text())["init"]["iteration"] == 4
        assert len(rows(run)) == 3
