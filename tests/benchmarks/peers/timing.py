"""What a peer's script prints for the benchmark that started it: one line of JSON, the last."""

from __future__ import annotations

import json
import time


def told(
    *, start: float, ready: float, steps: int, compiled: float | None = None,
    end: float | None = None, discarded: int = 0,
) -> None:  # fmt: skip
    """Of clocks: the script's start, ready to train, where a compiler ran its end, and the end.

    Of the steps, some may have been simulated and not learned from.
    """
    begin = ready if compiled is None else compiled
    figures = {
        "start_up": ready - start,
        "compilation": begin - ready,
        "steps": steps,
        "learned": steps - discarded,
        "seconds": (time.perf_counter() if end is None else end) - begin,
    }
    print(json.dumps(figures))
