"""The peer for rows of any shape: a tuned loop without an engine, as a person writes it for one job and one machine.

    python benchmarks/shape_loop.py 'bench-data/strings/*.csv' --model bench-data/models/strings/1 --out out

Each thread takes the next file and reads all of it by pyarrow, with the column types that the signature needs, calls
the signature on batches of its own best size (a sweep before the clock starts; one intra-op thread), and writes id and
prediction to one Parquet file. The input `inputs` takes all columns but the id, side by side; any other takes the
column of its name. Nothing is standardized, so this is not a peer for the shape `people`. The loop checks nothing, and
stops at the first value of a wrong type. Unlike `hand_loop.py` it does not use XLA, which does not compile strings.
"""

from __future__ import annotations

import concurrent.futures
import glob
import pathlib
import time
from collections.abc import Callable

from people import Clock, parse_arguments, quiet_tensorflow

quiet_tensorflow()

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.csv as csv  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import tensorflow as tf  # noqa: E402

SWEEP = (256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
LONGEST_CALL_S = 0.5
"""The sweep ends at a batch that takes longer: larger ones would gain nothing."""

Feeds = Callable[[slice], dict[str, np.ndarray]]
"""Returns the inputs of the model for some rows of a file."""


def read(path: str, inputs: dict[str, tf.TensorSpec]) -> tuple[pa.ChunkedArray, Feeds]:
    """Return the ids and the feeds of a file."""
    with open(path) as file:
        names = file.readline().rstrip().split(",")
    types = {name: pa.binary() if name in inputs else pa.float32() for name in names} | {"id": pa.int64()}
    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False, block_size=4 << 20),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types),
    )
    columns = {name: table[name].to_numpy() for name in names if name != "id"}

    def feeds(rows: slice) -> dict[str, np.ndarray]:
        if len(inputs) == 1 and "inputs" in inputs:
            return {"inputs": np.stack([column[rows] for column in columns.values()], axis=1)}
        return {name: columns[name][rows] for name in inputs}

    return table["id"], feeds


def best_batch(predict: Callable[[dict[str, np.ndarray]], np.ndarray], rows: int, feeds: Feeds) -> int:
    """Return the batch size of `SWEEP` with the least time per row, over the rows of one file."""
    times = {}
    for batch_rows in SWEEP:
        if batch_rows > rows and times:
            break
        inputs = feeds(slice(0, batch_rows))
        predict(inputs)
        calls = []
        while len(calls) < 3 or sum(calls) < 0.1:
            start = time.perf_counter()
            predict(inputs)
            calls.append(time.perf_counter() - start)
        times[batch_rows] = min(calls) / min(batch_rows, rows)
        if calls[0] > LONGEST_CALL_S:
            break
    return min(times, key=times.get)


def main() -> None:
    args = parse_arguments(__doc__)
    paths = sorted(glob.glob(args.pattern))
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    pa.set_cpu_count(1)
    model = tf.saved_model.load(args.model)
    signature = model.signatures["serving_default"]
    inputs = signature.structured_input_signature[1]

    def predict(feeds: dict[str, np.ndarray]) -> np.ndarray:
        return signature(**{name: tf.constant(values) for name, values in feeds.items()})["prediction"].numpy()

    ids, feeds = read(paths[0], inputs)
    batch_rows = best_batch(predict, len(ids), feeds)

    def score_file(path: str) -> int:
        ids, feeds = read(path, inputs)
        predictions = [predict(feeds(slice(at, at + batch_rows))) for at in range(0, len(ids), batch_rows)]
        table = pa.table({"id": ids, "prediction": np.concatenate(predictions)})
        pq.write_table(
            table,
            out / f"{pathlib.Path(path).stem}.parquet",
            use_dictionary=False,
            compression="zstd",
            compression_level=1,
        )
        return len(ids)

    clock = Clock()
    with concurrent.futures.ThreadPoolExecutor(args.threads) as pool:
        rows = sum(pool.map(score_file, paths))
    clock.report(rows, rows, batch_rows=batch_rows)


if __name__ == "__main__":
    main()
