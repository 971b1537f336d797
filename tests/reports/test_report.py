"""`pg report` from its arguments to its files."""

import csv
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
from made_runs import made_run, write_summary

from pgcli.errors import ConfigError, StorageFailed
from pgcli.reports.report import report

FILES = {
    "report.md", "report.html", "report.csv", "tensorboard",
    "return.png", "return.svg", "variance.png", "variance.svg",
    "noise.png", "noise.svg",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs(tmp_path):
    """Two settings with three seeds each, and one run that was killed."""
    for i in range(3):
        made_run(tmp_path / "runs" / f"{i}", seeds=(i,))
    made_run(tmp_path / "runs" / "3", seeds=(0, 1, 2), estimator="rtg_mean", height=200)
    killed = made_run(tmp_path / "runs" / "4", seeds=(3,), estimator="rtg_mean", rows=7)
    (killed / "summary.json").unlink()
    return tmp_path / "runs"


def cells(directory):
    with open(directory / "report.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_written_and_told(runs, tmp_path, capsys):
    assert report(["runs", "--out", "out", "--threshold", "70"]) == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in (out / "tensorboard").iterdir()} == {
        "estimator=rtg",
        "estimator=rtg_mean",
    }
    told = capsys.readouterr().out
    for text in ("estimator=rtg_mean  1 of 2      3", "steps to 70", "running or killed",
                 "out/report.html", "tensorboard --logdir out/tensorboard"):  # fmt: skip
        assert text in told
    rtg, mean = cells(out)
    assert (rtg["group"], rtg["estimator.baseline"], rtg["seeds"]) == ("estimator=rtg", "none", "3")
    assert (mean["runs"], mean["runs_counted"]) == ("2", "1")
    assert float(rtg["return_100_lower"]) <= float(rtg["return_100"])
    assert float(mean["steps_to_threshold"]) < float(rtg["steps_to_threshold"])
    assert (rtg["p_better"], mean["p_better"]) == ("", "1.0")
    assert float(rtg["noise_scale"]) == 5
    page = (out / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "http://" not in page
    assert "https://" not in page
    for text in (page, (out / "report.md").read_text()):
        assert "runs/4" in text
        assert "running or killed" in text
    assert "](return.png)" in (out / "report.md").read_text()


def test_unfinished_runs_count_where_asked_for(runs, tmp_path):
    report(["runs", "--unfinished", "--out", "out"])
    assert [row["seeds"] for row in cells(tmp_path / "out")] == ["3", "4"]


def test_the_same_runs_give_the_same_report(runs, tmp_path):
    for name in ("a", "b"):
        report(["runs", "--out", name])
    for name in ("report.csv", "return.svg", "variance.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_reports_lie_by_time_and_never_on_each_other(runs, tmp_path):
    for _ in range(2):
        report(["runs"])
    made = [path.parent for path in tmp_path.glob("outputs/report/*/*/report.html")]
    assert len(made) == 2
    assert all({p.name for p in path.iterdir()} == FILES for path in made)


def test_a_threshold_is_the_environments_own_unless_given(runs, tmp_path):
    made_run(tmp_path / "runs" / "5", environment="Pendulum-v1")
    report(["runs", "--out", "out"])
    found = {row["environment"]: row["threshold"] for row in cells(tmp_path / "out")}
    assert found == {"CartPole-v1": "475.0", "Pendulum-v1": ""}


BAD = {  # arguments: what the one line must say
    "": "name a run or a folder",
    "nowhere": "PATH=nowhere: no such directory",
    "nothing": "PATH=nothing: no run there",
    "half": "no finished run there (1 unfinished); --unfinished lets them count",
    "broken": "no finished run there (1 broken): config.yaml: No such file",
    "runs --out runs": "--out=runs: is there already",
    "runs --threshold high": "--threshold=high: must be a finite number",
    "runs --threshold nan": "--threshold=nan: must be a finite number",
    "runs --nonsense": "--nonsense=: no such flag",
    "runs --out": "expected one argument",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_writes_nothing(line, runs, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    write_summary(made_run(tmp_path / "half"), status="Stopped", reason="", iterations=3)
    shutil.rmtree(made_run(tmp_path / "broken") / ".hydra")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as error:
        report(line.split())
    assert BAD[line] in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_no_half_report(runs, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed, match=r"report\.csv: No space left"):
        report(["runs"])
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    with pytest.raises(StorageFailed, match="/dev/null/out: "):
        report(["runs", "--out", "/dev/null/out"])


def test_runs_without_measurements_have_no_second_picture(tmp_path):
    path = made_run(tmp_path / "runs" / "0") / "metrics.csv"
    path.write_text(path.read_text().replace("gradient/variance", "x"))
    report(["runs", "--out", "out"])
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == FILES - {"variance.png", "variance.svg"}
    assert cells(tmp_path / "out")[0]["gradient_variance"] == ""


def test_a_real_training_is_reported(tmp_path):
    pg = shutil.which("pg", path=sysconfig.get_path("scripts"))
    line = [pg, "train", "seeds=2", "iterations=3", "batch_size=4"]
    subprocess.run(line, check=True, capture_output=True, timeout=120)
    report(["outputs", "--out", "out"])
    (row,) = cells(tmp_path / "out")
    assert (row["group"], row["runs"], row["seeds"]) == ("estimator=rtg", "1", "2")
    assert float(row["gradient_variance"]) > 0


def test_help_and_errors_come_without_torch_and_matplotlib():
    code = (
        "import sys\n"
        "from pgcli.reports.report import report\n"
        "try:\n    report(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'matplotlib', 'hydra'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--threshold RETURN" in done.stdout
    assert "report/<date>/<time>" in done.stdout
