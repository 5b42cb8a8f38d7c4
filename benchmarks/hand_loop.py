"""The peer: a loop without an engine, as a person writes it for one job and one machine.

    python benchmarks/hand_loop.py --form default 'bench-data/csv/*.csv' --model bench-data/models/small/1 --out out
    python benchmarks/hand_loop.py --form tuned ...

Reads CSV or JSON Lines, drops the rows out of range, scores the rest and writes id and prediction as Parquet or JSON
Lines, one file per input file; each of the threads takes the next file. It has no dead letters, provenance, receipts or
atomic publication: the comparison shows the cost of those.

`default` is what a good engineer writes: pyarrow's streaming reader with the column types given, numpy, the signature
called on 8,192 rows at a time, `ParquetWriter` with its defaults, batch by batch. A value of a wrong type stops it.

`tuned` uses everything known about this job (docs/benchmarks.md): columns read as text and cast once without
strictness, one intra-op thread per worker, the model's own best batch (a sweep before the clock starts), XLA on batches
of one shape, Parquet without dictionaries, one row group per file, zstd at level 1. `--no-xla` disables XLA. A row
whose value does not parse is dropped. `--reader typed` reads with the column types given, and reads a file as text only
if that fails: on some processors this is faster for clean files.

Both forms read JSON Lines by the rules for a valid line in docs/contract.md: see `json_lines.py`.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import functools
import glob
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np
from people import FEATURES, HIGH, LOW, MEAN, STD, Clock, quiet_tensorflow

SWEEP = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536)
"""Batch sizes, in rows, among which `tuned` chooses."""

Columns = tuple[np.ndarray, np.ndarray]
"""ids, int64 [rows], and features, float32 [rows, 3], NaN where a value is missing or did not parse."""

Predict = Callable[[np.ndarray], np.ndarray]
"""float32 [rows, 3], standardized -> float32 [rows]."""


def read_csv_typed(path: str) -> Iterator[Columns]:
    types = {"id": pa.int64(), **dict.fromkeys(FEATURES, pa.float32())}
    for batch in csv.open_csv(path, convert_options=csv.ConvertOptions(column_types=types)):
        features = np.stack([batch[name].to_numpy(zero_copy_only=False) for name in FEATURES], axis=1)
        yield batch["id"].to_numpy(), features


def read_csv_typed_or_text(path: str) -> Iterator[Columns]:
    """Read with types; read a file as text if it contains a value of a wrong type."""
    types = {"id": pa.int64(), **dict.fromkeys(FEATURES, pa.float32())}
    try:
        with csv.open_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
            convert_options=csv.ConvertOptions(column_types=types),
        ) as reader:
            batches = list(reader)
    except pa.ArrowInvalid:
        yield from read_csv_text(path)
        return
    for batch in batches:
        features = np.stack([batch[name].to_numpy(zero_copy_only=False) for name in FEATURES], axis=1)
        yield batch["id"].to_numpy(zero_copy_only=False), features


def read_csv_text(path: str) -> Iterator[Columns]:
    names = ["id", *FEATURES]
    with csv.open_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False, block_size=8 << 20),
        parse_options=csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=names),
    ) as reader:
        for batch in reader:
            text = pl.DataFrame(batch)
            ids = text["id"].cast(pl.Int64, strict=False)
            features = text.select(pl.col(FEATURES).cast(pl.Float32, strict=False)).fill_null(float("nan"))
            yield ids.fill_null(-1).to_numpy(), features.to_numpy()


def valid(ids: np.ndarray, features: np.ndarray) -> Columns:
    """Return the rows in range, with standardized features; NaN is never in range."""
    good = ((features >= LOW) & (features <= HIGH)).all(axis=1)
    if not good.all():
        ids, features = ids[good], features[good]
    return ids, (features - MEAN) / STD


class ParquetFile:
    """Parquet with the defaults of `ParquetWriter`: one row group per batch."""

    def __init__(self, path: pathlib.Path) -> None:
        self._writer = pq.ParquetWriter(path.with_suffix(".parquet"), SCHEMA)

    def write(self, ids: np.ndarray, predictions: np.ndarray) -> None:
        self._writer.write_batch(pa.record_batch([ids, predictions], schema=SCHEMA))

    def close(self) -> None:
        self._writer.close()


class TunedParquetFile(ParquetFile):
    """Parquet with one row group, no dictionaries, zstd at level 1."""

    def __init__(self, path: pathlib.Path) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._path = path.with_suffix(".parquet")

    def write(self, ids: np.ndarray, predictions: np.ndarray) -> None:
        self._batches.append(pa.record_batch([ids, predictions], schema=SCHEMA))

    def close(self) -> None:
        table = pa.Table.from_batches(self._batches, SCHEMA)
        pq.write_table(
            table,
            self._path,
            row_group_size=max(1, table.num_rows),
            use_dictionary=False,
            compression="zstd",
            compression_level=1,
        )


class JsonLinesFile:
    """JSON Lines by polars, a batch at a time."""

    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.with_suffix(".jsonl").open("wb")

    def write(self, ids: np.ndarray, predictions: np.ndarray) -> None:
        pl.DataFrame({"id": ids, "prediction": predictions}).write_ndjson(self._file)

    def close(self) -> None:
        self._file.close()


def plain_predict(signature: Callable, batch_rows: int) -> Predict:
    """Return a function that calls the signature on slices of up to `batch_rows`."""

    def predict(inputs: np.ndarray) -> np.ndarray:
        predictions = [
            signature(inputs=tf.constant(inputs[at : at + batch_rows]))["prediction"].numpy()
            for at in range(0, len(inputs), batch_rows)
        ]
        return np.concatenate(predictions) if predictions else np.empty(0, np.float32)

    return predict


def xla_predict(signature: Callable, batch_rows: int) -> Predict:
    """The same through XLA, on slices of exactly `batch_rows`: XLA compiles again for every shape."""

    @functools.partial(tf.function, jit_compile=True, input_signature=[tf.TensorSpec([batch_rows, 3], tf.float32)])
    def call(inputs: tf.Tensor) -> tf.Tensor:
        return signature(inputs=inputs)["prediction"]

    def predict(inputs: np.ndarray) -> np.ndarray:
        predictions = []
        for at in range(0, len(inputs), batch_rows):
            rows = inputs[at : at + batch_rows]
            short = batch_rows - len(rows)
            if short:
                rows = np.pad(rows, ((0, short), (0, 0)))
            predictions.append(call(tf.constant(rows)).numpy()[: batch_rows - short])
        return np.concatenate(predictions) if predictions else np.empty(0, np.float32)

    return predict


def best_batch(make_predict: Callable[[int], Predict], seconds_each: float = 0.15) -> tuple[int, Predict]:
    """Return the batch size of `SWEEP` with the least time per row, and its function."""
    best: tuple[float, int, Predict] | None = None
    for batch_rows in SWEEP:
        predict = make_predict(batch_rows)
        inputs = np.random.default_rng(0).normal(size=(batch_rows, 3)).astype(np.float32)
        predict(inputs)
        times, stop = [], time.perf_counter() + seconds_each
        while len(times) < 5 or time.perf_counter() < stop:
            start = time.perf_counter()
            predict(inputs)
            times.append(time.perf_counter() - start)
        seconds_a_row = float(np.median(times)) / batch_rows
        if best is None or seconds_a_row < best[0]:
            best = (seconds_a_row, batch_rows, predict)
    return best[1:]


def gathered(parts: Iterator[Columns], rows: int) -> Iterator[Columns]:
    """Yield the same rows in pieces of a multiple of `rows`, the last one shorter, so that few batches are padded."""
    held: collections.deque[Columns] = collections.deque()
    count = 0
    for part in parts:
        held.append(part)
        count += len(part[0])
        whole = count - count % rows
        if whole:
            ids, inputs = (np.concatenate(arrays) for arrays in zip(*held, strict=True))
            yield ids[:whole], inputs[:whole]
            held.clear()
            held.append((ids[whole:], inputs[whole:]))
            count -= whole
    if count:
        yield tuple(np.concatenate(arrays) for arrays in zip(*held, strict=True))


def score_file(path: str, read: Callable, predict: Predict, gather: int, open_output: Callable) -> tuple[int, int]:
    """Score one file into one output file; return rows read and rows predicted."""
    rows = 0

    def checked() -> Iterator[Columns]:
        nonlocal rows
        for ids, features in read(path):
            rows += len(ids)
            yield valid(ids, features)

    output = open_output(pathlib.Path(path).stem)
    predicted = 0
    for ids, inputs in gathered(checked(), gather) if gather else checked():
        output.write(ids, predict(inputs))
        predicted += len(ids)
    output.close()
    return rows, predicted


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", help="input files, .csv or .jsonl")
    parser.add_argument("--form", choices=["default", "tuned"], required=True)
    parser.add_argument("--model", required=True, help="a SavedModel")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--output", choices=["parquet", "jsonl"], default="parquet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--files", type=int, help="only the first so many files")
    parser.add_argument("--batch-rows", type=int, help="instead of 8,192 (default) or the sweep (tuned)")
    parser.add_argument("--reader", choices=["text", "typed"], default="text", help="of CSV, tuned")
    parser.add_argument("--no-xla", dest="xla", action="store_false")
    return parser.parse_args()


def main() -> None:
    paths = sorted(glob.glob(args.pattern))[: args.files]
    args.out.mkdir(parents=True, exist_ok=True)
    tuned = args.form == "tuned"
    if tuned:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        pa.set_cpu_count(1)

    model = tf.saved_model.load(args.model)
    signature = model.signatures["serving_default"]
    make_predict = functools.partial(xla_predict if tuned and args.xla else plain_predict, signature)
    if args.batch_rows or not tuned:
        batch_rows = args.batch_rows or 8_192
        predict = make_predict(batch_rows)
        predict(np.zeros((batch_rows, 3), np.float32))
    else:
        batch_rows, predict = best_batch(make_predict)

    if paths[0].endswith(".jsonl"):
        read = json_lines.read
    elif tuned:
        read = {"text": read_csv_text, "typed": read_csv_typed_or_text}[args.reader]
    else:
        read = read_csv_typed
    writers = {"parquet": TunedParquetFile if tuned else ParquetFile, "jsonl": JsonLinesFile}
    writer = writers[args.output]

    clock = Clock()
    with concurrent.futures.ThreadPoolExecutor(args.threads) as pool:
        one_file = functools.partial(
            score_file,
            read=read,
            predict=predict,
            gather=batch_rows if tuned else 0,
            open_output=lambda stem: writer(args.out / stem),
        )
        counts = list(pool.map(one_file, paths))
    rows, predicted = map(sum, zip(*counts, strict=True))
    clock.report(rows, predicted, batch_rows=batch_rows)


if __name__ == "__main__":
    args = parse_arguments()
    quiet_tensorflow()
    if args.form == "tuned":
        os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

    import json_lines
    import polars as pl
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq
    import tensorflow as tf

    SCHEMA = pa.schema([("id", pa.int64()), ("prediction", pa.float32())])
    main()
