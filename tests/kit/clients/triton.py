"""Calls the model `echo_kinds` by both clients of Triton: ADDRESS RPC MODEL. Prints what came back, as JSON."""

import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http

address, rpc, model = sys.argv[1:]

VALUES = {
    "half": ("FP16", np.array([1.5, -2.0], np.float16)),
    "real": ("FP32", np.array([0.1, 1e-45], np.float32)),
    "count": ("INT64", np.array([1, 2**53 + 1], np.int64)),
    "flag": ("BOOL", np.array([True, False])),
    "text": ("BYTES", np.array([b"", "gr\u00fcn".encode()], object)),
}


def ask(library, client, inputs, outputs, **more):
    """Return outputs as bytes, by name."""
    result = client.infer(model, inputs, outputs=outputs, request_id="mine", **more)
    response = result.get_response(as_json=True) if library is tritonclient.grpc else result.get_response()
    assert response["id"] == "mine" and response["model_name"] == model and response["model_version"] == "1", response
    found = {name: result.as_numpy(name) for name in VALUES}
    assert {name: array.shape for name, array in found.items()} == dict.fromkeys(VALUES, (2,))
    return {
        name: [v.decode() if isinstance(v, bytes) else str(v) for v in array.tolist()] for name, array in found.items()
    }


def made(library, **binary):
    inputs = []
    for name, (datatype, values) in VALUES.items():
        one = library.InferInput(name, [2], datatype)
        one.set_data_from_numpy(values, **binary)
        inputs.append(one)
    return inputs


answers = {}
client = tritonclient.http.InferenceServerClient(address.removeprefix("http://"))
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
metadata = client.get_model_metadata(model)
assert {(one["name"], one["datatype"]) for one in metadata["inputs"]} == {(n, kind) for n, (kind, _) in VALUES.items()}
for binary_in in (True, False):
    inputs = made(tritonclient.http, binary_data=binary_in)
    for binary_out in (True, False):
        outputs = [tritonclient.http.InferRequestedOutput(name, binary_data=binary_out) for name in VALUES]
        answers[f"http {binary_in} {binary_out}"] = ask(tritonclient.http, client, inputs, outputs)
answers["http all"] = ask(tritonclient.http, client, made(tritonclient.http, binary_data=True), None)
answers["http gzip"] = ask(
    tritonclient.http, client, made(tritonclient.http, binary_data=True), None, request_compression_algorithm="gzip"
)
try:
    client.infer(model, made(tritonclient.http, binary_data=True)[:2])
except tritonclient.http.InferenceServerException as error:
    answers["http error"] = error.message()

client = tritonclient.grpc.InferenceServerClient(rpc)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model, "1")
assert list(client.get_server_metadata().extensions) == ["binary_tensor_data"]
assert {one.name: one.datatype for one in client.get_model_metadata(model).inputs} == {
    name: kind for name, (kind, _) in VALUES.items()
}
answers["grpc"] = ask(tritonclient.grpc, client, made(tritonclient.grpc), None)
outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in VALUES]
answers["grpc outputs"] = ask(tritonclient.grpc, client, made(tritonclient.grpc), outputs)
try:
    client.infer("nix", made(tritonclient.grpc))
except tritonclient.grpc.InferenceServerException as error:
    answers["grpc error"] = error.status()
print(json.dumps(answers))
