"""The signatures of a model beside the contract, and a model folder without one."""

from __future__ import annotations

from pathlib import Path

import jobs
import numpy as np
import pyarrow as pa
import pytest
import serving

from beam_score.pipeline.serve.tensors.columns import prediction_tensors
from beam_score.pipeline.serve.tensors.read_json import Refused
from beam_score.transforms.model.loading import load_beside, load_once
from beam_score.transforms.model.native.session import NativeModel
from beam_score.transforms.model.servable import Servable
from beam_score.transforms.model.signature import read_signatures


@pytest.fixture(scope="module")
def halving(tmp_path_factory, model):
    """A job that calls one of the two signatures of its model."""
    folder = tmp_path_factory.mktemp("halving")
    saved = model("two_signatures")
    columns = {"x": {"dtype": "float32", "range": [0, 10]}}
    job = jobs.write_job(
        folder,
        saved,
        columns=columns,
        inputs={},
        model={"signature": "halve"},
        output={"keep": []},
        serve={"name": "m"},
    )
    with serving.served(folder, job, "--set", "serve.default=double") as running:
        yield running
        assert running.end() == 0


@pytest.fixture(scope="module")
def ragged(tmp_path_factory, model):
    """A job over rows of any length, one output of which is as long."""
    folder = tmp_path_factory.mktemp("ragged")
    columns = {"x": {"dtype": "float32", "shape": [None], "range": [0, 10]}}
    job = jobs.write_job(
        folder,
        model("total_and_twice"),
        columns=columns,
        inputs={},
        output={"keep": []},
        serve={"name": "m", "limits": {"rows": 5}},
    )
    with serving.served(folder, job) as running:
        yield running
        assert running.end() == 0


def own(**more):
    return {"signature_name": "serving_default", **more}


def test_rows_without_values_are_empty_lists(ragged):
    process = ragged.model_process
    empty = {"total": 0.0, "twice": []}
    assert ragged.post("/predict", own(instances=[[], []])).json() == {"predictions": [empty, empty]}
    assert ragged.post("/predict", {"instances": [{"x": []}]}).json() == {"predictions": [empty]}
    columns = {"outputs": {"total": [0.0, 0.0], "twice": [[], []]}}
    assert ragged.post("/predict", own(inputs={"x": [[], []]})).json() == columns
    assert ragged.post("/predict", {"inputs": {"x": [[], []]}}).json() == columns
    assert ragged.model_process == process


def test_the_good_rows_of_a_request_in_column_form_are_answered_in_row_form(ragged):
    good = {"total": 3.0, "twice": [2.0, 4.0]}
    asked = {"inputs": {"x": [[1, 2], [11], [1, 2]]}}
    for body, headers in (({"on_error": "row"}, {}), ({}, {"Prefer": "return=partial"})):
        answer = ragged.post("/predict", asked | body, headers=headers).json()
        assert answer["predictions"] == [good, None, good]
        assert answer["counts"] == {"received": 3, "predicted": 2, "rejected": 1}
    whole = ragged.post("/predict", {"inputs": {"x": [[1, 2]]}, "on_error": "row"}).json()
    assert whole == {"predictions": [good]}


def test_a_column_that_the_contract_does_not_have_is_refused_in_column_form(ragged):
    answer = ragged.post("/predict", {"inputs": {"x": [[1]], "z": [1]}})
    assert answer.status_code == 400 and "the contract has no column 'z'" in answer.json()["error"]


def infer(server, x, parameters=()):
    x = {"name": "x", "datatype": "FP32", "shape": np.shape(x), "data": np.ravel(x).tolist()}
    return server.post("/v2/models/m/infer", {"inputs": [x], "parameters": dict(parameters)})


def test_an_output_with_an_open_dimension_is_a_tensor_if_its_rows_are_of_one_length(ragged):
    outputs = {one["name"]: one for one in infer(ragged, [[1, 2], [3, 4]]).json()["outputs"]}
    assert outputs["twice"]["shape"] == [2, 2] and outputs["twice"]["data"] == [2, 4, 6, 8]
    with pytest.raises(Refused, match="output 'y' has rows of different shapes"):
        prediction_tensors(pa.RecordBatch.from_pydict({"y": [[1.0], [2.0, 3.0]]}))
    none = pa.RecordBatch.from_pydict({"y": pa.array([], pa.list_(pa.float32()))})
    assert prediction_tensors(none)["y"].shape == (0, 0)


@pytest.mark.parametrize("asked", [{"instances": [[1]] * 6}, {"inputs": {"x": [[1]] * 6}}])
def test_limits_hold_for_every_signature(ragged, asked):
    for body in (asked | own(), {"inputs": {"x": [[1]] * 6}}):
        answer = ragged.post("/predict", body)
        assert answer.status_code == 413 and "serve.limits.rows 5" in answer.json()["error"]
    named = {"signature_name": "serving_default"}
    assert infer(ragged, [[1.0]] * 6, parameters=named).status_code == 413
    assert infer(ragged, [[1.0]] * 5, parameters=named).status_code == 200


def test_a_tensor_of_another_shape_is_told_from_the_signature(ragged):
    for answer in (
        ragged.post("/predict", own(instances=[[[1]], [[2]]])),
        infer(ragged, [[[1]], [[2]]], parameters={"signature_name": "serving_default"}),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"] == "input 'x' has shape [2,1,1], expected [?,?]"


def test_only_rows_of_the_contract_are_judged(ragged):
    named = {"signature_name": "serving_default", "on_error": "row"}
    for answer in (
        ragged.post("/predict", own(instances=[[1]], on_error="row")),
        infer(ragged, [[1.0]], parameters=named),
    ):
        assert answer.status_code == 400 and "is for the signature contract" in answer.json()["error"]


def test_all_signatures_of_the_model_answer_beside_the_contract(halving):
    def ask(**named):
        return halving.post("/predict", {**named, "instances": [{"x": 3}]}).json()["predictions"]

    assert ask(signature_name="double") == [6.0] and ask(signature_name="halve") == [1.5]
    assert ask(signature_name="contract") == [1.5]
    assert ask() == [6.0]  # serve.default


def test_the_metadata_show_all_and_the_default_is_that_of_v2(halving):
    found = halving.get("/v1/models/m/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert set(found) == {"contract", "double", "halve"}
    assert [one["name"] for one in halving.get("/v2/models/m").json()["inputs"]] == ["x"]


def test_a_refused_row_of_the_contract_is_none_of_another_signature(halving):
    answers = [
        halving.post("/predict", {"signature_name": name, "instances": [{"x": 11}]}) for name in ("contract", "double")
    ]
    assert [answer.status_code for answer in answers] == [400, 200]


def test_a_model_folder_is_served_without_a_contract(tmp_path, model):
    saved = Path(model("multiply"))
    (tmp_path / "risk").mkdir()
    (tmp_path / "risk" / "7").symlink_to(saved)
    with serving.served(tmp_path, str(tmp_path / "risk"), "--set", "serve.limits.rows=5") as server:
        answer = server.post("/v1/models/risk/versions/7:predict", {"instances": [[1, 1.5, 0.5]]})
        assert answer.status_code == 200, answer.text
        found = server.get("/v1/models/risk/metadata").json()["metadata"]["signature_def"]["signature_def"]
        assert set(found) == {"serving_default"}
        refused = server.post("/predict", {"signature_name": "contract", "instances": [[1, 1.5, 0.5]]})
        assert refused.status_code == 400 and "expected one of serving_default" in refused.json()["error"]
        assert server.post("/predict", b"[1").status_code == 400
        assert server.end() == 0


def test_a_signature_that_cannot_be_served_is_shown_and_refused(tmp_path, model):
    with serving.served(tmp_path, model("half_sparse")) as server:
        found = server.get("/v1/models/half_sparse/metadata").json()["metadata"]["signature_def"]["signature_def"]
        assert set(found) == {"serving_default", "sparse", "complex"}
        assert server.post("/predict", {"instances": [1.5]}).json() == {"predictions": [1.5]}
        for name, why in (("sparse", "is sparse: not supported"), ("complex", "has no output that is a dense tensor")):
            answer = server.post("/predict", {"signature_name": name, "instances": [1.5]})
            assert answer.status_code == 400 and why in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("two_signatures", (), "the model has several signatures"),
        ("multiply", ("--set", "serve.default=nix"), "serve.default: there is no signature 'nix'"),
        ("multiply", ("--set", "serve.prot=5"), "unknown key 'serve.prot'; did you mean 'port'"),
        ("multiply", ("--set", "inputs=5"), "unknown key 'inputs'"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_at_the_start(model, name, arguments, problem):
    done = jobs.cli("serve", model(name), "--check", *arguments)
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr


def test_signatures_share_what_is_loaded(model):
    path = model("two_signatures")
    signatures = read_signatures(path)
    for runtime, kind in ((None, NativeModel), ("python", Servable)):
        first = load_once(path, "double", 1, None, runtime)
        (second,) = load_beside(first, path, [signatures["halve"]], 1).values()
        assert type(first) is type(second) is kind
        shared = "_loaded" if kind is NativeModel else "_model"
        assert getattr(first, shared) is getattr(second, shared)
