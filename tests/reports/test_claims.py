"""Whether claims are checked on the runs that make them, and on nothing else."""

import json
import math

import numpy as np
import pytest
from made_runs import made_run

from pgcli.reports.claims import BORNE_OUT, CONTRADICTED, FEW, NO_NUMBERS, NO_RUNS, OPEN, check
from pgcli.reports.groups import group
from pgcli.runs.saved import read

CLAIM = {
    "says": "rtg returns more", "figure": "return", "when": "last", "against_when": None,
    "of": {"estimator": "rtg"}, "against": {"estimator": "gae"}, "effect": "difference",
    "at_least": 10.0, "at_most": None,
}  # fmt: skip
SEEDS = tuple(range(8))


def claiming(directory, claims, **settings):
    run = made_run(directory, seeds=SEEDS, **settings)
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text() + f"claims: {json.dumps(claims)}\n")
    return read(run)


def found(tmp_path, *claims):
    runs = [
        claiming(tmp_path / "a", claims, estimator="rtg", height=150.0),
        claiming(tmp_path / "b", claims, estimator="gae", height=100.0),
        read(made_run(tmp_path / "c", seeds=SEEDS, estimator="gae", height=999.0, lr=0.1)),
    ]
    return check(group(runs))


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ({"at_least": 10}, BORNE_OUT),
        ({"at_least": 30, "at_most": 45}, BORNE_OUT),
        ({"at_least": 60}, CONTRADICTED),
        ({"at_least": None, "at_most": 30}, CONTRADICTED),
        ({"at_least": None, "at_most": 60}, BORNE_OUT),
    ],
)
def test_a_verdict_is_of_the_whole_interval(bounds, verdict, tmp_path):
    (finding,) = found(tmp_path, {**CLAIM, **bounds})
    assert finding.verdict == verdict
    assert finding.seeds == 8
    # The same seeds are drawn together: their difference is the same for each.
    assert finding.effect == pytest.approx((50 * 14.5 / 19,) * 3)


def test_runs_that_do_not_make_the_claim_do_not_count(tmp_path):
    (finding,) = found(tmp_path, CLAIM)
    assert float(finding.effect.value) < 100


def test_ratios_of_columns_at_the_first_iteration_and_the_last(tmp_path):
    ratio = {**CLAIM, "effect": "ratio", "at_least": 0.9}
    variance = {**ratio, "figure": "gradient/variance", "says": "equal"}
    other_time = {**ratio, "figure": "rollout/ep_rew_mean", "against": {"estimator": "rtg"}}
    other_time |= {"when": "last", "against_when": "whole", "says": "later is better"}
    any_column = {**ratio, "figure": "gradient/norm", "says": "any column"}
    a, b, c = found(tmp_path, variance, other_time, any_column)
    assert a.effect == (1, 1, 1)
    assert a.verdict == BORNE_OUT
    assert float(b.effect.value) == pytest.approx((18 + 19) / 2 / 9.5)
    assert c.effect == (1, 1, 1)


def test_environments_and_budgets_are_not_pooled(tmp_path):
    runs = [
        claiming(tmp_path / f"{name}-{env}", [CLAIM], estimator=name, environment=env, height=x)
        for env, rtg in (("CartPole-v1", 150.0), ("Acrobot-v1", 50.0))
        for name, x in (("rtg", rtg), ("gae", 100.0))
    ]
    found = {f.environment: f for f in check(group(runs))}
    assert found["CartPole-v1"].verdict == BORNE_OUT
    assert found["Acrobot-v1"].verdict == CONTRADICTED


def test_like_is_compared_with_like(tmp_path):
    """What was typed beside the claim's own settings is neither pooled nor left unsaid."""
    typed = ("estimator", "optimizer.lr")
    runs = [
        claiming(tmp_path / "a", [CLAIM], estimator="rtg", height=150.0),
        claiming(tmp_path / "b", [CLAIM], estimator="gae", height=100.0),
        claiming(tmp_path / "c", [CLAIM], estimator="rtg", height=900.0, lr=0.1, typed=typed),
    ]
    (finding,) = check(group(runs))  # the other rate has nothing to be compared with
    assert finding.environment == "CartPole-v1, optimizer.lr=0.005"
    assert finding.effect == pytest.approx((50 * 14.5 / 19,) * 3)
    runs.append(claiming(tmp_path / "d", [CLAIM], estimator="gae", height=990.0, lr=0.1))
    at = {f.environment.rpartition("=")[2]: f.verdict for f in check(group(runs))}
    assert at == {"0.005": BORNE_OUT, "0.1": CONTRADICTED}
    named = {**CLAIM, "of": {"estimator": "rtg", "optimizer.lr": 0.1}}  # its own setting
    own = [claiming(tmp_path / f"own{x}", [named], estimator="rtg", height=x, lr=lr, typed=typed)
           for x, lr in ((900.0, 0.1), (1.0, 0.5))]  # fmt: skip
    own.append(claiming(tmp_path / "gae", [named], estimator="gae", height=100.0))
    (finding,) = check(group(own))
    assert (finding.environment, finding.verdict) == ("CartPole-v1", BORNE_OUT)


def test_a_tie_proves_nothing(tmp_path):
    for limit in ({"at_least": 0.0}, {"at_least": None, "at_most": 0.0}):
        same = {**CLAIM, **limit, "against": {"estimator": "rtg"}}
        runs = [claiming(tmp_path / str(limit["at_least"]), [same])]
        assert check(group(runs))[0].verdict == OPEN


def test_what_cannot_be_told_is_said(tmp_path):
    nobody = {**CLAIM, "of": {"estimator": "nobody"}, "says": "a"}
    no_column = {**CLAIM, "figure": "no/such", "says": "b"}
    one_seed = {**CLAIM, "at_least": None, "at_most": 38.0, "says": "c"}
    a, b, c = found(tmp_path, nobody, no_column, one_seed)
    assert a.verdict == NO_RUNS
    assert b.verdict == NO_NUMBERS
    assert math.isnan(b.effect.value)
    assert c.verdict == CONTRADICTED


@pytest.mark.parametrize(
    "edited",
    [{"of": 3}, {"when": None}, {"at_least": "ten"}, {"at_least": None}, {"says": ["a"]}, None],
)
def test_a_claim_that_a_hand_has_been_at_is_no_claim(edited, tmp_path):
    broken = {**CLAIM, **edited} if edited else {"says": "half"}
    assert found(tmp_path, broken) == []


@pytest.mark.parametrize("seeds", [1, 4])
def test_fewer_than_five_seeds_decide_nothing(seeds, tmp_path):
    runs = []
    for name in ("rtg", "gae"):
        run = made_run(tmp_path / name, seeds=tuple(range(seeds)), estimator=name)
        config = run / ".hydra" / "config.yaml"
        config.write_text(config.read_text() + f"claims: {json.dumps([CLAIM])}\n")
        runs.append(read(run))
    (finding,) = check(group(runs))
    assert finding.verdict == FEW


def test_settings_match_as_numbers(tmp_path):
    claim = {**CLAIM, "of": {"optimizer.lr": 0.1}, "against": {"optimizer.lr": 0.005}}
    runs = [
        claiming(tmp_path / "a", [claim], lr=0.10, height=150.0),
        claiming(tmp_path / "b", [claim], lr=5e-3, height=100.0),
    ]
    (finding,) = check(group(runs))
    assert np.isfinite(finding.effect.value)
