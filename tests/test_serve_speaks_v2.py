"""The JSON of the Open Inference Protocol: health, metadata, infer."""

from __future__ import annotations

import concurrent.futures
import json

import grpc
import hypothesis
import numpy as np
import pytest
import serving
from hypothesis import strategies as st

from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors
from beam_score.pipeline.serve.tensors.v2 import rpc
from beam_score.pipeline.serve.tensors.v2.raw import DATATYPES, from_raw, to_raw


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("v2")
    columns = {"id": {"dtype": "int64"}, "x": {"dtype": "float32", "shape": [3], "range": [0, 1e6]}}
    with serving.served(folder, serving.echo_job(folder, model("echo"), columns)) as running:
        yield running
        assert running.end() == 0


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


IDS = tensor("id", "INT64", [2], [7, 2**53 + 1])
X = tensor("x", "FP32", [2, 3], [[1, 2.5, 0], [3, 0.1, 5]])
INFER = "/v2/models/echo/infer"


def test_health_and_metadata(server):
    assert server.get("/v2").json()["name"] == "beam-score"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/echo/ready", "/v2/models/echo/versions/1/ready"):
        assert server.get(path).status_code == 200
    metadata = server.get("/v2/models/echo").json()
    assert metadata["name"] == "echo" and metadata["versions"] == ["1"]
    assert metadata["inputs"] == [
        {"name": "id", "datatype": "INT64", "shape": [-1]},
        {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
    ]
    assert {output["name"] for output in metadata["outputs"]} == {"out", "y"}
    assert server.get("/v2/models/nix").status_code == 404 and server.get("/v2/nix").status_code == 404


@pytest.mark.parametrize("signature", [None, "contract", "serving_default"])
@pytest.mark.parametrize("flat", [False, True])
def test_tensors_go_in_and_come_out(server, signature, flat):
    x = tensor("x", "FP32", [2, 3], [1, 2.5, 0, 3, 0.1, 5]) if flat else X
    body = {"id": "mine", "inputs": [IDS, x]} | ({"parameters": {"signature_name": signature}} if signature else {})
    answer = server.post("/v2/models/echo/versions/1/infer", body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("echo", "1", "mine")
    outputs = {output["name"]: output for output in found["outputs"]}
    assert outputs["out"] == tensor("out", "INT64", [2], [7, 2**53 + 1])
    assert outputs["y"] == tensor("y", "FP32", [2, 3], [1, 2.5, 0, 3, 0.1, 5])


@pytest.mark.parametrize(
    ("id_", "x", "faults"),
    [
        (tensor("id", "BYTES", [2], ["a", "b"]), X, [("id", "wrong_type")]),
        (tensor("id", "BOOL", [2], [True, False]), tensor("x", "BOOL", [2, 3], [True] * 6), [("x", "wrong_type")]),
        (tensor("id", "INT64", [2, 1], [1, 2]), tensor("x", "FP32", [2], [1, 2]), [("id", "wrong_shape")]),
        (IDS, tensor("x", "FP32", [2, 3, 1], [1] * 6), [("x", "wrong_shape")]),
        (IDS, tensor("x", "BYTES", [2, 3], ["1"] * 6), [("x", "wrong_type")]),
    ],
)
def test_a_tensor_of_another_type_than_its_column_is_refused(server, id_, x, faults):
    answer = server.post(INFER, {"inputs": [id_, x]})
    assert answer.status_code == 400, answer.text
    found = [(one["column"], one["reason"]) for one in answer.json()["details"]]
    assert set(faults) <= set(found) and f"column {faults[0][0]!r} is " in answer.json()["error"]


def test_only_the_outputs_that_are_asked_for_come_out(server):
    for parameters in ({}, {"signature_name": "serving_default"}):
        body = {"inputs": [IDS, X], "outputs": [{"name": "y"}], "parameters": parameters}
        assert [output["name"] for output in server.post(INFER, body).json()["outputs"]] == ["y"]


def raw(body: dict, *data: bytes, **headers: str):
    text = json.dumps(body).encode()
    return text + b"".join(data), {"Inference-Header-Content-Length": str(len(text)), **headers}


def test_tensors_may_follow_the_json_as_raw_bytes(server):
    x = np.array([[1, 2.5, 0], [3, 0.1, 5]], "<f4").tobytes()
    one = {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": len(x)}}
    ids = {"name": "out", "parameters": {"binary_data": True}}
    body, headers = raw({"inputs": [IDS, one], "outputs": [{"name": "y"}, ids], "id": "mine"}, x)
    answer = server.post(INFER, body, headers=headers)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    found = json.loads(answer.content[:length])
    assert found["id"] == "mine" and found["outputs"] == [
        tensor("y", "FP32", [2, 3], [1, 2.5, 0, 3, 0.1, 5]),
        {"name": "out", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
    ]
    assert np.frombuffer(answer.content[length:], "<i8").tolist() == [7, 2**53 + 1]


@pytest.mark.parametrize(
    ("size", "data", "error"),
    [
        (23, b"0" * 23, "its shape needs 24"),
        (24, b"0" * 23, "binary_data_size must be"),
        (24, b"0" * 25, "1 bytes of binary data belong to no input"),
        ("24", b"0" * 24, "binary_data_size must be"),
    ],
)
def test_raw_bytes_that_are_not_those_of_the_shape_are_refused(server, size, data, error):
    one = {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": size}}
    body, headers = raw({"inputs": [IDS, one]}, data)
    answer = server.post(INFER, body, headers=headers)
    assert answer.status_code == 400 and error in answer.json()["error"]


@pytest.mark.parametrize(
    ("length", "error"),
    [("1000", "more than the bytes"), ("x", "not a number"), ("-1", "not a number"), ("5", "JSON Parse error")],
)
def test_a_length_of_the_json_that_is_wrong_is_refused(server, length, error):
    body, _ = raw({"inputs": [IDS, X]})
    answer = server.post(INFER, body, headers={"Inference-Header-Content-Length": length})
    assert answer.status_code == 400 and error in answer.json()["error"]


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", "end before text 0"), (b"\5\0\0\0abc", "end within text 0"), (b"\0\0\0\0ab", "2 bytes of data follow")],
)
def test_damaged_texts_are_refused(data, error):
    with pytest.raises(Refused, match=error):
        from_raw("input 'x'", data, "string", [1])


@hypothesis.given(st.lists(st.binary(max_size=5)))
def test_texts_survive_as_raw_bytes(texts):
    array = np.empty(len(texts), object)
    array[:] = texts
    assert from_raw("x", to_raw(array), "string", [len(texts)]).tolist() == texts


def test_the_good_rows_are_predicted_on_request(server):
    bad = X | {"data": [[1, 2, -3], [3, 0.1, 5]]}
    answer = server.post(INFER, {"inputs": [IDS, bad], "parameters": {"on_error": "row"}}).json()
    assert answer["outputs"][0] == tensor("out", "INT64", [1], [2**53 + 1])
    assert answer["parameters"]["rejected"] == 1 and json.loads(answer["parameters"]["rejected_rows"]) == [0]
    (error,) = json.loads(answer["parameters"]["errors"])
    assert (error["index"], error["column"], error["reason"]) == (0, "x", "out_of_range")
    refused = server.post(INFER, {"inputs": [IDS, bad], "parameters": {"on_error": "nix"}})
    assert refused.status_code == 400 and "on_error" in refused.json()["error"]


@pytest.fixture(scope="module")
def infer(server):
    with grpc.insecure_channel(server.rpc) as channel:

        def call(method="ModelInfer", **fields):
            asked = rpc.messages()[f"{method}Request"](**fields)
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            return rpc.messages()[f"{method}Response"].FromString(call(asked.SerializeToString(), timeout=30))

        yield call


def typed(name, datatype, shape, **contents):
    return {"name": name, "datatype": datatype, "shape": shape, "contents": contents}


RPC_IDS = typed("id", "INT64", [2], int64_contents=[7, 2**53 + 1])
RPC_X = typed("x", "FP32", [2, 3], fp32_contents=[1, 2.5, 0, 3, 0.5, 5])
NAMED = {"model_name": "echo", "id": "mine"}


def test_typed_tensors_over_grpc_are_answered_by_typed_tensors(infer):
    parameters = {"signature_name": {"string_param": "serving_default"}}
    for more in ({}, {"parameters": parameters, "model_version": "1", "outputs": [{"name": "y"}]}):
        answer = infer(**NAMED, inputs=[RPC_IDS, RPC_X], **more)
        assert (answer.model_name, answer.model_version, answer.id) == ("echo", "1", "mine")
        assert [one.name for one in answer.outputs] == (["y"] if more else ["out", "y"])
        last = answer.outputs[-1]
        assert (last.datatype, list(last.shape)) == ("FP32", [2, 3]) and not answer.raw_output_contents
        assert list(last.contents.fp32_contents) == [1, 2.5, 0, 3, 0.5, 5]


@pytest.mark.parametrize("dtype", sorted(DATATYPES.keys() - {"string", "float16"}))
def test_typed_contents_of_every_datatype_are_written_and_read(dtype):
    kind = np.dtype(dtype)
    ends = [0, 1] if kind.kind == "b" else [np.inf, -0.0] if kind.kind == "f" else limits(kind)
    for array in (np.array([*ends, 0, 1, 127], kind), np.full((300, 2), 1, kind), np.zeros((0, 3), kind)):
        (one,) = rpc.messages()["ModelInferResponse"].FromString(written(array)).outputs
        assert sum(len(values) for _, values in one.contents.ListFields()) == array.size
        asked = rpc.messages()["ModelInferRequest"](inputs=[typed("y", one.datatype, array.shape)])
        asked.inputs[0].contents.CopyFrom(one.contents)
        for more in ([], [b"text"]):  # another field follows the numbers
            asked.inputs[0].contents.bytes_contents.extend(more)
            _, read = rpc.infer_request(asked.SerializeToString())
            assert (read.feeds["y"].dtype, read.feeds["y"].tobytes()) == (kind, array.tobytes())


def written(array):
    return rpc.infer_response({"y": array}, Tensors({}, raw=()), {})


def limits(kind):
    return [np.iinfo(kind).min, np.iinfo(kind).max]


def test_health_and_metadata_over_grpc(infer):
    assert infer("ServerLive").live and infer("ServerReady").ready and infer("ModelReady", name="echo").ready
    assert infer("ServerMetadata").name == "beam-score"
    found = infer("ModelMetadata", name="echo", version="1")
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == [
        ("id", "INT64", [-1]),
        ("x", "FP32", [-1, 3]),
    ]


def test_the_good_rows_are_predicted_on_request_over_grpc(infer):
    bad = typed("x", "FP32", [2, 3], fp32_contents=[1, 2, -3, 3, 0.5, 5])
    answer = infer(**NAMED, inputs=[RPC_IDS, bad], parameters={"on_error": {"string_param": "row"}})
    assert list(answer.outputs[0].contents.int64_contents) == [2**53 + 1]
    assert answer.parameters["rejected"].int64_param == 1 and answer.parameters["rejected_rows"].string_param == "[0]"


def test_each_answer_goes_to_its_own_request_in_every_form(server, infer):
    def ask(number: int) -> None:
        rows, form = number % 5 + 1, number % 4
        ids = np.arange(number, number + rows, dtype="<i8")
        x = np.full((rows, 3), number, "<f4")
        parameters = {"signature_name": "serving_default" if number % 3 else "contract"}
        if form < 2:
            one = {"name": "x", "datatype": "FP32", "shape": [rows, 3]}
            one |= {"parameters": {"binary_data_size": x.nbytes}} if form else {"data": x.tolist()}
            asked = {"inputs": [tensor("id", "INT64", [rows], ids.tolist()), one], "parameters": parameters}
            body, headers = raw(asked | {"id": str(number)}, *([x.tobytes()] if form else []))
            found = server.post(INFER, body, headers=headers).json()
            out, y = (found["outputs"][k]["data"] for k in (0, 1))
        else:
            inputs = [typed("id", "INT64", [rows], int64_contents=ids), typed("x", "FP32", [rows, 3])]
            inputs[1]["contents"] = {"fp32_contents": x.reshape(-1).tolist()}
            fields = {"parameters": {name: {"string_param": value} for name, value in parameters.items()}}
            if form == 3:
                inputs = [{k: v for k, v in one.items() if k != "contents"} for one in inputs]
                fields["raw_input_contents"] = [ids.tobytes(), x.tobytes()]
            answer = infer(model_name="echo", id=str(number), inputs=inputs, **fields)
            out, y = answer.outputs[0].contents.int64_contents, answer.outputs[1].contents.fp32_contents
            if form == 3:
                out, y = (np.frombuffer(answer.raw_output_contents[k], t).tolist() for k, t in ((0, "<i8"), (1, "<f4")))
            found = {"id": answer.id}
        assert found["id"] == str(number) and list(out) == ids.tolist() and set(y) == {number} and len(y) == 3 * rows

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(400)))


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        ({"model_name": "nix"}, "NOT_FOUND", "Latest(nix)"),
        ({"model_version": "x"}, "INVALID_ARGUMENT", "Failed to convert version"),
        ({"inputs": [RPC_IDS, RPC_IDS]}, "INVALID_ARGUMENT", "different from"),
        ({"inputs": [RPC_IDS, {**RPC_X, "shape": [2, 2]}]}, "INVALID_ARGUMENT", "6 values in fp32_contents"),
        ({"inputs": [RPC_IDS, {**RPC_X, "shape": [-1]}]}, "INVALID_ARGUMENT", "expected a shape"),
        ({"inputs": [RPC_IDS, {**RPC_X, "datatype": "FP16"}]}, "INVALID_ARGUMENT", "needs raw_input_contents"),
        ({"raw_input_contents": [b""]}, "INVALID_ARGUMENT", "1 raw_input_contents for 2 inputs"),
        ({"inputs": [typed("id", "INT8", [1], int_contents=[300])]}, "INVALID_ARGUMENT", "out of range for int8"),
        ({"outputs": [{"name": "nix"}]}, "INVALID_ARGUMENT", "there is no output 'nix'"),
        ({"parameters": {"signature_name": {"string_param": "nix"}}}, "INVALID_ARGUMENT", "not found in signature"),
    ],
)
def test_refusals_over_grpc_say_what_is_wrong(infer, asked, code, message):
    with pytest.raises(grpc.RpcError) as refused:
        infer(**{**NAMED, "inputs": [RPC_IDS, RPC_X], **asked})
    assert refused.value.code().name == code and message in refused.value.details()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, '"inputs" must be a list'),
        ({"inputs": [IDS, IDS]}, "different from"),
        ({"inputs": [IDS, X | {"shape": [3, 2, 1]}]}, "its shape is"),
        ({"inputs": [IDS, X | {"shape": [-1]}]}, "expected a shape"),
        ({"inputs": [IDS, X | {"datatype": "FP12"}]}, "expected a datatype"),
        ({"inputs": [IDS, X | {"data": [[1, 2, 3], [4, 5]]}]}, "unexpected size"),
        ({"inputs": [IDS, X | {"data": [[1, 2, 3], [4, 5, "6"]]}]}, "not of expected type"),
        ({"inputs": [IDS, X | {"data": [[1, 2, 3], [4, 5, 1e39]]}]}, "value 5 is out of range"),
        ({"inputs": [IDS, X | {"data": [[1, 2, 3], [4, 5, -1]]}]}, "1 of 2 instances refused: [1] column 'x'"),
        ({"inputs": [IDS, X], "outputs": [{"name": "nix"}]}, "there is no output 'nix'"),
        ({"inputs": [IDS, X], "id": 5}, '"id" must be a string'),
        ({"inputs": [IDS, X], "parameters": {"signature_name": "nix"}}, "not found in signature def"),
        ({"inputs": [IDS], "parameters": {"signature_name": "serving_default"}}, "Missing but required: {x}"),
    ],
)
def test_refusals_say_what_is_wrong(server, body, error):
    answer = server.post(INFER, body)
    assert answer.status_code == 400 and error in answer.json()["error"]
