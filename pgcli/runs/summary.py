"""summary.json: the final figures, what biases them, and what they were made with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgcli.errors import StorageFailed
from pgcli.runs.directory import content, write_atomically

NAME = "summary.json"


def read(directory: Path) -> dict[str, Any]:
    """What summary.json says; {} where there is none that can be read."""
    try:
        summary = json.loads(content(directory / NAME))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def remarks(facts: Mapping[str, Any]) -> list[str]:
    """The lines on its "bias" and its "notices" that a user is told."""
    biased = [f"biased: {text}" for text in facts.get("bias", ())]
    return [*biased, *(f"note: {text}" for text in facts.get("notices", ()))]


def remove(directory: Path) -> None:
    """Without a summary a run counts as running or killed; StorageFailed where it stays."""
    try:
        (directory / NAME).unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(f"{directory / NAME}: {error.strerror}") from error


def write(directory: Path, figures: dict[str, Any], name: str = NAME) -> None:
    """Write `figures` to `<directory>/<name>`; NaN becomes null."""
    text = json.dumps(_finite(figures), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(directory / name, (text + "\n").encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
