"""Environments that draw from everything but their own generator are as repeatable as others."""
# ruff: noqa: NPY002

import random

import numpy as np
import pytest
import torch

from pgcli.collection.rollout import Quota, collect
from pgcli.environments.ambient import States
from pgcli.environments.choose import open_engine
from pgcli.settings.schema import Engine, EnvConfig


class Zeros:
    def __call__(self, obs):
        return np.zeros(obs.shape[:2], np.int64)

    def restart(self):
        pass


class Counting(Zeros):
    """Acts by the number of its call: a batch played twice must start at the first again."""

    calls = 0

    def __call__(self, obs):
        self.calls += 1
        return np.full(obs.shape[:2], self.calls % 2)

    def restart(self):
        self.calls = 0


def opened(engine="sync", slots=3, seeds=1, **kwargs):
    config = EnvConfig(
        "scripted:Elsewhere-v0", kwargs, 0.0, None, Engine[engine], None, [], [], None
    )
    return open_engine(config, slots * seeds, slots)


def played(engine="sync", seeds=(7,), iterations=(0, 1), actor=Zeros, **kwargs):
    made = opened(engine, seeds=len(seeds), **kwargs)
    try:
        return [collect(made, actor(), Quota(6, None), seeds, i) for i in iterations]
    finally:
        made.close()


def assert_same(a, b):
    for name in ("obs", "act", "rew", "length", "final_obs"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_a_batch_is_a_function_of_seed_and_iteration():
    first, again, other = played(), played(), played(seeds=(8,))
    assert_same(first[0], again[0])
    assert_same(first[1], again[1])
    assert not torch.equal(first[0].rew[..., :1], first[1].rew[..., :1])
    assert not torch.equal(first[0].rew[..., :1], other[0].rew[..., :1])


def test_copies_draw_different_numbers():
    (batch,) = played(iterations=(0,))
    assert len(set(batch.rew[0, :, 0].tolist())) == 6


def test_a_resumed_run_meets_the_same_batches():
    assert_same(played(iterations=(0, 1, 2))[2], played(iterations=(2,))[0])


def test_processes_of_their_own_make_no_difference():
    for a, b in zip(played(), played("async"), strict=True):
        assert_same(a, b)


def test_a_seed_plays_alone_as_beside_others():
    both, alone = played(seeds=(6, 7))[1], played()[1]
    n, t = alone.mask.shape[1:]
    assert both.length[1].tolist() == alone.length[0].tolist()
    assert torch.equal(both.rew[1, :n, :t], alone.rew[0])
    assert torch.equal(both.obs[1, :n, :t], alone.obs[0])


@pytest.mark.parametrize("first_episode", [0, 1])
def test_what_is_played_again_begins_at_the_first_action(first_episode):
    given = {"actor": Counting, "first_episode": first_episode}
    alike = played(**given), played(**given)
    assert_same(alike[0][0], alike[1][0])
    assert alike[0][0].act[0, :3, 0].tolist() == [1, 1, 1]


def test_the_processs_own_generators_stay_as_they_are():
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    np.random.randn()  # leaves one of a pair
    before, bits = States.now(), np.random.get_bit_generator()
    made = opened()
    for i in range(3):
        collect(made, Zeros(), Quota(4, None), [0], i)
        assert not before.differ(States.now())
    assert np.random.get_bit_generator() is bits
    made.close()


def test_it_is_said_and_only_where_it_is_so():
    made = opened()
    assert made.notices() == []
    collect(made, Zeros(), Quota(4, None), [0], 0)
    assert "beside its np_random" in made.notices()[0]
    config = EnvConfig("CartPole-v1", {}, 0.0, None, Engine["sync"], None, [], [], None)
    calm = open_engine(config, 2)

    class Drawing(Zeros):
        def __call__(self, obs):  # another part of the process
            random.random()
            return super().__call__(obs)

    first = collect(calm, Drawing(), Quota(4, None), [0], 0)
    assert_same(first, collect(open_engine(config, 2), Zeros(), Quota(4, None), [0], 0))
    assert calm.notices() == []
    assert not calm.ambient.active
