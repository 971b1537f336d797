"""Sweeps as a user types them: nothing is lost, whatever happens to a job or to `pg` itself."""

import os
import signal
import subprocess
import time

import pytest
from command_line import MODULE, PG, SHORT, TRAIN, pg, rows, status, sweeps

from pgcli.cli.sources import job_name
from pgcli.runs.directory import is_held

JOBLIB = "hydra/launcher=joblib"
LONG = ["estimator=gae", "iterations=2000", "batch_size=4", "checkpoint.every=5"]
DEADLY = '''
import os, signal
import gymnasium

class Deadly(gymnasium.Env):
    """Kills its process at the first step, as a lack of memory would, if it is told to."""
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, deadly=0):
        self.deadly = deadly

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self.t += 1
        return self.observation_space.sample() * 0, 1.0, self.t >= 5, False, {}

gymnasium.register("Deadly-v0", Deadly, max_episode_steps=10)
'''


def until(what, process: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.returncode
        assert time.monotonic() < end
        time.sleep(0.02)


def background(*args, cwd, stdout=subprocess.DEVNULL, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(
        [PG, *args], cwd=cwd, stdout=stdout, stderr=subprocess.DEVNULL, **kwargs
    )


def test_a_failing_job_stops_no_other_and_the_table_has_them_all(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)
    done = pg("train", "-m", "env=my_module:Mine-v0", "env.kwargs.crash=7,0", *SHORT, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "step failed" in done.stderr
    (sweep,) = sweeps(tmp_path)
    assert status(sweep / "env.kwargs.crash@0") == "finished"
    said = done.stdout.splitlines()
    table = said[next(i for i, text in enumerate(said) if text.split()[:2] == ["job", "state"]) :]
    bad, good = (next(x for x in table if f"crash@{i} " in x).split() for i in (7, 0))
    assert (bad[1], good[1]) == ("failed", "finished")
    assert float(good[2]) > 0
    assert float(good[3]) >= 0
    assert any(line.startswith(bad[0] + ": ") and "step failed" in line for line in table)
    assert "1 of 2 jobs finished" in done.stdout


def test_a_sweep_has_one_bar_and_says_a_thing_once(tmp_path):
    line = ["-m", "env=CartPole-v1", "estimator=rtg,gae", "seed=0,1", *SHORT, "log.interval=1e-9"]
    done = pg("train", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HYDRA" not in done.stdout
    said = done.stdout.splitlines()
    assert sum("biased: learned V" in text for text in said) == 1
    assert any(text.startswith("estimator@gae+seed@0: biased: learned V") for text in said)
    for number in range(1, 5):
        assert any(f"job {number} of 4  " in text for text in said)
    assert sum("job" in text.split() and "state" in text for text in said) == 1  # a table
    assert done.stdout.count("tensorboard --logdir") == 1


@pytest.mark.slow
def test_and_where_its_jobs_run_elsewhere(joblib, tmp_path):
    line = ["-m", JOBLIB, "env=CartPole-v1", "estimator=rtg,gae", *SHORT]
    done = pg("train", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert sum("biased: learned V" in text for text in said) == 1
    assert any(text.startswith("estimator@gae: biased: learned V") for text in said)
    assert any(text.startswith("100%  2 of 2 jobs") for text in said)
    assert done.stdout.count("tensorboard --logdir") == 1


ENDING = """
import sys
import gymnasium

class Ending(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, ends=0):
        self.ends = ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        if self.ends:
            sys.exit(0)
        return self.observation_space.sample() * 0, 1.0, True, False, {}

gymnasium.register("Ending-v0", Ending, max_episode_steps=10)
"""


@pytest.mark.parametrize("subdir", [[], ["hydra.sweep.subdir=${env.kwargs.ends}/${seed}"]])
def test_not_even_an_exit_in_a_job_ends_a_sweep(subdir, tmp_path):
    (tmp_path / "ending.py").write_text(ENDING)
    line = ["env=ending:Ending-v0", "env.kwargs.ends=1,0", "seed=0,1", *SHORT, *subdir]
    done = pg("train", "-m", *line, "hydra.sweep.dir=s", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "2 of 4 jobs finished" in done.stdout
    assert done.stdout.count("step failed") == 2
    again = pg("train", "-m", *line, "hydra.sweep.dir=s", cwd=tmp_path)
    assert again.returncode == 1
    assert "2 of 4 jobs finished" in again.stdout


def test_a_place_fixed_in_a_file_is_as_good_as_one_that_is_typed(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "own.yaml").write_text(
        "defaults: [train, _self_]\nhydra: {sweep: {dir: fixed/place}}\n"
    )
    line = ["train", "-m", "--config-dir", "mine", "--config-name", "own", *TRAIN]
    for seeds in ("seed=0,1", "seed=0,1,2"):
        done = pg(*line, seeds, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.glob("fixed/place/seed@*")}
    assert names == {"seed@0", "seed@1", "seed@2"}
    assert len(list(tmp_path.glob("fixed/*"))) == 1


@pytest.mark.slow
def test_the_same_command_skips_what_is_finished_and_resumes_the_rest(tmp_path):
    line = ["train", "-m", "seed=0,1", "iterations=300,40", *LONG[2:], LONG[0]]
    process = background(*line, cwd=tmp_path)
    names = ["seed@0+iterations@300", "seed@0+iterations@40", "seed@1+iterations@300"]
    until(lambda: list(tmp_path.glob(f"outputs/multirun/*/*/{names[2]}/checkpoint/*")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    (sweep,) = sweeps(tmp_path)
    assert [status(sweep / name) for name in names] == ["finished", "finished", "Stopped"]
    before = {p: p.read_bytes() for name in names[:2] for p in (sweep / name).glob("metrics.csv")}
    half = len(rows(sweep / names[2]))
    done = pg(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sweeps(tmp_path) == [sweep]
    assert "2 jobs are finished already" in done.stdout
    assert "4 of 4 jobs finished" in done.stdout
    assert {p: p.read_bytes() for p in before} == before
    after = rows(sweep / names[2])
    assert half < len(after) == 301
    assert [int(row[0]) for row in after[1:]] == list(range(1, 301))
    again = pg(*line, cwd=tmp_path)  # all is done: whoever asks again wants it again
    assert again.returncode == 0
    assert len(sweeps(tmp_path)) == 2


def test_a_job_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    line = ["train", "-m", "seed=0,1", "hydra.sweep.dir=s", *TRAIN]
    assert pg(*line, cwd=tmp_path).returncode == 0
    job = tmp_path / "s" / "seed@1"
    good = [row[:-1] for row in rows(job)]
    for path in [*(job / "checkpoint").iterdir(), job / "summary.json"]:
        path.unlink()
    assert pg(*line, cwd=tmp_path).returncode == 0
    assert [row[:-1] for row in rows(job)] == good
    assert len(list(job.glob("events.out.*"))) == 1


def test_jobs_are_known_by_their_configuration_not_by_their_number(tmp_path):
    line = ["train", "-m", "hydra.sweep.dir=s", *TRAIN]
    assert pg(*line, "estimator=rtg", "seed=1,2", cwd=tmp_path).returncode == 0
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("s/*/summary.json")}
    assert len(stamps) == 2
    more = pg(*line, "estimator=rtg", "seed=0,1,2,3", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "4 of 4" in more.stdout
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    longer = pg(*line, "estimator=rtg", "seed=1,2", "iterations=5", cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert [len(rows(tmp_path / "s" / f"seed@{s}")) for s in range(4)] == [4, 6, 6, 4]


def test_a_budget_is_what_it_comes_to_however_it_was_typed(tmp_path):
    line = ["train", "-m", "hydra.sweep.dir=s", "seed=0,1", "batch_size=2", "policy.hidden=[4]"]
    assert pg(*line, cwd=tmp_path).returncode == 0
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("s/*/summary.json")}
    assert len(stamps) == 2
    again = pg(*line, "iterations=100", cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    assert "2 jobs are finished already" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    more = pg(*line, "total_steps=7000", cwd=tmp_path)  # and no iterations
    assert more.returncode == 0, more.stdout
    assert "are finished already" not in more.stdout
    for job in tmp_path.glob("s/seed@*"):
        assert int(rows(job)[-1][2]) >= 7000
        assert len(rows(job)) > 101


@pytest.mark.parametrize(
    "signum",
    [
        pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, id="SIGINT"),
    ],
)
def test_a_longer_sweep_that_is_cut_short_is_not_finished(signum, tmp_path):
    """Its jobs ended once, but where a shorter one was to end."""
    line = ["train", "-m", "hydra.sweep.dir=s", "seed=0,1", *LONG]
    job = tmp_path / "s" / "seed@0"
    assert pg(*line, "iterations=4", cwd=tmp_path).returncode == 0
    process = background(*line, cwd=tmp_path)
    until(lambda: len(rows(job)) > 20, process)
    process.send_signal(signum)
    process.wait(60)
    assert not (job / "summary.json").exists() or status(job) == "Stopped"
    more = pg(*line, "iterations=2_00", cwd=tmp_path)  # as Hydra's grammar allows
    assert "are finished already" not in more.stdout
    assert "2 of 2 jobs finished" in more.stdout
    assert [len(rows(tmp_path / "s" / f"seed@{s}")) for s in (0, 1)] == [201, 201]


def test_jobs_not_reached_by_a_longer_sweep_are_not_called_finished(tmp_path):
    line = ["train", "-m", "hydra.sweep.dir=s", "seed=0,1", *LONG]
    assert pg(*line, "iterations=4", cwd=tmp_path).returncode == 0
    process = background(*line, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    until(lambda: len(rows(tmp_path / "s" / "seed@0")) > 20, process)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=60)
    assert "0 of 2 jobs finished" in shown


def test_sweeps_never_mix(tmp_path):
    line = ["train", "-m", "seed=0,1", *TRAIN]
    assert pg(*line, "hydra.sweep.dir=sweep", cwd=tmp_path).returncode == 0
    before = {p: p.read_bytes() for p in tmp_path.glob("sweep/*/*.*") if p.is_file()}
    for other in (["optimizer.lr=0.1"], ["estimator=gae"], ["estimator=rtg,gae"]):
        done = pg(*line, *other, "hydra.sweep.dir=sweep", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
        assert "holds another sweep" in done.stderr
    assert {p: p.read_bytes() for p in before} == before
    one = pg(*line, "hydra.sweep.dir=other", "hydra.sweep.subdir=same", cwd=tmp_path)
    assert one.returncode == 1
    assert {row[1] for row in rows(tmp_path / "other" / "same")[1:]} == {"0"}
    assert "seed" in one.stdout.splitlines()[-3]


@pytest.mark.slow
def test_two_at_a_time_take_two_directories(tmp_path):
    line = ["train", "-m", "seed=0,1", *TRAIN]
    both = [background(*line, cwd=tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(sweeps(tmp_path)) == 2
    named = [background(*line, "hydra.sweep.dir=s", *LONG[1:2], cwd=tmp_path)]
    until(lambda: list(tmp_path.glob("s/*/metrics.csv")), named[0])
    done = pg(*line, "hydra.sweep.dir=s", *LONG[1:2], cwd=tmp_path)
    named[0].send_signal(signal.SIGTERM)
    assert named[0].wait(60) == 143
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "in use" in done.stderr


def test_a_sweep_of_comparisons(tmp_path):
    small = ["episodes=64", "batch_size=8", "fit_episodes=8", "resamples=100", "pictures=false"]
    line = ["compare", "-m", "seed=0,1", "estimators=[rtg,total]", *small, "hydra.sweep.dir=s"]
    assert pg(*line, cwd=tmp_path).returncode == 0
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("s/*/compare.csv")}
    assert len(stamps) == 2
    again = pg(*line, cwd=tmp_path)
    assert "2 of 2 jobs finished" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_names_of_jobs():
    keys = ["estimator", "optimizer.lr", "env.kwargs.g"]
    line = ["estimator=rtg", "seed=1", "++env.kwargs.g=9.0", "optimizer.lr=0.1"]
    assert job_name(line, keys) == "estimator@rtg+optimizer.lr@0.1+env.kwargs.g@9.0"
    assert job_name(["seed=0"], []) == "job"
    odd = [job_name([f"env={x}"], ["env"]) for x in ("ALE/Pong-v5", "ALE:Pong-v5", "a" * 300)]
    assert len(set(odd)) == 3
    assert all(len(name) < 140 and not set("/:=,") & set(name) for name in odd)


def test_a_job_resumes_by_itself_as_it_is_printed(tmp_path):
    line = ["train", "-m", "optimizer.lr=0.01,1e-5", "hydra.sweep.dir=s", *TRAIN]
    assert pg(*line, cwd=tmp_path).returncode == 0
    for job in tmp_path.glob("s/*@*"):
        done = pg("train", f"resume={job}", "iterations=4", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(rows(job)) == 5
    assert len(list(tmp_path.glob("s/*@*"))) == 2
    inside = pg("train", *TRAIN, "hydra.run.dir=s", cwd=tmp_path)
    assert (inside.returncode, inside.stderr.count("\n")) == (3, 1)


@pytest.fixture
def joblib():
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killing_pg_leaves_no_orphan_and_loses_nothing(signum, joblib, tmp_path):
    line = ["train", "-m", JOBLIB, "hydra.launcher.n_jobs=2", "seed=0,1,2", *LONG]
    process = background(*line, cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob("outputs/multirun/*/*/*/metrics.csv"))) == 2, process)
    until(lambda: len(list(tmp_path.glob("outputs/multirun/*/*/*/checkpoint/*"))) > 4, process)
    (sweep,) = sweeps(tmp_path)
    process.send_signal(signum)
    assert process.wait(60) == (-9 if signum == signal.SIGKILL else 128 + signum)
    end = time.monotonic() + 20
    while any(map(is_held, sweep.glob("seed@*/"))):
        assert time.monotonic() < end, "an orphan trains on"
        time.sleep(0.1)
    jobs = [job for job in sweep.glob("seed@*/") if (job / "metrics.csv").exists()]
    assert [status(job) for job in jobs] == ["Stopped", "Stopped"]
    kept = {job: len(rows(job)) for job in jobs}
    assert all(list(job.glob(f"checkpoint/*{n - 1}.npz")) for job, n in kept.items())
    line[-3] = "iterations=1000"  # another budget: the directory is named
    done = pg(*line, f"hydra.sweep.dir={sweep}", "iterations=300", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 jobs finished" in done.stdout


@pytest.mark.slow
def test_a_killed_worker_takes_no_other_job_with_it(joblib, tmp_path):
    (tmp_path / "deadly.py").write_text(DEADLY)
    line = ["env=deadly:Deadly-v0", "env.kwargs.deadly=1,0", "seed=0,1,2", *SHORT]
    done = pg("train", "-m", JOBLIB, "hydra.launcher.n_jobs=2", *line, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "3 of 6 jobs finished" in done.stdout
    (sweep,) = sweeps(tmp_path)
    assert all(status(sweep / f"env.kwargs.deadly@0+seed@{s}") == "finished" for s in range(3))
    assert done.stdout.count(" lost ") == 3
    assert "running or killed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_launchers(launcher, tmp_path):
    name = launcher.removesuffix("_local")
    pytest.importorskip(f"hydra_plugins.hydra_{name}_launcher")
    (tmp_path / "my_module.py").write_text(MODULE)
    line = ["env=my_module:Mine-v0", "env.kwargs.crash=0,7", "seed=0,1", *SHORT]
    done = pg("train", "-m", f"hydra/launcher={launcher}", *line, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "2 of 4 jobs finished" in done.stdout
    assert done.stdout.count("step failed") == 2
    (sweep,) = sweeps(tmp_path)
    assert all(status(sweep / f"env.kwargs.crash@0+seed@{s}") == "finished" for s in (0, 1))
    assert os.listdir(sweep)
