"""Every preset of conf/, and the schema's bounds."""

import itertools
from dataclasses import MISSING, fields, is_dataclass
from typing import get_type_hints

import pytest
import yaml
from settings import train_config

from pgcli.cli.compose import compose_all, settings
from pgcli.cli.meanings import annotated, comments, grouped, with_limits
from pgcli.cli.sources import conf_dir, files
from pgcli.errors import ConfigError
from pgcli.settings.schema import ITERATIONS, TrainConfig, allowed, flat
from pgcli.training.build import check

PRESETS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in conf_dir().glob("*/*.yaml")
    if path.parent.name != "schema"
)


def test_presets_are_found():
    assert {"estimator=rtg", "policy=mlp", "optimizer=adam", "env=CartPole-v1"} <= set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_composes(preset):
    if preset == "critic=exact":  # pg compare has them
        with pytest.raises(ConfigError, match=r"^critic\.kind=exact"):
            train_config(preset)
        return
    found = compose_all("train", [preset], None, multirun=False)  # an experiment is a sweep
    assert all(isinstance(composed.config, TrainConfig) for composed in found)
    assert len(found) > 1 or not preset.startswith("experiment=")


def test_no_preset_says_what_is_the_default_anyway():
    """One home for every value: a preset holds only what differs from train.yaml."""

    def leaves(tree, prefix=""):
        for key, value in (tree or {}).items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    files = (conf_dir() / f"{name}.yaml" for name in ("common", "train"))
    base = dict(leaf for file in files for leaf in leaves(yaml.safe_load(file.read_text())))
    for path in conf_dir().glob("*/*.yaml"):
        text = path.read_text()
        prefix = "" if "@package _global_" in text else f"{path.parent.name}."
        for key, value in leaves(yaml.safe_load(text), prefix):
            assert base.get(key, object()) != value, f"{path}: {key} is {value} already"


@pytest.mark.parametrize(
    "key", [key for key, value in flat(train_config()).items() if isinstance(value, float)]
)
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_no_number_may_be_nan_or_infinite(key, bad):
    with pytest.raises(ConfigError, match=f"^{key}=.*finite"):
        train_config(f"{key}={bad}")


def test_the_schema_has_no_values():
    def walk(schema):
        for f in fields(schema):
            assert f.default is MISSING, f.name
            assert f.default_factory is MISSING, f.name
            kind = get_type_hints(schema)[f.name]
            if is_dataclass(kind):
                walk(kind)

    walk(TrainConfig)
    assert set(settings(TrainConfig)) == set(flat(train_config()))


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (["batch_size=1", "estimator=rtg_mean"], "batch_size"),
        (["estimator=gae", "estimator.baseline=mean"], "estimator.baseline"),
        (["optimizer.momentum=0.9"], "optimizer.momentum"),
        (["update.delta=0.1"], "update.delta"),
        (["update.name=natural"], "update.step"),
        (["update=natural", "update.clip=0.2"], "update.clip"),
        (["update=natural", "update.delta=null"], "update.delta"),
        (["optimizer.betas=[0.9]"], "optimizer.betas"),
        (["update=natural", "optimizer=sgd"], "optimizer.name"),
        (["update=trust_region", "optimizer.clip_norm=1"], "optimizer.clip_norm"),
        (["update=trust_region", "updates_per_batch=2"], "updates_per_batch"),
        (["update=proximal", "updates_per_batch=2"], "updates_per_batch"),
        (["update=proximal", "estimator=rtg_optimal_per_parameter"], "estimator.baseline"),
    ],
    ids=str,
)
def test_what_cannot_work_together_is_refused(lines, key):
    with pytest.raises(ConfigError, match=f"^{key}="):
        check(train_config(*lines))


@pytest.mark.parametrize(
    ("lines", "limits"),
    [
        ((), (ITERATIONS, None)),
        (("iterations=null",), (ITERATIONS, None)),
        (("iterations=7",), (7, None)),
        (("total_steps=500",), (None, 500)),
        (("total_steps=500", "iterations=7"), (7, 500)),
        (("experiment=batch_size", "hydra.mode=RUN"), (None, 400_000)),
        (("experiment=causality", "hydra.mode=RUN"), (60, None)),
    ],
    ids=str,
)
def test_only_a_run_without_limits_has_the_usual_number_of_iterations(lines, limits):
    config = train_config(*lines)
    assert (config.iterations, config.total_steps) == limits


def test_help_says_how_many_iterations_that_is():
    assert f"null: {ITERATIONS}, unless" in comments("train")["iterations"]


def test_a_sweep_is_composed_job_by_job():
    found = compose_all("train", ["estimator=total,rtg", "seed=range(3)"], None, multirun=True)
    pairs = [(c.config.estimator.phi, c.config.seed) for c in found]
    assert sorted(pairs) == sorted(itertools.product(["total_return", "reward_to_go"], range(3)))


@pytest.mark.slow
def test_a_large_sweep_is_checked_value_by_value():
    seeds = "seed=" + ",".join(map(str, [*range(90), -1]))
    with pytest.raises(ConfigError, match=r"^seed=-1"):
        compose_all("train", ["optimizer.lr=0.1,0.2", seeds], None, multirun=True)


def test_any_environment_id_is_a_choice(tmp_path):
    assert train_config("env=Acrobot-v1").env.id == "Acrobot-v1"
    assert train_config("env=my_module:MyEnv-v0").env.id == "my_module:MyEnv-v0"
    assert train_config("env=ALE/Pong-v5").env.id == "ALE/Pong-v5"
    place = tmp_path / "env"
    place.mkdir()
    (place / "Acrobot-v1.yaml").write_text("id: Acrobot-v1\nreward_shift: 2.5\n")
    (found,) = compose_all("train", ["env=Acrobot-v1"], str(tmp_path), multirun=False)
    assert found.config.env.reward_shift == 2.5


def test_conf_is_found_beside_or_inside_the_package():
    assert (conf_dir() / "train.yaml").is_file()
    assert conf_dir().is_absolute()


def test_every_setting_has_a_meaning():
    given_by_groups = {"env.id", "estimator.phi", "optimizer.name", "update.name"}
    assert set(settings(TrainConfig)) - given_by_groups <= set(comments("train"))


def test_help_says_what_a_setting_may_be():
    said = with_limits(comments("train"), allowed(TrainConfig))
    assert said["estimator.gamma"] == "discount γ; in [0, 1]"
    assert said["optimizer.lr"].endswith("; in (0, 1e+06]")
    assert said["seed"].endswith("; in [0, 2^63)")
    assert said["batch_size"].endswith("; >= 1")
    assert said["estimator.phi"].startswith("total_return, reward_to_go, ")
    assert said["policy.init"] == "orthogonal, zeros"  # its comment says it already
    assert said["env.kwargs"] == comments("train")["env.kwargs"]


def test_help_tells_of_each_option_what_its_file_says():
    names = {group: ", ".join(files(group)) for group in ("estimator", "env", "method")}
    text = "\n".join(f"{group}: {options}" for group, options in names.items())
    lines = grouped(f"tuned/Hopper-v5: ppo\n{text}\nseeds: 1\n").splitlines()
    assert "tuned" not in lines[0]
    for group in ("estimator", "method"):
        for name in files(group):
            (line,) = [line for line in lines if line.split()[:1] == [name]]
            assert len(line.split()) > 3, f"{name} says nothing of itself"
    assert max(map(len, lines)) < 130
    assert lines[-1] == "seeds: 1"


def test_meanings_stand_beside_their_setting_and_nowhere_else():
    text = "seed of all\na:\n  seed: 1\n  list:\n  - 3\nseed: 2\n"
    said = annotated(text, {"a.list": "numbers", "seed": "a seed"})
    assert [line.split() for line in said.splitlines()] == [
        ["seed", "of", "all"], ["a:"], ["seed:", "1"], ["list:", "#", "numbers"], ["-", "3"],
        ["seed:", "2", "#", "a", "seed"],
    ]  # fmt: skip


def test_a_file_may_ask_for_a_sweep(tmp_path):
    place = tmp_path / "experiment"
    place.mkdir()
    (place / "seeds.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 3,4\n"
    )

    def seeds(*lines):
        found = compose_all("train", ["experiment=seeds", *lines], str(tmp_path), multirun=False)
        assert all(c.multirun for c in found)
        return [c.config.seed for c in found]

    assert seeds() == [3, 4]
    assert seeds("seed=7") == [7]
    with pytest.raises(ConfigError, match=r"^seed=-1"):
        seeds("seed=5,-1")


def test_a_short_list_is_checked_before_a_long_one():
    with pytest.raises(ConfigError, match=r"^estimator\.lam=2"):
        compose_all("train", ["seed=1,2,-3", "estimator.lam=1,2"], None, multirun=True)


def test_globs_are_expanded_before_the_check():
    found = compose_all("train", ["optimizer=glob(adam*)"], None, multirun=True)
    assert [c.config.optimizer.name for c in found] == ["adam", "adamw"]
