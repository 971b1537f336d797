"""pg: run policy-gradient methods from the command line and measure their gradient estimators.

From Python: `import pgcli as pg`, then `pg.train`, `pg.compare`, `pg.evaluate`, `pg.report`,
`pg.load`, `pg.play` and `pg.estimate`; see docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgcli.version import __version__ as __version__

if TYPE_CHECKING:
    from pgcli.face.commands import compare, evaluate, play, report, train
    from pgcli.face.estimates import Estimate, estimate
    from pgcli.face.runs import Policy, Result, Run, load

_HOMES = {
    "train": "commands", "compare": "commands", "evaluate": "commands", "report": "commands",
    "play": "commands",
    "load": "runs", "Run": "runs", "Result": "runs", "Policy": "runs",
    "estimate": "estimates", "Estimate": "estimates",
}  # fmt: skip
__all__ = [
    "Estimate", "Policy", "Result", "Run", "compare", "estimate", "evaluate", "load", "play",
    "report", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no earlier: the command line has no need of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pgcli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pgcli.face.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
