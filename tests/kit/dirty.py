"""The same rows in every format, some of them bad, one of them poison; a job over them, and its result."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jobs
import models
import polars as pl
import scoring
from outcomes import KINDS
from polars.testing import assert_frame_equal

FORMATS = ("csv", "jsonl", "parquet", "tfrecord")
FILES, ROWS = 3, 700
PLENTY_FILES, PLENTY_ROWS = 3, 250_000
POISON = (1, 217)
"""File and row of the row that the model raises on."""

_BAD_EVERY = {17: "range", 23: "not finite", 29: "type"}


def write_rows(folder: Path, format_: str) -> Path:
    """Write the files of one format."""
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
            elif format_ != "parquet":  # all values of a column have one type
                a = "n/a"
    if (file, row) == POISON:
        a, b = 2 * models.POISON, 1.0
    return {"id": 1000 * file + row, "note": f"note {file}-{row}", "a": a, "b": b, "c": row / 64}


def write_plenty(folder: Path) -> Path:
    """Write CSV files with enough rows that some splits are done while others are in progress: the model is called on
    131,072 rows at a time (`transforms.steps.infer.MIN_GROUP_ROWS`)."""
    for file in range(PLENTY_FILES):
        row = pl.int_range(PLENTY_ROWS, eager=True)
        number = pl.DataFrame({"id": row + PLENTY_ROWS * file, "row": row})
        rows = number.select(
            "id",
            note=pl.format("n{}", "row"),
            a=pl.when(pl.col("row") % 1000 == 999).then(pl.lit("n/a")).otherwise((pl.col("row") % 90).cast(pl.String)),
            b=pl.col("row") * 0.25,
            c=pl.col("row") / 64,
        )
        rows.write_csv(folder / f"plenty-{file}.csv")
    return folder


PLENTY = {"split_bytes": "1MB", "block_bytes": "128KiB"}
"""Engine settings for reading the files of `write_plenty`."""


def plenty_job(data: Path, model: str, output: Path, **sections: Any) -> dict[str, Any]:
    """Return a job over the files of `write_plenty`, with few calls of the model."""
    return job(data, "csv", model, output, **sections) | {"model": {"path": model, "batch_rows": 8192}}


def job(data: Path, format_: str, model: str, output: Path, **sections: Any) -> dict[str, Any]:
    """Return a job over all the files, as plain data."""
    engine = {"workers": 2, "split_bytes": "8KiB", "block_bytes": "2KiB", "xla": "off"}
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


@dataclasses.dataclass(frozen=True)
class Published:
    """The published result of a finished run, without the values that differ from run to run.

    Attributes:
      predictions: sorted by source and row.
      dead_letters: sorted by source and row, without the id of the run.
      counts: of the manifest, with those of each input file.
    """

    predictions: pl.DataFrame
    dead_letters: list[dict[str, Any]]
    counts: dict[str, Any]

    @classmethod
    def of(cls, output: Path) -> Published:
        manifest = jobs.manifest(output)
        listed = {kind: [output / f["path"] for f in manifest["files"] if f["kind"] == kind] for kind in KINDS}
        letters = [json.loads(line) for path in listed["rejected"] for line in path.read_text().splitlines()]
        assert {letter.pop("run") for letter in letters} == {manifest["run"]}
        return cls(
            pl.concat([pl.read_parquet(path) for path in listed["predictions"]]).sort("source", "row"),
            sorted(letters, key=lambda letter: (letter["source"], letter["row"])),
            {name: manifest[name] for name in ("counts", "defaults_used", "not_finite_outputs", "inputs", "verdict")},
        )


def assert_same(output: Path, expected: Published) -> None:
    """Assert that an output equals the expected one: exactly, except for products computed by the model, within a
    relative 1e-5."""
    found = Published.of(output)
    assert_frame_equal(found.predictions.drop("p"), expected.predictions.drop("p"))
    assert_frame_equal(found.predictions.select("p"), expected.predictions.select("p"), rel_tol=1e-5, abs_tol=0)
    assert found.dead_letters == expected.dead_letters
    assert found.counts == expected.counts
