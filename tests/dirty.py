"""The same rows in every format, some of them bad, one of them poison; a job over them, and what came of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import scoring
from outcomes import Result

FORMATS = ("csv", "jsonl", "parquet", "tfrecord")
FILES, ROWS = 3, 400
POISON = (1, 217)
"""File and row of the row that the model raises on."""

_BAD_EVERY = {17: "range", 23: "not finite", 29: "type"}


def write_rows(folder: Path, format_: str) -> Path:
    """Files of one format."""
    for file in range(FILES):
        path = scoring.write(folder / "fresh", [_row(file, row, format_) for row in range(ROWS)], format_)
        if format_ in ("csv", "jsonl"):
            with open(path, "a") as lines:
                lines.write('1,"2\n' if format_ == "csv" else '{"id": 1,\n')
        path.rename(folder / f"rows-{file}.{format_}")
    return folder


def _row(file: int, row: int, format_: str) -> dict[str, Any]:
    a: Any = (row % 90) + 0.5
    b: Any = row * 0.25
    for every, fault in _BAD_EVERY.items():
        if row % every == every - 1:
            if fault == "range":
                a = -1.0
            elif fault == "not finite":
                b = None if format_ in ("jsonl", "parquet") else math.nan
            elif format_ != "parquet":  # all values of a column are of one type
                a = "n/a"
    if (file, row) == POISON:
        a, b = 2 * models.POISON, 1.0
    return {"id": 1000 * file + row, "note": f"note {file}-{row}", "a": a, "b": b, "c": row / 64}


def job(data: Path, format_: str, model: str, output: Path, **sections: Any) -> dict[str, Any]:
    """A job over all of them, as plain data."""
    engine = {"workers": 2, "split_bytes": "2KiB", "block_bytes": "1KiB", "xla": "off"}
    return {
        "input": {"files": str(data / f"*.{format_}")},
        "model": {"path": model, "batch_rows": 64},
        "columns": {
            "id": {"dtype": "int64"},
            "note": {"dtype": "string"},
            "a": {"dtype": "float32", "range": [0, 1e7]},
            "b": {"dtype": "float32"},
            "c": {"dtype": "float32"},
        },
        "inputs": {"x": {"pack": ["a", "b", "c"]}},
        "output": {"path": str(output), "keep": ["note"], "position": True},
        "rejects": {"budget": "50%"},
        **sections,
        "engine": engine | sections.get("engine", {}),
    }


def assert_same(found: Result, expected: Result) -> None:
    """All exactly, but for what the model multiplied: within a relative 1e-5."""
    assert len(found.predictions) == len(expected.predictions)
    for one, other in zip(found.predictions, expected.predictions, strict=True):
        assert {**one, "p": None} == {**other, "p": None}
        assert math.isclose(one["p"], other["p"], rel_tol=1e-5)
    assert found.dead_letters == expected.dead_letters
    assert found.counts == expected.counts
