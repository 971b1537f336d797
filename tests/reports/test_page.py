"""A page of results beside what is published, and what it rests on."""

import json

import numpy as np
import pytest
from made_runs import made_run

from pgcli.errors import ConfigError
from pgcli.reports import kept, published
from pgcli.reports.published import METRICS, Published, of, task_of, verdict
from pgcli.reports.report import report
from pgcli.runs.saved import ROW, read
from pgcli.runs.tags import EPISODES, RETURN
from pgcli.statistics.curves import running_mean


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_figures_of_others_say_how_they_are_measured():
    known = published.published()
    assert len(known) > 60
    for p in known:
        assert p.metric in METRICS
        assert p.source
        assert (p.metric == published.THRESHOLD) == (p.steps is None)
        assert p.deviation is None or p.deviation >= 0
    assert len({(p.task, p.method, p.source) for p in known}) == len(known)


def test_a_task_is_called_without_its_version():
    assert task_of("HalfCheetah-v5") == "HalfCheetah"
    assert task_of("ns/Mine-v0") == "Mine"
    found = of("Hopper-v5", "ppo", published.published())
    assert found[0].source.startswith("CleanRL")  # measured as ours is
    assert all(p.task == "Hopper" and p.method == "ppo" for p in found)
    assert [p.method for p in of("FrozenLake-v1", "rtg", published.published())] == ["any"]


THEIRS = Published("A", "ppo", 1_000_000, 10.0, 2.0, 4, "training", None, "x")


def test_a_verdict_is_the_interval_s_of_the_difference():
    x = np.array([10.0, 11, 12, 13, 14])  # mean 12, variance of the mean 0.5; theirs 10, 1
    # Welch: √1.5 = 1.2247, 1.5²/(0.5²/4 + 1²/3) = 5.68 degrees of freedom, t = 2.481: ± 3.04
    assert verdict(x, 1_000_000, THEIRS) == "reached"
    assert verdict(x + 1, 1_000_000, THEIRS) == "reached"  # 3 − 3.04 < 0
    assert verdict(x + 1.1, 1_000_000, THEIRS) == "above"
    assert verdict(x - 5.1, 1_000_000, THEIRS) == "below"
    same = THEIRS._replace(metric="threshold", steps=None, deviation=None, seeds=None)
    assert verdict(np.full(5, 10.0), 5, same) == "reached"
    assert verdict(np.full(5, 10.1), 5, same) == "above"


@pytest.mark.parametrize(
    ("seeds", "steps", "other"),
    [
        (4, 1_000_000, THEIRS),
        (5, 900_000, THEIRS),
        (5, 1_000_000, THEIRS._replace(metric="best_test")),
        (5, 1_000_000, THEIRS._replace(metric="curve")),
    ],
)
def test_what_is_measured_otherwise_has_no_verdict(seeds, steps, other):
    assert verdict(np.arange(float(seeds)), steps, other) == ""


def test_few_rows_keep_the_end_and_the_mean():
    rows = np.zeros(5000, ROW)
    generator = np.random.default_rng(0)
    rows["iteration"], rows["env_steps"] = np.arange(1, 5001), 40 * np.arange(1, 5001)
    rows[EPISODES] = generator.integers(0, 3, 5000)
    rows[RETURN] = generator.normal(size=5000)
    short = kept.thinned(rows)
    assert len(short) < 400
    assert short[EPISODES].sum() == rows[EPISODES].sum()
    assert (np.diff(short["env_steps"]) > 0).all()
    last = [running_mean(r[RETURN], r[EPISODES], 100)[-1] for r in (short, rows)]
    assert last[0] == pytest.approx(last[1], abs=1e-12)
    total = [(r[RETURN] * r[EPISODES])[r[EPISODES] > 0].sum() for r in (short, rows)]
    assert total[0] == pytest.approx(total[1])
    assert (kept.thinned(rows[:7]) == rows[:7]).all()


def test_the_page_is_written_again_from_what_it_keeps(tmp_path, capsys):
    run = made_run(tmp_path / "runs" / "0", seeds=range(5), height=600)
    evaluated = tmp_path / "runs" / "eval"
    evaluated.mkdir()
    seeds = [{"seed": s, "greedy": {"mean": 400 + s}, "sampled": {"mean": 300}} for s in range(5)]
    facts = {"runs": [{"run": str(run), "seeds": seeds}]}
    (evaluated / "eval.json").write_text(json.dumps(facts))
    assert report(["runs", "--page", "results.md"]) == 0
    assert "CartPole-v1" in capsys.readouterr().out
    page = (tmp_path / "results.md").read_text()
    for text in ("| 402.0 \\[", "| 300.0 \\[", "below | 475", "Gymnasium's registry", "## Open"):
        assert text in page, page
    (small,) = (path.parent for path in (tmp_path / "results").rglob("metrics.csv"))
    assert not (small / "checkpoint").exists()
    assert read(small).state is read(run).state
    assert report(["runs", "results", "--page", "results.md"]) == 0
    assert report(["results", "--page", "results.md"]) == 0
    again = (tmp_path / "results.md").read_text()
    (tmp_path / "results" / "notes.md").write_text("## Mine\n\n*As it is.*\n")
    assert report(["results", "--page", "results.md"]) == 0
    assert (tmp_path / "results.md").read_text().endswith("|\n\n## Mine\n\n*As it is.*\n")
    assert again.split("\n")[4:] == page.split("\n")[4:]  # but for the line that wrote it
    assert len(list((tmp_path / "results").rglob("metrics.csv"))) == 1


def test_rows_of_one_task_and_method_are_told_apart(tmp_path, capsys):
    for lr in (0.01, 0.02):
        run = made_run(tmp_path / "runs" / str(lr), lr=lr)
        (run / ".hydra" / "overrides.yaml").write_text(f"- estimator=rtg\n- optimizer.lr={lr}\n")
    broken = made_run(tmp_path / "runs" / "broken")
    (broken / "config.yaml").unlink(missing_ok=True)
    (broken / ".hydra" / "config.yaml").unlink()
    assert report(["runs", "--page", "page.md"]) == 0
    assert "left out, broken" in capsys.readouterr().out
    page = (tmp_path / "page.md").read_text()
    for name in ("rtg (optimizer.lr=0.01)", "rtg (optimizer.lr=0.02)", "## Runs left out"):
        assert name in page, page


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--page", "x.html"], "must end with .md"),
        (["--page", "nowhere/x.md"], "is no directory"),
        (["--page", "x.md", "--threshold", "3"], "has no effect with --page"),
        (["--page", "x.md", "--out", "o"], "has no effect with --page"),
        (["--page", "mine.md"], "is there already"),
        (["--page", "plain.md"], "keeps runs in plain, which is no directory"),
    ],
)
def test_what_makes_no_page_is_refused(line, said, tmp_path):
    (tmp_path / "mine.md").write_text("# Results\n\nof my own\n")
    (tmp_path / "plain").write_text("a file")
    made_run(tmp_path / "runs" / "0", seeds=(0,))
    with pytest.raises(ConfigError, match=said):
        report(["runs", *line])
    assert [file.name for file in tmp_path.glob("*.md")] == ["mine.md"]
    assert "of my own" in (tmp_path / "mine.md").read_text()
