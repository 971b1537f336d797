"""The lessons of conf/experiment in a reduced form: they run, and their claims meet their runs."""

import csv
import io
from pathlib import Path

import pytest
from command_line import pg

from pgcli.cli.sources import conf_dir

SMALL = ["iterations=2", "total_steps=null", "seeds=2"]
QUICK = ("causality", "trust_region")
LESSONS = sorted(
    path.stem
    for path in (conf_dir() / "experiment").glob("*.yaml")
    if "\nclaims:" in path.read_text()
)


@pytest.mark.parametrize(
    "lesson",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LESSONS],
)
def test_a_lesson_in_a_reduced_form(lesson, tmp_path):
    small = {
        "batch_size": ["seeds=2", "total_steps=60_000"],
        "normalization_bias": SMALL,
    }.get(lesson, [*SMALL, "batch_size=4"])
    line = [f"experiment={lesson}", *small, "hydra.sweep.dir=lesson"]
    done = pg("train", "-m", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    claims = done.stdout.count("to be tested: ")
    assert claims >= 2
    told = pg("report", "lesson", "--out", "report", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    verdicts = [line for line in told.stdout.splitlines() if ", claimed " in line]
    assert len(verdicts) == claims
    words = ("borne out: ", "contradicted: ", "undecided: ")
    assert all(line.startswith(words) for line in verdicts), verdicts
    assert "Claims" in (tmp_path / "report" / "report.md").read_text()


def test_the_rare_reward_s_model_is_what_it_does(tmp_path):
    line = ["env=RareReward", "policy=tabular", "estimators=[rtg,rtg_mean]", "pictures=false"]
    done = pg("compare", *line, "episodes=4096", "hydra.run.dir=c", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "J = 1.5" in done.stdout  # the uniform policy: (1 + 10/5)/2
    rows = list(csv.DictReader(io.StringIO(Path(tmp_path / "c" / "compare.csv").read_text())))
    rtg = next(row for row in rows if row["estimator"] == "rtg")
    assert float(rtg["bias_exact"]) < 1e-9
    exact = float(rtg["trace_cov_exact"])
    assert float(rtg["trace_cov_lo"]) < exact < float(rtg["trace_cov_hi"])
