"""Critics, recorders and callbacks of a user's module: what they are told, and where they fail."""

import csv
import json

import numpy as np
import pytest
from command_line import pg, rows

from pgcli.runs import checkpoint

PARTS = """
import json, torch
from pgcli.estimators import baselines, importance, phi
from pgcli.policies import critics
from pgcli.updates import optimizers, rule

class Lines:
    fails = None
    def start(self, config):
        self.place = config["directory"]
        if self.fails == "start":
            raise ValueError("no server")
        self.tell("start", config["optimizer"]["lr"], config["callback"])
    def record(self, iteration, metrics):
        self.tell("record", iteration, metrics)
        if self.fails == iteration:
            raise ValueError("server\\nis gone")
    def finish(self, summary):
        self.tell("finish", summary["status"], summary["directory"])
        if self.fails == "finish":
            raise ValueError("too late")
    def tell(self, *what):
        with open(self.place + "/lines.jsonl", "a") as file:
            file.write(json.dumps(what) + "\\n")

class FailsAtStart(Lines):
    fails = "start"
class FailsLater(Lines):
    fails = 2
class FailsAtTheEnd(Lines):
    fails = "finish"
def nothing():
    return object()

@rule.register("falls")
class Falls:
    def __init__(self, start):
        self.count = 0
    def step(self, theta, estimate, progress, around=None):
        self.count += 1
        if self.count == 3:
            raise ValueError("fell over")
        return {}
    def state(self):
        return {}

def twice(iteration, metrics):
    assert set(metrics) >= {"seed", "env_steps", "gradient/norm"}
    return {"twice": 2 * metrics["rollout/ep_rew_mean"], "iteration": iteration}
class Stopping:
    def __init__(self):
        self.calls = 0
    def __call__(self, iteration, metrics):
        self.calls += 1
        return {"stop": "seen enough" if self.calls == 2 else None}
def late(iteration, metrics):
    return {"late": 1.0} if iteration > 1 else None
def text(iteration, metrics):
    return {"x": "much"}
def many(iteration, metrics):
    return {"x": [1, 2, 3, 4, 5]}
def number(iteration, metrics):
    return 3
def raises(iteration, metrics):
    if iteration == 2:
        return metrics["nothing"]

class Mean:
    def __init__(self, config, inputs, horizon, seeds, device):
        self.mean = torch.zeros(len(seeds), dtype=torch.float64, device=device)
    def state(self):
        return {"mean": self.mean}
    def value(self, obs, time):
        return self.mean[:, None].expand(time.shape)
    def fit(self, obs, time, target, real):
        self.mean[:] = (target * real).sum(1) / real.sum(1)
critics.register("mean")(Mean)

@critics.register("flat")
class Flat(Mean):
    def value(self, obs, time):
        return self.mean

@critics.register("shared")
class Shared(Mean):
    def state(self):
        return {"mean": torch.zeros(())}

@critics.register("unfit")
class Unfit(Mean):
    def fit(self, obs, time, target, real):
        return target.nothing

@critics.register("fails")
def fails(config, inputs, horizon, seeds, device):
    raise ValueError("no such thing")

@critics.register("half")
def half(config, inputs, horizon, seeds, device):
    return object()

@phi.register("bad")
def bad(config, episodes):
    return episodes.rew * int("x")
@phi.register("none")
def none(config, episodes):
    return None
@baselines.register("bad")
def bad_baseline(config, episodes, phi):
    raise KeyError("b")
@importance.register("bad")
def bad_importance(log_ratio):
    raise KeyError("i")
@optimizers.register("bad")
def bad_optimizer():
    def update(theta, g, state, lr):
        raise KeyError("o")
    return optimizers.Optimizer(lambda theta: {}, update)
"""
SMALL = ["env=CartPole-v1", "iterations=3", "batch_size=4", "policy.hidden=[4]", 
         "critic.hidden=[4]", "hydra.run.dir=run"]  # fmt: skip


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def user(tmp_path):
    (tmp_path / "my.py").write_text(PARTS)
    return tmp_path


def train(*args, cwd):
    return pg("train", *SMALL, *args, cwd=cwd)


def told(run):
    return [json.loads(line) for line in (run / "lines.jsonl").read_text().splitlines()]


def table(run):
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def test_a_recorder_gets_every_row_of_the_table(user):
    done = train("log.recorder=my:Lines", "seeds=2", "seed=5", cwd=user)
    assert done.returncode == 0, done.stderr
    first, *records, last = told(user / "run")
    assert first == ["start", 0.005, None]
    assert last == ["finish", "finished", str(user / "run")]
    assert len(records) == 6
    for (_, iteration, metrics), row in zip(records, table(user / "run"), strict=True):
        assert {"iteration": iteration, **metrics} == {k: float(x) for k, x in row.items()}
    done = pg("train", "resume=run", "iterations=4", cwd=user)
    assert done.returncode == 0, done.stderr
    assert [line[0] for line in told(user / "run")[8:]] == ["start", "record", "record", "finish"]


@pytest.mark.slow
def test_a_recorder_learns_of_a_runs_failure(user):
    done = train("log.recorder=my:Lines", "callback=my:raises", cwd=user)
    assert done.returncode == 1
    assert told(user / "run")[-1][:2] == ["finish", "PartFailed"]
    assert [line[0] for line in told(user / "run")].count("record") == 2


@pytest.mark.parametrize(
    ("name", "said", "kept"),
    [
        slow("FailsAtStart", "ValueError: no server", None),
        ("FailsLater", "ValueError: server is gone", 2),
        slow("FailsAtTheEnd", "ValueError: too late", 3),
    ],
)
def test_a_recorder_that_fails_is_a_line_and_costs_nothing(name, said, kept, user):
    done = train(f"log.recorder=my:{name}", cwd=user)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"pg: log.recorder=my:{name} failed (my.py, line ")
    assert said in done.stderr
    if kept is None:
        assert not (user / "run").exists()
        return
    assert len(table(user / "run")) == kept
    assert checkpoint.load(user / "run").iteration == kept
    done = pg("train", "resume=run", "iterations=4", "log.recorder=null", cwd=user)
    assert done.returncode == 0, done.stderr
    assert len(table(user / "run")) == 4


def test_an_update_rule_that_fails_is_a_line_and_costs_nothing(user):
    done = train("update.name=my:falls", cwd=user)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("pg: update.name=my:falls failed (my.py, line ")
    assert "ValueError: fell over" in done.stderr
    assert checkpoint.load(user / "run").iteration == 2


def test_a_callback_adds_metrics_seed_by_seed(user):
    done = train("callback=my:twice", "seeds=2", "log.seeds=true", cwd=user)
    assert done.returncode == 0, done.stderr
    for row in table(user / "run"):
        assert float(row["callback/twice"]) == 2 * float(row["rollout/ep_rew_mean"])
        assert float(row["callback/iteration"]) == float(row["iteration"])


def test_a_callback_ends_a_run_that_then_counts_as_finished(user):
    done = train("callback=my:Stopping", cwd=user)
    assert done.returncode == 0, done.stderr
    why = "stopped by callback=my:Stopping after iteration 2: seen enough"
    assert done.stdout.count(why) == 1
    summary = json.loads((user / "run" / "summary.json").read_text())
    assert (summary["status"], summary["reason"], summary["iterations"]) == ("finished", why, 2)
    assert len(table(user / "run")) == 2
    line = ["-m", "seed=0,1", "callback=my:Stopping", "hydra.sweep.dir=sweep", "iterations=5"]
    for said in ("2 of 2 jobs finished", "2 of 2"):  # and nothing is left of them
        done = train(*line, cwd=user)
        assert (done.returncode, said in done.stdout) == (0, True), done.stdout
    assert len(table(user / "sweep" / "seed@0")) == 2
    done = pg("train", "resume=run", "callback=null", cwd=user)
    assert len(table(user / "run")) == 3


def test_a_metric_that_comes_later_has_no_column_which_is_said(user):
    done = train("callback=my:late", cwd=user)
    assert done.returncode == 0, done.stderr
    assert "callback/late came first in iteration 2: metrics.csv has no column" in done.stdout
    assert "callback/late" not in table(user / "run")[0]


@pytest.mark.parametrize(
    ("name", "said", "kept"),
    [
        slow("text", "gave x=much: a number, or one for each of 1 seeds", 1),
        slow("many", "gave x=[1, 2, 3, 4, 5]: a number", 1),
        slow("number", "gave int: a dictionary, or None", 1),
        ("raises", "failed (my.py, line", 2),
    ],
)
def test_a_callback_that_fails_is_a_line_and_its_iteration_is_kept(name, said, kept, user):
    done = train(f"callback=my:{name}", cwd=user)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"pg: callback=my:{name} ")
    assert said in done.stderr
    assert len(table(user / "run")) == checkpoint.load(user / "run").iteration == kept
    assert json.loads((user / "run" / "summary.json").read_text())["reason"] in done.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("callback=my:twise", "my has no twise; did you mean twice?"),
        ("callback=twice", "must be module:name"),
        ("log.recorder=nowhere:X", "the module does not import"),
        ("log.recorder=my:json", "is a module, which cannot be called"),
        ("log.recorder=my:nothing", "object has no start(config)"),
        ("critic.kind=my:meen", "must be one of"),
        ("critic.kind=mpl", "must be one of exact, linear, mlp, module:name; did you mean mlp?"),
        ("critic.kind=my:half", "object has no state()"),
        ("critic.kind=my:shared", "mean, which is no tensor with a row for each seed"),
    ],
)
def test_what_cannot_be_used_leaves_no_run(setting, said, user):
    done = train("estimator=gae", setting, cwd=user)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert not (user / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        slow("estimator=gae critic.kind=my:fails", "critic.kind=my:fails failed (my.py, line"),
        slow("estimator=gae critic.kind=my:flat", "value gave the shape [1] for"),
        ("estimator=gae critic.kind=my:unfit", "critic.kind=my:unfit failed (my.py, line"),
        slow("estimator.phi=my:bad", "estimator.phi=my:bad failed (my.py, line"),
        slow("estimator.baseline=my:bad", "KeyError: 'b'"),
        slow("estimator.importance=my:bad updates_per_batch=2", "KeyError: 'i'"),
        ("optimizer.name=my:bad", "optimizer.name=my:bad failed (my.py, line"),
    ],
)
def test_what_raises_is_told_in_one_line(settings, said, user):
    done = train(*settings.split(), cwd=user)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert said in done.stderr


def test_a_phi_that_gives_nothing_is_refused(user):
    done = train("estimator.phi=my:none", cwd=user)
    assert (done.returncode, "gave a NoneType for rewards" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "more", [[], slow(["estimator.scale_rewards=true"]), slow(["collect=steps"])]
)
def test_a_critic_learns_is_saved_and_goes_on_bit_for_bit(more, user):
    line = ["estimator=gae", "critic.kind=my:mean", "seeds=2", "optimizer.schedule=constant", *more]
    if more == ["collect=steps"]:
        line += ["critic.target=td_lambda", "horizon=16", "env.num_envs=2"]
    for name, count in {"whole": 4, "half": 2}.items():
        args = [*line, f"iterations={count}", f"hydra.run.dir={name}"]
        done = train(*args, cwd=user)
        assert done.returncode == 0, done.stderr
    done = pg("train", "resume=half", "iterations=4", cwd=user)
    assert done.returncode == 0, done.stderr
    whole, half = (checkpoint.load(user / name).arrays for name in ("whole", "half"))
    assert "value/own/mean" in whole
    assert (whole["value/own/mean"] != 0).all()
    for name, x in whole.items():
        np.testing.assert_array_equal(x, half[name], err_msg=name)


@pytest.mark.slow
def test_a_critic_begins_warm_and_is_compared(user):
    line = ["estimator=gae", "critic.kind=my:mean"]
    assert train(*line, cwd=user).returncode == 0
    warm = ["init.checkpoint=run", "hydra.run.dir=warm", "iterations=1"]
    done = train(*line, *warm, cwd=user)
    assert done.returncode == 0, done.stderr
    done = train("estimator=gae", *warm, cwd=user)
    assert (done.returncode, "critic V has another critic.kind" in done.stderr) == (2, True)
    done = pg("compare", "checkpoint=run", "estimators=[rtg_value,gae]", "critic.kind=my:mean",
              "episodes=32", "batch_size=8", "fit_episodes=8", "resamples=100", "pictures=false",
              cwd=user)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(rows(user / "run")) == 4
