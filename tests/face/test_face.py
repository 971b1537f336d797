"""`import pgcli as pg`: what the commands do, and a process that is afterwards as it was before."""

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from command_line import pg as typed
from command_line import rows
from hydra.core.global_hydra import GlobalHydra

import pgcli as pg
from pgcli.errors import ConfigError, NoCheckpoint, PgError, RunDirectoryError

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["env=CartPole-v1", "iterations=3", "batch_size=4"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_the_one_that_the_command_makes(folder):
    run = pg.train(*SHORT, "estimator=gae", seeds=2, optimizer__lr=0.01)
    line = [*SHORT, "estimator=gae", "seeds=2", "optimizer.lr=0.01", "hydra.run.dir=typed"]
    assert typed("train", *line, cwd=folder).returncode == 0
    header, *lines = rows(folder / "typed")
    assert list(run.metrics) == header
    for i, name in enumerate(header):
        if not name.startswith("time/"):
            np.testing.assert_array_equal(run.metrics[name], [float(row[i]) for row in lines])
    assert run.path.parent.parent == folder / "outputs"
    assert run.seeds == [0, 1]
    assert run.iterations == [3]
    assert run.config["optimizer"]["lr"] == 0.01
    assert run.summary["status"] == "finished"
    resumed = typed("train", f"resume={run.path}", "iterations=4", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert pg.load(run.path).metrics["iteration"][-1] == 4
    assert "pg train " in typed("reproduce", str(run.path), cwd=folder).stdout


def test_a_policy_acts_on_raw_observations(folder):
    line = ["env=Pendulum-v1", "method=none", "policy.normalize_obs=true", "iterations=2"]
    run = pg.train(*line, batch_size=2, seeds=2)
    env = gym.make("Pendulum-v1")
    obs, _ = env.reset(seed=0)
    one = run.policy(obs)
    assert env.action_space.contains(one)
    batch = np.stack([obs, 2 * obs])
    np.testing.assert_allclose(run.policy(batch)[0], one, rtol=1e-6)
    drawn = [run.policy(obs, greedy=False, rng=np.random.default_rng(i)) for i in (1, 1, *range(9))]
    assert drawn[0] == drawn[1]
    assert len({float(x[0]) for x in drawn}) > 1
    module = run.policy.module()
    assert isinstance(module, torch.nn.Module)
    action, mean, log_std = module(torch.from_numpy(batch.astype(np.float32)))
    assert module.names == ["action", "mean", "log_std"]
    assert action.shape == mean.shape == log_std.shape == (2, 1)
    assert (run.policy_of(1)(obs) != one).all()
    with pytest.raises(ConfigError, match="seed=7: one of 0, 1"):
        run.policy_of(7)
    with pytest.raises(NoCheckpoint, match="no checkpoint of iteration 1"):
        run.policy_of(0, 1)


def test_what_it_makes_can_be_compared_evaluated_and_reported(folder):
    one, other = pg.train("-m", *SHORT, "estimator=rtg,gae")
    assert [run.path.name for run in (one, other)] == ["estimator@gae", "estimator@rtg"]
    found = pg.compare(checkpoint=one, estimators=["rtg", "gae"], episodes=32, batch_size=8)
    assert set(found.table["estimator"]) == {"rtg", "gae"}
    assert all(len(column) == 2 for column in found.table.values())
    told = pg.evaluate(checkpoint=one, episodes=3)
    assert told.summary["runs"][0]["seeds"][0]["greedy"]["episodes"] == 3
    assert (pg.report(one, other, out="r") / "report.html").exists()
    assert [run.path for run in pg.load("outputs")] == [one.path, other.path]


def test_errors_are_those_of_the_command_line(folder):
    for wrong, error in (
        (lambda: pg.train("estimator=rgt"), r"^estimator=rgt: must be one of .*did you mean rtg\?"),
        (lambda: pg.train(batch_size=0), r"^batch_size=0: must be finite and >= 1$"),
        (lambda: pg.train("--help"), r"^words=--help: "),
        (lambda: pg.load("nowhere"), r"^path=nowhere: no run there$"),
    ):
        with pytest.raises(ConfigError, match=error):
            wrong()
    assert not list(folder.iterdir())
    pg.train(*SHORT, "hydra.run.dir=here")
    with pytest.raises(RunDirectoryError, match="holds a run"):
        pg.train(*SHORT, "hydra.run.dir=here")


def test_a_sweep_with_failures_says_where(folder):
    (folder / "broken.py").write_text(
        "import gymnasium as gym\n"
        "class Env(gym.Env):\n"
        "    observation_space = action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None): raise RuntimeError('out of order')\n"
        "gym.register('OutOfOrder-v0', Env, max_episode_steps=3)\n"
    )
    sys.path.append(str(folder))
    try:
        with pytest.raises(PgError, match=r"failures\.jsonl says why"):
            pg.train("-m", "env=broken:OutOfOrder-v0", "seed=0,1", "iterations=1", "batch_size=1")
    finally:
        sys.path.remove(str(folder))


def state():
    """What a call could change of a process."""
    return {
        "signals": [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM)],
        "threads": torch.get_num_threads(),
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "arguments": list(sys.argv),
        "path": list(sys.path),
        "logging": (list(logging.getLogger().handlers), logging.getLogger().level),
        "hydra": GlobalHydra.instance().hydra,
        "python": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "printing": (sys.stdout, sys.stderr),
    }


def test_a_process_is_afterwards_as_it_was_before_and_nothing_is_said(folder, capsys):
    torch.set_num_threads(2)
    before = state()
    run = pg.train(*SHORT, "estimator=gae")
    pg.compare(checkpoint=run, estimators=["rtg"], episodes=16, batch_size=4)
    with pytest.raises(ConfigError):
        pg.train("estimator=rgt")
    pg.train("-m", *SHORT, "seed=0,1")
    pg.play("CartPole-v1", lambda obs: np.zeros(len(obs), np.int64), episodes=2)
    assert state() == before
    assert capsys.readouterr() == ("", "")
    pg.train(*SHORT, "estimator=gae", verbose=True)
    assert "biased: learned V" in capsys.readouterr().out


def test_a_thread_may_call_it(folder):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(pg.train(*SHORT)))
    thread.start()
    thread.join()
    assert runs[0].summary["status"] == "finished"


def test_ctrl_c_keeps_what_there_is_and_is_raised_on(folder):
    (folder / "late.py").write_text(
        "import os, signal\n"
        "def callback(iteration, metrics):\n"
        "    if iteration == 3:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
    )
    sys.path.append(str(folder))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            pg.train(*SHORT, "callback=late:callback", "hydra.run.dir=r", iterations=50)
    finally:
        signal.signal(signal.SIGINT, before)
        sys.path.remove(str(folder))
    run = pg.load("r")
    assert run.summary["status"] == "Stopped"
    assert run.iterations[-1] in (2, 3)


def test_play_takes_any_policy(folder):
    told = pg.play("CartPole-v1", lambda obs: np.zeros(len(obs), np.int64), episodes=4)
    assert told["episodes"] == 4
    assert 7 <= told["mean"] <= 11  # always to one side
    short = pg.play(
        "CartPole-v1", lambda obs: np.zeros(len(obs), np.int64), "env.max_episode_steps=3",
        episodes=2,
    )  # fmt: skip
    assert short["returns"] == [3.0, 3.0]


def test_importing_it_is_cheap():
    text = "import sys, pgcli; print([m for m in ('torch', 'hydra', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert {"train", "estimate"} <= set(dir(pg))
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        pg.tain  # noqa: B018


SNIPPETS = re.findall(
    r"```python\n# (\w+)\.py\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S
)


@pytest.mark.parametrize(("name", "text"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_the_documented_examples_run(name, text, folder, capsys):
    if "stable_baselines3" in text:
        pytest.importorskip("stable_baselines3")
    exec(compile(text, name, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_the_notebook_runs(folder, capsys):
    book = json.loads((ROOT / "examples/python.ipynb").read_text())
    space: dict[str, object] = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "cell", "exec"), space)
    assert "rtg_mean" in capsys.readouterr().out


@pytest.mark.slow
def test_it_works_from_an_installed_wheel(tmp_path):
    pytest.importorskip("hatchling")
    pip = [sys.executable, "-m", "pip"]
    wheel = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    subprocess.run(wheel, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.whl")
    place = tmp_path / "site"
    install = [*pip, "install", "-q", "--no-deps", "--target", place, built]
    subprocess.run(install, check=True, capture_output=True)
    assert (place / "pgcli" / "py.typed").exists()
    (tmp_path / "user.py").write_text(
        "import pgcli as pg\n"
        "assert 'site' in pg.__file__, pg.__file__\n"
        "run = pg.train('env=CartPole-v1', iterations=2, batch_size=4)\n"
        "print(int(run.metrics['iteration'][-1]))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "user.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout == "2\n", done.stderr
