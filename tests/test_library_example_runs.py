"""The example of docs/library.md runs as it is, and each row of its input is in what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_labels_and_reasons_add_up_to_the_rows(model, tmp_path):
    lines = ["id,age,income,score"]
    lines += [f"r{n},{n % 90},{n % 7},0.{n % 10}" for n in range(500)]
    lines[8] = "r7,n/a,1,0.5"
    lines[21] = "r20,200,1,0.5"
    lines[31] = "r30,40"
    (tmp_path / "people-0.csv").write_text("\n".join(lines[:300]) + "\n")
    (tmp_path / "people-1.csv").write_text("\n".join([lines[0], *lines[300:]]) + "\n")
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "examples/library/score_in_your_pipeline.py",
            str(tmp_path / "people-*.csv"),
            model("multiply"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = dict(line.split() for line in done.stdout.splitlines())
    assert {r: printed[r] for r in ("wrong_type", "out_of_range", "ragged_row")} == {
        "wrong_type": "1",
        "out_of_range": "1",
        "ragged_row": "1",
    }
    assert sum(int(n) for n in printed.values()) == 500
    assert int(printed["yes"]) + int(printed["no"]) == 497
