"""The JSON of the Open Inference Protocol: health, metadata, infer."""

from __future__ import annotations

import pytest
import serving


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


def test_only_the_outputs_that_are_asked_for_come_out(server):
    for parameters in ({}, {"signature_name": "serving_default"}):
        body = {"inputs": [IDS, X], "outputs": [{"name": "y"}], "parameters": parameters}
        assert [output["name"] for output in server.post(INFER, body).json()["outputs"]] == ["y"]


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
