"""The installed `pg` command, and what it leaves."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pgcli.cli.main import main

PG = shutil.which("pg", path=sysconfig.get_path("scripts"))


SHORT = ["iterations=3", "batch_size=4"]


TRAIN = [*SHORT, "env=CartPole-v1"]


PRELOADED = [
    "pytest",
    "pgcli.cli.launch",
    "pgcli.training.loop",
    "pgcli.comparison.study",
    "pgcli.evaluation.study",
    "pgcli.reports.report",
    "pgcli.pictures.estimators",
    "pgcli.environments.compiled.kernels",
    "pgcli.environments.compiled.engine",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
]
PATIENCE = 300  # seconds


def pg(*args, cwd, env=None):
    """What `pg <args>` does in that folder, in a process forked from one that has imported much.

    With variables of its own, or a launcher whose pool ends with its interpreter, in a fresh one.
    """
    if env is not None or any("hydra/launcher" in arg for arg in args):
        env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        return subprocess.run(
            [PG, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE
        )
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        code = forked(args, cwd, out, err)
        return subprocess.CompletedProcess(args, code, out.read_text(), err.read_text())


def forked(args: Sequence[str], cwd: Path, out: Path, err: Path) -> int | None:
    """The exit code of `pg <args>`, whose output is added to these files."""
    process = server().Process(target=typed, args=(list(args), cwd, out, err))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    return code


def typed(args: list[str], cwd: Path, out: Path, err: Path) -> None:
    """What `pg <args>` does, in this process, for which nothing has been imported in vain."""
    os.chdir(cwd)
    for number, path in (1, out), (2, err):
        with open(path, "ab", buffering=0) as file:
            os.dup2(file.fileno(), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [PG, *args]
    main(args)


@cache
def server():
    """Forks a process per call from one that has imported what takes long."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def rows(run: Path) -> list[list[str]]:
    return [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]


def only_run(cwd: Path) -> Path:
    (found,) = (cwd / "outputs").glob("*/*")
    return found


MODULE = """
import gymnasium as gym, numpy as np

class Mine(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def __init__(self, rew=1.0, crash=0):
        self.rew, self.crash, self.steps = rew, crash, 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.random(2, np.float32), {}
    def step(self, action):
        self.time += 1
        self.steps += 1
        if self.steps == self.crash:
            raise RuntimeError("out of order")
        return self.np_random.random(2, np.float32), self.rew, self.time > 4, False, {}

gym.register("Mine-v0", Mine, max_episode_steps=9)
"""


def sweeps(cwd: Path) -> list[Path]:
    return sorted((cwd / "outputs" / "multirun").glob("*/*"))


def status(job: Path) -> str:
    return json.loads((job / "summary.json").read_text())["status"]
