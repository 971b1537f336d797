"""What a peer's script prints for the benchmark that started it: one line of JSON, the last."""

from __future__ import annotations

import json
import time


def told(*, start: float, ready: float, steps: int, compiled: float | None = None) -> None:
    """Of clocks: the script's start, ready to train, and where a compiler ran, its end."""
    end = time.perf_counter()
    begin = ready if compiled is None else compiled
    figures = {
        "start_up": ready - start,
        "compilation": begin - ready,
        "steps": steps,
        "seconds": end - begin,
    }
    print(json.dumps(figures))
