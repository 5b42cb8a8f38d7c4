"""The peer: a plain script over `csv.DictReader`, like most first versions of such a job.

    python benchmarks/dictreader.py 'bench-data/csv/*.csv' --model bench-data/models/small/1 --out out

A row is a dictionary; a row that does not parse or is out of range is dropped; the model is called on 8,192 rows at a
time; id and prediction are written to one Parquet file per input file. One thread: with more threads, Python's lock
makes it slower.
"""

from __future__ import annotations

import argparse
import csv
import glob
import pathlib
from collections.abc import Iterator

from people import FEATURES, HIGH, LOW, MEAN, STD, Clock, quiet_tensorflow

quiet_tensorflow()

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import tensorflow as tf  # noqa: E402

BATCH_ROWS = 8_192
SCHEMA = pa.schema([("id", pa.int64()), ("prediction", pa.float32())])
RANGES = {name: (float(low), float(high)) for name, low, high in zip(FEATURES, LOW, HIGH, strict=True)}


def parse(row: dict[str, str]) -> tuple[int, list[float]] | None:
    """Return the id and features of a good row; None for a bad row."""
    try:
        features = [float(row[name]) for name in FEATURES]
        if None in row or not all(
            low <= value <= high for value, (low, high) in zip(features, RANGES.values(), strict=True)
        ):
            return None
        return int(row["id"]), features
    except (ValueError, TypeError):
        return None


def batches(rows: Iterator[tuple[int, list[float]] | None], counts: dict[str, int]) -> Iterator[tuple[list, list]]:
    """Yield ids and features of `BATCH_ROWS` good rows at a time, and of the rest; counts all rows."""
    ids, features = [], []
    for row in rows:
        counts["rows"] += 1
        if row is not None:
            ids.append(row[0])
            features.append(row[1])
            if len(ids) == BATCH_ROWS:
                yield ids, features
                ids, features = [], []
    if ids:
        yield ids, features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", help="input files, .csv")
    parser.add_argument("--model", required=True, help="a SavedModel")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--files", type=int, help="only the first so many files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = tf.saved_model.load(args.model)
    signature = model.signatures["serving_default"]
    signature(inputs=tf.zeros((BATCH_ROWS, 3)))

    counts = {"rows": 0}
    predicted = 0
    clock = Clock()
    for path in sorted(glob.glob(args.pattern))[: args.files]:
        output = args.out / f"{pathlib.Path(path).stem}.parquet"
        with open(path, newline="") as file, pq.ParquetWriter(output, SCHEMA) as writer:
            for ids, features in batches(map(parse, csv.DictReader(file)), counts):
                inputs = (np.array(features, np.float32) - MEAN) / STD
                predictions = signature(inputs=tf.constant(inputs))["prediction"].numpy()
                writer.write_table(pa.table([ids, predictions], schema=SCHEMA))
                predicted += len(ids)
    clock.report(counts["rows"], predicted, batch_rows=BATCH_ROWS)


if __name__ == "__main__":
    main()
