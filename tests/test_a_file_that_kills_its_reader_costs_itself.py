"""A library that aborts over a file ends the process; the command starts anew, and the file is one dead letter."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import jobs
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS = 30_000


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """What makes pyarrow abort where it reads the first row group of a file named kills*."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        assert "CI" not in os.environ, "CI must have a C compiler"
        pytest.skip("there is no C compiler here")
    built = tmp_path_factory.mktemp("preload") / "aborting_reads.so"
    source = Path(__file__).with_name("kit") / "aborting_reads.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


def write(path: Path, first: int) -> None:
    """Three row groups, the first beyond what is read of the end of the file for its footer."""
    columns = {name: np.random.default_rng(first).random(ROWS, "float32") for name in ("age", "income", "score")}
    table = pa.table({"id": [f"r{first + row}" for row in range(ROWS)], **columns})
    pq.write_table(table, path, row_group_size=ROWS // 3)


def test_its_row_group_is_a_dead_letter_and_all_else_is_predicted(tmp_path, library, model):
    (tmp_path / "data").mkdir()
    for number, name in enumerate(("a", "kills", "z")):
        write(tmp_path / "data" / f"{name}.parquet", number * ROWS)
    job = jobs.write_job(
        tmp_path,
        model("multiply"),
        input={"files": [str(tmp_path / "data" / "*.parquet")]},
        rejects={"budget": ROWS // 3},
    )
    done = jobs.anew("run", job, LD_PRELOAD=str(library))
    assert done.returncode == 0, done.stderr
    assert "ended by SIGABRT while it read" in done.stderr and "it restarts" in done.stderr
    counts = jobs.manifest(tmp_path / "out")["counts"]
    assert (counts["read"], counts["predicted"], counts["rejected"]) == (3 * ROWS, 3 * ROWS - ROWS // 3, ROWS // 3)
    (letter,) = jobs.dead_letters(tmp_path / "out")
    assert letter["source"].endswith("kills.parquet") and (letter["row"], letter["rows"]) == (0, ROWS // 3)
    assert letter["reason"] == "unreadable" and "ends the process by SIGABRT" in letter["message"]
    found = jobs.predictions(tmp_path / "out")
    assert found["id"].n_unique() == len(found) == counts["predicted"]
    assert not found.filter(pl.col("id") == f"r{ROWS}").height
