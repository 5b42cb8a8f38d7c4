"""A small job whose true result is known row by row, and the checks that its output must pass in every case."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import jobs
import polars as pl
import pyarrow as pa

FILES, ROWS, BAD_EVERY = 4, 60, 15
"""The input: number of files, rows per file, and the interval of rejected rows in each file."""

COUNT_FILE = "BEAM_SCORE_TEST_COUNT"

KINDS = ("predictions", "rejected")

_KEYS = ["source", "row"]


def count_rows(rows: pa.RecordBatch) -> pa.RecordBatch:
    """A preprocess function that returns the rows unchanged and appends their number to a file."""
    with contextlib.suppress(KeyError):
        descriptor = os.open(os.environ[COUNT_FILE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, b"%d\n" % rows.num_rows)
        os.close(descriptor)
    return rows


def rows_counted(path: Path) -> int:
    """Return the number of rows that passed through `count_rows`."""
    return sum(map(int, path.read_text().split())) if path.exists() else 0


@dataclasses.dataclass(frozen=True)
class Scene:
    """Input files, and job files over them that differ in the model.

    Attributes:
      folder: contains all files.
      job: path of the job file whose model returns its inputs.
      other: path of the job file whose model returns its inputs doubled.
    """

    folder: Path
    job: str
    other: str

    @property
    def jobs(self) -> dict[str, str]:
        return {"job": self.job, "other": self.other}


def make_scene(folder: Path, echo: str, doubled: str, **engine: Any) -> Scene:
    """Write input files and job files.

    Args:
      echo: the folder of `models.echo`; doubled: of `models.doubled`.
      engine: settings of the engine.
    """
    _write_input(folder / "data")
    paths = {}
    for name, model in (("job", echo), ("other", doubled)):
        settings = {
            "input": {"files": str(folder / "data" / "*.csv")},
            "model": {"path": model, "batch_rows": 64},
            "columns": {"id": {"dtype": "int64"}, **jobs.COLUMNS},
            "inputs": {"x": {"pack": ["age", "income", "score"]}},
            "preprocess": "outcomes:count_rows",
            "output": {"path": str(folder / "out"), "keep": ["note", "age"], "position": True},
            "rejects": {"budget": "10%"},
            "engine": {"workers": 2, "split_bytes": "1KiB", "block_bytes": "1KiB", "xla": "off"} | engine,
        }
        paths[name] = str(folder / f"{name}.yaml")
        Path(paths[name]).write_text(json.dumps(settings, indent=1))
    return Scene(folder, paths["job"], paths["other"])


def _write_input(folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in range(FILES):
        lines = ["id,age,income,score,note"]
        for row in range(ROWS):
            bad = _is_bad(row)
            age = ("n/a" if row % 2 else 900) if bad else row % 90
            lines.append(f"{1000 * file + row},{age},{row * 8}.5,{row / 64},note {file}-{row}")
        (folder / f"people-{file}.csv").write_text("\n".join(lines) + "\n")


def _is_bad(row: int) -> bool:
    return row % BAD_EVERY == BAD_EVERY - 1


def true_predictions(scene: Scene, times: int) -> list[dict[str, Any]]:
    """Return the expected predictions, computed from the definition of the input."""
    return [
        {
            "source": str(scene.folder / "data" / f"people-{file}.csv"),
            "row": row,
            "note": f"note {file}-{row}",
            "age": float(row % 90),
            "out": times * (1000 * file + row),
            "y": [times * v for v in (float(row % 90), row * 8 + 0.5, row / 64)],
        }
        for file in range(FILES)
        for row in range(ROWS)
        if not _is_bad(row)
    ]


@dataclasses.dataclass(frozen=True)
class Result:
    """The published result of a finished run, without the values that differ from run to run.

    Attributes:
      predictions: all columns, sorted by source and row.
      dead_letters: sorted by source and row, without the id of the run.
      counts: of the manifest, with those of each input file.
    """

    predictions: list[dict[str, Any]]
    dead_letters: list[dict[str, Any]]
    counts: dict[str, Any]

    @classmethod
    def of(cls, output: Path) -> Result:
        """Read the files that the manifest of an output folder lists."""
        manifest = jobs.manifest(output)
        listed = {kind: [output / f["path"] for f in manifest["files"] if f["kind"] == kind] for kind in KINDS}
        lines = [line for path in listed["rejected"] for line in path.read_text().splitlines()]
        letters = [letter for line in lines if (letter := json.loads(line)).pop("run") == manifest["run"]]
        return cls(
            pl.concat([pl.read_parquet(path) for path in listed["predictions"]]).sort(_KEYS).to_dicts(),
            sorted(letters, key=lambda letter: (letter["source"], letter["row"])),
            {name: manifest[name] for name in ("counts", "defaults_used", "not_finite_outputs", "inputs", "verdict")},
        )


def read_manifest(output: Path) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError):
        return jobs.manifest(output)


def assert_all_listed_is_there(output: Path) -> None:
    """Assert, at any moment, that all files of the manifest exist and are intact; if a run publishes meanwhile, those
    of its successor."""
    manifest = read_manifest(output)
    while manifest is not None:
        missing = [file["path"] for file in manifest["files"] if not _is_as_listed(output, file)]
        before, manifest = manifest, read_manifest(output)
        if not missing:
            return
        assert manifest != before, f"{output}: the manifest of run {before['run']} lists {missing}"


def _is_as_listed(output: Path, file: Mapping[str, Any]) -> bool:
    try:
        content = (output / file["path"]).read_bytes()
    except FileNotFoundError:
        return False
    return len(content) == file["bytes"] and f"{google_crc32c.value(content):08x}" == file["crc32c"]


def assert_complete(output: Path, expected: Result) -> None:
    """Assert, after a successful run, that the published result is exactly as expected, and no other files exist."""
    assert_all_listed_is_there(output)
    manifest = jobs.manifest(output)
    there = {str(path.relative_to(output)) for path in output.rglob("*")}
    assert there == {"manifest.json", *KINDS, *(f["path"] for f in manifest["files"])}
    assert Result.of(output) == expected
    seconds = manifest["timings"]
    assert (
        min(seconds["first_read_to_last_receipt_s"], *seconds["stage_s"].values(), *seconds["start_up_s"].values()) >= 0
    )


def assert_told(code: int, said: str) -> None:
    """Assert that a failure was reported in a sentence."""
    assert "Traceback" not in said and "unexpected error" not in said, said
    assert code in (0, 1), f"exit code {code}:\n{said}"
    assert (code == 0) == ("error:" not in said), said
