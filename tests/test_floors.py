"""The floors of the house: nothing imports upwards, and only the top knows Hydra."""

import ast
from pathlib import Path

import pgcli

ROOT = Path(pgcli.__file__).parent
FLOORS = [  # each may import from its own and from lower ones
    {"errors", "settings", "machine", "version"},
    {"estimators", "statistics", "updates"},
    {"policies", "environments", "pictures"},
    {"collection"},
    {"gradients"},
    {"runs"},
    {"training", "comparison", "evaluation", "reports", "proof"},
    {"cli"},
    {"face"},
]
APART = [  # neighbours that never meet
    {"policies", "environments"},
    {"estimators", "statistics"},
    {"training", "comparison"},
    {"training", "reports"},
    {"comparison", "reports"},
    *({"evaluation", other} for other in ("training", "comparison", "reports", "proof")),
    *({"proof", other} for other in ("training", "comparison", "reports")),
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


def test_no_module_imports_itself_by_way_of_others():
    graph = {}
    for a, b in imports():
        if b.startswith("pgcli.") and a != b:
            graph.setdefault(a, set()).add(b)
    done = set()

    def visit(module, way):
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, [*way, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


ALGORITHM = [  # an iteration, as math books have it
    "collect",
    "with_critics",
    "terms",  # Φ, baseline, importance
    "sums_of",
    "measure",  # before anything is done with the estimate
    "step",  # the update rule
    "fitted",  # critics last: what serves a batch has not seen it
    "record",
]


def test_the_training_loop_reads_as_the_algorithm():
    """Its steps stand in their order, once each, in the function that runs."""
    tree = ast.parse((ROOT / "training" / "loop.py").read_text())
    run = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run")
    calls = [node.func for node in ast.walk(run) if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    names = [call.attr if isinstance(call, ast.Attribute) else call.id for call in calls]
    assert [name for name in names if name in ALGORITHM] == ALGORITHM
