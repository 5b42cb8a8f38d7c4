"""The raw signature of the demo's model in a loop over ready arrays; prints rows/s, and the median microseconds a call.

python benchmarks/serve/raw_loop.py demo/models/people/1 --rows 64 --seconds 3 --by python
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--by", choices=("python", "c_api"), default="python", help="Python's TensorFlow, or its C API")
    arguments = parser.parse_args()
    arrays = [np.random.default_rng(n).random((arguments.rows, 3), np.float32) for n in range(16)]
    if arguments.by == "python":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        model = tf.saved_model.load(arguments.model)
        serve = model.signatures["serving_default"]

        def call(array: np.ndarray) -> np.ndarray:
            return serve(inputs=tf.constant(array))["probabilities"].numpy()
    else:
        from beam_score.transforms.model.native.session import NativeModel
        from beam_score.transforms.model.signature import read_signatures

        native = NativeModel(arguments.model, read_signatures(arguments.model)["serving_default"])

        def call(array: np.ndarray) -> np.ndarray:
            return native.call({"inputs": array})["probabilities"]

    for array in arrays * 4:
        call(array)
    seconds: list[float] = []
    end = time.perf_counter() + arguments.seconds
    for array in itertools.cycle(arrays):
        began = time.perf_counter()
        if began > end:
            break
        call(array)
        seconds.append(time.perf_counter() - began)
    rows = arguments.rows * len(seconds) / sum(seconds)
    print(json.dumps({"rows_per_s": rows, "us_a_call": 1e6 * statistics.median(seconds)}))


if __name__ == "__main__":
    main()
