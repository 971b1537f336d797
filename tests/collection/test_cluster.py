"""Slots held by actors of Ray: the batches of `sync`, whatever happens to an actor or a node."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command_line import PG, pg
from settings import train_config
from shares import PARTS, collected, equal

from pgcli.environments import cluster
from pgcli.environments.choose import check_environment
from pgcli.errors import ConfigError, EnvironmentFailed

HERE = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HERE, reason="could not import 'ray'")


def test_without_ray_the_engine_is_refused(monkeypatch):
    config = train_config("env=Pendulum-v1", "env.engine=ray").env
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^env\.engine=ray: ray is not installed: extra `ray`"):
        check_environment(config)


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes of one core on this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    with pytest.MonkeyPatch.context() as patch:
        made.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
    made.shutdown()


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
class TestRay:
    @pytest.mark.parametrize(
        ("seeds", "slots", "count", "line"),
        [
            (1, 10, 3, []),
            (3, 3, 2, ["env.info=[first]", "policy.normalize_obs=true"]),
            (2, 6, 1, ["++env.kwargs.drawing=1"]),
            (2, 5, None, PARTS),
            (2, 9, 3, ["++env.kwargs.drawing=0.02", *PARTS]),
        ],
    )
    def test_batches_of_ray_are_those_of_sync(self, nodes, seeds, slots, count, line):
        plain, said = collected("sync", seeds, slots, 3, "env=Moody-v0", *line)
        many = [] if count is None else [f"env.workers={count}"]
        shared, told = collected("ray", seeds, slots, 3, "env=Moody-v0", *line, *many)
        equal(plain, shared)
        assert set(said) == set(told)

    @pytest.mark.parametrize("mood", ["dies", "hangs"])
    def test_a_lost_actor_costs_time_and_no_bit(self, nodes, mood, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "STEP_TIMEOUT", 15.0)  # its process takes a while to begin
        plain, _ = collected("sync", 1, 8, 2, "env=Moody-v0")
        line = [f"++env.kwargs.file={tmp_path}/is", f"++env.kwargs.mood={mood}", "env.workers=2"]
        shared, _ = collected("ray", 1, 8, 2, "env=Moody-v0", *line)
        assert (tmp_path / "is").exists()
        equal(plain, shared)

    def test_what_is_lost_again_and_again_is_told(self, nodes):
        line = ["env=Moody-v0", "env.workers=2"]
        told = r"Moody-v0: the process of environments 0 to 3 ended \(.*\), and so did another"
        with pytest.raises(EnvironmentFailed, match=told):
            collected("ray", 1, 8, 1, *line, "++env.kwargs.mood=dies")

    def test_what_an_environment_raises_is_told_as_by_sync(self, nodes):
        said = []
        for engine in ("sync", "ray"):
            with pytest.raises(EnvironmentFailed) as raised:
                collected(engine, 1, 10, 1, "env=Moody-v0", "++env.kwargs.mood=raises")
            said.append(str(raised.value))
        assert said[0] == said[1]

    def test_a_lost_node_costs_time_and_no_bit(self, nodes, tmp_path):
        other = nodes.add_node(num_cpus=2)
        plain, _ = collected("sync", 1, 16, 2, "env=Moody-v0")
        is_there = tmp_path / "is"

        def lose():
            until = time.monotonic() + 60
            while not is_there.exists() and time.monotonic() < until:
                time.sleep(0.1)
            nodes.remove_node(other, allow_graceful=False)

        losing = threading.Thread(target=lose)
        losing.start()
        line = [f"++env.kwargs.file={is_there}", f"++env.kwargs.mood=waits on {other.node_id}"]
        shared, said = collected("ray", 1, 16, 2, "env=Moody-v0", *line, "env.workers=4")
        losing.join()
        assert any(note.endswith("its slots were played again") for note in said)
        assert is_there.exists()
        equal(plain, shared)

    def test_of_the_process_ray_keeps_nothing(self, nodes):
        before = _process()
        collected("ray", 1, 4, 1, "env=Moody-v0", "env.workers=1")
        assert _process() == before

    def test_a_sweep_by_ray_takes_a_cluster_that_runs(self, nodes, tmp_path):
        line = ["seed=0,1", "hydra/launcher=ray", "iterations=2", "batch_size=2"]
        done = pg("train", "-m", *line, cwd=tmp_path)  # its processes begin where the nodes did
        assert done.returncode == 0, done.stderr
        assert "Connecting to existing Ray cluster" in done.stderr
        assert "2 of 2 jobs finished" in done.stdout

    def test_no_cluster_is_told(self, nodes, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", "nowhere")
        with pytest.raises(EnvironmentFailed, match=r"^Ray cannot be had: "):
            collected("ray", 1, 4, 1, "env=Moody-v0")

    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_nothing_outlives_a_run_by_ray(self, signum, tmp_path):
        (tmp_path / "run.py").write_text(RUN)
        line = [sys.executable, "run.py"]
        if signum != signal.SIGKILL:
            line = [PG, "train", "env=run:Mine-v0", "callback=run:tell", *LINE]
        process = subprocess.Popen(
            line, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"RAY_ADDRESS": "local"},
        )  # fmt: skip
        assert process.stdout is not None
        pids = json.loads(next(x for x in process.stdout if x.startswith("[")))
        assert len(pids) > 2
        process.send_signal(signum)
        assert process.wait(60) in (-signum, 128 + signum)
        process.stdout.close()
        until = time.monotonic() + 90  # of Ray's own there are some that look once in 30 seconds
        while any(map(_lives, pids)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids if _lives(pid)]


def _process():
    return signal.getsignal(signal.SIGTERM), sys.excepthook, os.environ.get("PYTHONBREAKPOINT")


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


LINE = ["method=none", "env.engine=ray", "env.workers=2", "batch_size=8", "iterations=5"]
RUN = """
import json, os, time
from pathlib import Path
import gymnasium as gym
import pgcli as pg
from gymnasium.envs.classic_control import PendulumEnv

class Mine(PendulumEnv):
    pass

gym.register("Mine-v0", Mine, max_episode_steps=20)  # of a script: known to it alone

def below(pid):
    own = [int(x) for t in Path(f"/proc/{pid}/task").iterdir()
           for x in (t / "children").read_text().split()]
    return own + [x for p in own for x in below(p)]

def tell(iteration, metrics):
    print(json.dumps(below(os.getpid())), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    pg.train("env=Mine-v0", "callback=__main__:tell", *LINE)
""".replace("*LINE", repr(LINE)[1:-1])
