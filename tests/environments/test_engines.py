"""Spaces, engine choice, and what is refused."""

import os
import signal
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from pgcli.environments.choose import check_environment, choose_engine, open_engine, slots_per_seed
from pgcli.environments.spaces import ActionKind, Spaces, action_adapter, obs_adapter
from pgcli.errors import ConfigError
from pgcli.settings.schema import Engine, EnvConfig

ACTIONS = {
    "discrete": (spaces.Discrete(3, start=-1), ActionKind.CATEGORICAL, (3,)),
    "multi_discrete": (
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        ActionKind.MULTI_CATEGORICAL,
        (2, 3, 4, 5),
    ),
    "multi_binary": (spaces.MultiBinary((2, 2)), ActionKind.BERNOULLI, (4,)),
    "box": (spaces.Box(-2, 4, (2, 2), np.float64), ActionKind.GAUSSIAN, (4,)),
    "unbounded": (spaces.Box(-np.inf, np.inf, (2,), np.float32), ActionKind.GAUSSIAN, (2,)),
}
OBSERVATIONS = {
    "box": (spaces.Box(0, 255, (2, 3), np.uint8), 6),
    "discrete": (spaces.Discrete(5, start=2), 5),
    "multi_discrete": (spaces.MultiDiscrete([2, 3]), 5),
    "multi_binary": (spaces.MultiBinary(4), 4),
    "tuple": (spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (2,))]), 5),
    "dict": (spaces.Dict(a=spaces.Discrete(2), b=spaces.MultiBinary(2)), 4),
}


def settings(env_id, engine="sync", limit=None, num_envs=None, **kwargs):
    return EnvConfig(env_id, kwargs, 0.0, limit, Engine[engine], num_envs, [], [], None)


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_belong_to_the_environments_space(name):
    space, kind, sizes = ACTIONS[name]
    adapter = action_adapter(space, "x")
    assert (adapter.kind, adapter.sizes) == (kind, sizes)
    rng = np.random.default_rng(0)
    shape = (50, *adapter.shape)
    act = (
        (3 * rng.normal(size=shape)).astype(np.float32)
        if kind is ActionKind.GAUSSIAN
        else rng.integers(0, 2, shape)
    )
    before = act.copy()
    given = adapter.to_env(act)
    assert all(space.contains(a if a.shape else int(a)) for a in given)
    np.testing.assert_array_equal(act, before)  # the sample itself stays: its log-prob counts


ONE_BOUND = {  # bounds: where 0 lies
    (0, np.inf): 1,
    (3, np.inf): 4,
    (-0.5, np.inf): 0.5,
    (-5, np.inf): 0,
    (-np.inf, 0): -1,
    (-np.inf, 3): 0,
    (-np.inf, -2): -3,
    (0, 3e38): 1,
}


@pytest.mark.parametrize(("low", "high"), ONE_BOUND)
def test_with_one_bound_a_policy_starts_a_unit_within_it(low, high):
    """In units of the environment; a standard normal is clipped where it is beyond, not by half."""
    adapter = action_adapter(spaces.Box(low, high, (1,), np.float64), "x")
    origin = ONE_BOUND[low, high]
    given = adapter.to_env(np.array([[0.0], [0.25], [-0.25]], np.float32))
    assert given.ravel().tolist() == [origin, origin + 0.25, origin - 0.25]
    assert adapter.to_env(np.float32([[-1e9], [1e9]])).clip(low, high).tolist() == (
        adapter.to_env(np.float32([[-1e9], [1e9]])).tolist()
    )
    assert adapter.bounded == (False,)
    assert adapter.origin == ((origin,) if origin else ())
    told = Spaces(1, adapter).told["action"]
    assert told == ("gaussian 1" + (f" around {origin:g}" if origin else ""))


def test_two_bounds_or_none_are_as_they_were_beside_one():
    low, high = [-1, -np.inf, 0, -np.inf], [3, np.inf, np.inf, 5]
    box = spaces.Box(np.float32(low), np.float32(high), dtype=np.float32)
    adapter = action_adapter(box, "x")
    assert adapter.bounded == (True, False, False, False)
    assert adapter.origin == (0, 0, 1, 0)
    given = adapter.to_env(np.full((1, 4), 0.5, np.float32))
    assert given.tolist() == [[2, 0.5, 1.5, 0.5]]


def test_box_actions_are_in_units_of_the_half_range():
    adapter = action_adapter(spaces.Box(-2, 4, (1,), np.float32), "x")
    act = np.array([[0.0], [1.0], [-1.0], [5.0]], np.float32)
    assert adapter.to_env(act).ravel().tolist() == [1, 4, -2, 4]


@pytest.mark.parametrize("engine", ["sync", "async"])
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_are_encoded(name, engine):
    space, dim = OBSERVATIONS[name]
    made = open_engine(
        settings(
            "scripted:Spaces-v0", engine, observation=space, action=ACTIONS["multi_discrete"][0]
        ),
        2,
    )
    obs = made.reset([1, 2])
    assert obs.shape == (2, dim)
    assert made.obs_dim == dim
    if name in ("discrete", "multi_discrete"):
        assert set(np.unique(obs)) == {0, 1}
        assert (obs.sum(1) == (1 if name == "discrete" else 2)).all()
    made.step(np.zeros((2, 4), np.int64), np.ones(2, bool))
    made.close()


def test_one_hot_honours_the_start():
    adapter = obs_adapter(spaces.Discrete(3, start=5), "x")
    np.testing.assert_array_equal(adapter.encode(np.array([5, 7])), np.eye(3)[[0, 2]])


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (spaces.Graph(spaces.Discrete(2), None), spaces.Discrete(2)),
        (spaces.Text(3), spaces.Discrete(2)),
        (spaces.Discrete(2), spaces.Tuple([spaces.Discrete(2)])),
        (spaces.Discrete(2), spaces.Box(0, 3, (1,), np.int64)),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_by_name(observation, action):
    config = settings("scripted:Spaces-v0", observation=observation, action=action)
    with pytest.raises(ConfigError, match=r"space .* is not supported"):
        check_environment(config)


def test_no_limit_is_refused_and_can_be_given():
    with pytest.raises(ConfigError, match=r"env\.max_episode_steps=null: .*no time limit"):
        check_environment(settings("scripted:Endless-v0"))
    check_environment(settings("scripted:Endless-v0", limit=7))
    assert open_engine(settings("scripted:Endless-v0", limit=7), 1).max_episode_steps == 7


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPol-v1", "did you mean CartPole-v1"),
        ("no_such_module:X-v0", "does not import"),
        ("scripted:Scriptd-v0", "did you mean Scripted-v0"),
    ],
)
def test_unknown_ids(env_id, message):
    with pytest.raises(ConfigError, match=message):
        check_environment(settings(env_id))


def test_namespaces_and_modules():
    check_environment(settings("scripted:test/Coin-v0"))
    assert "test/Coin-v0" in gym.registry


def test_bad_arguments_are_the_configurations_fault():
    with pytest.raises(ConfigError, match=r"cannot be made with env\.kwargs"):
        check_environment(settings("CartPole-v1", nonsense=1))


def test_auto_takes_the_native_engine_where_there_is_one():
    assert choose_engine(settings("CartPole-v1", "auto", sutton_barto_reward=False)) == "native"
    assert choose_engine(settings("MountainCarContinuous-v0", "auto")) == "sync"
    with pytest.raises(ConfigError, match="no vector entry point"):
        check_environment(settings("Acrobot-v1", "native"))


def test_sync_and_async_use_the_same_slots():
    """So that which of them runs never changes a result."""
    for episodes in (1, 5, 500, None):
        assert slots_per_seed(settings("Acrobot-v1", "sync"), episodes) == slots_per_seed(
            settings("Acrobot-v1", "async"), episodes
        )
    assert slots_per_seed(settings("Acrobot-v1", num_envs=3), 100) == 3


def test_envpool_without_the_package_names_the_extra():
    import importlib.util

    if importlib.util.find_spec("envpool") is not None:
        pytest.skip("envpool is installed")
    with pytest.raises(ConfigError, match="extra `envpool`"):
        check_environment(settings("CartPole-v1", "envpool"))


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [("LunarLander-v3", "Box2D", "box2d"), ("HalfCheetah-v5", "mujoco", "mujoco")],
)
def test_what_an_environment_needs_is_named(env_id, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    for name in list(sys.modules):
        if name.startswith(f"gymnasium.envs.{extra}"):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=f"env={env_id}: needs the extra {extra}$"):
        check_environment(settings(env_id))


@pytest.mark.slow
def test_envpool_plays_the_same_from_the_same_seeds():
    pytest.importorskip("envpool")
    acts = np.random.default_rng(0).integers(0, 2, (300, 8))

    def played(seeds):
        engine = open_engine(settings("CartPole-v1", "envpool"), 8)
        seen = [engine.reset(seeds)]
        for act in acts:
            seen += [x.copy() for x in engine.step(act, np.ones(8, bool))]
        engine.close()
        return seen

    seeds = list(range(8))
    one, same, other = played(seeds), played(seeds), played(seeds[::-1])
    for x, y in zip(one, same, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.array_equal(one[0], other[0])
    ended = np.stack(one[3::4]) | np.stack(one[4::4])  # the row after an end is a reset, unpaid
    reward = np.stack(one[2::4])
    assert (reward[0] == 1).all()
    np.testing.assert_array_equal(reward[1:], np.where(ended[:-1], 0, 1))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_envpools_threads_have_a_core_each_where_they_take_all():
    """Left to the scheduler, two of them may share one while another idles."""
    pytest.importorskip("envpool")
    usable = os.sched_getaffinity(0)
    if len(usable) != os.cpu_count() or len(usable) == 1:
        pytest.skip("not all cores are ours, or there is only one")

    def pinned(num_envs):
        before = set(os.listdir("/proc/self/task"))
        engine = open_engine(settings("CartPole-v1", "envpool"), num_envs)
        engine.reset(list(range(num_envs)))
        threads = set(os.listdir("/proc/self/task")) - before
        masks = [os.sched_getaffinity(int(thread)) for thread in threads]
        engine.close()
        return [mask for mask in masks if len(mask) == 1]

    assert set.union(*pinned(2 * len(usable))) == usable
    assert pinned(1) == []  # it would keep other runs' single workers company on core 0


def test_worker_processes_leave_this_ones_signal_handlers_alone():
    """Gymnasium makes one of the workers' environments in the parent too, to see its spaces."""
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    engine = open_engine(settings("Acrobot-v1", "async"), 2)
    try:
        after = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    finally:
        engine.close()
    assert after == before
