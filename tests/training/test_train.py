"""The training loop from end to end: every switch does what its name says."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_episodes import aims
from settings import train_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgcli.cli.sources import conf_dir
from pgcli.collection.rollout import Quota, collect
from pgcli.environments import choose
from pgcli.environments.choose import open_engine, slots_per_seed
from pgcli.errors import ConfigError
from pgcli.estimators.estimator import q_target
from pgcli.estimators.phi import Episodes
from pgcli.gradients.trajectory import gradient_sums
from pgcli.machine.cores import started
from pgcli.machine.randomness import WIDE
from pgcli.policies.actor import PolicyActor
from pgcli.runs import checkpoint, saved
from pgcli.settings.schema import Device
from pgcli.training import build
from pgcli.training import loop as training
from pgcli.training.build import build_learner
from pgcli.training.loop import run

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
    known = ("env=LQG", "policy.hidden=[]") if preset == "exact" else ()  # by its model
    line = (f"estimator={preset}", "seeds=2", "gradient.score=true", *known)
    metrics, _ = train(tmp_path, *line)
    for tag, values in metrics.items():
        assert len(values) == 4
        if preset == "advantage" and tag in ("gradient/snr", "gradient/noise_scale"):
            values = values[2:]  # it starts at 0: the first batch has no gradient, nor a ratio
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


@pytest.mark.parametrize("update", ["ascent", "proximal"])
def test_a_scheduled_entropy_coefficient_is_that_of_each_seed_and_is_logged(update, tmp_path):
    line = (f"update={update}", "iterations=4", "policy.entropy_coef=0.8", "seeds=2")
    found, _ = train(tmp_path / "linear", *line, "policy.entropy_schedule=linear")
    np.testing.assert_allclose(found["policy/entropy_coef"], np.repeat([0.8, 0.6, 0.4, 0.2], 2))
    constant, _ = train(tmp_path / "constant", *line)
    assert "policy/entropy_coef" not in constant
    first = found["policy/kl"][:2], constant["policy/kl"][:2]
    np.testing.assert_array_equal(*first)  # the first coefficient is the whole
    assert (found["policy/kl"][2:] != constant["policy/kl"][2:]).all()


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


def test_the_mean_score_is_zero_off_policy_too(tmp_path):
    metrics, _ = train(tmp_path, "gradient.score=true", "batch_size=256", "behaviour.temperature=2",
                       "policy.output_gain=2", "env.max_episode_steps=8",
                       "estimator.importance=per_decision")  # fmt: skip
    ratio = (metrics["score/norm"] / metrics["score/standard_error"]) ** 2
    assert 0.2 < ratio.mean() < 3
    assert (metrics["importance/kl"] > 1e-3).all()


@pytest.mark.parametrize("behaviour", [False, True])
def test_an_iteration_replayed_by_hand(behaviour, tmp_path):
    """Two iterations of two updates each, with plain autograd: critics serve before they learn."""
    settings = (*SHORT, "estimator=rtg_value", "estimator.importance=per_decision",
                "updates_per_batch=2", "optimizer=sgd", "optimizer.lr=0.01", "batch_size=3",
                "env.max_episode_steps=12")  # fmt: skip
    if behaviour:
        run(train_config(*settings, "seed=7", "policy.output_gain=1"), tmp_path / "source")
        settings += (f"behaviour.checkpoint={tmp_path / 'source'}",)
    config = train_config(*settings)
    run(config, tmp_path / "run")
    found = checkpoint.load(tmp_path / "run").arrays

    engine = open_engine(config.env, slots := slots_per_seed(config.env, 3))
    learner = build_learner(config, engine, [0], torch.device("cpu"))
    policy, critic = learner.policy, learner.value
    theta = learner.theta.detach().clone()
    for iteration in range(2):
        source = theta
        if behaviour:
            source = torch.from_numpy(checkpoint.load(tmp_path / "source").arrays["theta"])
        actor = PolicyActor(policy, source, [0], iteration, slots)
        batch = collect(engine, actor, Quota(3, None), [0], iteration)
        value = critic.along(batch.obs, batch.mask)[0].double()
        rows = batch.obs.flatten(1, 2), batch.act.flatten(1, 2)
        acting = policy.log_prob(source, *rows).detach()
        for _ in range(2):
            at = theta.clone().requires_grad_()
            logp = policy.log_prob(at, *rows)
            ratio = (logp - acting).detach().double().reshape(3, -1)
            surrogate = torch.zeros(())
            for n in range(3):
                steps = int(batch.length[0, n])
                rho = ratio[n, :steps].cumsum(0).exp()
                for t in range(steps):
                    to_go = (rho[t:] * batch.rew[0, n, t:steps]).sum()
                    weight = to_go - rho[t] * value[n, t]
                    surrogate = surrogate + weight * logp.reshape(3, -1)[n, t] / 3
            rate = 0.01 * (1 - iteration / 2)
            theta = theta + rate * torch.autograd.grad(surrogate, at)[0]
        target = batch.rew.flip(-1).cumsum(-1).flip(-1) * batch.mask
        started(critic.fits(batch.obs, batch.mask, target, iteration))()
    np.testing.assert_allclose(found["theta"], theta.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["value/theta"], critic.theta.detach().numpy(), rtol=1e-4,
                               atol=1e-5)  # fmt: skip


def test_q_is_told_the_action_and_follows_its_own_targets():
    config = train_config("estimator=q", "estimator.lam=0", "estimator.gamma=0.5")
    engine = open_engine(config.env, 2)
    learner = build_learner(config, engine, [0], torch.device("cpu"))
    batch = collect(
        engine, PolicyActor(learner.policy, learner.theta, [0], 0, 2), Quota(2, None), [0], 0
    )
    pairs = learner.policy.state_actions(batch.obs, batch.act)
    assert torch.equal(pairs[..., :4], batch.obs)
    assert torch.equal(pairs[..., 4:].argmax(-1)[batch.mask], batch.act[batch.mask])
    q = torch.randn(batch.rew.shape).double() * batch.mask
    looks = Episodes(batch.rew, batch.mask, batch.truncated, q=q)
    sarsa = q_target(config.estimator, aims("td_lambda"), looks)
    for n in range(2):
        for t in range(int(batch.length[0, n])):
            following = q[0, n, t + 1] if t + 1 < batch.length[0, n] else 0.0
            expected = batch.rew[0, n, t] + 0.5 * following
            assert float(sarsa[0, n, t]) == pytest.approx(float(expected))
    v = torch.randn(batch.rew.shape).double() * batch.mask
    seen = replace(looks, value=v, final_value=torch.full((1, 2), 9.0).double())
    expected_sarsa = q_target(config.estimator, aims("expected_sarsa", 0.3), seen)
    for n in range(2):
        following = 0.0
        for t in reversed(range(int(batch.length[0, n]))):
            ahead = v[0, n, t + 1] if t + 1 < batch.length[0, n] else 0.0
            following = float(batch.rew[0, n, t] + 0.5 * (0.7 * ahead + 0.3 * following))
            assert float(expected_sarsa[0, n, t]) == pytest.approx(following)
    monte_carlo = q_target(config.estimator, aims("monte_carlo"), looks)
    assert float(monte_carlo[0, 0, 0]) == pytest.approx(
        sum(0.5**t for t in range(int(batch.length[0, 0])))
    )


@pytest.mark.parametrize("estimator", ["rtg", "rtg_value"])
@pytest.mark.parametrize("env", [("env=CartPole-v1",), ("env=Acrobot-v1",),
                                 ("env=CartPole-v1", "env.engine=sync"),
                                 ("env=FrozenLake-v1", "policy=tabular")],
                         ids=" ".join)  # fmt: skip
def test_several_seeds_train_as_each_alone(env, estimator, tmp_path):
    """Where an engine seeds slot by slot, the episodes are the same, and so is what is learned."""
    settings = (f"estimator={estimator}", *env, "env.max_episode_steps=60", "iterations=4")
    together, _ = train(tmp_path / "together", *settings, "seed=3", "seeds=3")
    for seed in (3, 4, 5):
        alone, _ = train(tmp_path / f"{seed}", *settings, f"seed={seed}")
        own = together["seed"] == seed
        for tag in ("rollout/ep_rew_mean", "rollout/ep_len_mean"):
            np.testing.assert_array_equal(together[tag][own], alone[tag])
        for tag in ("gradient/norm", "gradient/trace_cov", "policy/kl", "policy/entropy"):
            np.testing.assert_allclose(together[tag][own], alone[tag], rtol=1e-3, atol=1e-9)


# Policies that are unlike from the start, so that one seed's episodes are longer than another's.
UNEVEN = ("env=CartPole-v1", "env.max_episode_steps=60", "iterations=null", "policy.output_gain=5",
          "seeds=3")  # fmt: skip


def rows_of(directory: Path, seed: int) -> list[dict[str, str]]:
    with open(directory / "metrics.csv") as file:
        return [row for row in csv.DictReader(file) if row["seed"] == str(seed)]


def ending(directory: Path) -> str:
    (directory / ".hydra").mkdir(exist_ok=True)
    (directory / ".hydra" / "config.yaml").write_text("seed: 0")  # as Hydra would
    return saved.read(directory).state.name


def assert_alike(together, alone, exact=False):
    assert [row.keys() for row in together] == [row.keys() for row in alone]
    for a, b in zip(together, alone, strict=True):
        for tag in a:
            if tag == "time/fps":
                continue
            if tag == "update/cg_residual" and not exact:  # of what rounding leaves
                assert float(a[tag]) == pytest.approx(float(b[tag]), 0.5, 1e-6, True), tag
            elif exact or tag in ("iteration", "env_steps", "rollout/episodes"):
                assert a[tag] == b[tag], tag
            else:
                assert float(a[tag]) == pytest.approx(float(b[tag]), 2e-3, 1e-6, True), tag


@pytest.mark.parametrize(
    "line",
    [
        ("total_steps=700", "estimator=rtg"),
        # Least squares magnify what a float32 θ rounds by trace over ridge: held down here.
        ("total_steps=700", "estimator=q", "optimizer=sgd", "critic.ridge=1"),
        ("total_steps=700", "estimator=advantage", "critic.q=dueling", "critic.clip=0.2"),
        ("total_steps=700", "estimator=advantage", "critic.q=outputs"),
        ("total_steps=700", "estimator=q_mean", "critic.q=action_input"),
        ("total_steps=700", "estimator=compatible", "critic.ridge=1"),
        ("total_steps=700", "estimator=gae", "optimizer.schedule=cosine", "iterations=25"),
        ("total_steps=700", "estimator=rtg_linear", "batch_steps=40", "env.num_envs=3"),
        ("total_steps=700", "estimator=gae", "update=proximal", "update.target_kl=0.01"),
        ("total_steps=700", "estimator=rtg_optimal", "update=trust_region", "update.damping=10"),
    ],
    ids=" ".join,
)
def test_each_seed_spends_its_own_budget_as_it_would_alone(line, tmp_path):
    run(train_config(*SHORT, *UNEVEN, *line), tmp_path / "all")
    for seed in range(3):
        run(train_config(*SHORT, *UNEVEN, *line, f"seed={seed}", seeds=1), tmp_path / f"{seed}")
        assert_alike(rows_of(tmp_path / "all", seed), rows_of(tmp_path / f"{seed}", seed))
    ends = [rows_of(tmp_path / "all", seed)[-1] for seed in range(3)]
    done = [int(row["iteration"]) for row in ends]
    assert len(set(done)) >= 2  # an agent goes on beside fewer
    limit = 25 if "iterations=25" in line else 10**9
    for row in ends:
        assert int(row["env_steps"]) >= 700 or int(row["iteration"]) == limit
    found = json.loads((tmp_path / "all" / "summary.json").read_text())
    assert (found["iterations"], found["seed_iterations"]) == (max(done), done)
    assert found["env_steps"] == [int(row["env_steps"]) for row in ends]
    for tag, x in found["last"].items():
        np.testing.assert_array_equal(np.array(x, float), [float(row[tag]) for row in ends])
    assert ending(tmp_path / "all") == "finished"


@pytest.mark.parametrize("kind", ["episodes", "steps"])
def test_there_may_be_more_minibatches_than_there_is_to_fill_them(kind, tmp_path):
    line = ("update=proximal", f"update.minibatch_of={kind}", "update.minibatches=50",
            "update.normalize=true", "update.epochs=2", "env=FrozenLake-v1")  # fmt: skip
    metrics, _ = train(tmp_path, *line, "policy.entropy_coef=0.1", "batch_size=2", "seeds=2")
    assert np.isfinite(metrics["update/step_norm"]).all()


@pytest.mark.parametrize(
    "more",
    [
        *((f"update={name}",) for name in ("ascent", "natural", "trust_region", "proximal")),
        *(
            ("estimator=advantage", f"critic.q={form}", "critic.target=expected_sarsa")
            for form in ("compatible", "dueling", "outputs")
        ),
        ("estimator=compatible", "critic.clip=0.2"),
    ],
    ids=" ".join,
)
def test_a_run_that_goes_on_where_a_seed_has_ended_is_the_same_run(more, tmp_path):
    """Every checkpoint of it, in the phase of one, two or three seeds, leads to the same end."""
    line = (*SHORT, *UNEVEN, "total_steps=700", "estimator=rtg_value", "checkpoint.every=1", *more)
    run(train_config(*line), tmp_path / "whole")
    last = checkpoint.load(tmp_path / "whole")
    done = last.arrays["tally/done"].tolist()
    assert last.iteration == max(done)
    for start in {min(done) - 1, min(done), sorted(done)[1], max(done) - 1}:
        broken = tmp_path / f"{start}"
        shutil.copytree(tmp_path / "whole", broken)
        (broken / "summary.json").unlink()
        for later in range(start + 1, max(done) + 1):
            (broken / "checkpoint" / f"{later:08d}.npz").unlink()
        run(train_config(*line, resume=str(broken)), broken)
        for seed in range(3):
            assert_alike(rows_of(broken, seed), rows_of(tmp_path / "whole", seed), exact=True)
        found = checkpoint.load(broken)
        assert found.iteration == max(done)
        for name, x in last.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], x, name)
        tags = EventAccumulator(str(broken)).Reload().Scalars("gradient/norm")
        steps = [event.step for event in tags]
        assert len(steps) == max(done)
        assert steps == sorted(set(steps))


def test_a_larger_budget_takes_every_seed_further(tmp_path):
    line = (*SHORT, *UNEVEN, "estimator=rtg_value", "optimizer.schedule=constant")
    run(train_config(*line, "total_steps=300"), tmp_path / "all")
    short = [len(rows_of(tmp_path / "all", seed)) for seed in range(3)]
    for _ in range(2):  # the second time there is nothing left to do
        longer = train_config(*line, "total_steps=700", resume=str(tmp_path / "all"))
        run(longer, tmp_path / "all")
        for seed, before in enumerate(short):
            alone = train_config(*line, "total_steps=700", f"seed={seed}", seeds=1)
            if not (tmp_path / f"{seed}").exists():
                run(alone, tmp_path / f"{seed}")
            assert_alike(rows_of(tmp_path / "all", seed), rows_of(tmp_path / f"{seed}", seed))
            assert len(rows_of(tmp_path / "all", seed)) > before
        assert ending(tmp_path / "all") == "finished"


def test_the_policy_that_collects_is_each_seeds_own_to_the_end(tmp_path):
    line = (*SHORT, *UNEVEN, "estimator.importance=per_decision", "policy.output_gain=1")
    run(train_config(*line, "total_steps=100"), tmp_path / "source")
    line = (*line, "total_steps=500", "behaviour.epsilon=0.1")
    run(train_config(*line, f"behaviour.checkpoint={tmp_path / 'source'}"), tmp_path / "all")
    source = checkpoint.load(tmp_path / "source")
    own = {"theta": source.arrays["theta"][2:]}  # the third seed's policy by itself
    checkpoint.save(tmp_path / "own", source.iteration, own, source.meta, None)
    alone = train_config(*line, f"behaviour.checkpoint={tmp_path / 'own'}", "seed=2", seeds=1)
    run(alone, tmp_path / "2")
    assert_alike(rows_of(tmp_path / "all", 2), rows_of(tmp_path / "2", 2))


def test_what_a_step_quota_throws_away_is_logged_and_counted(tmp_path):
    """Three slots of 10-step episodes play five rounds for 130 steps: 15 × 10 simulated."""
    line = ("env=scripted:Scripted-v0", "+env.kwargs.lengths=[10]", "env.engine=sync",
            "batch_steps=130", "env.num_envs=3", "iterations=null", "total_steps=300")  # fmt: skip
    metrics, arrays = train(tmp_path, *line)
    assert metrics["rollout/discarded"].tolist() == [20, 20]
    assert metrics["env_steps"].tolist() == [150, 300]
    assert (metrics["rollout/ep_len_mean"] * metrics["rollout/episodes"]).tolist() == [130, 130]
    assert arrays["tally/env_steps"].tolist() == [300]
    plain, _ = train(tmp_path / "plain")
    assert "rollout/discarded" not in plain


def test_seeds_of_an_engine_with_one_generator_are_as_good_as_separate_runs(tmp_path):
    """The native CartPole takes one seed for all: other episodes, of the same distribution."""
    settings = ("env.engine=native", "iterations=12", "batch_size=8", "optimizer.lr=0.01")
    together, _ = train(tmp_path / "together", *settings, "seeds=24")
    alone = [train(tmp_path / f"{i}", *settings, f"seed={100 + i}")[0] for i in range(24)]
    for tag in ("rollout/ep_len_mean", "policy/entropy", "gradient/norm"):
        for iteration in (0, 5, 11):
            a = together[tag][24 * iteration : 24 * (iteration + 1)]
            b = np.array([one[tag][iteration] for one in alone])
            error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 24)
            assert abs(a.mean() - b.mean()) < 4 * error, (tag, iteration)
    first = together["rollout/ep_len_mean"][:24]
    assert len(np.unique(first)) > 12  # and none is another's copy


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("env=Pendulum-v1", "seeds=2"),
        ("batch_steps=3000",),
        ("env=FrozenLake-v1", "batch_size=3"),
    ],
    ids=" ".join,
)
def test_auto_takes_the_device_that_is_faster_at_this_size(line, monkeypatch):
    """On a clock of its own: every pass of the first device lasts as long as told."""
    config = train_config(*line)
    engine = open_engine(config.env, config.seeds)
    slow, sizes = [], []
    clock = iter(range(10**6))

    def passed(policy, theta, batch, weights):
        sizes.append(tuple(batch.obs.shape))
        for _ in range(slow.pop(0)):
            next(clock)
        return gradient_sums(policy, theta, batch, weights)

    monkeypatch.setattr(build.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(build, "gradient_sums", passed)
    one, other = torch.device("cpu"), torch.device("cpu", 0)
    for slow[:], taken in (([5, 5, 5, 9, 3, 3], other), ([9, 3, 3, 5, 5, 5], one)):
        assert build.fastest([one, other], config, engine) is taken
    steps = min(engine.max_episode_steps, 1000)
    episodes = -(-config.batch_steps // steps) if config.batch_steps else config.batch_size
    assert set(sizes) == {(config.seeds, episodes, steps, engine.obs_dim)}
    assert build.fastest([other], config, engine) is other  # nothing to measure
    engine.close()


def test_devices_are_those_that_are_there(monkeypatch):
    def names(wanted, there):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        return [device.type for device in build.devices(Device[wanted])]

    assert names("cpu", True) == names("auto", False) == ["cpu"]
    assert names("auto", True) == ["cpu", "cuda"]
    assert names("cuda", True) == ["cuda"]
    with pytest.raises(ConfigError, match="no CUDA device"):
        names("cuda", False)


def test_a_resume_on_another_engine_is_said(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    run(train_config(*SHORT), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["engine"] == "compiled"
    real = choose.importlib.util.find_spec
    monkeypatch.setattr(
        choose.importlib.util, "find_spec", lambda name: None if name == "numba" else real(name)
    )
    run(train_config(*SHORT, "iterations=3", resume=str(tmp_path)), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["iterations"] == 3
    assert "engine was compiled and is native" in " ".join(summary["notices"])


@pytest.mark.parametrize(
    ("env", "package"),
    [("LunarLander-v3", "Box2D"), ("BipedalWalker-v3", "Box2D"), ("HalfCheetah-v5", "mujoco")],
)
def test_the_environments_of_the_extras(env, package, tmp_path):
    pytest.importorskip(package)
    metrics, _ = train(tmp_path, f"env={env}", "env.max_episode_steps=20", "batch_size=4")
    assert np.isfinite(metrics["gradient/norm"]).all()
    assert (metrics["rollout/ep_len_mean"] <= 20).all()


def test_a_run_of_an_older_version_goes_on_with_the_episodes_it_would_have_had(
    tmp_path, monkeypatch
):
    """Its checkpoints name no format, and its environments were seeded by 32 bits."""
    line = ("env=Acrobot-v1", "env.engine=sync", "optimizer.schedule=constant", "batch_size=2",
            "env.max_episode_steps=20", "seeds=2")  # fmt: skip
    with monkeypatch.context() as older:
        older.setattr(training, "seeding", lambda format: WIDE)
        older.setattr(checkpoint, "FORMAT", 1)
        whole, expected = train(tmp_path / "whole", *line, "iterations=4")
        train(tmp_path / "parts", *line, "iterations=2")
    found = checkpoint.load(tmp_path / "parts")
    del found.meta["format"]  # as older versions wrote it
    checkpoint.save(tmp_path / "parts", 2, found.arrays, found.meta, None)
    for iterations in (3, 4):  # also when it is resumed twice
        resume = f"resume={tmp_path / 'parts'}"
        parts, arrays = train(tmp_path / "parts", *line, resume, f"iterations={iterations}")
    assert checkpoint.load(tmp_path / "parts").format == 1
    for tag in set(whole) - {"time/fps"}:
        np.testing.assert_array_equal(parts[tag], whole[tag], tag)
    np.testing.assert_array_equal(arrays["theta"], expected["theta"])
    newer, _ = train(tmp_path / "newer", *line, "iterations=4")
    assert not np.array_equal(newer["gradient/norm"], whole["gradient/norm"])


def test_other_last_bits_than_an_older_run_began_with_are_said(tmp_path):
    pytest.importorskip("numba")
    line = ("env=Pendulum-v1", "env.max_episode_steps=20")

    def notices(iterations):
        again = [f"resume={tmp_path}"] if iterations > 1 else []
        run(train_config(*SHORT, *line, *again, f"iterations={iterations}"), tmp_path)
        return " ".join(json.loads((tmp_path / "summary.json").read_text())["notices"])

    assert "last bits" not in notices(1) + notices(2)
    found = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, 2, found.arrays, found.meta | {"format": 1}, None)
    assert "compiled Pendulum-v1 rounds as Gymnasium's" in notices(3)


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_what_no_checkpoint_holds_is_said_at_the_start_and_on_resume(
    tmp_path, monkeypatch, capsys, engine
):
    (tmp_path / "normalized.py").write_text(
        "import gymnasium as gym\n"
        "make = lambda: gym.wrappers.NormalizeObservation(gym.make('CartPole-v1'))\n"
        "gym.register('Normalized-v0', make, max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    line = ("env=normalized:Normalized-v0", f"env.engine={engine}", "batch_size=2")
    for again in ([], [f"resume={tmp_path / 'run'}", "iterations=3"]):
        run(train_config(*SHORT, *line, *again), tmp_path / "run")
        said = capsys.readouterr().out
        assert said.count("NormalizeObservation goes on learning its statistics") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "neither resuming nor comparing is exact" in " ".join(summary["notices"])
