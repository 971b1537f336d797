"""Benchmarks measure what the code is now: the cheapest of them runs."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
def test_where_an_iteration_goes_can_be_measured():
    pytest.importorskip("numba")
    command = [sys.executable, str(BENCHMARKS / "floor.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "update and its variance" in done.stdout
