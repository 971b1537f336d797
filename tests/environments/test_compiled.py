"""The compiled environments: Gymnasium's dynamics and episodes, whoever plays beside them."""

import importlib.util
import json
import math
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from settings import train_config

from pgcli.collection.rollout import Quota, collect
from pgcli.environments import choose
from pgcli.environments.choose import check_environment, choose_engine, open_engine
from pgcli.errors import ConfigError
from pgcli.policies.actor import PolicyActor
from pgcli.policies.build import build_policy
from pgcli.settings.schema import Engine, EnvConfig

kernels = pytest.importorskip("pgcli.environments.compiled.kernels")
compiled = pytest.importorskip("pgcli.environments.compiled.engine")

ANGLES = np.random.default_rng(1).uniform(-40, 40, 100_000)
LIBM = all(np.sin(x) == math.sin(x) and np.cos(x) == math.cos(x) for x in ANGLES)
IDS = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"]
SEEDS = [3, 11]


def settings(env_id, engine="compiled", limit=None, **kwargs):
    return EnvConfig(env_id, kwargs, 0.0, None, Engine[engine], limit, [], [], None)


def batch_of(env_id, engine="compiled", seeds=SEEDS, quota=(6, None), slots=4, limit=None,
             overrides=(), step_by_step=False):  # fmt: skip
    config = train_config(f"env={env_id}", "policy.output_gain=1", *overrides)
    made = open_engine(settings(env_id, engine, limit), slots * len(seeds))
    try:
        policy = build_policy(config.policy, config.behaviour, made)
        changed = config.behaviour if config.behaviour.changes else None
        actor = PolicyActor(policy, policy.init(config.policy, seeds), seeds, 5, slots, changed)
        if step_by_step:
            actor.network = lambda: None
        return collect(made, actor, Quota(*quota), seeds, 5)
    finally:
        made.close()


def assert_same(a, b, exact=False):
    assert torch.equal(a.length, b.length)
    for name in ("mask", "terminated", "truncated"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name in ("obs", "act", "rew", "final_obs"):
        x, y = getattr(a, name), getattr(b, name)
        if exact:
            assert torch.equal(x, y), name
        else:
            torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("steps", [1, 60, 2000])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_what_is_played_beyond_a_quota_of_steps_is_counted(env_id, steps):
    """Row by row it ends at the quota; compiled at the next look, whoever plays beside."""
    asked = {"quota": (None, steps), "limit": 100}
    exact = batch_of(env_id, step_by_step=True, **asked)
    ahead = batch_of(env_id, **asked)
    assert_same(ahead, exact)
    sync = batch_of(env_id, "sync", **asked).simulated - exact.simulated
    assert not sync.any()
    most = 4 * 128  # rows of four slots
    assert ((ahead.discarded - exact.discarded >= 0) & (ahead.discarded <= exact.discarded + most)
            ).all()  # fmt: skip
    alone = [batch_of(env_id, seeds=[seed], **asked).simulated for seed in SEEDS]
    assert torch.equal(torch.cat(alone), ahead.simulated)


@pytest.mark.parametrize("env_id", IDS)
def test_one_step_from_anywhere_is_gymnasiums(env_id):
    env = gym.make(env_id).unwrapped
    observed, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    model = compiled.MODELS[type(env).__name__]
    state, obs = np.zeros((1, len(env.state))), np.zeros((1, 1, len(observed)), np.float32)
    ended = 0
    for _ in range(10_000):
        start = model.draw(rng, 1)[0] * rng.choice([1.0, 5.0, 20.0])
        if env_id == "MountainCar-v0":
            start = np.array([rng.uniform(-1.2, 0.6), rng.uniform(-0.07, 0.07)])
        env.state, state[0] = start.copy(), start
        if env_id == "Pendulum-v1":
            act = np.float32(rng.normal())
            seen, rew, terminated, _, _ = env.step(np.array([2 * act]))
        else:
            act = rng.integers(env.action_space.n)
            if hasattr(env, "steps_beyond_terminated"):
                env.steps_beyond_terminated = None
            seen, rew, terminated, _, _ = env.step(act)
        found = kernels.advance(model.code, state, 0, float(act))
        kernels.observe(model.code, state, obs, 0, 0)
        loose = {} if LIBM else {"rtol": 1e-12, "atol": 1e-12}  # else equal to the last bit
        same = np.testing.assert_allclose if loose else np.testing.assert_array_equal
        same(state[0], np.array(env.state, float), **loose)
        same(found[0], rew, **loose)
        np.testing.assert_allclose(obs[0, 0], seen, rtol=0 if LIBM else 1e-6)
        assert found[1] == terminated
        ended += terminated
    assert ended > 0 or env_id == "Pendulum-v1"


@pytest.mark.parametrize("quota", [(6, None), (None, 90)], ids=["episodes", "steps"])
@pytest.mark.parametrize("env_id", IDS)
def test_the_episodes_are_those_of_gymnasiums_single_environments(env_id, quota):
    assert_same(
        batch_of(env_id, "compiled", quota=quota, limit=40),
        batch_of(env_id, "sync", quota=quota, limit=40),
    )


@pytest.mark.skipif(not LIBM, reason="NumPy's sine is not the C library's here")
@pytest.mark.parametrize("env_id", IDS)
def test_given_the_same_actions_they_are_gymnasiums_to_the_last_bit(env_id):
    assert_same(
        batch_of(env_id, "compiled", quota=(12, None), step_by_step=True),
        batch_of(env_id, "sync", quota=(12, None)),
        exact=True,
    )


@pytest.mark.parametrize("quota", [(9, None), (None, 300)], ids=["episodes", "steps"])
@pytest.mark.parametrize("env_id", IDS)
def test_played_or_asked_step_by_step(env_id, quota):
    assert_same(
        batch_of(env_id, quota=quota, limit=60),
        batch_of(env_id, quota=quota, limit=60, step_by_step=True),
    )


@pytest.mark.parametrize("quota", [(9, None), (None, 300)], ids=["episodes", "steps"])
def test_a_seed_plays_alone_as_beside_others_to_the_last_bit(quota):
    both = batch_of("CartPole-v1", quota=quota)
    for i, seed in enumerate(SEEDS):
        alone = batch_of("CartPole-v1", seeds=[seed], quota=quota)
        n, t = alone.mask.shape[1:]
        assert both.length[i].sum() == alone.length.sum()
        assert torch.equal(both.obs[i, :n, :t], alone.obs[0])
        assert torch.equal(both.act[i, :n, :t], alone.act[0])


@pytest.mark.parametrize("slots", [1, 3, 4, 17, 40])
def test_bits_do_not_depend_on_the_cores(slots, monkeypatch):
    found = []
    for cores in (1, 2, 7):
        monkeypatch.setattr(compiled, "cores", lambda n=cores: n)
        found.append(batch_of("CartPole-v1", quota=(50, None), slots=slots))
    assert_same(found[0], found[1], exact=True)
    assert_same(found[0], found[2], exact=True)


@pytest.mark.parametrize(
    "override", ["policy.activation=relu", "policy.hidden=[]", "policy.hidden=[7,130]",
                 "policy.activation=elu", "policy.bias=false", "behaviour.temperature=2"],
)  # fmt: skip
def test_every_policy_plays_as_on_gymnasiums_environments(override):
    assert_same(
        batch_of("CartPole-v1", overrides=[override]),
        batch_of("CartPole-v1", "sync", overrides=[override]),
    )


def test_tanh_is_tanh():
    x = np.linspace(-20, 20, 1_000_001, dtype=np.float32)
    found = x.copy()
    kernels.tanh(found)
    assert np.abs(found - np.tanh(x.astype(float))).max() < 1e-6
    small = np.float32(10.0) ** np.arange(-30, -2, dtype=np.float32)
    found = small.copy()
    kernels.tanh(found)
    np.testing.assert_allclose(found, small, rtol=1e-4)


def test_the_network_is_the_matrix_product():
    rng = np.random.default_rng(0)
    wide = kernels.WIDEST
    for inputs, outs, rows in [(4, 64, 5), (7, 3, 16), (1, 1, 1), (6, 128, 2), (128, 5, 4)]:
        x, w, y = (np.full((r, wide), np.nan, np.float32) for r in (20, inputs + 1, 20))
        x[:, :inputs] = rng.normal(size=(20, inputs))
        w[:, :outs] = rng.normal(size=(inputs + 1, outs))
        kernels.affine(x.ravel(), w.ravel(), y.ravel(), rows, inputs, outs)
        expected = x[:rows, :inputs] @ w[:inputs, :outs] + w[inputs, :outs]
        np.testing.assert_allclose(y[:rows, :outs], expected, rtol=1e-4, atol=1e-5)


def test_auto_takes_it_only_where_nothing_is_changed(monkeypatch):
    for env_id in IDS:
        assert choose_engine(settings(env_id, "auto")) == "compiled"
    assert choose_engine(settings("CartPole-v1", "auto", sutton_barto_reward=True)) == "native"
    assert choose_engine(settings("MountainCarContinuous-v0", "auto")) == "sync"
    real = importlib.util.find_spec
    monkeypatch.setattr(
        choose.importlib.util, "find_spec", lambda name: None if name == "numba" else real(name)
    )
    assert choose_engine(settings("CartPole-v1", "auto")) == "native"
    assert choose_engine(settings("Acrobot-v1", "auto")) == "sync"
    with pytest.raises(ConfigError, match="extra `fast`"):
        check_environment(settings("CartPole-v1"))


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "CliffWalking-v1"])
def test_what_is_not_compiled_is_refused(env_id):
    with pytest.raises(ConfigError, match="CartPole, Acrobot, MountainCar and Pendulum"):
        check_environment(settings(env_id))


def test_a_gaussian_policy_explores_by_its_spread():
    batch = batch_of("Pendulum-v1", quota=(40, None), slots=20, seeds=[0],
                     overrides=["policy.init=zeros", "policy.log_std=-1"])  # fmt: skip
    act = batch.act[batch.mask]
    assert act.mean().item() == pytest.approx(0, abs=0.02)
    assert act.std().item() == pytest.approx(math.exp(-1), rel=0.03)


@pytest.mark.slow
def test_nowhere_to_keep_what_is_compiled(tmp_path):
    """A read-only installation of a user without a home."""
    code = (
        "import numba.core.caching as c\n"
        "for kind in list(c.CacheImpl._locator_classes):\n"
        "    kind.from_function = classmethod(lambda *a: None)\n"
        "from pgcli.cli.main import main\n"
        "main(['train', 'iterations=2', 'batch_size=4', 'hydra.run.dir=run'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["engine"] == "compiled"


STALE = """
import pickle, sys, types
from pathlib import Path
module = types.ModuleType("pgcli.environments.gone")
module.Gone = type("Gone", (), {"__module__": module.__name__})
sys.modules[module.__name__] = module
index = pickle.dumps(((0, 0), {"signature": module.Gone()}))
for file in Path(sys.argv[1]).rglob("*.nbi"):
    version = pickle.dumps(pickle.load(file.open("rb")))
    file.write_bytes(version + index)
"""


@pytest.mark.slow
def test_compiled_code_that_an_earlier_version_left_is_made_anew(tmp_path):
    """numba's index on disk names classes of its time."""
    line = [sys.executable, "-c", "from pgcli.cli.main import main; main()", "train",
            "iterations=1", "batch_size=2", "env.engine=compiled", "estimator=gae",
            "update=proximal"]  # fmt: skip
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for _ in range(2):
        done = subprocess.run(line, cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert list((tmp_path / "cache").rglob("*.nbi"))
        subprocess.run([sys.executable, "-c", STALE, str(tmp_path / "cache")], check=True)
