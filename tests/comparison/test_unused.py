"""Every setting of a comparison: what changes nothing is told as unused, and nothing else is."""

import csv
import json

import pytest
from otherwise import OTHERWISE, changed

from pgcli.cli.compose import compose_all
from pgcli.cli.presets import estimator_configs, update_configs
from pgcli.comparison import study
from pgcli.environments.choose import check_environment
from pgcli.errors import PgError
from pgcli.policies.fit import check_fit
from pgcli.settings.schema import check, check_combination, flat

BASE = [
    "env=Wandering-v0", "env.max_episode_steps=5", "env.engine=sync", "episodes=32",
    "batch_size=4", "fit_episodes=8", "resamples=100", "pictures=false", "policy.hidden=[8]",
    "critic.hidden=[8]", "critic.epochs=2", "sizes=[1,2]",
]  # fmt: skip
OWN = {
    "fit_episodes": "16",
    "batch_size": "8",
    "iteration": "2",
    "sizes": "[1,4]",
    "scales": "[3]",
    "level": "0.9",
    "resamples": "200",
    "critic.kind": "linear",
    "estimator.bootstrap": "false",
    "log.wandb": "project",
}
SHARED = ("batch_size", "behaviour.", "critic.", "env.", "estimator.", "optimizer.", "policy.")
CASES = [
    ["estimators=[rtg]"],
    ["estimators=[rtg,gae]"],
    ["estimators=[rtg_value]", "critic=linear"],
    ["estimators=[rtg_linear]"],
    ["estimators=[q]", "critic.q=outputs"],
    ["estimators=[advantage]"],
    ["estimators=[compatible]"],
    ["estimators=[rtg_mean]"],
    ["estimators=[rtg]", "updates=[ascent]"],
    ["estimators=[rtg]", "updates=[natural]", "along=natural"],
    ["estimators=[is_per_decision]", "behaviour.kl=[0.01]"],
    ["env=Pendulum-v1", "estimators=[rtg_value]"],
    [
        "env=FrozenLake-v1",
        "policy=tabular",
        "critic=exact",
        "estimators=[rtg_value]",
        "env.max_episode_steps=20",
        "episodes=256",
        "policy.hidden=[]",
    ],
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case == CASES[1] else pytest.mark.slow, id=" ".join(case))
        for case in CASES
    ],
)
def test_what_changes_nothing_is_told(case, tmp_path):
    (composed,) = compose_all("compare", [*BASE, *case], None, multirun=False)
    config = composed.config
    base = result(config, tmp_path / "base")
    assert base is not None
    values = {k: v for k, v in OTHERWISE.items() if k.startswith(SHARED)} | OWN
    silent, wrong = [], []
    for number, (key, value) in enumerate(values.items()):
        if key == "estimator.importance":
            continue  # a comparison is of those
        other = changed(config, key, value)
        found = result(other, tmp_path / str(number))
        if found is None:
            continue  # it is refused
        if key.startswith("estimator."):
            if estimator_configs(other) == estimator_configs(config):
                continue  # its presets have it
        elif flat(other) == flat(config):
            continue
        told = key in unused(other)
        if base == found and not told:
            silent.append(f"{key}={value}")
        if base != found and told:
            wrong.append(f"{key}={value}")
    assert not silent
    assert not wrong


def unused(config):
    action = check_environment(config.env).action
    return study.unused(config, estimator_configs(config), update_configs(config), action)


def result(config, directory):
    """Every figure of a comparison; None where it is refused."""
    directory.mkdir()
    try:
        check(config)
        check_combination(config)
        parts = estimator_configs(config), update_configs(config)
        study.check(config, *parts)
        check_fit(config.policy, config.behaviour, check_environment(config.env).action)
        study.run(config, *parts, directory)
    except PgError:
        return None
    told = json.loads((directory / "compare.json").read_text())
    tables = {"sizes": told["variance_by_batch_size"]}
    for path in sorted(directory.glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            tables[path.name] = [
                {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
            ]
    return tables
