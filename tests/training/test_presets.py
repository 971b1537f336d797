"""Environments learn by their presets alone. Slow."""

import json
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest
from settings import as_typed

from pgcli.cli.sources import conf_dir
from pgcli.runs.saved import read
from pgcli.runs.tags import RETURN
from pgcli.training.loop import run

pytestmark = pytest.mark.slow
SEEDS = 3


class Preset(NamedTuple):
    """An environment that comes with settings, and what each seed must come to, or more."""

    env: str
    threshold: float  # of the mean return over the last fifth of its iterations
    extras: tuple[str, ...] = ()  # typed beside it
    package: str | None = None  # that must be there


PRESETS = [
    Preset("Acrobot-v1", -110),
    Preset("LQG", -4),
    Preset("MountainCar-v0", -160),
    Preset("MountainCarContinuous-v0", 85),
    Preset("Pendulum-v1", -250),
    Preset("FrozenLake-v1", 0.6),
    Preset("CliffWalking-v1", -30),
    Preset("Blackjack-v1", -0.12),
    Preset("Taxi-v4", -150),
    Preset("LunarLander-v3", 0, ("total_steps=250_000",), "Box2D"),
    Preset("LunarLanderContinuous-v3", -30, ("total_steps=150_000",), "Box2D"),
    Preset("BipedalWalker-v3", -75, ("total_steps=200_000",), "Box2D"),
    Preset("HalfCheetah-v5", 100, ("total_steps=120_000",), "mujoco"),
    Preset("Hopper-v5", 200, ("total_steps=60_000",), "mujoco"),
    Preset("Walker2d-v5", 150, ("total_steps=60_000",), "mujoco"),
    Preset("Ant-v5", 80, ("total_steps=150_000",), "mujoco"),
    Preset("Humanoid-v5", 250, ("total_steps=60_000",), "mujoco"),
    Preset("Swimmer-v5", 15, ("total_steps=100_000",), "mujoco"),
    Preset("Reacher-v5", -12, ("total_steps=100_000",), "mujoco"),
    Preset("Pusher-v5", -85, ("total_steps=100_000",), "mujoco"),
    Preset("InvertedPendulum-v5", 400, (), "mujoco"),
    Preset("InvertedDoublePendulum-v5", 1000, ("total_steps=80_000",), "mujoco"),
]


def test_every_environment_that_comes_with_settings_is_here():
    shipped = {path.stem for path in (conf_dir() / "env").glob("*.yaml")}
    assert {preset.env for preset in PRESETS} == shipped - {"CartPole-v1", "RareReward"}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.env)
def test_an_environment_learns_by_its_preset_alone(preset, tmp_path):
    if preset.package is not None and find_spec(preset.package) is None:
        pytest.skip(f"needs {preset.package}")
    run(as_typed(f"env={preset.env}", f"seeds={SEEDS}", *preset.extras), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "finished"
    for seed, rows in read(tmp_path).records.items():
        late = rows[RETURN][-max(1, len(rows) // 5) :]
        assert np.mean(late) >= preset.threshold, f"seed {seed}"
