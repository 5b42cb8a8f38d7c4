"""gRPC, by the official messages: the same verdicts, codes and health as over HTTP."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from pathlib import Path

import grpc
import jobs
import numpy as np
import pytest
import serving
import tensorflow as tf
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

from beam_score.pipeline.serve.tensors.protos import encoded, to_array
from beam_score.pipeline.serve.tensors.v2.raw import DATATYPES

PREDICTION = "/tensorflow.serving.PredictionService/"


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("rpc")
    columns = {
        "id": {"dtype": "int64"},
        "x": {"dtype": "float32", "shape": [3], "range": [0, 1e6]},
        "note": {"dtype": "string", "required": False, "default": "", "max_length": 3},
    }
    with serving.served(folder, serving.echo_job(folder, model("echo"), columns)) as running:
        yield running
        assert running.end() == 0


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.rpc) as channel:
        yield channel


def predict(channel, inputs, signature="", name="echo", version=None, filter_=(), timeout=30):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    request.output_filter.extend(filter_)
    call = channel.unary_unary(
        PREDICTION + "Predict",
        request_serializer=predict_pb2.PredictRequest.SerializeToString,
        response_deserializer=predict_pb2.PredictResponse.FromString,
    )
    return call(request, timeout=timeout)


def arrays(response):
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


MANY = np.zeros((1025, 3), np.float32)
IDS, X = np.array([7, 2**53 + 1], np.int64), np.array([[1, 2.5, 0], [3, 1e-45, 5]], np.float32)


@pytest.mark.parametrize("signature", ["", "contract", "serving_default"])
def test_tensors_go_in_and_come_out(channel, signature):
    response = predict(channel, {"id": IDS, "x": X}, signature)
    found = arrays(response)
    assert (found["out"] == IDS).all() and (found["y"].view("u4") == X.view("u4")).all()
    assert response.model_spec.name == "echo" and response.model_spec.version.value == 1
    assert response.model_spec.signature_name == (signature or "contract")
    assert len(response.outputs["y"].float_val) == 6 and not response.outputs["y"].tensor_content


def test_columns_of_other_types_are_converted_as_those_of_a_parquet_file(channel):
    found = arrays(predict(channel, {"id": IDS.astype(np.int32), "x": X.astype(np.float64), "note": [b"a", b"b"]}))
    assert (found["out"] == IDS.astype(np.int32)).all() and (found["y"] == X).all()


def test_only_the_outputs_that_are_asked_for_come_out(channel):
    assert set(arrays(predict(channel, {"id": IDS, "x": X}, "serving_default", filter_=["y"]))) == {"y"}


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ({"inputs": {"id": IDS, "x": -X}}, "INVALID_ARGUMENT", "2 of 2 instances refused: [0] column 'x'"),
        ({"inputs": {"id": IDS, "x": X, "note": [b"long", b""]}}, "INVALID_ARGUMENT", "column 'note'"),
        ({"inputs": {"id": IDS, "x": X, "z": X}}, "INVALID_ARGUMENT", "the contract has no column 'z'"),
        ({"inputs": {"id": IDS, "x": X[:1]}}, "INVALID_ARGUMENT", "the same first dimension"),
        ({"inputs": {"id": IDS}}, "INVALID_ARGUMENT", "column 'x' is missing"),
        ({"inputs": {"id": IDS}, "signature": "serving_default"}, "INVALID_ARGUMENT", "Missing but required: {x}"),
        ({"inputs": {"id": X, "x": X}, "signature": "serving_default"}, "INVALID_ARGUMENT", "expected int64[?]"),
        ({"inputs": {}, "signature": "nix"}, "INVALID_ARGUMENT", "not found in signature def"),
        ({"inputs": {}, "name": "nix"}, "NOT_FOUND", "Servable not found for request: Latest(nix)"),
        ({"inputs": {}, "version": 9}, "NOT_FOUND", "Specific(echo, 9)"),
        ({"inputs": {}, "name": ""}, "INVALID_ARGUMENT", "ModelSpec has no name"),
        (
            {"inputs": {"id": IDS, "x": X}, "signature": "serving_default", "filter_": ["y", "y"]},
            "INVALID_ARGUMENT",
            "output_filter",
        ),
        (
            {"inputs": {"id": np.zeros(1025, np.int64), "x": np.zeros((1025, 3), np.float32)}},
            "RESOURCE_EXHAUSTED",
            "1,024",
        ),
    ],
)
def test_refusals_have_the_codes_of_tensorflow_serving(channel, how, code, message):
    with pytest.raises(grpc.RpcError) as refused:
        predict(channel, **how)
    assert refused.value.code().name == code and message in refused.value.details()
    assert dict(refused.value.trailing_metadata())["x-request-id"]


@pytest.mark.parametrize("rows", [2, 1000])
def test_the_faults_of_refused_rows_are_those_of_a_bad_request(channel, rows):
    x = np.tile(-X, (rows // 2, 1))
    with pytest.raises(grpc.RpcError) as refused:
        predict(channel, {"id": np.arange(rows), "x": x, "note": [b""] * (rows - 1) + [b"long"]})
    status = rpc_status.from_call(refused.value)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0] and status.message == refused.value.details()
    (detail,) = status.details
    found = error_details_pb2.BadRequest()
    assert detail.Unpack(found)
    violations = [(one.field, one.reason) for one in found.field_violations]
    assert violations[:2] == [("instances[0].x", "out_of_range"), ("instances[1].x", "out_of_range")]
    assert len(violations) == 3 if rows == 2 else 20 < len(violations) <= 100
    assert violations[2] == (("instances[1].note", "out_of_range") if rows == 2 else ("instances[2].x", "out_of_range"))
    assert "(contract: range" in found.field_violations[0].description


def test_a_damaged_message_and_another_method_are_refused(channel):
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(PREDICTION + "Predict")(b"\xff\xff\xff", timeout=30)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(PREDICTION + "Nix")(b"", timeout=30)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_and_status_are_messages_of_the_api(channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "echo"
    answer = channel.unary_unary(PREDICTION + "GetModelMetadata")(request.SerializeToString(), timeout=30)
    response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(answer)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {"contract", "serving_default"}
    assert [d.size for d in signatures.signature_def["contract"].inputs["x"].tensor_shape.dim] == [-1, 3]
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "echo"
    (version,) = ModelServiceStub(channel).GetModelStatus(request, timeout=30).model_version_status
    assert version.version == 1 and version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_health_is_the_standard_service(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService", "ModelService", "inference.GRPCInferenceService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_follows_the_process_of_the_model(tmp_path, model):
    job = serving.echo_job(tmp_path, model("echo"), {"id": {"dtype": "int64"}, "x": {"dtype": "float32", "shape": [3]}})
    with serving.served(tmp_path, job) as server, grpc.insecure_channel(server.rpc) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        found = [next(watched).status]
        os.kill(server.model_process, signal.SIGKILL)
        found += [next(watched).status, next(watched).status]
        serves, not_serves = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert found == [serves, not_serves, serves]
        assert server.end() == 0


@pytest.mark.parametrize("dtype", sorted(DATATYPES.keys() - {"string"}))
def test_tensors_of_every_dtype_are_what_tensorflow_reads_and_writes(dtype):
    kind = np.dtype(dtype)
    ends = (
        [0, 1] if kind.kind == "b" else [np.inf, -0.0] if kind.kind == "f" else [np.iinfo(kind).min, np.iinfo(kind).max]
    )
    for array in (np.array([*ends, 0, 1, 127], kind), np.full((300, 2), 1, kind), np.zeros((0, 3), kind)):
        sent = TensorProto.FromString(encoded(array))
        typed = TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
        also = TensorProto(version_number=5, string_val=[b"text"])
        also.MergeFrom(sent)  # a field that says nothing of numbers follows them
        for found in (tf.make_ndarray(sent), *(to_array("x", proto) for proto in (sent, typed, also))):
            assert (found.dtype, found.shape, found.tobytes()) == (kind, array.shape, array.tobytes())


def test_tensors_of_texts_are_what_tensorflow_reads():
    texts = np.array([[b"", b"no"], [b"\xff" * 300, b"no"]], object)
    assert tf.make_ndarray(TensorProto.FromString(encoded(texts))).tolist() == texts.tolist()


def test_a_client_without_definitions_asks_for_them(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    prediction, model, v2 = (
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "inference.GRPCInferenceService",
    )
    assert {prediction, model, v2, "grpc.health.v1.Health"} <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    for service, methods in ((prediction, 5), (model, 1), (v2, 6)):
        assert len(pool.FindServiceByName(service).methods) >= methods
    method = pool.FindServiceByName(prediction).FindMethodByName("Predict")
    request = message_factory.GetMessageClass(method.input_type)()
    request.model_spec.name, request.model_spec.signature_name = "echo", "serving_default"
    for name, array in {"id": IDS, "x": X}.items():
        request.inputs[name].ParseFromString(tf.make_tensor_proto(array).SerializeToString())
    answer = channel.unary_unary(f"/{prediction}/Predict")(request.SerializeToString(), timeout=30)
    response = message_factory.GetMessageClass(method.output_type).FromString(answer)
    assert list(response.outputs["out"].int64_val) == IDS.tolist()
    method = pool.FindServiceByName(v2).FindMethodByName("ServerLive")
    answer = channel.unary_unary(f"/{v2}/ServerLive")(b"", timeout=30)
    assert message_factory.GetMessageClass(method.output_type).FromString(answer).live


def test_calls_of_both_protocols_share_batches_and_each_has_its_own_answer(server, channel):
    def ask(number: int) -> None:
        ids = np.arange(number, number + number % 5 + 1, dtype=np.int64)
        x = np.full((len(ids), 3), number, np.float32)
        if number % 2:
            found = arrays(predict(channel, {"id": ids, "x": x}, "serving_default" if number % 3 else ""))
            assert (found["out"] == ids).all() and (found["y"] == x).all()
        else:
            rows = [{"id": int(i), "x": [number] * 3} for i in ids]
            answer = server.post("/predict", {"instances": rows})
            assert [row["out"] for row in answer.json()["predictions"]] == ids.tolist()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(400)))


def test_a_port_that_is_taken_is_named(tmp_path, model, server):
    job = jobs.write_job(tmp_path, model("multiply"))
    port = server.rpc.rpartition(":")[2]
    done = jobs.anew("serve", job, "--port", "0", "--grpc-port", port)
    assert done.returncode == 2 and "serve.grpc_port" in done.stderr
    assert "add_port.cc" not in done.stderr  # a line of gRPC's own


def test_a_server_without_grpc_has_one_port(tmp_path, model):
    ready = Path(tmp_path, "ready")
    job = jobs.write_job(tmp_path, model("multiply"), serve={"grpc_port": None})
    process = jobs.start("serve", job, "--port", "0", "--ready-file", str(ready))
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.02)
    assert len(ready.read_text().split()) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
