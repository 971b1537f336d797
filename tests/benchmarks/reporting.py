"""How long `pg report` takes for a thousand runs, from the process's start to its end.

python tests/benchmarks/reporting.py [rows per run] [runs] [runs per group]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))
from made_runs import made_run

CODE = "import sys; from pgcli.reports.report import report; sys.exit(report(sys.argv[1:]))"


def main(rows: int = 100, runs: int = 1000, group: int = 10) -> None:
    """Print the seconds of a first report and of two more."""
    with tempfile.TemporaryDirectory() as place:
        for i in range(runs):
            made_run(Path(place, "runs", str(i)), seeds=(i % group,), rows=rows, lr=i // group)
        size = sum(path.stat().st_size for path in Path(place).rglob("metrics.csv"))
        print(f"{runs} runs of {rows} rows, {size / 1e6:.0f} MB, groups of {group}")
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", CODE, "runs"],
                cwd=place,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
