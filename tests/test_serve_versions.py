"""Versions of a model come and go while the server answers: each is loaded whole or not at all, and none is missed.

The tests share a server. Each adds versions with higher numbers.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
import versioned
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2
from versioned import ROW, Versions, answers, asked, available, error, states, until

from beam_score.pipeline.serve.versions.candidates import Candidates


@pytest.fixture(scope="module")
def numbers():
    return itertools.count(1)


@pytest.fixture(scope="module")
def versions(tmp_path_factory, numbers):
    made = Versions(tmp_path_factory.mktemp("versions") / "of")
    made.publish(next(numbers))
    return made


@pytest.fixture(scope="module")
def server(versions):
    with versions.served() as running:
        yield running
        assert running.end() == 0


@pytest.fixture
def current(server, versions, numbers):
    """A version that answers, the only one that is there."""
    return versions.only(server, next(numbers))


def test_a_new_version_takes_over_and_a_removed_one_gives_way(server, versions, numbers, current):
    new = next(numbers)
    versions.publish(new)
    until(lambda: answers(server, new))
    assert states(server)[new] == "AVAILABLE"
    versions.remove(new)
    until(lambda: answers(server, current))
    until(lambda: states(server)[new] == "END")
    missing = server.post(f"/v1/models/m/versions/{new}:predict", ROW)
    assert missing.status_code == 404
    assert missing.json()["error"] == f"Servable not found for request: Specific(m, {new})"


def test_an_empty_or_vanished_folder_unloads_nothing(server, versions, current):
    elsewhere = versions.folder / "elsewhere"
    versions.base.rename(elsewhere)
    until(lambda: "nothing changes" in versions.log)
    assert answers(server, current) and server.get("/readyz").status_code == 200
    versions.base.mkdir()
    until(lambda: "has no versions" in versions.log)
    assert answers(server, current)
    versions.base.rmdir()
    elsewhere.rename(versions.base)
    assert answers(server, current)


def test_a_half_copied_version_is_not_loaded(server, versions, numbers, current):
    new = next(numbers)
    versions.copy(new, 0.05, but="variables.data-00000-of-00001")
    until(lambda: "variables.data-00000-of-00001 is missing" in error(server, new))
    assert states(server)[new] == "START" and answers(server, current)
    versions.copy(new, 0.05)
    until(lambda: answers(server, new))


def test_a_version_that_does_not_load_ends_with_its_error_and_is_tried_again_when_it_changes(
    server, versions, numbers, current
):
    new = next(numbers)
    with versions.half(new) as beside:
        (beside / "saved_model.pb").write_bytes(b"\x99 not a graph")
    until(lambda: states(server).get(new) == "END")
    assert "saved_model.pb" in error(server, new) and answers(server, current)
    status = server.get(f"/v1/models/m/versions/{new}").json()["model_version_status"][0]
    assert status["status"]["error_code"] == "UNKNOWN"
    (versions.base / str(new) / "saved_model.pb").write_bytes((versions.made(new) / "saved_model.pb").read_bytes())
    until(lambda: answers(server, new))


def test_policies_say_which_versions_are_loaded(server, versions, numbers, current):
    third, fourth = next(numbers), next(numbers)
    versions.publish(third)
    versions.publish(fourth)
    until(lambda: answers(server, fourth))
    for policy, expected in (
        ("all", {current, third, fourth}),
        ({"specific": [current, fourth]}, {current, fourth}),
        ({"latest": 2}, {third, fourth}),
        ({"specific": [third]}, {third}),
    ):
        versions.reload(server, policy=policy)
        until(lambda expected=expected: available(server) == expected)
        until(lambda expected=expected: answers(server, max(expected)))
        for number in expected:
            assert answers(server, number, f"/v1/models/m/versions/{number}:predict")
        for number in {current, third, fourth} - expected:
            assert server.post(f"/v1/models/m/versions/{number}:predict", ROW).status_code == 404
    versions.reload(server)
    until(lambda: answers(server, fourth))


def test_labels_name_versions_in_every_route(server, versions, numbers, current):
    new = next(numbers)
    versions.publish(new)
    until(lambda: answers(server, new))
    versions.reload(server, labels={"stable": current, "next": new})
    until(lambda: available(server) == {current, new})
    until(lambda: server.get("/v1/models/m/labels/stable").status_code == 200)
    for label, number in (("stable", current), ("next", new)):
        until(lambda label=label: server.get(f"/v1/models/m/labels/{label}").status_code == 200)
        assert answers(server, number, f"/v1/models/m/labels/{label}:predict")
        (status,) = server.get(f"/v1/models/m/labels/{label}").json()["model_version_status"]
        assert status["version"] == str(number)
        spec = server.get(f"/v1/models/m/labels/{label}/metadata").json()["model_spec"]
        assert spec["version"] == str(number)
        assert predicted(server, label) == (number, versioned.factor(number))
        assert [one.version for one in rpc_status(server, label)] == [number]
    assert asked(server)[0] == new
    unknown = server.post("/v1/models/m/labels/nix:predict", ROW)
    assert unknown.status_code == 400 and unknown.json()["error"] == "Unrecognized servable version label: nix"
    with pytest.raises(grpc.RpcError) as refused:
        predicted(server, "nix")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    # A label keeps its version, whose folder is gone.
    versions.remove(current)
    time.sleep(0.3)  # some looks
    assert answers(server, current, "/v1/models/m/labels/stable:predict")
    versions.reload(server, labels={"stable": new})
    until(lambda: answers(server, new, "/v1/models/m/labels/stable:predict"))


def test_a_mistake_in_the_job_file_changes_nothing(server, versions, current):
    for settings, problem in (
        ({"labels": {"stable": 4_000}}, "has no version 4000"),
        ({"policy": {"newest": 1}}, "expected latest"),
        ({"policy": {"specific": [4_001]}}, "has no version 4001"),
    ):
        versions.reload(server, wait=False, **settings)
        until(lambda problem=problem: problem in versions.log)
        assert "nothing changes" in versions.log and answers(server, current)
    versions.job(limits={"rows": 7})
    os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: "the next start will apply what has changed in serve.limits" in versions.log)


def test_a_process_that_dies_is_replaced_while_another_version_answers(server, versions, numbers, current):
    new = next(numbers)
    versions.publish(new)
    versions.reload(server, policy={"latest": 2})
    until(lambda: available(server) == {current, new})
    until(lambda: answers(server, new))
    os.kill(server.model_process, signal.SIGKILL)
    until(lambda: len(available(server)) == 1)
    assert asked(server)[0] in (current, new)  # without a version in the path, another answers
    until(lambda: available(server) == {current, new})


def test_a_process_that_dies_while_the_folder_is_away_is_replaced_once_it_is_back(server, versions, current):
    elsewhere = versions.folder / "elsewhere"
    versions.base.rename(elsewhere)
    os.kill(server.model_process, signal.SIGKILL)
    until(lambda: "cannot be read: No such file" in versions.log)
    assert states(server)[current] == "LOADING" and server.post("/predict", ROW).status_code == 503
    elsewhere.rename(versions.base)
    until(lambda: available(server) == {current} and answers(server, current))


def test_what_is_not_a_folder_of_a_version_disturbs_no_other(server, versions, numbers, current):
    file, broken, new = next(numbers), next(numbers), next(numbers)
    (versions.base / str(file)).touch()
    (versions.base / str(broken)).mkdir()
    os.mkfifo(versions.base / str(broken) / "pipe")
    until(lambda: states(server).get(broken) == "START")
    assert "is neither a file nor a folder" in error(server, broken)
    versions.publish(new)
    until(lambda: answers(server, new))
    assert file not in states(server)
    versions.remove(broken)
    until(lambda: broken not in states(server))
    (versions.base / str(file)).unlink()
    versions.remove(new)
    until(lambda: answers(server, current))


def test_a_version_that_dies_again_and_again_is_tried_again_after_a_while(tmp_path):
    versions = Versions(tmp_path / "of")
    versions.publish(1)
    with versions.served() as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        late = time.monotonic() + 60
        while "3 times within 60 s" not in versions.log:  # it also dies while it loads again
            assert time.monotonic() < late
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
            time.sleep(0.2)
        assert "its process ended with signal 9" in versions.log
        until(lambda: available(server) == {1})
        assert answers(server, 1)


def test_a_version_that_dies_soon_after_it_is_loaded_again_waits_for_longer(tmp_path):
    (tmp_path / "7").mkdir()

    async def waits() -> list[float]:
        candidates = Candidates("m", lambda number, problem: None)
        await candidates.look(str(tmp_path), 1.0, set())
        candidates.is_ready(7, await candidates.inspect(7))
        found = []
        for _ in range(12):
            began = time.monotonic()
            candidates.refuse(7, "it has died", passing=True)
            found.append(round(candidates._refused[7].until - began))
            candidates.succeed(7)
        return found

    assert asyncio.run(waits()) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]


def test_a_server_starts_with_the_versions_that_are_whole(tmp_path):
    versions = Versions(tmp_path / "of")
    versions.publish(1)
    versions.publish(2)
    versions.corrupt(2)
    with versions.served() as server:
        assert answers(server, 1)
        until(lambda: states(server).get(2) == "END")


def predicted(server, label):
    """Return the version that answers over gRPC, and the factor by which it multiplies."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.version_label = "m", label
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    answer = call(server, "PredictionService/Predict", request, predict_pb2.PredictResponse)
    return answer.model_spec.version.value, round(answer.outputs["y"].float_val[0])


def rpc_status(server, label):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = "m", label
    return call(
        server, "ModelService/GetModelStatus", request, get_model_status_pb2.GetModelStatusResponse
    ).model_version_status


def call(server, method, request, answer):
    with grpc.insecure_channel(server.rpc) as channel:
        method = channel.unary_unary(
            f"/tensorflow.serving.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return method(request, timeout=30)
