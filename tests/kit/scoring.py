"""One call from rows to predictions: written as a small file, scored by the real job, read back."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.run.launch import run


@dataclasses.dataclass(frozen=True)
class Scored:
    """The result of a scoring job.

    Attributes:
      code: the exit code.
      predictions: in the order of the rows, with their number in `row`.
      rejected: dead letters, in the order of the rows.
      manifest: published with them.
    """

    code: int
    predictions: pa.Table
    rejected: list[dict[str, Any]]
    manifest: Mapping[str, Any]

    def column(self, name: str) -> list:
        return self.predictions[name].to_pylist()

    @property
    def reasons(self) -> dict[int, str]:
        """Reason codes by row number."""
        return {r["row"]: r["reason"] for r in self.rejected}


def score(
    folder: Path, saved_model: str, rows: Sequence[Mapping[str, Any]] | pa.Table, format: str = "jsonl", **sections
) -> Scored:
    """Score rows.

    Args:
      folder: a fresh one.
      saved_model: folder of the model.
      rows: one dict per row, or a table (Parquet).
      sections: of the job file; each is merged into the defaults here.
    """
    path = write(folder, rows, format)
    engine = {"workers": 1, "xla": "off"} | sections.pop("engine", {})
    job = {
        "input": {"files": str(path)} | sections.pop("input", {}),
        "model": {"path": saved_model} | sections.pop("model", {}),
        "output": {"path": str(folder / "out"), "position": True} | sections.pop("output", {}),
        "rejects": {"budget": "100%"} | sections.pop("rejects", {}),
        "engine": engine,
        **sections,
    }
    outcome = run(parse_job(job))
    out = folder / "out"
    parts = sorted(out.glob("predictions/*.parquet"))
    predictions = pa.concat_tables([pq.read_table(p) for p in parts]).sort_by("row") if parts else pa.table({})
    rejected = [json.loads(line) for p in sorted(out.glob("rejected/*.jsonl")) for line in p.read_text().splitlines()]
    return Scored(outcome.code, predictions, sorted(rejected, key=lambda r: r["row"]), outcome.manifest)


def write(folder: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, format: str) -> Path:
    """Write one file; creates the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rows.{format}"
    if format == "parquet":
        pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows)), path)
    elif format == "avro":
        pl.from_dicts(list(rows), infer_schema_length=None).write_avro(path)
    elif format == "orc":
        orc.write_table(pa.Table.from_pylist(list(rows)), path, stripe_size=4096, batch_size=64)
    elif format == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif format == "tfrecord":
        from beam_score.transforms.model.servable import import_tensorflow

        with import_tensorflow().io.TFRecordWriter(str(path)) as writer:
            for row in rows:
                writer.write(example(row).SerializeToString())
    else:
        path.write_text("".join(json.dumps(row, default=_b64) + "\n" for row in rows))
    return path


def _b64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def example(row: Mapping[str, Any]):
    """Return a tf.Example: floats as float_list, integers as int64_list, text as bytes_list."""
    from beam_score.transforms.model.servable import import_tensorflow

    train, features = import_tensorflow().train, {}
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], float):
            features[name] = train.Feature(float_list=train.FloatList(value=values))
        elif isinstance(values[0], int):
            features[name] = train.Feature(int64_list=train.Int64List(value=values))
        else:
            encoded = [v.encode() if isinstance(v, str) else v for v in values]
            features[name] = train.Feature(bytes_list=train.BytesList(value=encoded))
    return train.Example(features=train.Features(feature=features))


class Counting:
    """A servable that writes down how many rows it is given."""

    def __init__(self, servable):
        self.servable, self.rows = servable, []

    def call(self, feeds, deadline_s=None):
        self.rows.append(len(next(iter(feeds.values()))))
        return self.servable.call(feeds)

    def nodes(self):
        return self.servable.nodes()
