"""`pg reproduce` prints a line that gives the same bits."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import SHORT, pg, rows

from pgcli.runs.provenance import commit, differences, provenance

EARLIER = Path(__file__).parents[1] / "earlier"


def bits(run):
    """metrics.csv but for the clock."""
    header, *body = rows(run)
    timed = [i for i, name in enumerate(header) if name.startswith("time/")]
    return [[x for i, x in enumerate(row) if i not in timed] for row in (header, *body)]


def reproduced(run, cwd):
    """The comments and the line."""
    done = pg("reproduce", str(run), cwd=cwd)
    assert done.returncode == 0, done.stderr
    *comments, line = done.stdout.splitlines()
    assert all(text.startswith("# ") for text in comments)
    return comments, line


LINES = [
    ["env=CartPole-v1", "estimator=gae", "seeds=2"],
    ["env=Pendulum-v1", "env.kwargs.g=9.0", "method=reinforce", "total_steps=null"],
    ["env=FrozenLake-v1", "policy=tabular", "method=reinforce", "optimizer=sgd"],
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_the_line_gives_the_same_bits(line, tmp_path):
    assert pg("train", *SHORT, *line, "hydra.run.dir=one", cwd=tmp_path).returncode == 0
    _, printed = reproduced("one", tmp_path)
    words = shlex.split(printed)
    assert words[:2] == ["pg", "train"]
    assert set(words[2:]) >= {"iterations=3", line[0]}
    assert pg(*words[1:], "hydra.run.dir=two", cwd=tmp_path).returncode == 0
    assert bits(tmp_path / "one") == bits(tmp_path / "two")


def test_what_a_preset_brought_stands_in_the_line_once_the_preset_is_gone(tmp_path):
    (tmp_path / "mine" / "estimator").mkdir(parents=True)
    preset = tmp_path / "mine" / "estimator" / "own.yaml"
    preset.write_text("phi: reward_to_go\nbaseline: mean\ngamma: 0.9\n")
    line = ["--config-dir", "mine", "estimator=own", "env=CartPole-v1", *SHORT]
    assert pg("train", *line, "hydra.run.dir=one", cwd=tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "mine" / "estimator")
    _, printed = reproduced("one", tmp_path)
    assert "estimator=own" not in printed
    assert "estimator.baseline=mean" in printed
    assert pg(*shlex.split(printed)[1:], "hydra.run.dir=two", cwd=tmp_path).returncode == 0
    assert bits(tmp_path / "one") == bits(tmp_path / "two")


def test_a_sweep_is_a_line_for_each_of_its_runs(tmp_path):
    line = ["-m", "env=CartPole-v1", *SHORT, "estimator=rtg,gae", "hydra.sweep.dir=s"]
    assert pg("train", *line, cwd=tmp_path).returncode == 0
    printed = pg("reproduce", "s", cwd=tmp_path).stdout.splitlines()
    lines = [line for line in printed if not line.startswith("#")]
    assert [line.split()[-1] for line in lines] == ["estimator=gae", "estimator=rtg"]


def test_a_comparison_too_with_the_run_that_it_names(tmp_path):
    assert pg("train", "env=CartPole-v1", *SHORT, "hydra.run.dir=r", cwd=tmp_path).returncode == 0
    line = ["checkpoint=r", "estimators=[rtg]", "episodes=64", "batch_size=8"]
    assert pg("compare", *line, "hydra.run.dir=c", cwd=tmp_path).returncode == 0
    _, printed = reproduced("c", tmp_path)
    assert pg(*shlex.split(printed)[1:], "hydra.run.dir=d", cwd=tmp_path / "r").returncode == 0
    one, other = (
        json.loads((tmp_path / place / "compare.json").read_text())["estimators"]
        for place in ("c", "r/d")
    )
    for row in (*one, *other):
        row.pop("seconds")
    assert one == other


@pytest.mark.parametrize("run", sorted(EARLIER.iterdir()), ids=lambda run: run.name)
def test_older_runs_have_a_line_that_can_be_typed(run, tmp_path):
    comments, printed = reproduced(run, tmp_path)
    assert any("policygrad 0." in text for text in comments)
    done = pg(*shlex.split(printed)[1:], "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_is_no_run_is_refused(tmp_path):
    for words, said in ((["nowhere"], "RUN=nowhere: no such directory"), ([], "RUN")):
        done = pg("reproduce", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr


def test_the_folders_commit_and_what_no_commit_holds(tmp_path):
    assert commit(tmp_path) is None
    (tmp_path / "mine.py").write_text("x = 1\n")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    clean = commit(tmp_path)
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    (tmp_path / "mine.py").write_text("x = 2\n")
    assert commit(tmp_path) == {**clean, "dirty": True}


def test_what_may_change_the_bits_is_told():
    here = {**provenance(), "git": None}
    assert differences(here, here) == []
    then = {
        **here,
        "versions": {**here["versions"], "numpy": "1.0"},
        "processor": "an abacus",
        "git": {"commit": "f00", "dirty": True},
    }
    made, on, at, dirty = differences(then, here)
    assert made.startswith("made with numpy 1.0 (here ")
    assert on.startswith("made on an abacus (here ")
    assert at == "its folder was at commit f00"
    assert dirty == "its folder had changes that no commit holds"
