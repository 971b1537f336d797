"""`pg compare updates=[…]`: what rules make of the same estimates, against the exact objective."""

import csv
import json

import pytest
import torch
from command_line import pg

from pgcli.cli.commands import COMMANDS
from pgcli.cli.compose import compose_all
from pgcli.errors import ConfigError
from pgcli.gradients.truth import action_probabilities, natural_gradient, objective, solve
from pgcli.proof.listed import TinyMdp, tabular

RULES = "updates=[ascent,natural,trust_region,proximal]"
LAKE = ("compare", "env=FrozenLake-v1", "++env.kwargs.map_name=4x4", "policy=tabular",
        "++env.kwargs.is_slippery=false", "env.max_episode_steps=12", "episodes=128",
        "batch_size=16", "resamples=200")  # fmt: skip


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_exact_natural_gradient_of_a_table_is_its_advantage(seed, gamma):
    """F⁺∇J = Σ_t d_t γ^t A_t / Σ_t d_t up to a constant per state (Kakade 2001)."""
    mdp = TinyMdp.random(seed, states=3, actions=3)
    policy, model = mdp.policy(hidden=()), tabular(mdp)
    rng = torch.Generator().manual_seed(seed)
    theta = torch.randn(1, policy.num_params, dtype=torch.float64, generator=rng)
    weight, _ = policy.net.unpack(theta)[0]  # and a bias that all states share
    found = natural_gradient(model, policy, theta, gamma)
    solution = solve(model, policy, theta, gamma)
    pi = action_probabilities(policy, theta, mdp.states).detach()
    visits, numerator, d = (
        torch.zeros(mdp.states),
        torch.zeros(mdp.states, mdp.actions),
        model.start,
    )
    for t in range(mdp.horizon):
        advantage = solution.action_value[t, :-1] - solution.value[t, :-1, None]
        visits = visits + d
        numerator = numerator + gamma**t * d[:, None] * advantage
        flow = model.probability * pi[model.state, model.action] * d[model.state]
        d = torch.zeros(mdp.states + 1).double().index_add(0, model.following, flow)[:-1]
    way, shift = policy.net.unpack(found[None])[0]
    logits = way[0] + shift[0]
    expected = numerator / visits[:, None]
    for one in (logits, expected):
        one -= one.mean(-1, keepdim=True)
    assert weight.shape == way.shape
    torch.testing.assert_close(logits, expected, rtol=1e-7, atol=1e-8)


def test_the_objective_alone_is_that_of_the_solution():
    mdp = TinyMdp.random(3)
    policy, model = mdp.policy(), tabular(mdp)
    theta = torch.randn(1, policy.num_params, dtype=torch.float64)
    for gamma in (1.0, 0.9):
        assert objective(model, policy, theta, gamma) == pytest.approx(
            solve(model, policy, theta, gamma).objective, rel=1e-14
        )


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("lake")
    done = pg(*LAKE, RULES, "estimators=[rtg,rtg_optimal]", "optimizer=sgd", "optimizer.lr=1e-4",
              "along=natural", "hydra.run.dir=run", cwd=cwd)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cwd / "run", done.stdout


def test_every_rule_steps_on_every_estimate_that_is_named(lake):
    run, said = lake
    found = rows(run / "updates.csv")
    assert len(found) == 8
    assert {row["batches"] for row in found} == {"8"}
    facts = json.loads((run / "compare.json").read_text())
    assert [row["update"] for row in facts["updates"]] == [row["update"] for row in found]
    assert {path.stem for path in run.glob("*.png")} >= {"along"}
    assert "J gained" in said


def test_a_plain_step_points_where_its_estimate_does(lake):
    run, _ = lake
    own = {row["estimator"]: row for row in rows(run / "compare.csv")}
    for row in rows(run / "updates.csv"):
        if row["update"] == "ascent":
            expected = own[row["estimator"]]
            for name in ("cos_to_true", "cos_to_true_lo", "cos_to_true_hi"):
                assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-3)
            gain, norm = float(row["surrogate_gain"]), float(row["step_norm"])
            assert gain > 0
            assert float(row["kl"]) < norm**2


def test_a_trust_region_is_kept_by_every_batch_and_J_is_exact(lake):
    run, _ = lake
    for row in rows(run / "updates.csv"):
        if row["update"] == "trust_region":
            assert 0 < float(row["kl"]) <= 0.01
        assert float(row["gain_lo"]) <= float(row["gain"]) <= float(row["gain_hi"])
    along = rows(run / "along.csv")
    assert all(row["gain"] == row["gain_lo"] == row["gain_hi"] for row in along)


def test_along_a_step_the_objective_starts_with_its_slope(tmp_path):
    """For a small scale J and L gain in proportion, and KL with its square."""
    done = pg(*LAKE, "updates=[ascent]", "optimizer=sgd", "estimators=[rtg_value]", "along=ascent",
              "scales=[0.5,1]", "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    half, whole = rows(tmp_path / "run" / "along.csv")
    assert float(whole["surrogate_gain"]) == pytest.approx(2 * float(half["surrogate_gain"]), 0.02)
    assert float(whole["gain"]) == pytest.approx(2 * float(half["gain"]), 0.05)
    assert float(whole["kl"]) == pytest.approx(4 * float(half["kl"]), 0.05)


def test_the_first_pass_points_where_the_estimate_does_and_later_ones_turn_away(tmp_path):
    """Its minibatches at θ make ĝ; what follows goes up a surrogate."""
    done = pg(*LAKE, "updates=[proximal,ascent]", "estimators=[rtg_value]", "along=proximal",
              "optimizer=sgd", "optimizer.lr=1e-9", "++update.epochs=3", "++update.minibatches=1",
              "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    passes = rows(tmp_path / "run" / "passes.csv")
    assert [row["pass"] for row in passes] == ["1", "2", "3"]
    (own,) = rows(tmp_path / "run" / "compare.csv")
    for row in passes:  # hardly moved: the same direction each time
        assert float(row["cos_to_true"]) == pytest.approx(float(own["cos_to_true"]), abs=1e-3)
    assert float(passes[0]["kl"]) == 0
    assert (tmp_path / "run" / "passes.png").exists()


def test_a_batch_that_a_pass_leaves_out_counts_for_nothing_in_it(tmp_path):
    """Nor does one without a gradient: they have no direction there."""
    done = pg(*LAKE, "updates=[proximal]", "estimators=[rtg]", "along=proximal", "episodes=256",
              "update.target_kl=0.002", "optimizer.lr=0.01", "hydra.run.dir=run",
              cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    passes = rows(tmp_path / "run" / "passes.csv")
    counts = [int(row["batches"]) for row in passes]
    assert counts == sorted(counts, reverse=True)
    assert 0 < counts[-1] < 8
    assert all(float(row["cos_to_true"]) != 0 for row in passes)
    along = rows(tmp_path / "run" / "along.csv")  # of a batch that gives a step
    assert all(float(row["kl"]) > 0 for row in along)


def test_what_is_gained_is_gained_over_the_policy_and_not_over_who_collects(tmp_path):
    done = pg("compare", "env=CartPole-v1", "policy.output_gain=5", "behaviour.temperature=20",
              "env.max_episode_steps=60", "updates=[ascent]", "optimizer.lr=1e-12", "episodes=64",
              "batch_size=8", "estimators=[is_truncated]", "resamples=100", "fit_episodes=16",
              "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "run" / "updates.csv")
    assert float(row["gain"]) == 0


def test_without_a_model_fresh_episodes_tell_what_is_gained(tmp_path):
    done = pg("compare", "env=CartPole-v1", "env.max_episode_steps=40", "policy.hidden=[8]",
              "critic.hidden=[8]", "updates=[natural,proximal]", "along=proximal", "scales=[1,2]",
              "episodes=64", "batch_size=8", "fit_episodes=16", "resamples=100",
              "estimators=[rtg_value]", "hydra.run.dir=run", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    natural, _proximal = rows(tmp_path / "run" / "updates.csv")
    assert float(natural["gain_lo"]) < float(natural["gain_hi"])
    assert -1 <= float(natural["cos_to_natural"]) <= 1
    assert [row["pass"] for row in rows(tmp_path / "run" / "passes.csv")] == list(
        map(str, range(1, 11))
    )
    for row in rows(tmp_path / "run" / "along.csv"):
        assert float(row["gain_lo"]) < float(row["gain"]) < float(row["gain_hi"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["updates=[newton]"], "updates=newton: must be one of"),
        (["updates=[natural]", "along=proximal"], "along=proximal: must be one of natural"),
        (["along=natural"], "along=natural: "),
        (["updates=[natural]", "++update.clip=0.1"], "update.clip=0.1: no setting of updates="),
        (["++update.clip=0.1"], "update.clip=0.1: "),
        (["updates=[natural]", "++update.delta=-1"], "update.delta=-1"),
        (["updates=[proximal]", "++update.clip=far"], "update.clip=far"),
        (["updates=[trust_region]", "estimators=[rtg_optimal_per_parameter]"],
         "updates=trust_region: no weight of a step"),
        (["updates=[natural]", "behaviour.kl=[0.1]"], "behaviour.kl="),
        (["updates=[natural]", "optimizer=rmsprop"], "optimizer.name=rmsprop: none of updates"),
        (["updates=[natural,natural]"], "updates="),
        (["critic.target=td_lambda"], "critic.target=td_lambda: "),
        (["updates=[natural]", "scales=[0]"], "scales=[0.0]"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused(given, said):
    def ask():
        (one,) = compose_all("compare", [*LAKE[1:], *given], None, multirun=False)
        COMMANDS["compare"].check(one.config)

    with pytest.raises(ConfigError) as refused:
        ask()
    assert str(refused.value).startswith(said)
