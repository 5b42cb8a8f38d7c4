"""The warm-up file of TensorFlow Serving in a SavedModel: its requests are answered before a version is available."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from versioned import Versions, answers, error, states, until

from beam_score.pipeline.serve.models.warm_up import MOST_RECORDS, WARM_UP, warm_up_requests
from beam_score.transforms.model.signature import ModelError


def example(value: float) -> tf.train.Example:
    made = tf.train.Example()
    for name in ("age", "income"):
        made.features.feature[name].float_list.value.append(value)
    return made


def predict(signature: str = "", rows: int = 1, name: str = "x") -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "another", signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto([1.0] * rows))
    return log


def with_examples(kind: str) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, kind).request
    request.input.example_list.examples.append(example(1.0))
    return log


def write(saved_model: Path, *logs: prediction_log_pb2.PredictionLog) -> Path:
    """Write the warm-up file of a SavedModel; return its path."""
    path = saved_model / WARM_UP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for log in logs:
            file.write(log.SerializeToString())
    return path


def test_the_requests_of_the_file_are_answered_before_a_version_is_available(tmp_path):
    versions = Versions(tmp_path / "of")
    versions.publish(1)
    with versions.served(limits={"rows": 2}) as server:
        # A request without a signature means the model's own `serving_default`; no limit applies.
        with versions.half(2) as beside:
            write(beside, predict(), predict("serving_default", 3), predict("contract"))
        until(lambda: answers(server, 2))
        assert "m: version 2 is loaded, in" in versions.log and "; 3 warm-up requests answered" in versions.log
        (line,) = [
            line
            for line in server.get("/metrics").text.splitlines()
            if "rows_total" in line and '"2"' in line and "received" in line
        ]
        assert line.endswith(" 1.0")  # the request of `answers`
        assert '"id":"warm-up' not in versions.log
        with versions.half(3) as beside:
            write(beside, predict(), predict(name="z"))
        until(lambda: states(server).get(3) == "END")
        assert f"{WARM_UP}: record 2: input size does not match signature" in error(server, 3)
        assert answers(server, 2)
        write(versions.base / "3", predict())
        until(lambda: answers(server, 3))
        assert server.end() == 0


def test_requests_of_all_kinds_are_read(tmp_path):
    logs = [predict(), *map(with_examples, ("classify_log", "regress_log", "multi_inference_log"))]
    write(tmp_path, *logs)
    found = list(warm_up_requests(str(tmp_path)))
    assert [request.form for request in found] == ["proto", "proto-classify", "proto-regress", "proto-multi"]
    assert predict_pb2.PredictRequest.FromString(found[0].body) == logs[0].predict_log.request
    shutil.rmtree(tmp_path / WARM_UP.partition("/")[0])
    assert not list(warm_up_requests(str(tmp_path)))


def test_a_file_that_cannot_be_used_says_why(tmp_path):
    session = prediction_log_pb2.PredictionLog()
    session.session_run_log.SetInParent()
    path = write(tmp_path, session)
    with pytest.raises(ModelError, match="record 1 has none of predict_log"):
        list(warm_up_requests(str(tmp_path)))
    write(tmp_path, *[predict()] * (MOST_RECORDS + 1))
    with pytest.raises(ModelError, match="more than 1,000 records"):
        list(warm_up_requests(str(tmp_path)))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-9] + b"\x99" * 9, b"nothing of the kind"):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="is damaged, or not a TFRecord file"):
            list(warm_up_requests(str(tmp_path)))
