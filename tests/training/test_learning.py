"""Whole trainings: the shipped settings balance the pole. Slow."""

import csv
from pathlib import Path

import numpy as np
import pytest
from settings import train_config

from pgcli.training.loop import run

pytestmark = pytest.mark.slow


def curves(directory: Path, *overrides: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Environment steps and the mean return over the last 96 episodes, by seed."""
    run(train_config(*overrides), directory)
    with open(directory / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for seed in {row["seed"] for row in rows}:
        own = [row for row in rows if row["seed"] == seed]
        steps = np.array([int(row["env_steps"]) for row in own])
        mean = np.array([float(row["rollout/ep_rew_mean"]) for row in own])
        found[int(seed)] = steps[2:], np.convolve(mean, np.ones(3) / 3, "valid")
    return found


def steps_to(threshold: float, found: dict[int, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """By seed; infinite where it is never reached."""
    return np.array(
        [next((s for s, m in zip(*found[k], strict=True) if m >= threshold), np.inf)
         for k in sorted(found)]
    )  # fmt: skip


@pytest.mark.parametrize("estimator", ["rtg", "rtg_value", "gae"])
def test_the_shipped_settings_balance_the_pole(estimator, tmp_path):
    found = curves(tmp_path, f"estimator={estimator}", "seeds=5")
    # Which seed dips again at the end, the rounding of a processor decides.
    assert all(mean.max() >= 475 for _, mean in found.values())
    assert np.median([mean[-1] for _, mean in found.values()]) >= 475


def test_using_a_batch_four_times_needs_fewer_environment_steps(tmp_path):
    """Seeds paired: with every form of importance weights against the on-policy estimator."""
    settings = ("seeds=5", "iterations=60")
    once = steps_to(475, curves(tmp_path / "once", "estimator=rtg_value", *settings))
    for form in ("is_trajectory", "is_per_decision", "is_truncated", "is_first_order"):
        often = steps_to(475, curves(tmp_path / form, f"estimator={form}", *settings))
        assert np.isfinite(often).all(), form
        assert np.median(often / once) < 1, form
