"""Who wins where presets, groups and keys disagree: conf/train.yaml's order, and what was typed."""

import itertools

import pytest
import yaml

from pgcli.cli.compose import compose_all
from pgcli.cli.origins import brought
from pgcli.cli.sources import conf_dir
from pgcli.errors import ConfigError
from pgcli.settings.schema import Collect, flat
from pgcli.training.build import check
from pgcli.updates import rule as rules


def names(group):
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


METHODS, ESTIMATORS, ENVS = names("method"), names("estimator"), names("env")
TUNED = {  # of every pair, to see who wins
    "batch_size": 7,
    "optimizer": {"lr": 0.125},
    "estimator": {"gamma": 0.875, "lam": 0.625},
    "policy": {"entropy_coef": 0.03125, "entropy_schedule": "cosine"},
}
DEFAULT = {"policy": "mlp", "critic": "mlp", "optimizer": "adam", "update": "ascent"}


def read(group, name):
    """What a preset sets, by dotted key, and the groups that it chooses."""
    text = (conf_dir() / group / f"{name}.yaml").read_text()
    tree = yaml.safe_load(text) or {}
    chosen = {}
    for line in tree.pop("defaults", []):
        ((what, choice),) = line.items()
        chosen[what.removeprefix("override /")] = choice
    return leaves(tree, "" if "@package _global_" in text else f"{group}."), chosen


def leaves(tree, prefix=""):
    found = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and value
        found |= leaves(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def expected(env, method, estimator, tuned):
    """Every preset's values in the order of the defaults list; the typed estimator is chosen."""
    own, brings = read("env", env)
    numbers, choices = read("method", method) if method else ({}, {})
    choices |= {key: x for key, x in brings.items() if key != "method"}
    groups = {**DEFAULT, **choices, "estimator": estimator or choices.get("estimator", "rtg")}
    values = {}
    for name in ("common", "train"):
        tree = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text())
        values |= leaves({key: x for key, x in tree.items() if key not in ("defaults", "hydra")})
    for group, choice in groups.items():
        values |= read(group, choice)[0]
    values |= numbers | own
    for key, value in leaves(tuned).items():
        if not (estimator and key.startswith("estimator.")):
            values[key] = value
    if "batch_size" in tuned:  # the later preset has the word on how large a batch is
        values["batch_steps"], values["collect"] = None, "episodes"
    return values


def shipped(env, method):
    """The numbers that come for a pair."""
    path = conf_dir() / "tuned" / env / f"{method}.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else {}


@pytest.fixture(scope="module")
def tuned_for_all(tmp_path_factory):
    place = tmp_path_factory.mktemp("conf")
    for env, method in itertools.product(ENVS, METHODS):
        file = place / "tuned" / env / f"{method}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# @package _global_\n" + yaml.safe_dump(TUNED))
    return str(place)


def composed(lines, config_dir=None, command="train"):
    (one,) = compose_all(command, lines, config_dir, multirun=False, before=brought)
    return one


def same(config, values):
    found = flat(config)
    given = {"iterations", "total_steps"}  # what they become is another matter
    return {k: (found[k], v) for k, v in values.items() if k not in given and found[k] != v}


def some(estimators):
    """All of them, most only where there is time."""
    quick = {"rtg_mean", "gae"}
    return [e if e in quick else pytest.param(e, marks=pytest.mark.slow) for e in estimators]


@pytest.mark.parametrize("estimator", [None, *some(ESTIMATORS)])
@pytest.mark.parametrize("method", [None, *METHODS])
def test_every_key_has_the_value_of_who_wins(method, estimator, tuned_for_all):
    for env, place in ((ENVS[0], None), (ENVS[1], tuned_for_all)):
        lines = [f"env={env}"]
        lines += [f"method={method}"] if method else []
        lines += [f"estimator={estimator}"] if estimator else []
        chosen = method or read("env", env)[1].get("method")
        if chosen and estimator and not method:
            chosen = "none"  # who types an estimator does not get the method of an environment
        tuned = (TUNED if place else shipped(env, chosen)) if chosen else {}
        one = composed(lines, place)
        assert same(one.config, expected(env, chosen, estimator, tuned)) == {}, lines
        dropped = estimator and any(key.startswith("estimator.") for key in leaves(tuned))
        said = [
            text
            for text in one.brought.says
            if " comes with " not in text and " left out" not in text
        ]
        assert [text[:18] for text in said] == ["estimator= is give"] * bool(dropped)


@pytest.mark.parametrize("method", METHODS)
def test_a_typed_key_beats_everything(method, tuned_for_all):
    typed = ["optimizer.lr=0.5", "estimator.lam=0.5", "batch_size=9", "estimator=gae"]
    one = composed([f"method={method}", *typed], tuned_for_all).config
    assert (one.optimizer.lr, one.estimator.lam, one.batch_size) == (0.5, 0.5, 9)
    assert (one.batch_steps, one.collect) == (None, Collect.episodes)  # else nine counts nowhere


@pytest.mark.parametrize("group", ["update", "optimizer", "policy", "estimator"])
def test_what_was_tuned_for_another_choice_of_a_group_is_dropped_and_said(group, tuned_for_all):
    choice = {"update": "ascent", "optimizer": "sgd", "policy": "linear", "estimator": "gae"}[group]
    one = composed(["method=ppo", f"{group}={choice}"], tuned_for_all)
    values = {k: v for k, v in leaves(TUNED).items() if not k.startswith(f"{group}.")}
    assert same(one.config, values) == {}
    assert one.config.batch_size == 7
    dropped = [key for key in leaves(TUNED) if key.startswith(f"{group}.")]
    foreign = group == "update"  # ascent has nothing of what the method gave to proximal
    assert len(one.brought.says) == 1 + bool(dropped) + foreign
    for key in dropped:
        assert key in one.brought.says[1]
        assert key not in one.brought.says[0]
        assert flat(one.config)[key] != leaves(TUNED)[key]


@pytest.mark.parametrize(
    ("line", "dropped"),
    [
        ("method=ppo update=ascent", ["minibatches", "normalize"]),
        ("method=ppo update=trust_region", ["minibatches", "normalize"]),
        ("method=trpo update=proximal", []),
        ("method=ppo update=proximal", []),
    ],
)
def test_a_typed_group_has_nothing_that_a_method_gave_another_choice(line, dropped):
    one = composed(line.split())
    check(one.config)
    rules.registered(one.config.update)  # refuses what the rule does not have
    told = [text for text in one.brought.says if "are dropped, it has none" in text]
    assert len(told) == bool(dropped)
    assert all(f"update.{key}" in told[0] for key in dropped)


def test_but_what_is_typed_beside_it_is_refused():
    with pytest.raises(ConfigError, match=r"update\.minibatches=4: null: ascent has none"):
        check(composed(["method=ppo", "update=ascent", "update.minibatches=4"]).config)


def test_the_last_preset_says_how_large_a_batch_is():
    one = composed(["method=ppo", "experiment=clipping", "hydra.mode=RUN"]).config
    assert (one.batch_size, one.batch_steps, one.collect) == (16, None, Collect.episodes)
    one = composed(["method=ppo", "experiment=clipping", "hydra.mode=RUN", "batch_steps=99"]).config
    assert (one.batch_steps, one.collect) == (99, Collect.episodes)
    one = composed(["method=ppo", "collect=steps", "batch_size=3"]).config
    assert one.collect is Collect.steps


def test_an_environment_may_choose_a_method_and_a_typed_one_beats_it(tmp_path):
    place = tmp_path / "env"
    place.mkdir()
    (place / "Mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /method: trpo\nenv:\n  id: CartPole-v1\n"
    )
    tuned = tmp_path / "tuned" / "Mine"
    tuned.mkdir(parents=True)
    (tuned / "trpo.yaml").write_text("# @package _global_\nupdate:\n  delta: 0.5\n")
    found = composed(["env=Mine"], str(tmp_path)).config
    assert (found.update.name, found.update.delta) == ("trust_region", 0.5)
    typed = composed(["env=Mine", "method=ppo"], str(tmp_path)).config
    assert (typed.update.name, typed.update.delta) == ("proximal", None)
    compared = composed(["env=Mine"], str(tmp_path), "compare").config  # it has no methods
    assert compared.env.id == "CartPole-v1"


def test_who_types_an_estimator_does_not_get_the_whole_method_of_an_environment():
    one = composed(["env=Pendulum-v1", "estimator=rtg"])
    assert (one.config.update.name, one.config.collect.name) == ("ascent", "episodes")
    assert one.config.estimator.gamma == 1.0  # nor what is tuned for the pair
    assert any("method=ppo" in text and "left out" in text for text in one.brought.says)
    both = composed(["env=Pendulum-v1", "estimator=gae", "method=ppo"])
    assert (both.config.update.name, both.brought.says[-1:]) != ("ascent", [])


@pytest.mark.parametrize("env", ENVS)
def test_every_environment_can_be_compared(env):
    assert composed([f"env={env}"], command="compare").config.env.id


def test_what_no_preset_has_is_still_refused():
    with pytest.raises(ConfigError, match=r"^method=pop: must be one of .*ppo"):
        composed(["method=pop"])


def test_presets_of_an_environment_hold_nothing_that_only_training_knows():
    for env in ENVS:
        values, chosen = read("env", env)
        assert all(key.startswith("env.") for key in values)
        assert set(chosen) <= {"method", "policy", "estimator"}


def test_a_comparison_has_the_policy_that_an_environment_chooses():
    compared = composed(["env=FrozenLake-v1"], command="compare").config
    assert (compared.policy.hidden, compared.policy.bias) == ([], False)
    typed = composed(["env=FrozenLake-v1", "policy=mlp"], command="compare").config
    assert typed.policy.hidden == [64, 64]


def test_what_an_environment_brings_is_said_less_what_is_typed():
    (line,) = composed(["env=CliffWalking-v1"]).brought.says
    told = "CliffWalking-v1 comes with settings that learn: policy=tabular, method=trpo, "
    assert line.startswith(f"{told}env.max_episode_steps=100, batch_size=32, ")
    assert "policy.entropy_coef=1.0, policy.entropy_schedule=linear, " in line
    assert line.endswith("; --cfg job shows all")
    (line,) = composed(["env=CliffWalking-v1", "batch_size=8", "policy=mlp"]).brought.says[:1]
    assert "batch_size" not in line
    assert "policy=" not in line
    assert "policy.entropy_coef" not in line  # dropped, as the next line says
    assert composed(["env=CartPole-v1"]).brought.says == []


def test_whoever_wants_no_method_of_an_environment_types_none():
    found = composed(["env=Pendulum-v1", "method=none"])
    assert same(found.config, expected("Pendulum-v1", None, None, {})) == {}
    assert found.brought.says == []


def test_a_typed_budget_takes_the_place_of_a_preset_s():
    one = composed(["env=Acrobot-v1", "iterations=7"]).config
    assert (one.iterations, one.total_steps) == (7, None)
    one = composed(["env=Acrobot-v1", "iterations=7", "total_steps=9"]).config
    assert (one.iterations, one.total_steps) == (7, 9)


def test_tuned_numbers_stand_where_they_belong_and_choose_nothing():
    for path in conf_dir().glob("tuned/**/*.yaml"):
        assert path.stem in METHODS
        assert "defaults" not in yaml.safe_load(path.read_text())
