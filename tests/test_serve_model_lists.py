"""Lists of models, as TensorFlow Serving has them: from a file, and from clients; all of a new list, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import jobs
import pytest
import serving
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2
from versioned import ROW, Versions, answers, available, factor, until


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    versions = Versions(tmp_path_factory.mktemp("first") / "of")
    versions.publish(1)
    return versions


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    versions = Versions(tmp_path_factory.mktemp("other") / "of")
    for number in (2, 3):
        versions.publish(number)
    return versions


def listed(name: str, path: Path, more: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'


def write(path: Path, *models: str) -> str:
    beside = path.with_suffix(".new")
    beside.write_text(f"model_config_list {{ {' '.join(models)} }}")
    os.replace(beside, path)
    return str(path)


@pytest.fixture(scope="module")
def file(first):
    return first.folder / "models.config"


@pytest.fixture(scope="module")
def server(first, other, file):
    both = 'model_version_policy { specific { versions: 2 versions: 3 } } version_labels { key: "old" value: 2 }'
    write(file, listed("other", other.base, both))
    with first.served(models={"file": str(file), "poll": 0.1, "reload": True}) as running:
        yield running
        assert running.end() == 0


def replaced(server: serving.Server, *models: str, seconds: float = 60) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(f"model_config_list {{ {' '.join(models)} }}", request.config)
    with grpc.insecure_channel(server.rpc) as channel:
        method = channel.unary_unary(
            "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
            request_serializer=type(request).SerializeToString,
            response_deserializer=model_management_pb2.ReloadConfigResponse.FromString,
        )
        assert method(request, timeout=seconds).status.error_code == 0


def test_the_models_of_a_file_are_served_beside_the_job(server):
    assert set(server.get("/v1/models").json()["models"]) == {"m", "other"}
    assert answers(server, 1) and answers(server, 1, "/v1/models/m:predict")
    until(lambda: available(server, "other") == {2, 3})
    for path, number in (("", 3), ("/versions/2", 2), ("/labels/old", 2)):
        answer = server.post(f"/v1/models/other{path}:predict", {"instances": [1.0]})
        assert answer.json() == {"predictions": [float(factor(number))]}
    metadata = server.get("/v1/models/other/metadata").json()["metadata"]
    assert list(metadata["signature_def"]["signature_def"]) == ["serving_default"]


def test_a_list_that_changes_is_taken_over_and_one_with_mistakes_changes_nothing(server, first, other, file):
    write(file, listed("other", other.base), listed("third", first.base))
    until(lambda: set(server.get("/v1/models").json()["models"]) == {"m", "other", "third"})
    write(file, listed("other", other.base), listed("fourth", first.folder / "nowhere"))
    until(lambda: "nowhere" in first.log and "nothing changes" in first.log)
    assert set(server.get("/v1/models").json()["models"]) == {"m", "other", "third"}
    write(file, listed("other", other.base))
    until(lambda: set(server.get("/v1/models").json()["models"]) == {"m", "other"})
    assert server.post("/v1/models/third:predict", ROW).status_code == 404


def test_clients_replace_the_list(server, first, other):
    replaced(server, listed("other", other.base, "model_version_policy { all {} }"), listed("new", first.base))
    # It returns once new models are available.
    assert server.post("/v1/models/new:predict", {"instances": [1.0]}).json() == {"predictions": [float(factor(1))]}
    assert server.post("/predict", ROW).status_code == 404
    replaced(server, listed("m", first.base), listed("other", other.base))
    assert answers(server, 1)  # the contract of the job, since it has the name
    assert set(server.get("/v1/models").json()["models"]) == {"m", "other"}


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ('config { name: "new" base_path: "nowhere" }', "base_path 'nowhere' is not absolute"),
        ('config { name: "new" base_path: "/nowhere" }', "does not exist"),
        ('config { base_path: "/nowhere" }', "expected a name"),
        ('config { name: "n" base_path: "/a" } config { name: "n" base_path: "/b" }', "is listed twice"),
        ('config { name: "n" base_path: "/a" model_platform: "pytorch" }', "is not supported"),
        ('config { name: "m" base_path: "BASE" version_labels { key: "x" value: 77 } }', "has no version 77"),
    ],
)
def test_a_list_with_mistakes_is_refused_as_a_whole(server, first, other, models, problem):
    before = server.get("/v1/models").json()
    with pytest.raises(grpc.RpcError) as refused:
        replaced(server, listed("good", other.base), models.replace("BASE", str(first.base)))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and problem in refused.value.details()
    assert server.get("/v1/models").json() == before and answers(server, 1)


def test_a_list_with_a_model_that_does_not_load_is_refused_as_a_whole(server, tmp_path, other):
    damaged = Versions(tmp_path / "of")
    damaged.publish(4)
    damaged.unload(4)
    with pytest.raises(grpc.RpcError) as refused:
        replaced(server, listed("m", other.base), listed("damaged", damaged.base))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "version 4" in refused.value.details()
    assert answers(server, 1) and "damaged" not in server.get("/v1/models").json()["models"]


def test_clients_may_not_replace_the_list_unless_the_job_file_says_so(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"))
    with serving.served(tmp_path, job) as server:
        with pytest.raises(grpc.RpcError) as refused:
            replaced(server, listed("m", tmp_path))
        assert (
            refused.value.code() == grpc.StatusCode.UNIMPLEMENTED and "serve.models.reload" in refused.value.details()
        )
