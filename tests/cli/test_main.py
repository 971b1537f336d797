"""The installed `pg` command, as a user types it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import MODULE, PG, SHORT, TRAIN, only_run, pg, rows

BAD = {  # command line: (exit code, what the one line must say)
    "estimator=rgt": (2, "estimator=rgt: must be one of", "did you mean rtg?"),
    "estimtor=rtg": (2, "estimtor=rtg: no such setting", "did you mean estimator?"),
    "optimizer.lrr=1": (2, "optimizer.lrr=1: no such setting; did you mean optimizer.lr?"),
    "+nonsense=1": (2, "nonsense=1: no such setting"),
    "optimizer.lr=fast": (2, "optimizer.lr=fast: must be a number"),
    "optimizer.lr=-1": (2, "optimizer.lr=-1", "> 0"),
    "optimizer.lr=nan": (2, "optimizer.lr=nan", "finite"),
    "env.reward_shift=inf": (2, "env.reward_shift=inf", "finite"),
    "estimator.gamma=1.5": (2, "estimator.gamma=1.5", "<= 1"),
    "seed=1e3": (2, "seed=1e3: must be a whole number"),
    "seed=-1": (2, "seed=-1", ">= 0"),
    "estimator.phi=adv": (2, "estimator.phi=adv: must be one of", "reward_to_go"),
    "policy.hidden=64": (2, "policy.hidden=64: must be a list"),
    "policy.hidden=[64,0]": (2, "policy.hidden=[64, 0]", ">= 1"),
    "estimator.normalize=maybe": (2, "estimator.normalize=maybe: must be true or false"),
    "optimizer.lr=1,2": (2, "several values need -m"),
    "a=[": (2, "not of the form key=value"),
    "word": (2, "not of the form key=value"),
    "--nonsense": (2, "no such flag"),
    "env=CartPol-v1": (2, "env=CartPol-v1", "did you mean CartPole-v1?"),
    "env=no_such_module:X-v0": (2, "does not import"),
    "env=CliffWalkingSlippery-v1": (2, "env.max_episode_steps=null", "no time limit"),
    "env.kwargs.nonsense=1": (2, "cannot be made with env.kwargs"),
    "env.kwargs._target_=os.getcwd": (2, "_target_ is not allowed"),
    "hydra.launcher._target_=os.getcwd": (2, "_target_ is not allowed"),
    "critic.lam=0.5": (2, "critic.lam=0.5", "only with critic.target=td_lambda"),
    "resume=nowhere": (4, "resume=nowhere", "no checkpoint"),
    "device=cuda": (2, "no CUDA device"),
    "estimator=null": (2, "estimator=null: must be one of"),
    "foo.bar=1": (2, "foo.bar=1: no such setting"),
    "~optimizer.lr": (2, "optimizer.lr=: must be a number"),
    "policy.hidden=[64,a]": (2, "policy.hidden=[64,a]: must be a list"),
    "optimizer.lr=${oc.env:NO_SUCH}": (2, "NO_SUCH"),
    "experiment=nope": (2, "experiment=nope: "),
    "-m optimizer.lr=interval(0,1)": (2, "an interval needs a sweeper that draws"),
    "-m estimator=glob(zzz*)": (2, "gives no value"),
    "-m seed=range(0,3,0)": (2, "seed=range(0,3,0)"),
    "-m hydra.run.dir=a,b": (2, "one value in a sweep"),
    "-m experiment=causality,baselines": (2, "one at a time"),
    "experiment=[causality,baselines]": (2, "experiment=[causality,baselines]: one name"),
    "-m estimator=[rtg,gae]": (2, "estimator=[rtg,gae]: one name"),
    "batch_steps=1000000000000000000000": (2, "must be < 2^63"),
    "seeds=1000000000": (2, "seeds=1000000000: needs at least", "GiB, and this machine has"),
    "batch_size=1000000000000": (2, "batch_size=1000000000000: needs at least"),
    "policy.hidden=[100000000000]": (2, "policy.hidden=100000000000: needs at least"),
    "-m resume=a": (2, "resume=a: continues one run"),
    "-m --cfg job": (2, "only one of them"),
    "--resolve": (2, "only with --cfg or --help"),
    "--cfg nope": (2, "invalid choice"),
    "--config-name nope": (2, "--config-name=nope: must be one of"),
    "--config-dir nope": (2, "--config-dir=nope: no such directory"),
    "--config-path nope": (2, "--config-dir adds a directory"),
    "--experimental-rerun x": (2, "not allowed"),
    "--help estimator=rgt": (2, "did you mean rtg?"),
    "--info config estimator=rgt": (2, "did you mean rtg?"),
    "+hydra.callbacks.x._target_=os.getcwd": (2, "_target_ is not allowed"),
    "+hydra.sweeper.sampler._target_=os.getcwd": (2, "_target_ is not allowed"),
    "hydra.run.dir=/dev/null/run": (7, "/dev/null/run: "),
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_value_is_one_line_and_leaves_nothing(line, tmp_path):
    if line == "device=cuda":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is one")
    code, *said = BAD[line]
    done = pg("train", *line.split(), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1
    assert all(text in done.stderr for text in said), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_bad_value_anywhere_in_a_sweep_refuses_the_sweep(tmp_path):
    done = pg("train", "-m", *SHORT, "seed=0,1", "estimator=rtg,rgt", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())


def test_a_target_in_a_file_is_refused(tmp_path):
    for name, text in {
        "callback": "# @package _global_\nhydra: {callbacks: {x: {_target_: os.getcwd}}}",
        "kwargs": "# @package _global_\nenv: {kwargs: {x: {_target_: os.getcwd}}}",
        "launcher": "# @package _global_\nhydra: {launcher: {_target_: os.getcwd}}",
    }.items():
        place = tmp_path / "mine" / "experiment"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.yaml").write_text(text + "\n")
        done = pg("train", "--config-dir", "mine", f"experiment={name}", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "_target_" in done.stderr
        assert not (tmp_path / "outputs").exists()


def test_a_bad_value_in_a_file_is_one_line_that_names_the_file(tmp_path):
    place = tmp_path / "mine" / "experiment"
    place.mkdir(parents=True)
    for text, said in {
        "optimizer: {lr: fast}": "optimizer.lr=fast: must be a number (in experiment/x.yaml)",
        "optimizer: {lrr: 1}": "did you mean optimizer.lr? (in experiment/x.yaml)",
        "resume: run": "resume=run: belongs on the command line",
        "a: [": "x.yaml, line 3: ",
    }.items():
        (place / "x.yaml").write_text(f"# @package _global_\n{text}\n")
        done = pg("train", "--config-dir", "mine", "experiment=x", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
        assert not (tmp_path / "outputs").exists()


def test_a_failure_never_removes_what_was_there_before(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("device=cuda does not fail here")
    mine = tmp_path / "thesis" / "mine"
    mine.mkdir(parents=True)
    (mine / "chapter.tex").write_text("words")
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in ("thesis/mine", "empty", "empty/new/er", "."):
        assert pg("train", f"hydra.run.dir={place}", "device=cuda", cwd=tmp_path).returncode == 2
    assert (mine / "chapter.tex").read_text() == "words"
    assert empty.is_dir()
    assert not (empty / "new").exists()


def test_resuming_needs_nothing_but_the_directory(tmp_path):
    mine = tmp_path / "mine"
    (mine / "estimator").mkdir(parents=True)
    (mine / "estimator" / "own.yaml").write_text("phi: gae\nlam: 0.5\n")
    (mine / "short.yaml").write_text(
        "defaults: [train, _self_]\niterations: 1\nbatch_size: 4\nseed: 77\n"
    )
    flags = ["--config-dir", "mine", "--config-name", "short"]
    done = pg("train", *flags, "estimator=own", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for resume, iterations in [("resume=run", 2), ("++resume='run'", 3)]:
        done = pg("train", resume, f"iterations={iterations}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(rows(tmp_path / "run")) == 1 + iterations
    assert {row[1] for row in rows(tmp_path / "run")[1:]} == {"77"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_it_starts_it_leaves_nothing(signum, tmp_path):
    process = subprocess.Popen(
        [PG, "train", "iterations=9999"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signum, signal.SIG_DFL),  # background jobs ignore SIGINT
    )  # fmt: skip
    while not list(tmp_path.glob("outputs/*/*")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (128 + signum, f"pg: stopped by {signum.name}\n")
    assert not list(tmp_path.iterdir())


def test_a_users_module_does_not_stand_in_for_a_library(tmp_path):
    for name in ("logging", "yaml", "hydra", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not this one')")
    done = pg("train", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train", "optimizer.lr=x"]], ids=str)
def test_quick_answers_import_neither_torch_nor_gymnasium(args, tmp_path):
    code = (
        "import sys\nfrom pgcli.cli.main import main\n"
        f"try: main({args!r})\n"
        "finally: assert not {'torch', 'gymnasium'} & set(sys.modules), 'imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "imported" not in done.stderr, done.stderr


def test_train_writes_everything(tmp_path):
    done = pg("train", "estimator=gae", *TRAIN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    header, *body = rows(run)
    assert header[:3] == ["iteration", "seed", "env_steps"]
    wanted = {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "gradient/norm", "gradient/variance",
        "gradient/trace_cov", "gradient/norm_sq_unbiased", "gradient/snr", "gradient/noise_scale",
        "critic/loss", "critic/explained_variance", "policy/entropy", "policy/kl", "time/fps",
    }  # fmt: skip
    assert wanted <= set(header)
    assert [r[:2] for r in body] == [["1", "0"], ["2", "0"], ["3", "0"]]
    assert np.isfinite(np.array(body, float)).all()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert any("learned V" in note for note in summary["bias"])
    assert summary["versions"]["torch"]
    assert (run / "checkpoint" / "00000003.npz").exists()
    assert (run / ".hydra" / "config.yaml").exists()
    assert list(run.glob("events.out.tfevents.*"))
    assert "biased: learned V" in done.stdout
    assert f"tensorboard --logdir {run}" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_sweep_makes_one_run_each(tmp_path):
    done = pg("train", "estimator=total,rtg", "seed=0,1", *TRAIN, "-m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "outputs" / "multirun").glob("*/*/*/summary.json"))
    assert len(runs) == 4
    assert len({tuple(rows(r.parent)[-1][3:9]) for r in runs}) == 4


def test_two_runs_in_one_second_do_not_share_a_directory(tmp_path):
    both = [
        subprocess.Popen([PG, "train", *TRAIN], cwd=tmp_path, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [p.wait(120) for p in both] == [0, 0]
    found = list((tmp_path / "outputs").glob("*/*"))
    assert len(found) == 2
    assert all(len(rows(run)) == 4 for run in found)


LONG = ["estimator=gae", "env=CartPole-v1", "iterations=1000", "batch_size=4", "seeds=2"]


def until_it_trains(run: Path, process: subprocess.Popen) -> None:
    for _ in range(2400):  # the first of all compiles
        if list(run.glob("checkpoint/*.npz")):
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError("it does not train")


@pytest.mark.parametrize(
    ("signum", "update"),
    [(signal.SIGTERM, "ascent"), (signal.SIGINT, "proximal"),
     *(pytest.param(signal.SIGKILL, update, marks=pytest.mark.slow)
       for update in ("ascent", "trust_region", "proximal"))],
)  # fmt: skip
def test_a_stopped_run_resumes_bit_for_bit(signum, update, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = [*LONG, "checkpoint.every=7", "optimizer.schedule=constant", f"update={update}"]
    process = subprocess.Popen(
        [PG, "train", *settings, f"hydra.run.dir={broken}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until_it_trains(broken, process)
    in_use = pg("train", f"resume={broken}", cwd=tmp_path)
    assert in_use.returncode == 3
    assert "in use" in in_use.stderr
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    if signum != signal.SIGKILL:
        assert process.returncode == 128 + signum
        assert stderr.count("\n") == 1
        assert json.loads((broken / "summary.json").read_text())["status"] == "Stopped"
    done = len(rows(broken)[1:]) // 2
    end = str(done + 10)
    again = pg("train", f"resume={broken}", f"iterations={end}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    straight = pg("train", *settings, f"iterations={end}", f"hydra.run.dir={whole}", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    a, b = ([r[:-1] for r in rows(run)] for run in (broken, whole))  # the last column is time/fps
    assert a == b
    saved = f"checkpoint/{int(end):08d}.npz"
    with np.load(broken / saved) as x, np.load(whole / saved) as y:
        names = [n for n in x.files if n != "meta.json"]
        assert len(names) > 10
        assert all(np.array_equal(x[n], y[n], equal_nan=True) for n in names)


def test_resuming_with_other_settings_is_refused_and_harms_nothing(tmp_path):
    assert pg("train", *TRAIN, "hydra.run.dir=run", cwd=tmp_path).returncode == 0
    done = pg("train", "resume=run", "optimizer.lr=0.5", cwd=tmp_path)
    assert done.returncode == 3
    assert "optimizer.lr" in done.stderr
    fresh = pg("train", *TRAIN, "hydra.run.dir=run", cwd=tmp_path)
    assert fresh.returncode == 3
    assert "resume=run" in fresh.stderr
    again = pg("train", "resume=run", "iterations=5", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(rows(tmp_path / "run")) == 6
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    fewer = pg("train", "resume=run", "iterations=4", cwd=tmp_path)
    assert fewer.returncode == 2
    assert "iterations=4: that run has done 5 iterations" in fewer.stderr
    assert (tmp_path / "run" / ".hydra" / "config.yaml").read_text() == config


def test_a_run_killed_before_its_summary_is_finished_by_resuming_it(tmp_path):
    assert pg("train", *TRAIN, "hydra.run.dir=run", cwd=tmp_path).returncode == 0
    path = tmp_path / "run" / "summary.json"
    before = json.loads(path.read_text())
    path.unlink()
    done = pg("train", "resume=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = json.loads(path.read_text())
    assert after["status"] == "finished"
    for key in ("iterations", "env_steps", "return_100", "last"):
        assert after[key] == before[key]


def test_an_environment_of_ones_own(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)
    done = pg("train", "env=my_module:Mine-v0", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "my_module:Mine-v0" in (only_run(tmp_path) / ".hydra" / "config.yaml").read_text()


PHI = """
from pgcli.estimators import returns
from pgcli.estimators.phi import register

@register("to_go")
def to_go(config, episodes):
    return returns.reward_to_go(episodes.rew, config.gamma)

@register("next_reward")
def next_reward(config, episodes):  # biased, and does not say so
    return episodes.rew
"""


def test_a_phi_of_ones_own(tmp_path):
    (tmp_path / "my_phi.py").write_text(PHI)
    done = pg("train", "estimator.phi=my_phi:to_go", "estimator.baseline=mean", *SHORT,
              cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    again = pg("train", f"resume={run}", "iterations=3", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for given, allowed in {
        "estimator.phi=my_phi:to_og": "did you mean to_go?",
        "estimator.phi=my_phy:to_go": "does not import",
        "estimator.phi=my_phi:to_go estimator.importance=per_decision": "is no stream",
    }.items():
        bad = pg("train", *given.split(), *SHORT, cwd=tmp_path)
        assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
        assert allowed in bad.stderr
    assert only_run(tmp_path) == run


PARTS = """
import torch
from pgcli.estimators import baselines, importance
from pgcli.updates import optimizers

@baselines.register("median", couples=True, fewest=2, bias="a median includes the own return")
def median(config, episodes, phi):
    return phi.median(-2, keepdim=True).values

@importance.register("root", before=True, bias="roots of the ratios")
def root(log_ratio):
    return 0.5 * importance.log_prefix(log_ratio)

@optimizers.register("sign")
def sign(momentum=0.0):
    def update(theta, g, state, lr):
        theta.sub_(lr * state["mean"].mul_(momentum).add_(g).sign())
    return optimizers.Optimizer(lambda theta: {"mean": torch.zeros_like(theta)}, update)
"""


def test_parts_of_ones_own(tmp_path):
    (tmp_path / "my.py").write_text(PARTS)
    own = ("estimator=rtg", "estimator.baseline=my:median", "estimator.importance=my:root",
           "optimizer.name=my:sign", "optimizer.momentum=0.5", "updates_per_batch=2")  # fmt: skip
    done = pg("train", *own, *SHORT, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for note in ("a median includes the own return", "roots of the ratios", "dropped importance"):
        assert f"biased: {note}" in done.stdout
    again = pg("train", "resume=run", "iterations=3", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    lake = ("env=FrozenLake-v1", "policy=tabular", "episodes=64", "batch_size=8")
    done = pg("compare", "estimators=[rtg]", "estimator.baseline=my:median", *lake,
              "resamples=100", "pictures=false", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for given, allowed in {
        "estimator.baseline=my:medium": "did you mean median?",
        "estimator.baseline=meen": "did you mean mean?",
        "estimator.importance=per_decison": "did you mean per_decision?",
        "optimizer.name=adm": "did you mean adam?",
        "optimizer.name=my:sign optimizer.betas=[0.9,0.99]": "only adam and adamw",
        "optimizer.betas=[0.9]": "betas",
        "optimizer=sgd optimizer.eps=1e-5": "only adam and adamw",
    }.items():
        bad = pg("train", *given.split(), *SHORT, cwd=tmp_path)
        assert (bad.returncode, bad.stderr.count("\n")) == (2, 1), bad.stderr
        assert allowed in bad.stderr, bad.stderr


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (["env.kwargs.crash=60"], 6, "step failed (environment"),
        (
            ["env.kwargs.rew=1e308"],
            5,
            "the gradient of seed 0 is NaN or infinite after 0 iterations",
        ),
        (["env.kwargs.rew=nan"], 6, "reward NaN or infinite"),
    ],
    ids=str,
)
def test_a_failing_run_keeps_what_it_had_and_says_where(settings, code, said, tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)
    done = pg("train", "env=my_module:Mine-v0", "batch_size=4", "iterations=50", *settings,
              cwd=tmp_path)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    run = only_run(tmp_path)
    assert str(run) in done.stdout
    assert json.loads((run / "summary.json").read_text())["reason"] in done.stderr
    if "crash" in settings[0]:
        assert len(rows(run)) > 1
        assert list((run / "checkpoint").glob("*.npz"))


def test_hydras_flags_work(tmp_path):
    shown = pg("train", "--cfg", "job", "estimator=gae", cwd=tmp_path)
    assert "phi: gae" in shown.stdout
    info = pg("train", "--info", "searchpath", cwd=tmp_path)
    assert "gymnasium" in info.stdout
    helped = pg("train", "--help", cwd=tmp_path)
    assert "pg train estimator=rtg env=CartPole-v1" in helped.stdout
    assert "# whole episodes per iteration and seed" in helped.stdout
    (tmp_path / "mine" / "estimator").mkdir(parents=True)
    (tmp_path / "mine" / "estimator" / "own.yaml").write_text("phi: gae\nlam: 0.5\n")
    done = pg("train", "--config-dir", "mine", "estimator=own", *TRAIN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_completion(tmp_path):
    def complete(line):
        return pg("-sc", "query=bash", cwd=tmp_path, env={"COMP_LINE": line}).stdout.split()

    assert complete("pg tr") == ["train"]
    assert "estimator=rtg" in complete("pg train estimator=r")
    assert "env=Acrobot-v1" in complete("pg train env=Acro")
    assert "optimizer.lr=" in complete("pg train optimizer.l")
    assert complete("pg  train  estimator=rt") == complete("pg train estimator=rt")
    for half in ("pg train foo[ o", "pg nope x"):
        silent = pg("-sc", "query=bash", cwd=tmp_path, env={"COMP_LINE": half})
        assert silent.stdout + silent.stderr == ""
    assert pg("train", "-sc", "install=bash", cwd=tmp_path).stdout.rstrip().endswith(" pg")


def test_unknown_command_and_no_command(tmp_path):
    assert "did you mean pg train?" in pg("trian", cwd=tmp_path).stderr
    assert pg("trian", cwd=tmp_path).returncode == 2
    assert pg(cwd=tmp_path).returncode == 2


def test_report(tmp_path):
    for seed in (0, 1):
        done = pg("train", *SHORT, f"seed={seed}", f"hydra.run.dir=runs/{seed}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = pg("report", "runs", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"report.csv", "report.html", "report.md"} <= {p.name for p in tmp_path.glob("out/*")}
    bad = pg("report", "nowhere", cwd=tmp_path)
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
    assert "nowhere" in bad.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("estimator=rtg estimator.bootstrap=true", "estimator.bootstrap=true has no effect: "),
        ("estimator=rtg_value estimator.bootstrap=true", "estimator.bootstrap=true has no effect"),
        (
            "estimator=gae critic.target=monte_carlo estimator.bootstrap=true",
            "estimator.bootstrap=true beside critic.target=monte_carlo: ",
        ),
        ("estimator=rtg critic=linear", "critic=linear has no effect: the estimator has no critic"),
        ("policy=tabular env=CartPole-v1", "policy=tabular is no table here"),
        ("-m estimator=rtg,gae estimator.lam=0.9", "estimator.lam=0.9 has no effect in some of"),
        ("estimator.importance=first_order", "estimator.importance=first_order has no effect"),
    ],
)
def test_what_is_typed_and_has_no_effect_is_said(line, said, tmp_path):
    done = pg("train", *line.split(), *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"note: {said}" in " ".join(done.stdout.split())


def test_nothing_is_said_of_what_a_preset_sets_or_of_what_is_off(tmp_path):
    line = "estimator=gae env=CartPole-v1 policy=linear estimator.baseline=none"
    done = pg("train", *line.split(), *SHORT, cwd=tmp_path)
    assert "no effect" not in done.stdout
    line = "env=CartPole-v1 estimators=[rtg] critic.lr=0.1 log.wandb=p pictures=false"
    told = pg("compare", *line.split(), "episodes=64", "batch_size=8", cwd=tmp_path).stdout
    assert "note: critic.lr=0.1 has no effect: the estimator has no critic" in told
    assert "note: log.wandb=p has no effect: it is for pg train" in told
