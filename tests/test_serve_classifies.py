"""Classify, regress and several of both at once, by JSON and by the official messages."""

from __future__ import annotations

import json

import grpc
import pytest
import serving
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from test_json_is_read_as_tensorflow_serving_does import GOLDENS

from beam_score.pipeline.serve.tensors import examples
from beam_score.pipeline.serve.tensors.read_json import Refused, document
from beam_score.pipeline.serve.tensors.stubs import messages

ROW = {"age": 40, "income": 2.5}


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    with serving.served(tmp_path_factory.mktemp("census"), model("census"), "--set", "serve.name=census") as running:
        yield running
        assert running.end() == 0


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.rpc) as channel:
        yield PredictionServiceStub(channel)


def ask(server, method, **body):
    return server.post(f"/v1/models/census:{method}", body)


def test_examples_are_classified(server):
    answer = ask(
        server, "classify", examples=[ROW, {**ROW, "word": {"b64": "w6Q="}}], context={"income": 9.5, "word": "so"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"results": [[["no", 42.5], ["so", -42.5]], [["no", 42.5], ["ä", -42.5]]]}
    only = ask(server, "classify", examples=[{"age": [40]}], context={"income": 9.5}, signature_name="scores").json()
    assert only == {"results": [[["", 49.5], ["", -49.5]]]}
    labels = ask(server, "classify", examples=[ROW], signature_name="labels").json()
    assert labels == {"results": [[["no", 0.0], ["yes", 0.0]]]}


def test_examples_are_regressed(server):
    for signature in ("regress", "flat"):
        answer = ask(server, "regress", examples=[ROW, {"age": True, "income": 1e30}], signature_name=signature)
        assert answer.json() == {"results": [42.5, 1e30]}


@pytest.mark.parametrize(
    ("method", "body", "error"),
    [
        ("classify", {"examples": []}, "at least one element"),
        ("classify", {"examples": [ROW, 5]}, "example 1: expected an object"),
        ("classify", {"examples": [ROW], "context": 5}, "'context': expected an object"),
        ("classify", {"examples": [{"age": [1, "secret"]}]}, "example 0: feature 'age': expected a number"),
        ("classify", {"examples": [{"age": 1, "income": 1e39}]}, "out of range for float32"),
        ("classify", {"examples": [{"age": 1 << 63, "income": 1.0}]}, "out of range for int64"),
        ("classify", {"examples": [{"age": 1}]}, "the model refuses these tensors"),
        ("classify", {"examples": [ROW], "signature_name": "nix"}, '"nix" not found in signature def'),
        ("classify", {"examples": [ROW], "signature_name": "regress"}, "method_name to be tensorflow/serving/classify"),
        ("regress", {"examples": [ROW]}, "Was: tensorflow/serving/classify"),
    ],
)
def test_refusals_say_what_is_wrong(server, method, body, error):
    answer = ask(server, method, **body)
    assert answer.status_code == 400 and error in answer.json()["error"] and "secret" not in answer.text


def example(**features):
    made = tf.train.Example()
    for name, value in features.items():
        kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(value)]
        getattr(made.features.feature[name], kind).value.append(value)
    return made


def request_of(kind, signature="", name="census"):
    request = kind()
    if name is not None:
        request.model_spec.name, request.model_spec.signature_name = name, signature
    request.input.example_list_with_context.context.CopyFrom(example(income=2.5, word=b"so"))
    request.input.example_list_with_context.examples.extend([example(age=1), example(age=2, word=b"da")])
    return request


def test_the_official_messages_are_answered(stub):
    response = stub.Classify(request_of(classification_pb2.ClassificationRequest), timeout=30)
    rows = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert rows == [[("no", 3.5), ("so", -3.5)], [("no", 4.5), ("da", -4.5)]]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("census", 1, "serving_default")
    request = request_of(regression_pb2.RegressionRequest, "regress")
    response = stub.Regress(request, timeout=30)
    assert [row.value for row in response.result.regressions] == [3.5, 4.5]
    assert response.model_spec.signature_name == "regress"


def test_the_examples_can_be_tensors_of_a_predict_request(stub):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "census", "predict"
    records = [example(age=1, income=2.5).SerializeToString()]
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(records))
    response = stub.Predict(request, timeout=30)
    assert tf.make_ndarray(response.outputs["text"]).tolist() == [b"3.500000"]
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "census"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert stub.GetModelMetadata(asked, timeout=30).metadata["signature_def"].Unpack(signatures)
    found = {name: signature.method_name for name, signature in signatures.signature_def.items()}
    assert found["regress"] == "tensorflow/serving/regress" and len(found) == 6


def several(*tasks, version=()):
    request = inference_pb2.MultiInferenceRequest()
    for number, (signature, method) in enumerate(tasks):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "census", signature
        if number in version:
            task.model_spec.version.value = 1
    request.input.example_list.examples.extend([example(age=1, income=2.5), example(age=2, income=2.5)])
    return request


def test_several_signatures_are_called_with_the_same_examples(stub):
    request = several(("", "classify"), ("regress", "regress"))
    response = stub.MultiInference(request, timeout=30)
    classified, regressed = response.results
    assert [row.classes[0].score for row in classified.classification_result.classifications] == [3.5, 4.5]
    assert [row.value for row in regressed.regression_result.regressions] == [3.5, 4.5]
    names = [(r.model_spec.name, r.model_spec.version.value, r.model_spec.signature_name) for r in response.results]
    assert names == [("census", 1, "serving_default"), ("census", 1, "regress")]


@pytest.mark.parametrize(
    ("method", "request_", "code", "message"),
    [
        ("Classify", request_of(classification_pb2.ClassificationRequest, name=None), "INVALID_ARGUMENT", "Missing"),
        ("Classify", request_of(classification_pb2.ClassificationRequest, name="nix"), "NOT_FOUND", "Latest(nix)"),
        ("Regress", request_of(regression_pb2.RegressionRequest), "INVALID_ARGUMENT", "Was: tensorflow/serving/class"),
        ("MultiInference", several(), "INVALID_ARGUMENT", "no tasks"),
        ("MultiInference", several(("a", "nix")), "UNIMPLEMENTED", "Unsupported signature method_name"),
        ("MultiInference", several(*[("regress", "regress")] * 2), "INVALID_ARGUMENT", "Duplicate evaluation"),
        (
            "MultiInference",
            several(("regress", "regress"), ("", "classify"), version=[1]),
            "INVALID_ARGUMENT",
            "same model name, and version",
        ),
    ],
)
def test_refusals_have_the_codes_of_tensorflow_serving(stub, method, request_, code, message):
    with pytest.raises(grpc.RpcError) as refused:
        getattr(stub, method)(request_, timeout=30)
    assert refused.value.code().name == code and message in refused.value.details()


def test_no_examples_are_refused(stub):
    request = request_of(classification_pb2.ClassificationRequest)
    request.ClearField("input")
    with pytest.raises(grpc.RpcError) as refused:
        stub.Classify(request, timeout=30)
    assert refused.value.details() == "Input is empty."


@pytest.mark.parametrize("golden", [g for g in GOLDENS if g["kind"] == "classify"], ids=lambda g: g["body"])
def test_every_body_has_the_code_and_the_examples_that_tensorflow_serving_gives(golden):
    try:
        found = examples.json_request(document(golden["body"].encode(), strict=False), strict=False)
    except Refused:
        assert golden["code"] == 3
        return
    expected = text_format.Parse(golden["out"], messages("classification_pb2").ClassificationRequest())
    made = messages("input_pb2").ExampleList()
    for one in found["inputs"]:
        made.examples.add().MergeFromString(one)
    assert str(made) == str(expected.input.example_list)
    assert (
        json.loads(golden["body"].replace("NaN", "0")).get("signature_name", "") == expected.model_spec.signature_name
    )
