"""A setting of the estimators as a list: bias, variance and error over its values."""

import csv
import json

import pytest
from command_line import pg

from pgcli.cli.compose import compose_all
from pgcli.cli.presets import estimator_configs
from pgcli.settings.ladders import Rung, rung_of, rungs

LAKE = ("env=FrozenLake-v1", "policy=tabular", "env.max_episode_steps=20", "resamples=200")


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def configs(*words):
    words = [word.replace("estimator.", "++estimator.") for word in words]  # as `pg` does
    (one,) = compose_all("compare", words, None, multirun=False)
    return estimator_configs(one.config)


def test_every_value_is_an_estimator_of_its_own_where_it_has_an_effect():
    found = configs("estimators=[gae,n_step,rtg]", "estimator.lam=[0,1]", "estimator.n=[1,2,3]")
    assert list(found) == [
        "gae lam=0", "gae lam=1", "n_step n=1", "n_step n=2", "n_step n=3", "rtg"
    ]  # fmt: skip
    assert [one.lam for one in found.values()][:2] == [0, 1]
    assert [found[f"n_step n={n}"].n for n in (1, 2, 3)] == [1, 2, 3]
    both = configs("estimators=[gae]", "estimator.lam=[0,1]", "estimator.bootstrap=true")
    assert all(one.bootstrap for one in both.values())


def test_the_discount_is_varied_where_no_critic_has_one_of_its_own():
    found = configs("estimators=[rtg,gae]", "estimator.gamma=[0.5,0.9]")
    assert list(found) == ["rtg gamma=0.5", "rtg gamma=0.9", "gae"]
    assert found["gae"].gamma == 0.9  # the objective's


def test_a_rung_is_known_by_its_name():
    every = rungs("gae", {"lam": [0.5, 1], "gamma": [0.9, 1]})
    assert len(every) == 4
    assert every[0].name == "gae lam=0.5 gamma=0.9"
    assert every[0].without("lam") == every[2].without("lam") == "gae gamma=0.9"
    (found, *_) = configs("estimators=[gae]", "estimator.lam=[0.25,1]").values()
    assert rung_of("gae lam=0.25", found) == Rung("gae", {"lam": 0.25})


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("ladder")
    done = pg("compare", *LAKE, "estimator.lam=[0,0.5,0.9,1]", "estimators=[gae,rtg]",
              "fit_episodes=64", "episodes=4096", "batch_size=16", "sizes=[8,1024,65536]",
              "hydra.run.dir=run", cwd=cwd)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cwd / "run", done.stdout


def test_exact_figures_are_those_of_the_estimators(ladder):
    run, _ = ladder
    norm = json.loads((run / "compare.json").read_text())["gradient_norm"]
    of = {row["estimator"]: row for row in read(run / "compare.csv")}
    rows = read(run / "ladder.csv")
    assert {(row["value"], row["batch_size"]) for row in rows} == {
        (value, size) for value in ("0", "0.5", "0.9", "1") for size in ("8", "16", "1024", "65536")
    }
    for row in rows:
        own = of[f"gae lam={float(row['value']):g}"]
        square = (float(own["bias_exact"]) * norm) ** 2
        variance = float(own["trace_cov_exact"]) / int(row["batch_size"])
        assert float(row["squared_bias_exact"]) == pytest.approx(square, rel=1e-6, abs=1e-18)
        assert float(row["variance_exact"]) == pytest.approx(variance, rel=1e-12)
        assert float(row["mse_exact"]) == pytest.approx(square + variance, rel=1e-6)


def test_sampled_figures_cover_the_exact_ones(ladder):
    run, _ = ladder
    held = [
        float(row[f"{figure}_lo"]) <= float(row[f"{figure}_exact"]) <= float(row[f"{figure}_hi"])
        for row in read(run / "ladder.csv")
        for figure in ("variance", "squared_bias")
        if not (figure == "squared_bias" and row["value"] == "1")  # only rounding is left
    ]
    assert sum(held) >= 0.8 * len(held)


def test_the_best_value_grows_with_the_batch(ladder):
    run, said = ladder
    rows = read(run / "best.csv")
    exact = [float(row["best_exact"]) for row in rows]
    assert exact == sorted(exact)
    assert (exact[0], exact[-1]) == (0, 1)
    for row in rows:
        assert float(row["best_lo"]) <= float(row["best_exact"]) <= float(row["best_hi"])
        assert 0 < float(row["least_in"]) <= 1
    assert "least error of" in said
    assert (run / "ladder_lam_gae.png").stat().st_size > 10_000


def test_another_discount_is_a_bias_and_said(tmp_path):
    done = pg("compare", *LAKE, "estimator.gamma=[0.5,1]", "estimator.discount_state=true",
              "estimators=[rtg]", "episodes=128", "pictures=false", "hydra.run.dir=run",
              cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rtg gamma=0.5: it discounts by γ = 0.5, and the objective by 1.0" in done.stdout
    rows = {row["estimator"]: row for row in read(tmp_path / "run" / "compare.csv")}
    assert float(rows["rtg gamma=0.5"]["bias_exact"]) > 0.01
    assert float(rows["rtg gamma=1"]["bias_exact"]) < 1e-9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["estimators=[rtg]", "estimator.lam=[0,1]"], "it has no effect on any estimator here"),
        (["estimators=[gae]", "estimator.lam=[0,2]"], "estimator.lam=2: must be finite"),
        (["estimators=[gae]", "estimator.lam=[0]"], "a list of different numbers"),
        (["estimators=[gae]", "estimator.lam=[0,0]"], "a list of different numbers"),
        (["estimators=[gae]", "estimator.lam=[a,1]"], "a list of different numbers"),
        (["estimators=[gae]", "estimator.phi=[td,gae]"], "of a setting that is a number"),
        (["estimators=[n_step]", "estimator.n=[1,2.5]"], "a list of different whole numbers"),
        (["estimators=[gae]", "estimator.lam=[0.5,0.50000000000001]"], "different numbers"),
    ],
)
def test_what_is_no_ladder_is_one_line(tmp_path, words, said):
    done = pg("compare", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_an_error_of_v_biases_what_leans_on_it(tmp_path):
    done = pg("compare", *LAKE, "critic=exact", "estimator.value_error=[0,0.02,0.1]",
              "estimators=[td,rtg_value,rtg]", "episodes=2048", "pictures=false",
              "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "biased: td value_error=0.1: learned V: Φ leans on it after one step" in done.stdout
    assert "biased: td value_error=0:" not in done.stdout
    rows = {row["estimator"]: row for row in read(tmp_path / "run" / "compare.csv")}
    assert len(rows) == 7
    biases = [float(rows[f"td value_error={x}"]["bias_exact"]) for x in ("0", "0.02", "0.1")]
    assert biases[0] < 1e-9
    assert biases[2] == pytest.approx(5 * biases[1], rel=1e-6)  # it is linear in V
    assert biases[1] > 0.1
    for x in ("0", "0.02", "0.1"):
        assert float(rows[f"rtg_value value_error={x}"]["bias_exact"]) < 1e-9
    told = json.loads((tmp_path / "run" / "compare.json").read_text())
    assert told["contradicted"] == []  # what is sampled has the very same error
    for row in rows.values():
        low, exact, high = (float(row[f"trace_cov{x}"]) for x in ("_lo", "_exact", "_hi"))
        assert low / 1.1 <= exact <= high * 1.1
    lines = [row for row in read(tmp_path / "run" / "ladder.csv") if row["estimator"] == "td"]
    assert {row["setting"] for row in lines} == {"value_error"}


def test_where_nothing_tells_the_gradient_that_is_said(tmp_path):
    done = pg("compare", "estimators=[td]", "estimator.gamma=0.9",
              "estimator.value_error=[0.1,0.2]", "episodes=128",
              "pictures=false", "fit_episodes=8", "critic.epochs=1",
              "resamples=200", "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note: no ladder: all of these estimators are biased" in done.stdout
    assert not (tmp_path / "run" / "ladder.csv").exists()
