"""Every setting beside every preset: what changes nothing is told as unused, and nothing else is.

Each of them is given another value, and a short run's figures and parameters are looked at.
"""

import numpy as np
import pytest
from command_line import rows
from otherwise import OTHERWISE, changed
from settings import train_config

from pgcli.cli.sources import conf_dir
from pgcli.environments.choose import check_environment
from pgcli.errors import PgError
from pgcli.policies.fit import check_fit
from pgcli.runs import checkpoint
from pgcli.runs.tags import FPS
from pgcli.settings.schema import Role, check, check_combination, flat, role_of
from pgcli.training import build
from pgcli.training.loop import run

BASE = [
    "env=Wandering-v0", "env.max_episode_steps=7", "env.engine=sync", "env.num_envs=3",
    "iterations=3", "batch_size=4", "horizon=8", "policy.hidden=[8]", "critic.hidden=[8]",
]  # fmt: skip
ITSELF = {  # not a setting of how, but what is trained and where
    "env.id", "env.kwargs", "env.max_episode_steps", "env.engine", "env.num_envs", "env.wrappers",
    "estimator.phi", "estimator.baseline", "behaviour.checkpoint", "init.checkpoint", "update.name",
    "gradient.memory_mb",
}  # fmt: skip


def presets(group):
    return [path.stem for path in sorted((conf_dir() / group).glob("*.yaml"))]


CASES = [
    *((f"estimator={name}",) for name in presets("estimator") if name != "exact"),
    ("estimator=exact", "env=LQG", "policy.hidden=[]"),  # where its model is
    *((f"method={name}",) for name in presets("method") if name != "none"),
    *((f"update={name}",) for name in presets("update") if name != "ascent"),
    *((f"optimizer={name}",) for name in presets("optimizer") if name != "adam"),
    ("critic=linear", "estimator=gae"),
    *(("critic.q=" + form, "estimator=q") for form in ("action_input", "outputs", "dueling")),
    ("critic.target=td_lambda", "estimator=rtg_value"),
    ("behaviour.epsilon=0.2", "estimator=rtg"),
    ("policy.hidden=[]", "policy.init=zeros", "estimator=rtg"),
    ("policy.entropy_coef=0.1", "policy.normalize_obs=true", "estimator=gae"),
    ("gradient.measure=false", "batch_steps=20", "estimator=rtg"),
    ("env=Pendulum-v1", "estimator=rtg_value"),
    ("env=Pendulum-v1", "estimator=gae", "policy.min_std=0.1", "policy.squash=true"),
]
QUICK = {("estimator=rtg",), ("estimator=gae",), ("method=ppo",)}
# What an estimator does not know cannot depend on which one it is.
ITS_OWN = ("estimator.", "critic.")


def test_every_setting_has_another_value_here():
    kept = {Role.BUDGET, Role.BOOKKEEPING, Role.REPETITION, Role.MACHINE}
    known = {key for key in flat(train_config()) if role_of(key) not in kept}
    assert known == set(OTHERWISE) | ITSELF


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow, id=" ".join(case))
        for case in CASES
    ],
)
def test_what_changes_nothing_is_told(case, tmp_path):
    config = train_config(*BASE, *case)
    base = result(config, tmp_path / "base")
    assert base is not None
    few = case not in QUICK and len(case) == 1 and case[0].startswith("estimator=")
    silent, wrong = [], []
    for number, (key, value) in enumerate(OTHERWISE.items()):
        other = changed(config, key, value)
        if flat(other) == flat(config) or (few and not key.startswith(ITS_OWN)):
            continue
        found = result(other, tmp_path / str(number))
        if found is None:
            continue  # it is refused
        told = key in unused(other)
        if same(base, found) and not told:
            silent.append(f"{key}={value}")
        if not same(base, found) and told:
            wrong.append(f"{key}={value}")
    assert not silent
    assert not wrong


def unused(config):
    return build.unused(config, check_environment(config.env).action)


def result(config, directory):
    """Every figure and every parameter of a run; None where it is refused."""
    try:
        check(config)
        check_combination(config)
        build.check(config)
        check_fit(config.policy, config.behaviour, check_environment(config.env).action)
        run(config, directory)
    except PgError:
        return None
    arrays = checkpoint.load(directory).arrays
    head, *body = rows(directory)
    figures = {tag: x for tag, *x in zip(head, *body, strict=True) if tag != FPS}
    return arrays, figures


def same(one, other):
    arrays, figures = one
    others, other_figures = other
    return figures == other_figures and all(
        key in others and np.array_equal(x, others[key], equal_nan=True)
        for key, x in arrays.items()
    )
