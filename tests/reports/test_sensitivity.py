"""Groups of runs over the values of one setting."""

import pytest
from made_runs import made_run

from pgcli.errors import ConfigError
from pgcli.reports.report import report


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Two estimators at two learning rates; one of them at a third."""
    monkeypatch.chdir(tmp_path)
    heights = {("rtg", 0.1): 50, ("rtg", 0.01): 200, ("gae", 0.1): 300, ("gae", 0.01): 100,
               ("gae", 0.001): 20}  # fmt: skip
    for (estimator, lr), height in heights.items():
        place = tmp_path / "runs" / f"{estimator}{lr}"
        made_run(place, (0, 1, 2), estimator, height=height, lr=lr,
                 typed=("estimator", "optimizer.lr"))  # fmt: skip


def test_every_group_stands_at_each_of_its_values(tmp_path):
    assert report(["runs", "--over", "optimizer.lr", "--out", "out"]) == 0
    assert {"over.png", "over.svg"} <= {path.name for path in (tmp_path / "out").iterdir()}
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    rows = [x.split("|")[1:-1] for x in lines if x.startswith("| ") and x.count("|") == 5]
    start = next(i for i, row in enumerate(rows) if row[0].strip() == "CartPole-v1")
    assert [x.strip() for x in rows[start]] == ["CartPole-v1", "0.001", "0.01", "0.1"]
    cells = {row[0].strip(): [x.strip() for x in row[1:]] for row in rows[start + 2 : start + 4]}
    assert set(cells) == {"estimator=rtg", "estimator=gae"}
    assert cells["estimator=rtg"][0] == "—"
    assert [x.endswith("\\*") for x in cells["estimator=rtg"]] == [False, True, False]
    assert [x.endswith("\\*") for x in cells["estimator=gae"]] == [False, False, True]
    svg = (tmp_path / "out" / "over.svg").read_text()
    assert "optimizer.lr" in svg


@pytest.mark.parametrize(
    ("key", "said"),
    [("lr", r"^--over=lr: must be a number in which runs differ: optimizer\.lr"),
     ("estimator.phi", "must be a number, and is")],
)  # fmt: skip
def test_what_is_no_number_is_refused(key, said):
    with pytest.raises(ConfigError, match=said):
        report(["runs", "--over", key, "--out", "out"])


def test_pictures_have_a_panel_for_each_value_of_a_setting(tmp_path):
    assert report(["runs", "--split", "estimator", "--out", "out"]) == 0
    svg = (tmp_path / "out" / "return.svg").read_text()
    for text in ("estimator=rtg", "estimator=gae", "optimizer.lr=0.1", "optimizer.lr=0.001"):
        assert f"<!-- {text} -->" in svg
    assert "<!-- estimator=rtg, optimizer.lr=0.1 -->" not in svg
    assert report(["runs", "--out", "plain"]) == 0
    assert "<!-- estimator=rtg -->" not in (tmp_path / "plain" / "return.svg").read_text()
    with pytest.raises(ConfigError, match="--split=nope: must be told in every label"):
        report(["runs", "--split", "nope", "--out", "other"])
    assert not (tmp_path / "other").exists()
