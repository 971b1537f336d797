"""The floors of the house: nothing imports upwards, and only the top knows Hydra."""

import ast
from pathlib import Path

import pgcli

ROOT = Path(pgcli.__file__).parent
FLOORS = [  # each may import from its own and from lower ones
    {"errors", "settings", "machine"},
    {"estimators", "statistics", "updates"},
    {"policies", "environments", "pictures"},
    {"collection"},
    {"gradients"},
    {"runs"},
    {"training", "comparison", "reports"},
    {"cli"},
]
APART = [  # neighbours that never meet
    {"policies", "environments"},
    {"estimators", "statistics"},
    {"training", "comparison"},
    {"training", "reports"},
    {"comparison", "reports"},
]
HYDRA = {"hydra", "omegaconf"}


def room(module: str) -> str:
    """`policies` of `pgcli.policies.policy`."""
    return module.removeprefix("pgcli.").split(".")[0]


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def imports():
    """(importing module, imported module) for every import, deferred ones included."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("pgcli", *path.relative_to(ROOT).with_suffix("").parts)
        importer = ".".join(p for p in parts if p != "__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((importer, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{path}: relative import"
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    inner = ROOT.parent / Path(*whole.split("."))
                    is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                    yield importer, whole if is_module else node.module


def test_nothing_imports_upwards():
    wrong = [
        (a, b)
        for a, b in imports()
        if b.startswith("pgcli.") and a != "pgcli" and floor(room(b)) > floor(room(a))
    ]
    assert not wrong


def test_neighbours_that_must_not_know_each_other_do_not():
    wrong = [
        (a, b)
        for a, b in imports()
        for pair in APART
        if b.startswith("pgcli.") and {room(a), room(b)} == pair
    ]
    assert not wrong


def test_only_the_top_knows_hydra():
    wrong = [(a, b) for a, b in imports() if b.split(".")[0] in HYDRA and (room(a) != "cli")]
    assert not wrong


def test_the_training_loop_reads_in_one_sitting():
    train = next(
        node
        for node in ast.parse((ROOT / "training" / "loop.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "run"
    )
    assert train.end_lineno - train.lineno < 100
