"""Which columns rows are refused for, those too that an earlier fault of the same rows hides."""

from __future__ import annotations

import re

import jobs
import pytest
from rich.console import Console

from beam_score.pipeline.run.launch import run
from beam_score.pipeline.run.status import Watcher
from beam_score.pipeline.show.summary import print_summary


@pytest.fixture
def outcome(tmp_path, model):
    """30 rows: 6 with a bad age, 4 of which have a bad score, too; 2 with a bad score alone; one ragged."""
    lines = ["id,age,income,score"]
    for row in range(30):
        age, score = ("n/a" if row < 6 else "5"), ("7" if row < 4 or row in (10, 11) else "0.5")
        lines.append(f"{row},{age},1.5,{score}" + (",x" if row == 20 else ""))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text("\n".join(lines) + "\n")
    return run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "50%"}))


def test_faults_that_an_earlier_fault_hides_are_counted(outcome, tmp_path):
    found = outcome.manifest["counts"]["rejected_by_column"]
    assert [(f["reason"], f["column"], f["rows"], f["also"], f["row"]) for f in found] == [
        ("wrong_type", "age", 6, 0, 0),
        ("out_of_range", "score", 2, 4, 10),
        ("ragged_row", None, 1, 0, 20),
    ]
    assert sum(f["rows"] for f in found) == outcome.manifest["counts"]["rejected"] == 9
    assert all(f["source"] == str(tmp_path / "data/a.csv") and f["stretches"] == 0 for f in found)
    assert not any("n/a" in f["message"] for f in found)
    assert Watcher(str(tmp_path / "out")).look().counts["rejected_by_column"] == found


def test_the_summary_says_which_columns(outcome, tmp_path):
    console = Console(width=200, record=True)
    print_summary(console, str(tmp_path / "out"), outcome)
    text = console.export_text()
    assert re.search(r"wrong_type in age +6 +\S*a.csv row 0: ", text), text
    assert re.search(
        r"out_of_range in score +2 +\(and 4 more rows that have an earlier fault\) \S*a.csv row 10: ", text
    )
    assert re.search(r"ragged_row +1 +\S*a.csv row 20: ", text)
