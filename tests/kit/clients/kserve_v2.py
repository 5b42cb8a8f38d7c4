"""Calls the model `echo_kinds` by both clients of KServe: ADDRESS RPC MODEL. Prints what came back, as JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

address, rpc, model = sys.argv[1:]

VALUES = {
    "half": ("FP16", np.array([1.5, -2.0], np.float16)),
    "real": ("FP32", np.array([0.1, 1e-45], np.float32)),
    "count": ("INT64", np.array([1, 2**53 + 1], np.int64)),
    "flag": ("BOOL", np.array([True, False])),
    "text": ("BYTES", np.array([b"", "grün".encode()], object)),
}


def made(binary):
    inputs = []
    for name, (datatype, values) in VALUES.items():
        one = InferInput(name=name, shape=[2], datatype=datatype)
        one.set_data_from_numpy(values, binary_data=binary or datatype == "FP16")  # it has no other form here
        inputs.append(one)
    return InferRequest(
        infer_inputs=inputs, model_name=model, request_id="mine", parameters={"binary_data_output": binary}
    )


def read(response):
    assert (response.id, response.model_name) == ("mine", model), response
    found = {output.name: output.as_numpy() for output in response.outputs}
    return {name: [v.decode() if isinstance(v, bytes) else str(v) for v in found[name].tolist()] for name in VALUES}


async def main():
    answers = {}
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await rest.is_server_ready(address) and await rest.is_server_live(address)
    assert await rest.is_model_ready(address, model)
    for binary in (True, False):
        answers[f"http {binary}"] = read(await rest.infer(address, made(binary), model_name=model))
    client = InferenceGRPCClient(rpc)
    assert await client.is_server_ready() and await client.is_server_live() and await client.is_model_ready(model)
    answers["grpc"] = read(await client.infer(made(True)))
    await client.close()
    print(json.dumps(answers))


asyncio.run(main())
