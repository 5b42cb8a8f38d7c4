"""Calls of a model through TensorFlow's C API and through Python's TensorFlow, side by side.

    python benchmarks/native_calls.py

Two models, written once under --folder: the small dense model of the other benchmarks (3-64-32-1, float32 in), and a
lookup of a text of 8 bytes, in an Arrow column, in a table of 10,000. Prints JSON: microseconds of CPU and of elapsed
time per call, by model, rows and way, medians of interleaved rounds with one intra-op thread; and, of new processes,
seconds of CPU and elapsed time and peak memory up to the first prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).parent
WAYS = ("c_api", "python")
ROWS = (1, 4, 1024, 8192, 16384)
ROUNDS, ROUND_S = 7, 0.1


def make_models(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the models' folders, by name; write those that are missing."""
    found = {"dense": folder / "models" / "small" / "1", "lookup": folder / "models" / "lookup" / "1"}
    if not (found["dense"] / "saved_model.pb").exists():
        subprocess.run([sys.executable, HERE / "make_model.py", "--size", "small", found["dense"]], check=True)
    if not (found["lookup"] / "saved_model.pb").exists():
        subprocess.run([sys.executable, __file__, "--make-lookup", found["lookup"]], check=True)
    return found


def make_lookup(folder: str) -> None:
    import tensorflow as tf

    words = tf.constant([f"word{n:04}" for n in range(10_000)])
    initializer = tf.lookup.KeyValueTensorInitializer(words, tf.range(10_000, dtype=tf.int64))
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def serve(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"number": module.table.lookup(inputs)}

    tf.saved_model.save(module, folder, signatures={"serving_default": serve})


def feeds(name: str, rows: int) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    from beam_score.transforms.arrays.texts import Texts

    random = np.random.default_rng(rows)
    if name == "dense":
        return {"inputs": random.normal(size=(rows, 3)).astype(np.float32)}
    words = np.array([b"word%04d" % n for n in range(20_000)], object)  # half of them are not in the table
    return {"inputs": Texts(pa.array(words[random.integers(0, len(words), rows)], pa.binary()), (rows,))}


def first_prediction(path: str, way: str) -> None:
    """Print the cost of this process up to its first prediction."""
    from beam_score.transforms.model.loading import load_once

    began = time.perf_counter()
    load_once(path, "serving_default", 1, runtime=way).call(feeds("dense", 4))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = {"cpu_s": used.ru_utime + used.ru_stime, "load_and_call_s": time.perf_counter() - began}
    print(json.dumps({**{n: round(s, 2) for n, s in seconds.items()}, "peak_mb": round(used.ru_maxrss / 1024)}))


def time_calls(path: str, name: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by rows and way, CPU and elapsed microseconds per call."""
    from beam_score.transforms.model.loading import load_once

    models = {way: load_once(path, "serving_default", 1, runtime=way) for way in WAYS}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for rows in ROWS:
        given, times = feeds(name, rows), {way: list[tuple[float, float]]() for way in WAYS}
        for round_ in range(ROUNDS + 1):
            for way, model in models.items():
                began, busy, calls = time.perf_counter(), time.process_time(), 0
                while time.process_time() - busy < ROUND_S:
                    model.call(given)
                    calls += 1
                spent = ((time.process_time() - busy) / calls, (time.perf_counter() - began) / calls)
                times[way] += [spent] if round_ else []  # the first round warms up
        found[f"{rows} rows"] = {
            way: {
                "cpu_us": round(1e6 * statistics.median(cpu for cpu, _ in of), 1),
                "elapsed_us": round(1e6 * statistics.median(elapsed for _, elapsed in of), 1),
            }
            for way, of in times.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data"))
    parser.add_argument("--make-lookup", help=argparse.SUPPRESS)
    parser.add_argument("--first", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make_lookup:
        make_lookup(arguments.make_lookup)
    elif arguments.first:
        first_prediction(*arguments.first)
    else:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
        models = make_models(arguments.folder)
        starts = {way: list[dict[str, float]]() for way in WAYS}
        for _ in range(3):
            for way in WAYS:
                command = [sys.executable, __file__, "--first", models["dense"], way]
                starts[way].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        first = {way: {key: statistics.median(one[key] for one in of) for key in of[0]} for way, of in starts.items()}
        calls = {name: time_calls(str(path), name) for name, path in models.items()}
        print(json.dumps({"first prediction": first, "calls": calls}, indent=1))


if __name__ == "__main__":
    main()
