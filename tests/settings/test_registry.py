"""Parts by name, and settings that runs of their time did not know."""

import importlib
from pathlib import Path

import pytest
import yaml
from settings import train_config

from pgcli.errors import ConfigError
from pgcli.estimators.baselines import BASELINES
from pgcli.estimators.baselines import register as baseline
from pgcli.estimators.importance import IMPORTANCES
from pgcli.estimators.phi import PHIS
from pgcli.policies.critics import CRITICS
from pgcli.settings.registry import Registry, named_in
from pgcli.settings.schema import PACKAGE, TrainConfig, before, flat
from pgcli.updates.optimizers import OPTIMIZERS
from pgcli.updates.rule import RULES

FILES = {
    "estimators/phi.py": PHIS,
    "estimators/baselines.py": BASELINES,
    "estimators/importance.py": IMPORTANCES,
    "policies/critics.py": CRITICS,
    "updates/optimizers.py": OPTIMIZERS,
}


@pytest.mark.parametrize("file", FILES)
def test_names_are_read_from_the_source_as_they_are_registered(file):
    assert sorted(named_in((PACKAGE / file,))) == sorted(FILES[file].names)


def test_the_names_of_rules_are_those_of_their_files():
    files = [path for path in (PACKAGE / "updates").glob("*.py") if path.stem != "optimizers"]
    for path in files:
        importlib.import_module(f"pgcli.updates.{path.stem}".removesuffix(".__init__"))
    assert sorted(named_in(tuple(files))) == sorted(RULES.names)


def test_parts_of_two_modules_may_have_one_name():
    parts = Registry("some.key", "pgcli.home")
    for module in ("pgcli.home", "math", "cmath"):
        parts.add("half", module, module)
    found = [parts.find(name) for name in ("half", "math:half", "cmath:half")]
    assert found == ["pgcli.home", "math", "cmath"]
    with pytest.raises(ValueError, match="already"):
        parts.add("half", 1, "pgcli.home.other")
    with pytest.raises(ConfigError, match="did you mean half"):
        parts.find("halve")


@pytest.mark.parametrize(
    "facts",
    [
        {"critic": "valu"},
        {"fitted": "always"},
        {"exact": "sate"},
        {"fitted": "constant", "couples": False},
    ],
    ids=str,
)
def test_facts_that_cannot_be_are_refused(facts):
    with pytest.raises(ValueError, match="baseline x"):
        baseline("x", **facts)


def test_whatever_an_older_run_does_not_know_has_the_value_by_which_it_did():
    kept = Path(__file__).parent.parent / "earlier"
    for path in kept.glob("*/.hydra/config.yaml"):
        tree = yaml.safe_load(path.read_text())
        inner = {f"{k}.{x}" for k, v in tree.items() if isinstance(v, dict) for x in v}
        unknown = set(flat(train_config())) - inner - set(tree)
        assert {key for key in unknown if "kwargs" not in key} <= set(before(TrainConfig))
