"""Files of a run that somebody else may have made: pipes, devices, endless aliases."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from made_runs import made_run

PG = shutil.which("pg", path=sysconfig.get_path("scripts"))


def within(seconds, *line, cwd):
    return subprocess.run(
        [PG, *line], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.fixture
def runs(tmp_path):
    made_run(tmp_path / "runs" / "good", seeds=(0, 1))
    return tmp_path / "runs" / "bad", made_run(tmp_path / "runs" / "bad", seeds=(2,), lr=0.1)


def piped(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(os.name != "posix", reason="has no pipes among its files")
@pytest.mark.parametrize("make", [piped, device])
@pytest.mark.parametrize(
    "name", ["metrics.csv", "summary.json", ".hydra/config.yaml", ".hydra/hydra.yaml", "eval.json"]
)
def test_a_report_waits_for_no_pipe_and_reads_no_device(runs, name, make):
    folder, _ = runs
    make(folder / name)
    done = within(60, "report", "runs", "--out", "out", cwd=folder.parent.parent)
    assert done.returncode == 0, done.stderr
    done = within(60, "report", "runs", "--page", "page.md", cwd=folder.parent.parent)
    assert done.returncode == 0, done.stderr


def test_aliases_that_never_end_are_not_followed(runs):
    folder, _ = runs
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 12):
        levels.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    (folder / ".hydra" / "config.yaml").write_text("\n".join(levels))
    done = within(60, "report", "runs", "--out", "out", cwd=folder.parent.parent)
    assert done.returncode == 0, done.stderr
    assert "aliases, which pg never writes" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="has no pipes among its files")
@pytest.mark.parametrize("command", [("train", "resume=run"), ("eval", "checkpoint=run"),
                                     ("compare", "checkpoint=run")])  # fmt: skip
def test_a_checkpoint_is_no_pipe(command, tmp_path):
    folder = Path(tmp_path / "run" / "checkpoint")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "00000001.npz")
    done = within(60, *command, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 1
