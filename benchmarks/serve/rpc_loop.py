"""Calls of Predict in a closed loop, with columns of the demo's contract; prints rows/s.

python benchmarks/serve/rpc_loop.py 127.0.0.1:8500 --name people --rows 1024 --at-once 4 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time

import grpc
import numpy as np

from beam_score.pipeline.serve.tensors.protos import to_array
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.transforms.model.signature import DTYPES


def request(name: str, rows: int) -> bytes:
    """Return a PredictRequest for the contract of the demo."""
    made = messages("predict_pb2").PredictRequest()
    made.model_spec.name = name
    chance = np.random.default_rng(1)
    columns = {"age": chance.random(rows) * 90, "income": chance.random(rows) * 90_000, "score": chance.random(rows)}
    for column, values in columns.items():
        proto = made.inputs[column]  # as tf.make_tensor_proto makes it
        proto.dtype, proto.tensor_content = DTYPES.index("float32"), values.astype(np.float32).tobytes()
        proto.tensor_shape.dim.add().size = rows
    return made.SerializeToString()


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    body, seconds = request(arguments.name, arguments.rows), list[float]()
    async with grpc.aio.insecure_channel(arguments.address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        answer = messages("predict_pb2").PredictResponse.FromString(await call(body))
        assert to_array("probabilities", answer.outputs["probabilities"]).shape == (arguments.rows, 2)
        end = time.perf_counter() + arguments.seconds

        async def loop() -> None:
            while (began := time.perf_counter()) < end:
                await call(body)
                seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(arguments.at_once)))
        whole = time.perf_counter() - began
    return {
        "calls": len(seconds),
        "rows_per_s": arguments.rows * len(seconds) / whole,
        "p50_us": 1e6 * statistics.median(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--name", default="people")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3)
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
