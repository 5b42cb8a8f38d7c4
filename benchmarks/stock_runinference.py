"""The peer: Beam's own transforms combined in the usual way, one row per element.

    python benchmarks/stock_runinference.py 'bench-data/csv/*.csv' --model bench-data/models/small/1 --out out

Files are matched and reshuffled, `csv.DictReader` makes a dictionary of each row, rows out of range are dropped,
RunInference scores them in the batches that BatchElements makes, WriteToParquet writes id and prediction. The handler
does what Beam's numpy handlers do (stack, call, one PredictionResult per row), over the SavedModel's signature: Beam's
TensorFlow handlers load with Keras 3, which refuses a SavedModel. Runs on FnApiRunner with threads, like the job that
it is compared with.
"""

from __future__ import annotations

import argparse
import csv
import glob
import logging
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from people import FEATURES, HIGH, LOW, MEAN, STD, Clock, quiet_tensorflow

quiet_tensorflow()

import apache_beam as beam  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from apache_beam.ml.inference.base import (  # noqa: E402
    KeyedModelHandler,
    ModelHandler,
    PredictionResult,
    RunInference,
)
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # noqa: E402

SCHEMA = pa.schema([("id", pa.int64()), ("prediction", pa.float32())])
RANGES = {name: (float(low), float(high)) for name, low, high in zip(FEATURES, LOW, HIGH, strict=True)}

clocks: list[Clock] = []
"""The clock of this run, started by the first file read: Beam's start-up is not counted."""


class SavedModelHandler(ModelHandler[np.ndarray, PredictionResult, Any]):
    """float32 [3] -> PredictionResult, by a SavedModel's `serving_default`."""

    def __init__(self, path: str) -> None:
        super().__init__(min_batch_size=64, max_batch_size=8_192)
        self._path = path

    def load_model(self) -> Any:
        import tensorflow as tf

        return tf.saved_model.load(self._path)

    def run_inference(
        self, batch: Sequence[np.ndarray], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        import tensorflow as tf

        predictions = model.signatures["serving_default"](inputs=tf.constant(np.stack(batch)))["prediction"].numpy()
        return [PredictionResult(x, y) for x, y in zip(batch, predictions, strict=True)]


def read_rows(path: str) -> Iterator[dict[str, str]]:
    if not clocks:
        clocks.append(Clock())
    with open(path, newline="") as file:
        yield from csv.DictReader(file)


def parse(row: dict[str, str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (id, features, float32 [3], standardized) of a good row; nothing for a bad row."""
    try:
        values = [float(row[name]) for name in FEATURES]
        key = int(row["id"])
    except (ValueError, TypeError):
        return
    if None not in row and all(
        low <= value <= high for value, (low, high) in zip(values, RANGES.values(), strict=True)
    ):
        yield key, (np.array(values, np.float32) - MEAN) / STD


def as_output(keyed: tuple[int, PredictionResult]) -> dict[str, Any]:
    return {"id": keyed[0], "prediction": float(keyed[1].inference)}


def count_rows(paths: Sequence[str]) -> int:
    total = 0
    for path in paths:
        with open(path, "rb") as file:
            total += sum(1 for _ in file) - 1
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", help="input files, .csv")
    parser.add_argument("--model", required=True, help="a SavedModel")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--files", type=int, help="only the first so many files")
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    paths = sorted(glob.glob(args.pattern))[: args.files]
    rows = count_rows(paths)
    args.out.mkdir(parents=True, exist_ok=True)

    import tensorflow  # noqa: F401  start-up, like the model's loading elsewhere

    mode = "multi_threading" if args.threads > 1 else "in_memory"
    options = PipelineOptions(direct_num_workers=args.threads, direct_running_mode=mode)
    start = time.perf_counter()
    with beam.Pipeline(FnApiRunner(), options=options) as pipeline:
        (
            pipeline
            | beam.Create(paths)
            | beam.Reshuffle()
            | beam.FlatMap(read_rows)
            | beam.FlatMap(parse)
            | RunInference(KeyedModelHandler(SavedModelHandler(args.model)))
            | beam.Map(as_output)
            | beam.io.WriteToParquet(str(args.out / "part"), SCHEMA, file_name_suffix=".parquet")
        )
    whole = time.perf_counter() - start
    written = sum(pq.read_metadata(path).num_rows for path in args.out.glob("part*.parquet"))
    clocks[0].report(rows, written, whole_seconds=round(whole, 3))


if __name__ == "__main__":
    # Imported by name, so that Beam pickles the functions above by reference: functions of `__main__` are pickled by
    # value, and each worker would have its own clock.
    import stock_runinference

    stock_runinference.main()
