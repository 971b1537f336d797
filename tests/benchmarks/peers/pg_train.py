"""`pg train` with everything it measures and writes: `python pg_train.py [KEY=VALUE ...]`."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import tempfile
import time
from pathlib import Path

start = time.perf_counter()

from timing import told  # noqa: E402

from pgcli.cli.compose import compose_all  # noqa: E402
from pgcli.training.loop import run  # noqa: E402

(composed,) = compose_all("train", sys.argv[1:], None, multirun=False)
with tempfile.TemporaryDirectory() as folder:
    with contextlib.redirect_stdout(io.StringIO()):
        run(composed.config, Path(folder) / "run")
    end = time.perf_counter()
    summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    with (Path(folder) / "run" / "metrics.csv").open() as file:
        discarded = sum(float(row.get("rollout/discarded") or 0) for row in csv.DictReader(file))
# From its first line to its last, as `pg` counts them; what is before is start-up.
told(start=start, ready=end - summary["seconds"], end=end, steps=sum(summary["env_steps"]),
     discarded=int(discarded))  # fmt: skip
