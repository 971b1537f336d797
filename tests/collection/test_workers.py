"""Slots in other processes: the batches of `sync`, whatever happens to a process."""

import multiprocessing
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import pg
from settings import train_config
from shares import PARTS, collected, equal

from pgcli.environments import workers
from pgcli.environments.workers import shared_out
from pgcli.errors import ConfigError, EnvironmentFailed, NonFinite
from pgcli.policies.actor import PolicyActor


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("seeds", "slots", "line"),
    [
        (1, 10, ["env=Moody-v0"]),
        (3, 3, ["env=Moody-v0", "env.info=[first]", "policy.normalize_obs=true"]),
        (2, 6, ["env=Moody-v0", "++env.kwargs.drawing=1"]),
        (1, 13, ["env=FrozenLake-v1", "behaviour.epsilon=0.5"]),
        (2, 5, ["env=Moody-v0", *PARTS]),
        (1, 9, ["env=Moody-v0", "++env.kwargs.drawing=1", *PARTS]),
        (2, 9, ["env=Moody-v0", "++env.kwargs.drawing=0.004", *PARTS]),
        (1, 9, ["env=Moody-v0", "++env.kwargs.drawing=0.02"]),
    ],
    ids=lambda x: "+".join(x) if isinstance(x, list) else str(x),
)
def test_batches_are_those_of_sync(seeds, slots, line, count):
    plain, said = collected("sync", seeds, slots, 6, *line)
    shared, told = collected("workers", seeds, slots, 6, *line, f"env.workers={count}")
    equal(plain, shared)
    assert set(said) == set(told)


@pytest.mark.parametrize(
    ("seeds", "slots", "count", "sizes"),
    [
        (1, 16, 2, [8, 8]),
        (1, 10, 3, [4, 4, 2]),
        (1, 16, 3, [4, 4, 8]),
        (1, 3, 4, [3]),
        (8, 4, 3, [8, 12, 12]),
        (2, 8, 2, [8, 8]),
        (5, 16, 64, [4] * 20),
    ],
)
def test_shares_are_whole_blocks_and_all_there_is(seeds, slots, count, sizes):
    shares = shared_out(seeds, slots, count)
    places = np.arange(seeds * slots).reshape(seeds, slots)
    assert (
        sorted(x for share in shares for x in share.of(places).ravel()) == places.ravel().tolist()
    )
    assert sorted(share.of(places).size for share in shares) == sorted(sizes)
    assert all(share.slots.start % workers.ROWS == 0 for share in shares)


@pytest.mark.parametrize("mood", ["dies", "hangs"])
def test_a_lost_process_costs_time_and_no_bit(mood, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "STEP_TIMEOUT", 4.0)
    (tmp_path / "was").touch()
    plain, _ = collected("sync", 1, 8, 2, "env=Moody-v0", f"++env.kwargs.file={tmp_path}/was")
    line = [f"++env.kwargs.file={tmp_path}/is", f"++env.kwargs.mood={mood}", "env.workers=2"]
    shared, said = collected("workers", 1, 8, 2, "env=Moody-v0", *line)
    assert (tmp_path / "is").exists()
    equal(plain, shared)
    assert any(note.endswith("its slots were played again") for note in said)


def test_one_that_is_lost_again_and_again_is_told(monkeypatch):
    line = ["env=Moody-v0", "env.workers=2"]
    told = r"Moody-v0: the process of environments 0 to 3 ended, exit code -9, and so did another"
    with pytest.raises(EnvironmentFailed, match=told):
        collected("workers", 1, 8, 1, *line, "++env.kwargs.mood=dies")
    monkeypatch.setattr(workers, "STEP_TIMEOUT", 2.0)
    with pytest.raises(EnvironmentFailed, match="has not made a step for 2 s, and so did another"):
        collected("workers", 1, 8, 1, *line, "++env.kwargs.mood=hangs")


def test_slots_that_play_on_cannot_be_had_again(tmp_path):
    kwargs = f"++env.kwargs.file={tmp_path}/is", "++env.kwargs.mood=dies"
    (tmp_path / "is").touch()
    line = ["env=Moody-v0", *kwargs, "env.workers=2", *PARTS]

    kept = workers._Worker.ask
    calls = []

    def ask(self, *args):
        calls.append(1)
        if len(calls) == 3:  # the second batch
            (tmp_path / "is").unlink()
        kept(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers._Worker, "ask", ask)
        with pytest.raises(EnvironmentFailed, match="ended, exit code -9; in iteration 2"):
            collected("workers", 1, 8, 3, *line)


def test_what_an_environment_raises_is_told_as_by_sync():
    said = []
    for engine in ("sync", "workers"):
        with pytest.raises(EnvironmentFailed) as raised:
            collected(engine, 1, 10, 1, "env=Moody-v0", "++env.kwargs.mood=raises")
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert "step failed (environment 0, reset with seed " in said[0]
    with pytest.raises(EnvironmentFailed, match="make failed"):
        collected("workers", 1, 4, 1, "env=Moody-v0", "++env.kwargs.no=1")


def test_a_policy_that_is_not_finite_is_the_policys_fault(monkeypatch):
    real = PolicyActor.part

    def broken(self, *args):
        own = real(self, *args)
        own._layers = [(w * np.nan, b) for w, b in own._layers]
        return own

    monkeypatch.setattr(PolicyActor, "part", broken)
    with pytest.raises(NonFinite, match="an action of the policy is NaN"):
        collected("workers", 1, 8, 1, "env=Moody-v0")


def test_what_cannot_be_is_refused_and_what_has_no_effect_said(tmp_path):
    with pytest.raises(ConfigError, match=r"^env\.engine=workers: with batch_steps"):
        train_config("env.engine=workers", "batch_steps=100")
    with pytest.raises(ConfigError, match=r"^env\.workers=0: "):
        train_config("env.workers=0")
    short = ["env=CartPole-v1", "iterations=1", "batch_size=2"]
    done = pg("train", *short, "env.workers=2", cwd=tmp_path)
    assert "note: env.workers=2 has no effect: it is for env.engine=workers" in done.stdout


RUN = """
import gymnasium, multiprocessing, os, sys, threading, time
import pgcli as pg

def tell(iteration, metrics):
    print(*(p.pid for p in multiprocessing.active_children()), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    pg.train("env=Pendulum-v1", "method=none", "env.engine=workers", "env.workers=2",
             "callback=__main__:tell", batch_size=8, iterations=5)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_nothing_outlives_a_run_that_is_killed(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, "run.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(x) for x in process.stdout.readline().split()]
    assert len(pids) == 2
    process.stdout.close()
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while (alive := [p for p in pids if Path(f"/proc/{p}").exists() and "Z" not in _state(p)]) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    assert not alive


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_run_by_workers_goes_on_as_one_by_sync(tmp_path):
    line = ["env=Pendulum-v1", "method=none", "batch_size=8", "optimizer.schedule=constant",
            "hydra.run.dir=run"]  # fmt: skip
    assert pg("train", *line, "env.engine=sync", "iterations=4", "hydra.run.dir=whole",
              cwd=tmp_path).returncode == 0  # fmt: skip
    assert pg("train", *line, "env.engine=workers", "iterations=2", cwd=tmp_path).returncode == 0
    done = pg("train", "resume=run", "env.workers=1", "iterations=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [(tmp_path / x / "metrics.csv").read_text().splitlines() for x in ("run", "whole")]
    place = rows[0][0].split(",").index("time/fps")
    one, other = ([[x for i, x in enumerate(row.split(",")) if i != place] for row in table]
                  for table in rows)  # fmt: skip
    assert one == other


def test_auto_takes_them_where_a_step_takes_long_enough(monkeypatch):
    from pgcli.environments import choose

    def opened(shared=True, **given):
        config = train_config("env=Moody-v0", *(f"env.{k}={v}" for k, v in given.items())).env
        engine = choose.open_engine(config, 8, 8, shared)
        engine.close()
        return engine.name

    monkeypatch.setattr(choose, "cores", lambda: 2)
    for step, name in ((1e-5, "sync"), (3e-5, "workers"), (1e-2, "workers")):
        monkeypatch.setattr(choose, "_step_cost", lambda config, step=step: (step, 12))
        assert opened() == name
    assert opened(shared=False) == "async"
    assert opened(engine="sync") == "sync"
    monkeypatch.setattr(choose, "cores", lambda: 1)
    assert opened() == "sync"


@pytest.mark.slow
def test_processes_that_are_spawned_play_the_same(monkeypatch):
    """As where nothing can be forked."""
    monkeypatch.setattr(workers, "METHOD", "spawn")
    line = ["env=Pendulum-v1", "env.max_episode_steps=9", "policy.normalize_obs=true"]
    plain, _ = collected("sync", 1, 8, 2, *line)
    shared, _ = collected("workers", 1, 8, 2, *line, "env.workers=2")
    equal(plain, shared)


def test_a_copy_may_have_processes_of_its_own():
    line = ["env=Moody-v0", "++env.kwargs.mood=starts", "env.workers=2"]
    equal(collected("sync", 1, 8, 1, *line[:1])[0], collected("workers", 1, 8, 1, *line)[0])


def test_one_that_ends_as_it_is_made_is_told(monkeypatch, tmp_path):
    real = workers.maker
    monkeypatch.setattr(workers, "maker", lambda config: real(replace(config, kwargs={})))
    with pytest.raises(EnvironmentFailed, match=r"Moody-v0: make failed: .*ended, exit code -9"):
        collected("workers", 1, 8, 1, "env=Moody-v0", "++env.kwargs.mood=dies at once")


def test_one_that_cannot_be_started_is_told(monkeypatch):
    def full(self):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", full)
    with pytest.raises(EnvironmentFailed, match=r"cannot be started: OSError: .*Too many open"):
        collected("workers", 1, 8, 1, "env=Moody-v0")
