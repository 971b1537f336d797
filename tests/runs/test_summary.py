"""summary.json."""

import json

import pytest

from pgcli.runs import summary
from pgcli.runs.provenance import provenance


def test_summary_is_json_without_nan(tmp_path):
    summary.write(tmp_path, {"x": [1.5, float("nan")], "y": float("inf"), **provenance()})
    found = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert (found["x"], found["y"]) == ([1.5, None], None)
    assert {"python", "torch", "gymnasium"} <= set(found["versions"])
