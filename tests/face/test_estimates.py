"""Estimators of the textbook on rows of one's own."""

import re

import numpy as np
import pytest
import torch

import pgcli as pg
from pgcli.errors import ConfigError
from pgcli.estimators.returns import reward_to_go


def test_estimates_are_the_textbooks():
    rng = np.random.default_rng(0)
    rewards = [rng.normal(size=n) for n in (3, 1, 4)]
    values = [rng.normal(size=n) for n in (3, 1, 4)]
    found = pg.estimate("gae", rewards, values=values, gamma=0.9, lam=0.8).weights
    for n, (rew, v) in enumerate(zip(rewards, values, strict=True)):
        a = 0.0
        for t in reversed(range(len(rew))):
            following = v[t + 1] if t + 1 < len(rew) else 0.0
            a = rew[t] + 0.9 * following - v[t] + 0.9 * 0.8 * a
            assert found[n, t] == pytest.approx(a, abs=1e-12)
        assert (found[n, len(rew) :] == 0).all()
    same = np.ones((2, 4))
    togo = reward_to_go(torch.from_numpy(same), 1.0).numpy()
    np.testing.assert_array_equal(pg.estimate("rtg", same).weights, togo)


def test_and_gradients_those_of_their_weights():
    rng = np.random.default_rng(1)
    rewards, scores = rng.normal(size=(5, 3)), rng.normal(size=(5, 3, 2))
    plain = pg.estimate("rtg_mean", rewards, scores=scores)
    each = np.einsum("nt,ntp->np", plain.weights, scores)
    np.testing.assert_allclose(plain.per_episode, each)
    np.testing.assert_allclose(plain.gradient, each.mean(0))
    assert plain.variance == pytest.approx(each.var(0, ddof=1).sum() / 5)
    best = pg.estimate("total_optimal", rewards, scores=scores)
    s, x = scores.sum(1), (rewards.sum(1)[:, None] * scores.sum(1))
    for n in range(5):
        others = [m for m in range(5) if m != n]
        b = sum(x[m] @ s[m] for m in others) / sum(s[m] @ s[m] for m in others)
        np.testing.assert_allclose(best.per_episode[n], x[n] - b * s[n])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pg.estimate("gae", [[1.0]]), "values=null: gae needs them"),
        (lambda: pg.estimate("rtg_optimal", [[1.0]]), "is fitted on them"),
        (lambda: pg.estimate("compatible", [[1.0]]), "pg.compare"),
        (lambda: pg.estimate("rtg", []), "an array per row, none empty"),
        (lambda: pg.estimate("rtg", [["much"]]), "arrays of numbers"),
        (lambda: pg.estimate("gae", [[1.0, 2.0]], values=[[1.0]]), "as many steps as"),
        (lambda: pg.estimate("rtg", [[1.0]], gamma=2.0), "estimator.gamma=2.0: must be"),
    ],
)
def test_what_it_cannot_make_is_said(call, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        call()


def by_hand(rew, v, after, ends, cut, gamma, lam):
    """GAE of one row, from its last step to its first; `ends`: terminal, `cut`: by a limit."""
    a, found = 0.0, np.zeros(len(rew))
    for t in reversed(range(len(rew))):
        over = ends[t] or cut[t] or t == len(rew) - 1
        following = 0.0 if ends[t] else after[t] if over else v[t + 1]
        a = rew[t] + gamma * following - v[t] + (0.0 if over else gamma * lam * a)
        found[t] = a
    return found


@pytest.mark.parametrize("form", ["arrays", "lists", "tensors", "ragged"])
def test_rows_of_several_episodes_that_go_on_at_their_end(form):
    rng = np.random.default_rng(3)
    lengths = (6, 6, 6) if form != "ragged" else (6, 4, 1)
    parts = [[rng.normal(size=n) for n in lengths] for _ in range(3)]
    ends = [rng.random(n) < 0.3 for n in lengths]
    cut = [(rng.random(n) < 0.3) & ~e for n, e in zip(lengths, ends, strict=True)]
    known = zip(*parts, ends, cut, strict=True)
    expected = [by_hand(r, v, w, e, c, 0.9, 0.8) for r, v, w, e, c in known]

    def given(rows):
        if form == "ragged":
            return rows
        return {"arrays": np.array, "lists": lambda x: np.array(x).tolist(),
                "tensors": lambda x: torch.tensor(np.array(x)).requires_grad_(x[0].dtype == float),
                }[form](rows)  # fmt: skip

    rew, v, after = map(given, parts)
    found = pg.estimate(
        "gae", rew, values=v, next_values=after, terminated=given(ends), truncated=given(cut),
        gamma=0.9, lam=0.8, bootstrap=True,
    )  # fmt: skip
    for row, n, weights in zip(found.weights, lengths, expected, strict=True):
        np.testing.assert_allclose(row[:n], weights, atol=1e-12)
        assert (row[n:] == 0).all()
    assert any("fixed horizon" in note for note in found.notes)


def test_a_time_limit_goes_on_with_v():
    rewards, values = [[1.0, 2.0], [3.0]], [[0.5, 0.25], [1.0]]
    line = {"values": values, "gamma": 0.9, "lam": 1.0, "bootstrap": True, "truncated": [1, 0]}
    found = pg.estimate("gae", rewards, final_values=[10.0, 7.0], **line)
    assert found.weights[0, 1] == pytest.approx(2 + 9 - 0.25)
    assert found.weights[1, 0] == pytest.approx(3 - 1)
    with pytest.raises(ConfigError, match="next_values=null: gae needs next_values or final"):
        pg.estimate("gae", rewards, **line)
    plain = pg.estimate("gae", rewards, **{**line, "bootstrap": False})
    assert plain.weights[0, 1] == pytest.approx(2 - 0.25)


def test_ratios_may_be_two_logarithms():
    rng = np.random.default_rng(5)
    rewards, new, old = rng.normal(size=(3, 4, 2))
    one = pg.estimate("rtg", rewards, importance="first_order", log_ratios=new - old).weights
    two = pg.estimate(
        "rtg", rewards, importance="first_order", log_probs=new, behaviour_log_probs=old
    ).weights
    np.testing.assert_allclose(one, two)
    assert not np.allclose(one, pg.estimate("rtg", rewards).weights)
    for given, said in (
        ({}, "log_ratios=null: estimator.importance="),
        ({"log_probs": new}, "behaviour_log_probs=null"),
        ({"log_probs": new, "behaviour_log_probs": old, "log_ratios": new}, "either these or"),
    ):
        with pytest.raises(ConfigError, match=said):
            pg.estimate("rtg", rewards, importance="first_order", **given)


def test_what_has_no_effect_is_said_and_so_is_bias():
    with pytest.warns(UserWarning, match="values have no effect: rtg looks at none"):
        pg.estimate("rtg", [[1.0]], values=[[1.0]])
    with pytest.warns(UserWarning, match=r"estimator\.lam=0\.5 has no effect"):
        pg.estimate("rtg", [[1.0]], lam=0.5)
    assert any(
        "normalised" in note for note in pg.estimate("rtg", [[1.0, 2.0]], normalize=True).notes
    )
    assert pg.estimate("total", [[1.0, 2.0]], gamma=1.0).notes == []


def test_episodes_in_rows_are_those_by_themselves():
    rng = np.random.default_rng(9)
    rewards = rng.normal(size=(2, 5))
    over = np.array([[0, 1, 0, 0, 1], [0, 0, 1, 0, 1]])
    found = pg.estimate("rtg", rewards, terminated=over, gamma=0.9).weights
    for row, ends, weights in zip(rewards, over, found, strict=True):
        for one, w in zip(
            np.split(row, np.flatnonzero(ends)[:-1] + 1),
            np.split(weights, np.flatnonzero(ends)[:-1] + 1),
            strict=True,
        ):
            np.testing.assert_allclose(w, pg.estimate("rtg", [one], gamma=0.9).weights[0])
    with pytest.raises(ConfigError, match="collect=steps has parts of episodes"):
        pg.estimate("rtg", rewards, terminated=np.zeros((2, 5)))
