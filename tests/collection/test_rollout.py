"""Collection: whole episodes by quotas fixed in advance; one test per bug that others shipped."""

import numpy as np
import pytest
import scripted
import torch

from pgcli.collection.episodes import episodes
from pgcli.collection.rollout import Quota, collect, few_slots
from pgcli.environments.choose import open_engine
from pgcli.errors import EnvironmentFailed
from pgcli.settings.schema import Engine, EnvConfig

ENGINES = ["sync", "async"]


def settings(env_id, engine="sync", **kwargs):
    return EnvConfig(f"scripted:{env_id}", kwargs, 0.0, None, Engine[engine], None, [], [], None)


class Zeros:
    """An actor that always takes action 0, and keeps what it saw."""

    def __init__(self, shape=()):
        self.shape, self.seen = shape, []

    def __call__(self, obs):
        self.seen.append(obs)
        return np.zeros((*obs.shape[:2], *self.shape), np.int64)


def play(env_id, episodes=None, steps=None, slots=2, seeds=(0,), iteration=0, engine="sync",
         few=None, **kwargs):  # fmt: skip
    made = open_engine(settings(env_id, engine, **kwargs), slots * len(seeds))
    try:
        return collect(made, Zeros(), Quota(episodes, steps, few), seeds, iteration)
    finally:
        made.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_first_finished_episodes_are_not_favoured(engine):
    """Returns 0 (one step) and 100 (100 steps), truth 50: counting finishers first gave 18."""
    many = 120 if engine == "sync" else 6
    made = open_engine(settings("Coin-v0", engine), 8)
    try:
        batches = [collect(made, Zeros(), Quota(8, None), (0,), i) for i in range(many)]
    finally:
        made.close()
    returns = [batch.rew.sum(-1) for batch in batches]
    mean, n = torch.cat(returns).mean().item(), 8 * many
    assert abs(mean - 50) < 4 * 50 / n**0.5


@pytest.mark.parametrize("engine", ENGINES)
def test_no_autoreset_row_enters_a_batch(engine):
    batch = play("Scripted-v0", episodes=6, slots=2, engine=engine)
    assert batch.length.tolist() == [[3, 1, 4, 3, 1, 4]]
    for n, k in enumerate([0, 1, 2, 0, 1, 2]):
        steps = int(batch.length[0, n])
        assert batch.obs[0, n, :steps, 1].tolist() == [k] * steps  # its own episode's
        assert batch.obs[0, n, :steps, 2].tolist() == list(range(steps))  # from the reset on
        assert batch.rew[0, n, :steps].tolist() == [t + 1.0 for t in range(steps)]  # none is 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("env_id", "ends", "terminated"),
    [
        ("Scripted-v0", "terminated", [True, True]),
        ("Scripted-v0", "truncated", [False, False]),
        ("Limited-v0", "terminated", [False, True]),  # lengths 3 and 1 under a limit of 2
    ],
)
def test_truncation_is_not_termination(engine, env_id, ends, terminated):
    batch = play(env_id, episodes=2, slots=1, engine=engine, ends=ends)
    assert batch.terminated[0].tolist() == terminated
    assert batch.truncated[0].tolist() == [not t for t in terminated]


@pytest.mark.parametrize("engine", ENGINES)
def test_final_obs_is_the_last_of_its_episode_not_the_next_reset(engine):
    batch = play("Scripted-v0", episodes=3, slots=1, engine=engine)
    assert batch.final_obs[0, :, 1].tolist() == [0, 1, 2]
    assert batch.final_obs[0, :, 2].tolist() == [3, 1, 4]


def test_returns_do_not_leak_across_episodes():
    batch = play("Scripted-v0", episodes=3, slots=1)
    assert batch.rew.sum(-1).tolist() == [[6, 1, 10]]
    assert not batch.rew[~batch.mask].any()
    assert not batch.obs[~batch.mask].any()


@pytest.mark.parametrize(
    "quota", [{"episodes": 5}, {"steps": 10}, {"steps": 1}, {"steps": 17}], ids=str
)
def test_no_cut_tail_passes_for_a_whole_episode(quota):
    for i in range(20):  # lengths 1 and 100: some still run when others have reached the quota
        batch = play("Coin-v0", slots=3, iteration=i, **quota)
        assert batch.terminated.all()
        assert not batch.truncated.any()
        assert set(batch.length.flatten().tolist()) <= {1, 100}


@pytest.mark.parametrize("engine", ENGINES)
def test_with_one_slot_nothing_is_thrown_away_and_others_keep_their_own(engine):
    few = np.array([1, 3])
    batch = play("Coin-v0", steps=150, slots=3, seeds=(0, 1), few=few, engine=engine)
    assert batch.discarded[0] == 0
    alone = play("Coin-v0", steps=150, slots=3, seeds=(1,), few=few[1:], engine=engine)
    assert batch.length[1][batch.length[1] > 0].tolist() == alone.length[0].tolist()
    assert batch.discarded[1] == alone.discarded[0]


def test_few_slots_favour_no_length_either():
    """The prefix is a stopping time: E[Σ rewards] = E[count] · 50 (Wald)."""
    many = [play("Coin-v0", steps=60, slots=3, iteration=i, few=np.array([2])) for i in range(200)]
    excess = torch.stack([(b.rew.sum(-1)[b.length > 0] - 50).sum() for b in many])
    assert abs(excess.mean()) < 4 * excess.std() / len(many) ** 0.5


def test_so_few_slots_play_that_less_than_a_tenth_is_thrown_away():
    length = np.array([1000.0, 150.0, 20.0, 1.0])
    assert few_slots(2000, length).tolist() == [1, 2, 11, 201]


def test_every_environment_has_its_own_seed():
    origins = play("Scripted-v0", episodes=8, slots=8, seeds=(0, 1)).obs[:, :, 0, 0]
    assert len(set(origins.flatten().tolist())) == 16
    again = play("Scripted-v0", episodes=8, slots=8, seeds=(0, 1)).obs[:, :, 0, 0]
    torch.testing.assert_close(again, origins)
    later = play("Scripted-v0", episodes=8, slots=8, seeds=(0, 1), iteration=1).obs[:, :, 0, 0]
    assert not set(later.flatten().tolist()) & set(origins.flatten().tolist())


def test_no_reseeding_at_later_resets():
    engine = open_engine(settings("Scripted-v0"), 1)
    collect(engine, Zeros(), Quota(3, None), [0], 0)
    first, *others = engine._envs[0].unwrapped.resets
    assert first is not None
    assert others == [None, None]


def test_random_starts_differ_between_episodes_of_a_slot():
    batch = play("Coin-v0", episodes=40, slots=1)
    assert len(set(batch.length[0].tolist())) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reused_observation_buffer_is_copied(engine):
    batch = play("Scripted-v0", episodes=1, slots=1, engine=engine, reuse_buffer=True)
    assert batch.obs[0, 0, :, 2].tolist() == [0, 1, 2]


def test_a_batch_does_not_change_when_the_next_is_collected():
    engine = open_engine(settings("Scripted-v0"), 2)
    first = collect(engine, Zeros(), Quota(4, None), [0], 0)
    copy = first.obs.clone(), first.rew.clone(), first.final_obs.clone()
    collect(engine, Zeros(), Quota(4, None), [0], 1)
    for now, before in zip((first.obs, first.rew, first.final_obs), copy, strict=True):
        torch.testing.assert_close(now, before, rtol=0, atol=0)


def test_integer_rewards_are_not_truncated_by_a_shift():
    batch = play("Scripted-v0", episodes=2, slots=2, integer=True)
    assert batch.rew.dtype is torch.float64
    assert batch.rew[0, 0].tolist() == [1, 2, 3]
    found = episodes(batch, 0.25).rew
    torch.testing.assert_close(found, torch.where(batch.mask, batch.rew + 0.25, 0), rtol=0, atol=0)
    assert found.dtype is torch.float64
    assert torch.equal(episodes(batch, 0.0).rew, batch.rew)


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
@pytest.mark.parametrize("episodes", [1, 5, 7, 20])
def test_quotas_are_met_exactly(slots, episodes):
    batch = play("Scripted-v0", episodes=episodes, slots=slots, seeds=(0, 1))
    assert batch.episodes.tolist() == [episodes, episodes]


def test_step_quota_keeps_the_first_started_prefix():
    """Two slots, lengths 3 1 4 each. Start order: A0 B0 (t=0), A1 B1 (t=4), A2 B2 (t=6)."""
    expected = {6: [3, 3], 7: [3, 3, 1], 8: [3, 3, 1, 1], 9: [3, 3, 1, 1, 4]}
    for steps, lengths in expected.items():
        batch = play("Scripted-v0", steps=steps, slots=2)
        assert batch.length[0].tolist() == lengths
        assert batch.obs[0, :, 0, 1].tolist() == [0, 0, 1, 1, 2][: len(lengths)]


def test_step_quota_obeys_walds_identity():
    """E[sum of returns] = E[count] · E[return] for the prefix; a biased rule breaks this."""
    total = count = 0.0
    for i in range(300):
        batch = play("Coin-v0", steps=150, slots=4, iteration=i)
        total, count = total + batch.rew.sum().item(), count + batch.episodes.item()
    assert total / count == pytest.approx(50, rel=0.08)


@pytest.fixture
def unprobed(monkeypatch):
    """No copy is played to see whether it heeds its seed."""
    monkeypatch.setattr("pgcli.environments.vector.forgetting", lambda make, steps=0: [])


@pytest.mark.parametrize(("steps", "slots", "simulated"), [(200, 16, 1600), (150, 2, 200),
                                                           (1, 3, 300), (250, 2, 400)])  # fmt: skip
def test_every_step_is_counted(steps, slots, simulated, unprobed):
    """Episodes of 100 steps: what the slots play until the quota is met, resets left out."""
    counted = scripted.Scripted.stepped
    batch = play("Scripted-v0", steps=steps, slots=slots, lengths=(100,))
    counted = scripted.Scripted.stepped - counted
    assert batch.simulated.tolist() == [simulated] == [counted]
    assert batch.steps.tolist() == [100 * -(-steps // 100)]
    assert batch.to(torch.device("cpu")).discarded.tolist() == batch.discarded.tolist()


@pytest.mark.parametrize("quota", [{"steps": 17}, {"steps": 2}, {"steps": 333}, {"episodes": 5}],
                         ids=str)  # fmt: skip
def test_every_step_of_every_seed_is_counted(quota, unprobed):
    def simulated(*seeds):
        before = scripted.Coin.stepped
        batch = play("Coin-v0", slots=3, seeds=seeds, iteration=[8, 1, 1][: len(seeds)], **quota)
        assert int(batch.simulated.sum()) == scripted.Coin.stepped - before
        assert quota.keys() == {"steps"} or not batch.discarded.any()
        return batch.simulated.tolist()

    assert simulated(4, 5, 6)[0] == simulated(4)[0]


def test_seeds_are_independent_of_their_neighbours():
    both = play("Coin-v0", episodes=9, slots=3, seeds=(4, 5))
    alone = play("Coin-v0", episodes=9, slots=3, seeds=(5,))
    assert both.length[1].tolist() == alone.length[0].tolist()
    steps = play("Coin-v0", steps=120, slots=3, seeds=(4, 5)).length[1]
    single = play("Coin-v0", steps=120, slots=3, seeds=(5,)).length[0]
    assert steps[steps > 0].tolist() == single.tolist()


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "FrozenLake-v1"])
def test_sync_and_async_give_the_same_batch(env_id):
    batches = []
    for name in ENGINES:
        engine = open_engine(EnvConfig(env_id, {}, 0.0, 30, Engine[name], None, [], [], None), 2)
        batches.append(collect(engine, Zeros(), Quota(3, None), [0], 0))
        engine.close()
    for field in ("obs", "act", "rew", "mask", "terminated", "truncated", "final_obs", "length"):
        torch.testing.assert_close(*(getattr(b, field) for b in batches), rtol=0, atol=0)


def test_native_and_sync_have_the_same_dynamics():
    """From the same start and actions, CartPole's native engine and the single one agree."""
    native = open_engine(
        EnvConfig("CartPole-v1", {}, 0.0, None, Engine["native"], None, [], [], None), 4
    )
    sync = open_engine(
        EnvConfig("CartPole-v1", {}, 0.0, None, Engine["sync"], None, [], [], None), 4
    )
    native.reset([1, 2, 3, 4])
    sync.reset([1, 2, 3, 4])
    for i, env in enumerate(sync._envs):
        env.unwrapped.state = native._envs.unwrapped.state[:, i].copy()
    active = np.ones(4, bool)
    for t in range(8):  # no episode ends so soon
        act = np.array([0, 1, t % 2, 0 if t < 4 else 1])
        for a, b in zip(native.step(act, active), sync.step(act, active), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_environment_that_raises_is_named(engine):
    with pytest.raises(EnvironmentFailed, match=r"Failing-v0: step failed.*ValueError: no more"):
        play("Failing-v0", episodes=2, engine=engine)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_dies_does_not_hang():
    with pytest.raises(EnvironmentFailed, match="Failing-v0"):
        play("Failing-v0", episodes=2, engine="async", how="die")


@pytest.mark.parametrize(("how", "what"), [("reward", "reward"), ("obs", "observation")])
def test_what_is_not_a_number_is_refused(how, what):
    with pytest.raises(EnvironmentFailed, match=what):
        play("Failing-v0", episodes=2, how=how)
