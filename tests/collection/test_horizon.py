"""Parts of episodes: slots that play on, what is told of whole episodes, and the gradient."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import only_run, pg, rows
from settings import train_config

from pgcli.collection.batch import Batch
from pgcli.collection.episodes import episodes
from pgcli.collection.horizon import FixedHorizon
from pgcli.environments.choose import open_engine
from pgcli.estimators.estimator import terms
from pgcli.gradients.statistics import measure
from pgcli.gradients.trajectory import gradient_sums, trajectory_gradients
from pgcli.policies.heads import Categorical
from pgcli.policies.network import Mlp
from pgcli.policies.policy import Policy
from pgcli.runs import checkpoint
from pgcli.settings.schema import Engine, EnvConfig


class Zeros:
    """An actor that always takes action 0."""

    def __call__(self, obs):
        return np.zeros(obs.shape[:2], np.int64)

    def restart(self):
        """There is nothing to go back to."""


def played(horizons, env_id="Scripted-v0", slots=2, seeds=(0, 1)):
    """Batches of so many steps a slot, one after the other."""
    config = EnvConfig(f"scripted:{env_id}", {}, 0.0, None, Engine.sync, None, [], [], None)
    engine = open_engine(config, slots * len(seeds))
    batches = []
    for i, steps in enumerate(horizons):
        if not batches:
            slots_on = FixedHorizon(engine, len(seeds), steps)
        slots_on._horizon = steps
        batches.append(slots_on.collect(Zeros(), seeds, i))
    engine.close()
    return batches


def steps_of(batches, seed, slot):
    """(episode, time) before every step of a slot, in order."""
    found = []
    for b in batches:
        for n in range(b.length.shape[1]):
            if b.length[seed, n] and b.unit[seed, n] == slot:
                found += b.obs[seed, n, : b.length[seed, n], 1:].tolist()
    return found


def test_slots_play_on_and_no_reset_counts_as_a_step():
    cut, whole = played([3, 1, 4, 2]), played([10])
    for seed, slot in itertools.product(range(2), range(2)):
        lengths = [3, 1, 4]  # of episodes, over and over
        expected = [[k, t] for k in range(4) for t in range(lengths[k % 3])][:10]
        assert steps_of(cut, seed, slot) == steps_of(whole, seed, slot) == expected
    assert [b.steps.tolist() for b in cut] == [[6, 6], [2, 2], [8, 8], [4, 4]]
    assert [b.units.tolist() for b in cut] == [[2, 2]] * 4


def test_a_part_knows_what_was_before_it_and_what_goes_on():
    first, second = played([2, 4], slots=1, seeds=(0,))
    assert (first.cut.tolist(), first.terminated.tolist()) == ([[True]], [[False]])
    assert first.final_obs[0, 0, 1:].tolist() == [0, 2]  # where the episode goes on
    assert (first.age.tolist(), first.before.tolist()) == ([[0]], [[0.0]])
    assert second.length.tolist() == [[1, 1, 2]]
    assert second.age.tolist() == [[2, 0, 0]]
    assert second.before.tolist() == [[3.0, 0.0, 0.0]]  # 1 + 2
    assert second.cut.tolist() == [[False, False, True]]
    assert (first.ended().length > 0).sum() == 0
    ended = second.ended()
    assert ended.length.tolist() == [[3, 1, 0]]
    assert ended.returns[0, :2].tolist() == [6.0, 1.0]


# A process of three states that ends now and then, its start known, its carried states any.
RNG = np.random.default_rng(3)
P = RNG.dirichlet(np.ones(4), size=(3, 2))  # [s, a, s']; the last s' is the end
R = RNG.normal(size=(3, 2, 4))
START, CARRIED = RNG.dirichlet(np.ones(3), size=2)
GAMMA, H = 0.8, 3
POLICY = Policy(Mlp((3, 2), bias=False), Categorical(2))
THETA = torch.from_numpy(RNG.normal(size=(1, 6)))


def pi():
    return POLICY.probabilities(THETA, torch.eye(3).double()[None])[0].numpy()


def solved():
    """V [3] and Q [3, 2] of the policy, for γ."""
    p = pi()
    inner = np.einsum("sa,sat->st", p, P)[:, :3]
    reward = np.einsum("sa,sat,sat->s", p, P, R)
    value = np.linalg.solve(np.eye(3) - GAMMA * inner, reward)
    return value, (P * (R + GAMMA * np.append(value, 0.0))).sum(-1)


def fragments():
    """Every sequence of H steps, (probability, [(s, a, r, s', ended)])."""
    p, found = pi(), []

    def walk(chance, s, steps):
        if len(steps) == H:
            found.append((chance, steps))
            return
        for a, t in itertools.product(range(2), range(4)):
            here = chance * p[s, a] * P[s, a, t]
            step = (s, a, R[s, a, t], t, t == 3)
            for follows in range(3) if t == 3 and len(steps) + 1 < H else [t]:
                reset = START[follows] if t == 3 and len(steps) + 1 < H else 1.0
                walk(here * reset, follows, [*steps, step])

    for s in range(3):
        walk(CARRIED[s], s, [])
    return found


def listed():
    """All of them as the slots of one batch, and the probability of each."""
    chances, parts = [], []
    for slot, (chance, steps) in enumerate(fragments()):
        chances.append(chance)
        start = 0
        for i, step in enumerate(steps):
            if step[4] or i == H - 1:
                parts.append((slot, steps[start : i + 1]))
                start = i + 1
    n, eye = len(parts), torch.eye(4).double()[:, :3]
    obs, act = torch.zeros(1, n, H, 3).double(), torch.zeros(1, n, H, dtype=torch.int64)
    rew, mask = torch.zeros(1, n, H).double(), torch.zeros(1, n, H, dtype=torch.bool)
    ended, final = torch.zeros(1, n, dtype=torch.bool), torch.zeros(1, n, 3).double()
    for i, (_, steps) in enumerate(parts):
        for t, (s, a, r, _, _) in enumerate(steps):
            obs[0, i, t], act[0, i, t], rew[0, i, t], mask[0, i, t] = eye[s], a, r, True
        final[0, i], ended[0, i] = eye[steps[-1][3]], steps[-1][4]
    nothing = torch.zeros(1, n, dtype=torch.int64)
    batch = Batch(
        obs, act, rew, mask, ended, torch.zeros_like(ended), final, mask.sum(-1),
        unit=torch.tensor([[slot for slot, _ in parts]]), age=nothing, before=rew[..., 0],
        cut=~ended,
    )  # fmt: skip
    return batch, torch.tensor(chances, dtype=torch.float64)


@pytest.mark.parametrize(
    ("phi", "changes"),
    [("td", {}), ("n_step", {"n": 2}), ("gae", {"lam": 0.6}), ("gae", {"lam": 1.0})],
)
def test_the_estimate_is_that_of_the_states_slots_are_in_exactly(phi, changes):
    """E[ĝ] = Σ_{t<H} Σ_s d_t(s) Σ_a ∇π(a|s) Q(s, a), d_0 carried, with V itself as critic."""
    value, q = solved()
    batch, chances = listed()
    assert chances.sum() == pytest.approx(1)
    table = torch.from_numpy(value)
    looked = episodes(batch, 0.0, value=(batch.obs @ table * batch.mask, batch.final_obs @ table))
    config = replace(train_config().estimator, phi=phi, gamma=GAMMA, **changes)
    share = chances[batch.unit] * len(chances)
    weights = terms(config, looked).weights * share.unsqueeze(-1)
    found = measure(gradient_sums(POLICY, THETA, batch, weights)).gradient[0]

    p, d, visits = pi(), CARRIED, np.zeros(3)
    for _ in range(H):
        visits += d
        after = np.einsum("s,sa,sat->t", d, p, P)
        d = after[:3] + after[3] * START
    advantage = p * (q - (p * q).sum(1, keepdims=True))  # Σ_b ∇_z π(b) Q(b) = π(a)(Q(a) − V)
    expected = (visits[:, None] * advantage).ravel()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-13)


def test_without_v_where_a_part_is_cut_it_would_be_another():
    """The test above tells the two apart."""
    value, _ = solved()
    batch, chances = listed()
    table = torch.from_numpy(value)
    looked = episodes(batch, 0.0, value=(batch.obs @ table * batch.mask, batch.final_obs @ table))
    config = replace(train_config().estimator, phi="gae", gamma=GAMMA, lam=1.0)
    share = (chances[batch.unit] * len(chances)).unsqueeze(-1)
    sums = [
        measure(gradient_sums(POLICY, THETA, batch, terms(config, e).weights * share)).gradient
        for e in (looked, replace(looked, cut=torch.zeros_like(batch.cut)))
    ]
    assert (sums[0] - sums[1]).norm() > 0.05 * sums[0].norm()


def test_the_spread_is_that_of_slots_whatever_parts_they_have():
    batch, _ = listed()
    weights = batch.rew + 0.3 * batch.mask
    factors, _ = POLICY.score_factors(THETA, batch.obs.flatten(1, 2), batch.act.flatten(1, 2))
    each = trajectory_gradients(factors, weights, POLICY.num_params)[0]
    units = int(batch.units)
    slots = torch.zeros(units, POLICY.num_params).double().index_add_(0, batch.unit[0], each)
    measured = measure(gradient_sums(POLICY, THETA, batch, weights))
    torch.testing.assert_close(measured.gradient[0], slots.mean(0))
    torch.testing.assert_close(measured.trace_cov[0], slots.var(0).sum())


def test_a_discount_from_the_start_goes_on_in_a_later_part():
    batch, _ = listed()
    config = replace(train_config().estimator, phi="td", gamma=GAMMA, discount_state=True)
    nothing = torch.zeros_like(batch.rew), torch.zeros_like(batch.rew[..., 0])
    older = replace(batch, age=batch.age + 2)
    a, b = (terms(config, episodes(x, 0.0, value=nothing)).weights for x in (batch, older))
    torch.testing.assert_close(b, GAMMA**2 * a)


STEPS = ["collect=steps", "horizon=16", "env.num_envs=4", "estimator=gae"]
STEPS += ["critic.target=td_lambda", "optimizer.schedule=constant"]


def trained(path, *more):
    done = pg("train", *STEPS, *more, f"hydra.run.dir={path}", cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return done, checkpoint.load(path).arrays


def test_a_run_goes_on_where_its_slots_are_bit_for_bit(tmp_path):
    pytest.importorskip("numba")
    _, whole = trained(tmp_path / "a", "iterations=12", "seeds=2")
    trained(tmp_path / "b", "iterations=5", "seeds=2")
    done = pg("train", f"resume={tmp_path / 'b'}", "iterations=12", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resumed = checkpoint.load(tmp_path / "b").arrays
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(x, resumed[name], equal_nan=True) for name, x in whole.items())
    _, alone = trained(tmp_path / "c", "iterations=12", "seed=1")
    assert np.allclose(alone["theta"][0], whole["theta"][1], rtol=1e-4, atol=1e-6)


def test_an_engine_that_cannot_give_its_state_is_said(tmp_path):
    done, arrays = trained(tmp_path / "a", "env.engine=sync", "iterations=3")
    assert "a resumed run begins new episodes" in done.stdout + done.stderr
    assert arrays["tally/env_steps"].tolist() == [3 * 16 * 4]
    assert pg("train", f"resume={tmp_path / 'a'}", "iterations=5", cwd=tmp_path).returncode == 0
    assert checkpoint.load(tmp_path / "a").arrays["tally/env_steps"].tolist() == [5 * 16 * 4]


def test_a_batch_in_which_nothing_ends_has_no_return(tmp_path):
    line = ["collect=steps", "horizon=50", "env.num_envs=2", "estimator=td", "env=Pendulum-v1"]
    done = pg("train", *line, "critic.target=td_lambda", "iterations=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (header, *table) = rows(only_run(tmp_path))
    at = header.index("rollout/ep_rew_mean")
    count = header.index("rollout/episodes")
    assert [row[count] for row in table] == ["0", "0", "0", "2", "0"]  # of 200 steps
    assert [row[at] for row in table[:3]] == ["nan"] * 3
    assert float(table[3][at]) == float(table[4][at]) < 0  # what was seen last stands


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("estimator=rtg", "estimator.phi"),
        ("estimator=q", "estimator.phi"),
        ("estimator=compatible", "estimator.phi"),
        ("estimator.importance=trajectory", "estimator.importance"),
        ("estimator.importance=per_decision", "estimator.importance"),
        ("critic.target=monte_carlo", "critic.target"),
        ("batch_steps=100", "batch_steps"),
        ("env.engine=native", "env.engine"),
    ],
)
def test_what_needs_whole_episodes_is_refused(tmp_path, typed, named):
    more = ["updates_per_batch=2"] if "importance" in typed else []
    done = pg("train", *STEPS, typed, *more, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert not (tmp_path / "outputs").exists()
