"""Runs of earlier versions, kept as they were left: they are read, reported and go on."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import pg

from pgcli.runs import checkpoint
from pgcli.runs.saved import limits, read

KEPT = Path(__file__).parent.parent / "earlier"
COUNTED = "env_steps leaves out the steps that batch_steps throws away"
RULED = "go by the seed with the fewest steps"


@pytest.fixture
def older(tmp_path):
    """Format 2 before critics had a λ of their own: iteration 3 of 6 is left."""
    return Path(shutil.copytree(KEPT / "format-2", tmp_path / "run"))


@pytest.fixture
def old(tmp_path):
    """Format 1: it ended after iteration 8; only the checkpoint of iteration 4 is left.

    total_steps=500 was typed, so iterations: 100 of its time held as well.
    """
    return Path(shutil.copytree(KEPT / "format-1", tmp_path / "run"))


def test_a_run_goes_on_as_it_was_begun_where_presets_bring_other_values_by_now(tmp_path):
    """Begun where an environment's preset brought other numbers than the shipped one does."""
    own = tmp_path / "own"
    (own / "env").mkdir(parents=True)
    (own / "env" / "Acrobot-v1.yaml").write_text("id: Acrobot-v1\n")
    line = ("env=Acrobot-v1", "batch_size=2", "env.max_episode_steps=20", "hydra.run.dir=run")
    begun = pg("train", *line, "iterations=1", "--config-dir", "own", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    (own / "env" / "Acrobot-v1.yaml").unlink()  # only the shipped one is left
    done = pg("train", "resume=run", "iterations=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["1", "2"]
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (settings["update"]["name"], settings["total_steps"]) == ("ascent", None)
    refused = pg("train", "resume=run", "iterations=3", "optimizer.lr=0.5", cwd=tmp_path)
    assert refused.returncode == 3


def rows(run):
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def same(found, wanted):
    """Counts agree exactly, what is computed up to the bits of another machine."""
    assert list(found[0]) == list(wanted[0])
    for a, b in zip(found, wanted, strict=True):
        for key in a:
            if key in ("iteration", "seed", "env_steps", "rollout/episodes"):
                assert a[key] == b[key], key
            elif key == "policy/kl":  # which that version rounded to float32
                assert float(a[key]) == pytest.approx(float(b[key]), rel=0.05), key
            elif key not in ("time/fps",):
                assert float(a[key]) == pytest.approx(float(b[key]), rel=1e-3), key


def test_an_old_run_is_read_and_reported(old, tmp_path):
    found = read(old)
    assert (found.state.name, found.config["iterations"]) == ("finished", "100")
    assert limits(old) == (100, 500)
    done = pg("report", "run", "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_old_run_goes_on_as_it_was_begun_and_says_so(old, tmp_path):
    before = rows(old)
    done = pg("train", "resume=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same(rows(old), before)
    notices = json.loads((old / "summary.json").read_text())["notices"]
    assert [word in " ".join(notices) for word in (COUNTED, RULED)] == [True, True]
    assert "iterations=100 holds" in " ".join(notices)
    again = checkpoint.load(old)
    assert (again.iteration, again.format, again.meta["budget"]) == (8, 1, [100, 500])
    assert "the budget is spent already" in pg("train", "resume=run", cwd=tmp_path).stdout


def test_another_number_of_steps_lifts_the_limit_that_was_not_asked_for(old, tmp_path):
    done = pg("train", "resume=run", "total_steps=9000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "holds until" not in done.stdout
    last = {row["seed"]: int(row["env_steps"]) for row in rows(old)}
    assert 9000 <= min(last.values()) < 9300  # of kept steps
    assert len(rows(old)) > 2 * 100
    assert checkpoint.load(old).meta["budget"] == [None, 9000]


def test_a_run_before_a_setting_was_known_is_read_resumed_and_goes_on(older, tmp_path):
    """`critic.lam` is null there: TD(λ) targets have the estimator's λ, as they had."""
    before = rows(older)
    assert (read(older).state.name, read(older).settings["critic"].get("lam", 0)) == ("finished", 0)
    done = pg("train", "resume=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same(rows(older), before)
    done = pg("train", "resume=run", "iterations=8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(rows(older)) == 16
    done = pg("train", "resume=run", "critic.lam=0.5", "iterations=9", cwd=tmp_path)
    assert (done.returncode, "another critic.lam" in done.stderr) == (3, True)


@pytest.mark.parametrize("again", [False, True])
def test_a_run_before_q_had_other_forms_goes_on_with_a_network_of_state_and_action(again, tmp_path):
    """The default is another form now."""
    run = Path(shutil.copytree(KEPT / "format-2-advantage", tmp_path / "run"))
    before = rows(run)
    for iterations in (6, 7) if again else (6,):
        done = pg("train", "resume=run", f"iterations={iterations}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    same(rows(run)[:12], before)
    assert {"q/theta", "value/theta"} <= set(checkpoint.load(run).arrays)
    done = pg("train", "resume=run", "critic.q=dueling", "iterations=9", cwd=tmp_path)
    assert (done.returncode, "another critic.q" in done.stderr) == (3, True)


@pytest.mark.parametrize("form", ["format-1", "format-2", "format-2-advantage"])
def test_runs_of_earlier_formats_are_compared_and_reported_beside_new_ones(form, tmp_path):
    run = shutil.copytree(KEPT / form, tmp_path / "run")
    env = read(run).config["env.id"]
    sizes = ("episodes=64", "batch_size=8", "fit_episodes=16", "resamples=200", "pictures=false")
    done = pg("compare", "checkpoint=run", "estimators=[total,rtg]", *sizes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    new = ("policy.hidden=[4]", "seeds=2", "iterations=3", "batch_size=4", "hydra.run.dir=new")
    assert pg("train", f"env={env}", "method=none", *new, cwd=tmp_path).returncode == 0
    done = pg("report", "run", "new", "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "estimator=rtg" in done.stdout


def test_no_path_of_a_machine_is_in_what_is_kept():
    for path in KEPT.rglob("*.yaml"):
        sources = yaml.safe_load(path.read_text())
        assert "/" not in json.dumps(sources).replace("hydra/launcher", ""), path
    assert np.load(KEPT / "format-1" / "checkpoint" / "00000004.npz")["theta"].shape == (2, 30)
