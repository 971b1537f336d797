"""Runs on disk: whole, half, and broken in every way that was thought of."""

import numpy as np
import pytest
from command_line import pg
from made_runs import made_run, write_summary
from settings import train_config

from pgcli.reports.groups import group
from pgcli.runs.logbook import Logbook
from pgcli.runs.saved import (
    MEASURED,
    SETTINGS,
    find,
    limits,
    read,
    settings,
    telling,
    write_settings,
)
from pgcli.settings.schema import flat


def test_runs_are_found_at_any_depth_once_and_in_natural_order(tmp_path):
    for name in ("sweep/10", "sweep/2", "sweep/2/inner", "other/a"):
        made_run(tmp_path / name)
    (tmp_path / "sweep" / "2" / "seed-0").mkdir()
    (tmp_path / "sweep" / "2" / "checkpoint" / "x").mkdir(parents=True)
    found = find([tmp_path / "sweep", tmp_path, tmp_path / "sweep" / "10"])
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["sweep/2", "sweep/2/inner", "sweep/10", "other/a"]


def test_a_training_that_left_no_row_is_a_run_and_another_command_is_none(tmp_path):
    for name in ("train", "eval"):
        hydra = tmp_path / name / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "hydra.yaml").write_text(f"hydra: {{job: {{name: {name}}}}}")
    (tmp_path / "broken" / ".hydra").mkdir(parents=True)
    assert find([tmp_path]) == [tmp_path / "train"]
    assert find([tmp_path / "nowhere"]) == [tmp_path / "nowhere"]  # cannot be listed
    assert read(tmp_path / "train").state.name == "empty"


def test_what_the_logbook_wrote_is_read(tmp_path):
    run = made_run(tmp_path / "run", seeds=(2**62 + 1, 5))
    (run / "metrics.csv").unlink()
    metrics = {
        "rollout/ep_rew_mean": np.array([0.1 + 0.2, 1e-300]),
        "other": np.array([np.inf, np.nan]),
        "rollout/episodes": np.array([32, 31]),
        "gradient/variance": np.array([np.nan, 3.0]),
    }
    log = Logbook(run, [2**62 + 1, 5], "", {})
    for i in (1, 2):
        log.write(i, np.array([10, 20]) * i, metrics)
    log.close({})
    write_summary(run, status="finished", reason=None, iterations=2)
    found = read(run)
    assert (found.state.name, found.reason) == ("finished", "")
    rows = found.records[2**62 + 1]
    assert rows["rollout/ep_rew_mean"].tolist() == [0.1 + 0.2] * 2
    assert rows["env_steps"].tolist() == [10, 20]
    assert found.records[5]["rollout/episodes"].tolist() == [31, 31]
    assert np.isnan(rows["gradient/variance"]).all()
    assert np.isnan(rows["gradient/trace_cov"]).all()  # no such column


def test_the_configuration_is_text_by_dotted_key(tmp_path):
    config = read(made_run(tmp_path / "run")).config
    assert config["policy.hidden"] == "[64]"
    assert (config["resume"], config["optimizer.lr"]) == ("null", "0.005")
    assert "env.kwargs" not in config


def test_notes_tell_what_was_chosen_and_typed(tmp_path):
    run = made_run(tmp_path / "run", estimator="gae", typed=("estimator", "+env.kwargs.g"))
    assert read(run).choices == {"estimator": "gae", "env": "CartPole-v1"}
    assert read(run).typed == {"estimator", "env.kwargs.g"}
    (run / ".hydra" / "hydra.yaml").write_text("hydra: 3")
    assert read(run).choices == {}


def test_what_a_run_was_told_is_its_own_file_first(tmp_path):
    run = made_run(tmp_path / "run")
    assert settings(run)["iterations"] == 20
    (run / SETTINGS).write_text("iterations: 30\n")  # Hydra's belongs to one that did not begin
    assert (settings(run), limits(tmp_path / "none")) == ({"iterations": 30}, None)


def test_a_configuration_from_python_is_written_whole(tmp_path):
    config = train_config("estimator=gae", "++env.kwargs.g=9.81", "policy.hidden=[8,8]")
    write_settings(tmp_path, config)
    tree = settings(tmp_path)
    assert tree["env"]["kwargs"] == {"g": 9.81}
    assert (tree["policy"]["activation"], tree["critic"]["kind"]) == ("tanh", "mlp")
    assert [key for key in flat(config) if key.split(".")[0] not in tree] == []


def cut(run):
    content = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(content[:-7])


def replace(old, new):
    def change(run):
        path = run / "metrics.csv"
        path.write_text(path.read_text().replace(old, new))

    return change


def write(name, text):
    return lambda run: (run / name).write_text(text)


def summary(**content):
    return lambda run: write_summary(run, **content)


def folder_instead(run):
    (run / "metrics.csv").unlink()
    (run / "metrics.csv").mkdir()


DEFECTS = {  # what is done to a finished run: its state, what the reason must say, rows left
    "no summary": (lambda run: (run / "summary.json").unlink(), "unfinished", "20 iterations", 20),
    "no JSON": (write("summary.json", "{"), "unfinished", "not what pg writes", 20),
    "a list": (write("summary.json", "[]"), "unfinished", "not what pg writes", 20),
    "crashed": (
        summary(status="NonFinite", reason="NaN\nin seed 1", iterations=20),
        "unfinished",
        "NonFinite: NaN in seed 1",
        20,
    ),
    "killed after resuming": (
        summary(status="finished", reason=None, iterations=15),
        "unfinished",
        "5 iterations after its end",
        20,
    ),
    "last line cut": (cut, "unfinished", "holds 19 of 20", 19),
    "no rows": (write("metrics.csv", "iteration,seed,env_steps\n"), "empty", "0 of 20", 0),
    "nothing": (write("metrics.csv", ""), "empty", "0 of 20", 0),
    "blank lines": (write("metrics.csv", "iteration,seed\n\n\n"), "empty", "0 of 20", 0),
    "half a header": (write("metrics.csv", "iterat"), "empty", "0 of 20", 0),
    "no file": (lambda run: (run / "metrics.csv").unlink(), "empty", "0 of 20", 0),
    "no column": (replace("ep_rew_mean", "x"), "broken", "no column rollout/ep_rew_mean", 0),
    "no number": (replace("\n3,0,", "\n3,0,abc"), "broken", "abc", 0),
    "short row": (replace("\n3,0,", "\n3\n3,0,"), "broken", "row 3", 0),
    "zeros": (replace("\n3,0,", "\n\0\0\0,0,"), "broken", "metrics.csv: ", 0),
    "steps go back": (replace("\n3,0,300", "\n3,0,100"), "broken", "do not increase", 0),
    "not a file": (folder_instead, "broken", "metrics.csv: Is a directory", 0),
    "no YAML": (write(".hydra/config.yaml", "a: 1\nb: ]"), "broken", "config.yaml, line 2", 20),
    "a date that is none": (write(".hydra/config.yaml", "a: 2026-99-99"), "broken", "month", 20),
    "strange bytes": (
        lambda run: (run / ".hydra" / "config.yaml").write_bytes(b"\xff\xfe\x00"),
        "broken",
        "config.yaml",
        20,
    ),
    "no settings": (write(".hydra/config.yaml", "- a"), "broken", "no settings there", 20),
    "no .hydra": (
        lambda run: (run / ".hydra" / "config.yaml").unlink(),
        "broken",
        "config.yaml: No such file",
        20,
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_damaged_run_is_told_and_raises_nothing(defect, tmp_path):
    damage, state, reason, left = DEFECTS[defect]
    run = made_run(tmp_path / "run")
    damage(run)
    found = read(run)
    assert found.state.name == state
    assert reason in found.reason
    assert "\n" not in found.reason
    assert sum(map(len, found.records.values())) == left


def test_a_seed_may_be_an_iteration_ahead(tmp_path):
    run = made_run(tmp_path / "run", seeds=(0, 1))
    cut(run)
    found = read(run)
    assert {seed: len(rows) for seed, rows in found.records.items()} == {0: 20, 1: 19}
    assert "holds 19 of 20" in found.reason


def test_seeds_end_where_their_own_budgets_do(tmp_path):
    run = made_run(tmp_path / "run", seeds=(4, 5))
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(x for x in lines if not x.startswith("20,4,")))
    told = {"status": "finished", "reason": None, "iterations": 20, "seeds": [4, 5]}
    for each, state, reason in (
        ([19, 20], "finished", ""),
        ([20, 20], "unfinished", "holds 19 of 20"),
        ([19, 18], "unfinished", "2 iterations after its end"),
        ([19], "unfinished", "not what pg writes"),
        (["x", 20], "unfinished", "not what pg writes"),
    ):
        write_summary(run, **told, seed_iterations=each)
        found = read(run)
        assert found.state.name == state
        assert reason in found.reason


def test_limits_are_told_as_what_they_come_to(tmp_path):
    """Iterations typed as 100 and none typed at all are one setting; both were saved, once."""
    for number, (iterations, steps, told) in enumerate(
        [("null", "null", "100"), ("100", "null", "100"), ("null", "5000", "null"),
         ("100", "5000", "100")]
    ):  # fmt: skip
        run = made_run(tmp_path / str(number))
        path = run / ".hydra" / "config.yaml"
        text = path.read_text().replace("iterations: 20", f"iterations: {iterations}")
        path.write_text(f"{text}total_steps: {steps}\n")
        assert read(run).config["iterations"] == told
        number = None if steps == "null" else int(steps)
        assert limits(run) == (None if told == "null" else int(told), number)
    assert len(group([read(tmp_path / "0"), read(tmp_path / "1")])) == 1
    assert len(group([read(tmp_path / "2"), read(tmp_path / "3")])) == 2
    assert limits(tmp_path) is None


def test_one_row_is_enough(tmp_path):
    found = read(made_run(tmp_path / "run", rows=1))
    assert found.state.name == "finished"
    assert found.records[0][MEASURED[0]].tolist() == [4.0]


def test_a_table_of_runs_has_what_was_typed(tmp_path):
    line = ["-m", "estimator=rtg,gae", "optimizer.lr=0.1", "env=Pendulum-v1", "env.kwargs.g=9,10"]
    line += ["method=reinforce", "iterations=1", "batch_size=2", "hydra.sweep.dir=s"]
    assert pg("train", *line, cwd=tmp_path).returncode == 0
    told = {"optimizer.lr": 0.1, "optimizer.name": "adam", "env.kwargs.g": 9}
    runs = find([tmp_path / "s"])
    assert len(runs) == 4
    for run in runs:
        assert telling(run, told) == {
            "env": "Pendulum-v1",
            "method": "reinforce",
            "estimator": run.name.split("+")[0].removeprefix("estimator@"),
            "optimizer.lr": 0.1,
            "env.kwargs.g": 9,
        }
    assert telling(tmp_path, told) == told
