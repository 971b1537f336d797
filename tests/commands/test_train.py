"""The training loop from end to end: every switch does what its name says."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from settings import train_config

from pgcli.commands.train import run
from pgcli.config.sources import conf_dir
from pgcli.errors import ConfigError
from pgcli.runs import checkpoint

SHORT = ("iterations=2", "batch_size=6", "policy.hidden=[8]", "critic.hidden=[8]")
PRESETS = sorted(path.stem for path in (conf_dir() / "estimator").glob("*.yaml"))


def train(directory: Path, *overrides):
    """Metrics by tag, [iterations × seeds], and the newest checkpoint's arrays."""
    run(train_config(*SHORT, *overrides), directory)
    with open(directory / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    metrics = {tag: np.array([float(row[tag]) for row in rows]) for tag in rows[0]}
    return metrics, checkpoint.load(directory).arrays


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_and_logs_numbers(preset, tmp_path):
    metrics, _ = train(tmp_path, f"estimator={preset}", "seeds=2", "gradient.score=true")
    for tag, values in metrics.items():
        assert len(values) == 4
        assert np.isfinite(values).all(), tag
    reused = preset.startswith("is_")
    assert ("importance/ess_whole" in metrics) == reused
    notes = json.loads((tmp_path / "summary.json").read_text())["bias"]
    assert any(note.startswith("reuse") for note in notes) == reused


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_every_optimizer_with_every_schedule(optimizer, schedule, tmp_path):
    _, arrays = train(tmp_path, f"optimizer={optimizer}", f"optimizer.schedule={schedule}")
    assert np.isfinite(arrays["theta"]).all()


@pytest.mark.parametrize("form", ["trajectory", "per_decision", "truncated", "first_order"])
def test_the_first_update_of_a_fresh_batch_is_on_policy(form, tmp_path):
    """What is reported does not depend on how often the batch is used: its weights are all 1."""
    once, a = train(tmp_path / "once", "iterations=1")
    often, b = train(
        tmp_path / "often", "iterations=1", "updates_per_batch=3", f"estimator.importance={form}"
    )
    for tag in ("gradient/norm", "gradient/trace_cov", "rollout/ep_rew_mean"):
        assert once[tag] == often[tag]
    assert often["policy/kl"] > once["policy/kl"]
    assert not np.array_equal(a["theta"], b["theta"])


def test_the_entropy_bonus_stays_outside_of_the_measured_estimate(tmp_path):
    plain, a = train(tmp_path / "plain", "iterations=1")
    bonus, b = train(tmp_path / "bonus", "iterations=1", "policy.entropy_coef=10")
    for tag in plain:
        if tag.startswith(("gradient/", "rollout/")):
            np.testing.assert_array_equal(plain[tag], bonus[tag])
    assert not np.array_equal(a["theta"], b["theta"])


def test_an_entropy_bonus_alone_raises_the_entropy(tmp_path):
    settings = ("iterations=8", "env.reward_shift=-1", "policy.output_gain=5",
                "policy.entropy_coef=1", "optimizer.schedule=constant")  # fmt: skip
    metrics, _ = train(tmp_path, *settings)
    assert not metrics["gradient/norm"].any()  # every reward is 0
    assert metrics["policy/entropy"][-1] > metrics["policy/entropy"][0] + 0.01


def test_the_mean_score_is_zero_within_its_error(tmp_path):
    metrics, _ = train(tmp_path, "gradient.score=true", "batch_size=64", "seeds=4")
    ratio = (metrics["score/norm"] / metrics["score/standard_error"]) ** 2
    assert 0.3 < ratio.mean() < 2.5  # E‖S̄‖² is its variance


def test_the_behaviour_of_a_checkpoint(tmp_path):
    still = ("optimizer.lr=1e-12", "optimizer.schedule=constant")
    train(tmp_path / "source", *still)
    same = (f"behaviour.checkpoint={tmp_path / 'source'}", "estimator.importance=per_decision")
    metrics, _ = train(tmp_path / "same", *same, *still)
    np.testing.assert_allclose(metrics["importance/max_weight"], 1, rtol=1e-4)
    other, _ = train(tmp_path / "other", *same, "seed=5", "seeds=2", "policy.output_gain=1")
    assert (other["importance/ess_whole"] < 6).all()
    assert (other["importance/max_weight"] > 1).all()
    notes = json.loads((tmp_path / "other" / "summary.json").read_text())["bias"]
    assert notes == []
    with pytest.raises(ConfigError, match=r"behaviour\.checkpoint"):
        train(tmp_path / "wide", *same, "policy.hidden=[9]")


def test_a_tempered_behaviour_is_weighted_back(tmp_path):
    metrics, _ = train(tmp_path, "behaviour.temperature=3", "behaviour.epsilon=0.1",
                       "policy.output_gain=5", "estimator.importance=trajectory")  # fmt: skip
    assert (metrics["importance/ess_whole"] < 6).all()


def test_one_seed_among_several_trains_as_alone(tmp_path):
    """Acrobot is seeded slot by slot, so the episodes are the same, and so is what is learned."""
    both, _ = train(tmp_path / "both", "env=Acrobot-v1", "env.max_episode_steps=60", "seeds=2")
    alone, _ = train(tmp_path / "alone", "env=Acrobot-v1", "env.max_episode_steps=60", "seed=1")
    for tag in ("rollout/ep_rew_mean", "gradient/norm", "gradient/trace_cov", "policy/kl"):
        np.testing.assert_allclose(both[tag][both["seed"] == 1], alone[tag], rtol=1e-3)
