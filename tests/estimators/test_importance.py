"""Importance weights: finite at any ratio, one on-policy, and their diagnostics."""

from dataclasses import replace

import pytest
import torch
from made_episodes import config, episodes

from pgcli.estimators import importance
from pgcli.estimators.estimator import terms

FORMS = [name for name in importance.IMPORTANCES.names if name != "none"]


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_one_on_policy(form):
    batch = episodes()
    plain = terms(config(), batch)
    fresh = terms(config(importance=form), batch)  # no log-ratio: the policy's own data
    zeros = terms(config(importance=form), replace(batch, log_ratio=torch.zeros_like(batch.rew)))
    for found in (fresh, zeros):
        torch.testing.assert_close(found.weights, plain.weights, rtol=1e-12, atol=1e-12)
        assert (found.importance[batch.mask] == 1).all()
        assert not found.clamped.any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("self_normalize", [False, True])
@pytest.mark.parametrize("size", [-1000.0, 1000.0])
def test_extreme_ratios_stay_finite_and_are_counted(form, size, self_normalize):
    batch = episodes()
    log_ratio = torch.zeros_like(batch.rew)
    log_ratio[..., 0] = size
    found = terms(
        config(importance=form, self_normalize=self_normalize), replace(batch, log_ratio=log_ratio)
    )
    assert torch.isfinite(found.weights).all()
    assert torch.isfinite(found.weights.float().square()).all()
    assert (found.clamped > 0).all() != self_normalize  # normalised, they need no clamp


def test_forms_by_hand():
    """Ratios 2 and 3 in an episode of two steps with rewards 1 and 10."""
    batch = episodes(shape=(1,), steps=2)
    mask = torch.ones(1, 2, dtype=torch.bool)
    log_ratio = torch.tensor([[2.0, 3.0]], dtype=torch.float64).log()
    batch = replace(batch, rew=torch.tensor([[1.0, 10.0]]).double(), mask=mask, log_ratio=log_ratio)
    expected = {
        "trajectory": [66.0, 60.0],
        "per_decision": [62.0, 60.0],  # 2·1 + 6·10 and 6·10
        "truncated": [22.0, 60.0],
        "first_order": [22.0, 30.0],
    }
    for form, values in expected.items():
        found = terms(config(importance=form, gamma=1.0), batch).weights
        assert found[0].tolist() == pytest.approx(values)
    clipped = terms(config(importance="first_order", gamma=1.0, clip_ratio=2.5), batch).weights
    assert clipped[0].tolist() == pytest.approx([22.0, 25.0])


def test_self_normalised_weights_average_to_one():
    weight = torch.tensor([[1.0, 4.0], [3.0, 4.0], [9.0, 9.0]])
    counted = torch.tensor([[1, 1], [1, 1], [0, 0]]).bool()
    found = importance.self_normalized(weight.log(), counted)
    torch.testing.assert_close(found[:2], torch.tensor([[0.5, 1.0], [1.5, 1.0]]))
    assert not found[2].any()
    far = importance.self_normalized(torch.tensor([[-31.0], [-40.0]]), torch.ones(2, 1).bool())
    torch.testing.assert_close(far[:, 0], 2 * torch.tensor([9.0, 0.0]).softmax(0))


def test_an_ended_episode_keeps_its_weight_in_the_normalisation():
    batch = episodes(shape=(2,), steps=2)
    mask = torch.tensor([[1, 1], [1, 0]]).bool()
    ratio = torch.tensor([[2.0, 3.0], [4.0, 1.0]], dtype=torch.float64).log()
    batch = replace(batch, rew=mask.double(), mask=mask, log_ratio=ratio)
    found = terms(config(importance="truncated", self_normalize=True), batch).importance
    assert found.tolist() == [pytest.approx([2 / 3, 6 / 5]), pytest.approx([4 / 3, 0])]


def test_clipping_cuts_large_weights_only():
    found = importance.exponentiated(
        torch.tensor([[0.1, 5.0]]).log(), torch.ones(1, 2).bool(), clip=2.0
    )
    assert found.weight[0].tolist() == pytest.approx([0.1, 2.0])


def test_only_real_steps_are_counted_as_clamped():
    found = importance.exponentiated(torch.full((1, 3), 99.0), torch.tensor([[1, 0, 0]]).bool())
    assert found.clamped.item() == 1


def test_effective_sample_size():
    counted = torch.ones(5, 1, dtype=torch.bool)
    even, one = torch.full((5, 1), 800.0).double(), torch.tensor([[0.0], *[[-1000.0]] * 4])
    assert importance.effective_sample_size(even, counted).item() == pytest.approx(5)
    assert importance.effective_sample_size(one, counted).item() == pytest.approx(1)
    assert importance.effective_sample_size(even, ~counted).item() == 0
    weight = torch.tensor([[1.0], [2.0], [5.0]])
    found = importance.effective_sample_size(weight.log(), torch.ones(3, 1).bool())
    assert found.item() == pytest.approx(64 / 30)
