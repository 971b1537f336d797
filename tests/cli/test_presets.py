"""Presets read as Hydra reads them, whoever reads them."""

from pathlib import Path

import pytest

from pgcli.cli.sources import is_whole


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("# @package _global_\nestimator: {}\n", True),
        ("\n\n  # @package  _global_\nestimator: {}\n", True),
        ("# @package estimator\nphi: td\n", False),
        ("phi: td\n# @package _global_\n", False),
        ("", False),
    ],
)
def test_where_a_files_settings_belong(text, whole, tmp_path: Path):
    (tmp_path / "own.yaml").write_text(text)
    assert is_whole(tmp_path / "own.yaml") == whole
