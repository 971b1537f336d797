"""Runs that a command line names: each job takes its own, and no policy passes for another."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import pg, rows
from omegaconf import OmegaConf
from settings import train_config

from pgcli.cli.compose import compose_all, parse
from pgcli.cli.main import main
from pgcli.cli.origins import brought, literal
from pgcli.errors import ConfigError
from pgcli.runs import checkpoint
from pgcli.training.loop import run

CART = ("batch_size=4", "policy.hidden=[4]")
LAKE = ("env=FrozenLake-v1", "policy=tabular", "batch_size=4")
FEW = ("estimators=[rtg,rtg_mean]", "episodes=32", "batch_size=4", "fit_episodes=4",
       "resamples=100", "pictures=false", "exact=false")  # fmt: skip
OFF = ("estimator.importance=per_decision", *CART)


def trained(cwd: Path, name: str, *overrides: str) -> None:
    done = pg("train", *overrides, f"hydra.run.dir={name}", cwd=cwd)
    assert done.returncode == 0, done.stderr


def config(job: Path) -> dict:
    return yaml.safe_load((job / ".hydra" / "config.yaml").read_text())


def pinned(job: Path) -> tuple[str, int]:
    behaviour = config(job)["behaviour"]
    return behaviour["checkpoint"], behaviour["iteration"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of other environments and policies."""
    cwd = tmp_path_factory.mktemp("runs")
    trained(cwd, "cart", *CART, "iterations=3", "checkpoint.every=1", "env.reward_shift=0.5")
    trained(cwd, "lake", *LAKE, "iterations=1")
    trained(cwd, "large", *LAKE, "iterations=1", "env.kwargs.map_name=8x8")
    trained(cwd, "sure", *LAKE, "iterations=1", "env.kwargs.is_slippery=false",
            "env.kwargs.map_name=4x4")  # fmt: skip
    return cwd


@pytest.fixture
def beside(runs, tmp_path):
    """A folder with these runs."""
    return Path(shutil.copytree(runs, tmp_path / "user"))


@pytest.mark.parametrize(
    "launcher",
    [
        "basic",
        pytest.param("joblib", marks=pytest.mark.slow),
        pytest.param("submitit_local", marks=pytest.mark.slow),
        pytest.param("ray", marks=pytest.mark.slow),
    ],
)
def test_each_job_compares_the_run_that_it_names(launcher, beside):
    if launcher != "basic":
        name = launcher.removesuffix("_local")
        pytest.importorskip(f"hydra_plugins.hydra_{name}_launcher")
    line = ["compare", "-m", "checkpoint=cart,lake,sure", *FEW, f"hydra/launcher={launcher}"]
    done = pg(*line, "hydra.sweep.dir=s", cwd=beside)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 jobs finished" in done.stdout
    assert "pg report" not in done.stdout  # which would find no run
    for name in ("cart", "lake", "sure"):
        job = beside / "s" / f"checkpoint@{name}"
        for section in ("env", "policy"):
            assert config(job)[section] == config(beside / name)[section]
    alone = pg("compare", "checkpoint=lake", *FEW, "hydra.run.dir=alone", cwd=beside)
    assert alone.returncode == 0, alone.stderr
    a, b = (
        [line.rpartition(",")[0] for line in (beside / place).read_text().splitlines()]
        for place in ("s/checkpoint@lake/compare.csv", "alone/compare.csv")
    )
    assert a == b  # but for the seconds
    stamps = {p: p.stat().st_mtime_ns for p in beside.glob("s/*/compare.csv")}
    lost = beside / "s" / "checkpoint@lake"
    shutil.rmtree(lost)
    again = pg(*line, "hydra.sweep.dir=s", cwd=beside)
    assert "2 jobs are finished already" in again.stdout
    assert "3 of 3 jobs finished" in again.stdout
    assert config(lost)["env"]["id"] == "FrozenLake-v1"
    now = {p: p.stat().st_mtime_ns for p in beside.glob("s/*/compare.csv")}
    assert len(now) == 3
    assert all(now[p] == t for p, t in stamps.items() if p.parent != lost)


def test_what_is_typed_wins_over_what_the_run_had(beside):
    line = ["compare", "-m", "checkpoint=cart", "env.reward_shift=0,1", *FEW]
    done = pg(*line, "hydra.sweep.dir=s", cwd=beside)
    assert done.returncode == 0, done.stderr
    for shift in (0, 1):
        job = beside / "s" / f"env.reward_shift@{shift}"
        assert config(job)["env"]["reward_shift"] == shift
        assert config(job)["policy"]["hidden"] == [4]


def test_a_job_is_bound_to_the_iteration_that_its_source_had(beside):
    line = ["train", "-m", "behaviour.checkpoint=cart,other", *OFF, "hydra.sweep.dir=s"]
    trained(beside, "other", *CART, "iterations=1", "seed=5")
    assert pg(*line, "iterations=2", cwd=beside).returncode == 0
    jobs = {name: beside / "s" / f"behaviour.checkpoint@{name}" for name in ("cart", "other")}
    for name, iteration in (("cart", 3), ("other", 1)):
        assert pinned(jobs[name]) == (str(beside / name), iteration)
    assert pg("train", "resume=other", "iterations=4", cwd=beside).returncode == 0
    done = pg("train", f"resume={jobs['other']}", "iterations=3", cwd=beside / "s")
    assert done.returncode == 0, done.stderr
    more = pg(*line, "iterations=4", cwd=beside)
    assert "2 of 2 jobs finished" in more.stdout, more.stderr
    assert [len(rows(job)) for job in jobs.values()] == [5, 5]
    assert pinned(jobs["other"]) == (str(beside / "other"), 1)


def test_all_jobs_of_a_sweep_use_the_same_iteration_whenever_they_begin(beside):
    line = ["train", "-m", "behaviour.checkpoint=cart", *OFF, "iterations=1", "hydra.sweep.dir=s"]
    assert pg(*line, "seed=0,1", cwd=beside).returncode == 0
    assert pg("train", "resume=cart", "iterations=5", cwd=beside).returncode == 0
    assert "3 of 3" in pg(*line, "seed=0,1,2", cwd=beside).stdout
    assert {pinned(job) for job in beside.glob("s/*@*")} == {(str(beside / "cart"), 3)}
    typed = [*line[:-1], "behaviour.iteration=2,null", "hydra.sweep.dir=t"]
    assert pg(*typed, cwd=beside).returncode == 0
    shutil.rmtree(beside / "t" / "behaviour.iteration@null")
    assert pg(*typed, cwd=beside).returncode == 0
    found = {job.name.partition("@")[2]: pinned(job)[1] for job in beside.glob("t/*@*")}
    assert found == {"2": 2, "null": 5}


@pytest.mark.slow
def test_a_job_begun_without_a_bound_goes_on_as_it_began(beside, monkeypatch):
    """As jobs of a sweep over behaviour.checkpoint once were."""
    monkeypatch.chdir(beside)
    job = beside / "s" / "behaviour.checkpoint@cart"
    settings = [*OFF, "iterations=1", "behaviour.checkpoint=cart"]
    line = ["train", "-m", *OFF, "behaviour.checkpoint=cart,cart", "hydra.sweep.dir=s"]
    assert pg(*line, "iterations=1", cwd=beside).returncode == 0
    for path in [*job.glob("checkpoint/*"), *job.glob("*.*")]:
        if path.is_file():
            path.unlink()
    run(train_config(*settings), job)
    (job / ".hydra" / "overrides.yaml").write_text("".join(f"- {x}\n" for x in settings))
    done = pg(*line, "iterations=2", cwd=beside)
    assert "1 of 1 jobs finished" in done.stdout, done.stdout
    assert len(rows(job)) == 3
    done = pg("train", f"resume={job}", "iterations=3", cwd=beside)
    assert done.returncode == 0, done.stderr
    assert len(rows(job)) == 4


LARGE = "another env.kwargs, observation space (64 inputs, here 16 inputs), " \
        "number of parameters (256, here 64)"  # fmt: skip
MISFITS = {
    ("train", "behaviour.checkpoint=large", *LAKE, OFF[0]): LARGE,
    ("compare", "checkpoint=large", "env=FrozenLake-v1"): LARGE,
    ("compare", "checkpoint=lake", "behaviour.checkpoint=large"): LARGE,
    ("compare", "checkpoint=lake", "env.kwargs.is_slippery=false"): "another env.kwargs",
    ("compare", "checkpoint=lake", "policy=linear"): "another policy.bias, number of parameters",
    ("compare", "checkpoint=cart", "policy.activation=relu"): "another policy.activation",
    ("compare", "checkpoint=cart", "env=Acrobot-v1"): "another env.id, observation space",
    ("train", "behaviour.checkpoint=cart", *LAKE, OFF[0]): "another env.id, policy.hidden",
    ("compare", "-m", "checkpoint=lake,large", "env=FrozenLake-v1"): LARGE,
}


@pytest.fixture
def refused(monkeypatch, capsys):
    """What `pg` says of a line that it refuses, and its exit code; without a process of its own."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def typed(*line: str, cwd: Path) -> tuple[int, str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["pg"])
        monkeypatch.setattr(sys, "path", [*sys.path])
        before = sorted(cwd.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            main(line)
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert sorted(cwd.rglob("*")) == before
        return ended.value.code, said

    yield typed
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("line", MISFITS, ids=" ".join)
def test_a_policy_of_another_kind_is_refused_before_anything_is_written(line, runs, refused):
    code, said = refused(*line, cwd=runs)
    assert code == 2
    assert MISFITS[line] in said


def test_arguments_of_an_environment_are_the_same_in_any_order(runs):
    kwargs = ["env.kwargs.map_name=4x4", "env.kwargs.is_slippery=false"]
    line = [*LAKE, *kwargs, "behaviour.checkpoint=sure", "iterations=1", OFF[0]]
    done = pg("train", *line, "hydra.run.dir=turned", cwd=runs)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(runs / "turned")


def altered(run: Path, change, iteration=None, **meta) -> None:
    """The newest checkpoint, or another, with another theta, and other notes beside it."""
    found = checkpoint.load(run, iteration)
    arrays = {**found.arrays, "theta": change(found.arrays["theta"])}
    notes = {key: value for key, value in {**found.meta, **meta}.items() if value is not None}
    checkpoint.save(run, found.iteration, arrays, notes, None)


READING = [("compare", "checkpoint=cart"), ("train", "behaviour.checkpoint=cart", *OFF)]


@pytest.mark.parametrize("line", READING, ids=lambda line: line[0])
@pytest.mark.parametrize("noted", [True, False])
def test_theta_is_exactly_as_long_as_the_policy(noted, line, beside, refused):
    longer = {} if noted else {"spaces": None}
    altered(beside / "cart", lambda theta: np.pad(theta, ((0, 0), (0, 1))), **longer)
    code, said = refused(*line, cwd=beside)
    assert code == 2
    assert "number of parameters (31, here 30)" in said


def test_a_checkpoint_without_a_note_of_its_spaces_serves_on(beside):
    altered(beside / "cart", lambda theta: theta, spaces=None)
    done = pg("compare", "checkpoint=cart", *FEW, cwd=beside)
    assert done.returncode == 0, done.stderr


def test_spaces_of_one_size_are_told_apart():
    found = checkpoint.Checkpoint(
        1,
        {"theta": np.zeros((1, 8), np.float32)},
        {
            "settings": checkpoint.fingerprints(train_config()),
            "spaces": {"observation": "2 inputs", "action": "categorical 4"},
        },
    )
    here = {"observation": "2 inputs", "action": "multi-categorical 2 2"}
    with pytest.raises(ConfigError, match=re.escape("action space (categorical 4, here multi-")):
        checkpoint.policy("checkpoint", "run", found, train_config(), here, 8)


@pytest.mark.parametrize("line", READING, ids=lambda line: line[0])
def test_a_policy_that_is_not_finite_is_none(line, beside, refused):
    for number in (1, 2, 3):
        altered(beside / "cart", lambda theta: theta * np.nan, iteration=number)
    code, said = refused(*line, cwd=beside)
    assert code == 5
    assert "not finite" in said


def test_the_newest_policy_that_is_finite_is_taken(beside):
    altered(beside / "cart", lambda theta: theta * np.nan)
    done = pg("compare", "checkpoint=cart", *FEW, cwd=beside)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("passed over") == 1
    assert checkpoint.load(beside / "cart").iteration == 2
    assert "00000003.npz: its policy is not finite" in checkpoint.load(beside / "cart").damage


def test_an_iteration_that_is_not_saved_is_told_with_those_that_are(runs, refused):
    code, said = refused("compare", "checkpoint=cart", "iteration=18", cwd=runs)
    assert code == 4
    assert "no checkpoint of iteration 18; saved: 1, 2, 3" in said


@pytest.mark.parametrize("text", [None, "a: [", "- 1\n", "policy: 3\nenv: 4\n"])
def test_a_run_without_its_settings_cannot_be_compared(text, beside, refused):
    (beside / "cart" / ".hydra" / "config.yaml").unlink()  # which only older runs need
    path = beside / "cart" / "config.yaml"
    path.unlink() if text is None else path.write_text(text)
    code, said = refused("compare", "checkpoint=cart", cwd=beside)
    assert code == 4
    assert "no settings of a run there" in said


ODD = ["", "http://h/", "c:\\d\\", "\\", "\\\\", "it's", "it\\'s", '"', "a,b", "a=b", " a ", "1",
       "null", "true", "1e3", "a\nb", "[x]", "{x: y}", "${seed}", "ü", "a//b/../c",
       "#"]  # fmt: skip


@pytest.mark.parametrize("text", [*ODD, {"a": ["", {"b c": "\\"}], "d": None}, [], {}, True, -1e-7])
def test_a_value_comes_back_from_hydras_grammar_as_it_is(text):
    (override,) = parse([f"++env.kwargs.x={literal(text)}"])
    assert override.value() == text
    assert type(override.value()) is type(text)


def test_arguments_of_an_environment_are_taken_from_a_run_letter_for_letter(tmp_path):
    kwargs = {f"k{i}": text for i, text in enumerate(ODD) if "$" not in text}
    saved = train_config()
    saved.env.kwargs = kwargs
    meta = {"settings": checkpoint.fingerprints(saved)}
    checkpoint.save(tmp_path, 1, {"theta": np.zeros((1, 1))}, meta, None)
    tree = {"policy": {"hidden": [3]}, "env": {"id": "CartPole-v1", "kwargs": kwargs}}
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(tree), tmp_path / ".hydra" / "config.yaml")
    line = [f"checkpoint={literal(str(tmp_path))}"]
    (found,) = compose_all("compare", line, None, multirun=False, before=brought)
    assert found.config.env.kwargs == kwargs
    assert found.config.policy.hidden == [3]


def test_optuna_maximises_unless_it_is_told_otherwise(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    for typed, direction in (([], "maximize"), (["hydra.sweeper.direction=minimize"], "minimize")):
        line = ["hydra/sweeper=optuna", *typed, "--cfg", "hydra", "-p", "hydra.sweeper"]
        done = pg("train", *line, cwd=tmp_path)
        assert yaml.safe_load(done.stdout)["direction"] == direction, done.stderr


def test_a_launcher_that_is_not_installed_is_told_with_its_extra(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    try:
        import hydra_plugins.hydra_ray_launcher  # noqa: F401
    except ImportError:
        done = pg("train", "-m", "hydra/launcher=ray", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "hydra/launcher=ray: needs the extra ray" in done.stderr
        assert not list(tmp_path.iterdir())


def test_the_summary_and_the_checkpoint_tell_the_spaces(runs):
    told = {"observation": "16 inputs", "action": "categorical 4"}
    assert json.loads((runs / "lake" / "summary.json").read_text())["spaces"] == told
    assert checkpoint.load(runs / "lake").meta["spaces"] == told
