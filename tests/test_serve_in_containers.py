"""The contracts of containers: what Vertex AI and SageMaker send, and what they expect."""

from __future__ import annotations

import io
import json
import socket

import jobs
import pandas as pd
import pytest
import serving

from beam_score.pipeline.job.model_folder import given_by

ROWS = [{"age": 1, "income": 1.5, "score": 0.5}, {"age": 20, "income": 2.0, "score": 0.25}]
BAD = {"age": 300, "income": 1.0, "score": 0.5}
LINES = {"Content-Type": "application/jsonlines"}
CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("containers")
    outputs = {"probabilities": {"meaning": "probability", "labels": ["no", "yes"]}}
    job = jobs.write_job(folder, model("multiply"), outputs=outputs)
    with serving.served(folder, job) as running:
        yield running
        assert running.end() == 0


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_health_has_no_body(server):
    answer = server.get("/ping")
    assert answer.status_code == 200 and answer.content == b""
    assert server.post("/ping", b"").status_code == 405


def test_a_batch_transform_learns_what_it_may_send(server):
    found = server.get("/execution-parameters").json()
    assert found == {"MaxConcurrentTransforms": 16, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 4}


def test_every_form_gives_the_same_predictions(server):
    expected = server.post("/predict", {"instances": ROWS}).json()["predictions"]
    assert len(expected) == 2 and len(expected[0]) > 2
    assert server.post("/invocations", {"instances": ROWS}).json()["predictions"] == expected
    answer = server.post("/invocations", lines(*ROWS), headers=LINES)
    assert answer.headers["content-type"] == "application/jsonlines", answer.text
    assert [json.loads(line) for line in answer.text.splitlines()] == expected
    named = pd.DataFrame(ROWS).to_csv(index=False).encode()
    bare = pd.DataFrame([{"id": "", **row} for row in ROWS])[COLUMNS].to_csv(index=False, header=False).encode()
    for body in (named, bare):
        answer = server.post("/invocations", body, headers=CSV)
        assert answer.status_code == 200 and answer.headers["content-type"] == "text/csv", answer.text
        read = pd.read_csv(io.StringIO(answer.text), names=list(expected[0]))
        assert read.to_dict("records") == expected
        for accept in ("application/json", "application/xml, application/json;q=0.5"):
            as_json = server.post("/invocations", body, headers={**CSV, "Accept": accept})
            assert as_json.json()["predictions"] == expected
    as_csv = server.post("/invocations", {"instances": ROWS}, headers={"Accept": "text/csv"})
    assert as_csv.text == server.post("/invocations", named, headers=CSV).text


COLUMNS = list(jobs.COLUMNS)


def test_a_header_is_what_the_content_type_says(server):
    body = pd.DataFrame(ROWS)[["income", "age", "score"]].to_csv(index=False).encode()
    assert server.post("/invocations", body, headers={"Content-Type": "text/csv; header=present"}).status_code == 200
    refused = server.post("/invocations", body, headers={"Content-Type": 'text/csv; header="absent"'})
    assert refused.status_code == 400


@pytest.mark.parametrize("type_", ["application/jsonlines", "text/csv"])
def test_a_bad_row_refuses_the_request_or_itself_alone(server, type_):
    csv = type_ == "text/csv"
    rows = [ROWS[0], BAD, ROWS[1]]
    body = pd.DataFrame(rows).to_csv(index=False).encode() if csv else lines(*rows)
    refused = server.post("/invocations", body, headers={"Content-Type": type_})
    assert refused.status_code == 400 and refused.headers["content-type"] == "application/json"
    assert [(d["index"], d["column"], d["reason"]) for d in refused.json()["details"]] == [(1, "age", "out_of_range")]
    assert "300" not in refused.text
    answer = server.post("/invocations", body, headers={"Content-Type": type_, "Prefer": "return=partial"})
    found = answer.text.split("\n")
    assert answer.status_code == 200 and found[1] == ("" if csv else "null") and found[0] and found[2]


def test_json_rows_are_predicted_on_request_by_a_header(server):
    answer = server.post("/predict", {"instances": [BAD, ROWS[0]]}, headers={"Prefer": "return=partial"})
    assert answer.json()["counts"] == {"received": 2, "predicted": 1, "rejected": 1}


@pytest.mark.parametrize(
    ("body", "headers", "code", "error"),
    [
        (lines(*ROWS) + b'{"age": "secret', LINES, 400, "line 3: not JSON"),
        (b'1],"signature_name":"serving_default","x":[2', LINES, 400, "line 1: not JSON"),
        (b"", LINES, 400, "at least one instance"),
        (b"[1, 2]", LINES, 400, "found a list, expected an object keyed by column"),
        (b"", CSV, 400, "no row"),
        (b"age,income\n1,2\n", CSV, 400, "no column 'score'"),
        (b"1,2\n", CSV, 400, "found 2 fields, expected 3, one for each column"),
        (b"\x1f\x8b\x08secret", CSV, 400, "the body is not text"),
        ("age,income,score".encode("utf-16"), CSV, 400, "the body is not text in UTF-8"),
        (b"<a/>", {"Content-Type": "text/xml"}, 415, "Content-Type"),
        (lines(*ROWS), {**LINES, "Accept": "text/xml"}, 406, "the answer can only be"),
        (json.dumps({"inputs": {"age": [1], "income": [1], "score": [1]}}), {"Accept": "text/csv"}, 406, "column form"),
        (lines(*ROWS * 600), LINES, 413, "1,200 rows"),
        (pd.DataFrame(ROWS * 600).to_csv(index=False).encode(), CSV, 413, "1,200 rows"),
    ],
)
def test_refusals_say_what_is_wrong(server, body, headers, code, error):
    answer = server.post("/invocations", body, headers=headers)
    assert answer.status_code == code and error in answer.json()["error"] and "secret" not in answer.text
    assert "file" not in answer.text


def test_a_model_without_a_contract_takes_json_lines(tmp_path, model):
    with serving.served(tmp_path, model("multiply")) as server:
        answer = server.post("/invocations", lines([1, 1.5, 0.5], {"inputs": [0, 0, 0]}), headers=LINES)
        assert answer.status_code == 400  # values and objects
        answer = server.post("/invocations", lines([1, 1.5, 0.5], [0, 0, 0]), headers=LINES)
        assert [json.loads(line) for line in answer.text.splitlines()] == [
            *server.post("/predict", {"instances": [[1, 1.5, 0.5], [0, 0, 0]]}).json()["predictions"]
        ]
        refused = server.post("/invocations", b"1,1.5,0.5\n", headers=CSV)
        assert refused.status_code == 415 and "send JSON" in refused.json()["error"]


def test_csv_is_read_by_the_settings_of_the_job(tmp_path, model):
    csv = {"delimiter": ";", "nulls": ["-"]}
    with serving.served(tmp_path, jobs.write_job(tmp_path, model("multiply"), input={"csv": csv})) as server:
        answer = server.post("/invocations", b"1;5;0.5\n1;-;0.5\n", headers={**CSV, "Prefer": "return=partial"})
        assert answer.status_code == 200 and answer.text.count("\n") == 2 and answer.text.endswith("\n\n")
        named = server.post("/invocations", b"score;income;age\n0.5;1.5;1\n", headers=CSV)
        same = server.post("/invocations", {"instances": ROWS[:1]}, headers={"Accept": "text/csv"})
        assert named.status_code == 200 and named.text == same.text
        refused = server.post("/invocations", b"score;income;age\n0.5;-;1\n", headers=CSV)
        assert [(d["column"], d["reason"]) for d in refused.json()["details"]] == [("income", "missing_value")]


def test_vertex_names_the_port_the_routes_and_the_model(tmp_path, model):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    routes = {"AIP_PREDICT_ROUTE": "/v1/endpoints/5/deployedModels/7:predict", "AIP_HEALTH_ROUTE": "/v1/endpoints/5/up"}
    given = {**routes, "AIP_HTTP_PORT": str(port), "AIP_STORAGE_URI": str(model("multiply"))}
    ready = tmp_path / "ready"
    process = jobs.start("serve", "--grpc-port", "0", "--ready-file", str(ready), **given)
    with serving.until_ready(process, ready) as server:
        assert ready.read_text().splitlines()[0] == f"0.0.0.0:{port}"
        assert server.get(given["AIP_HEALTH_ROUTE"]).status_code == 200
        answer = server.post(given["AIP_PREDICT_ROUTE"], {"instances": [[1, 1.5, 0.5]], "parameters": {"a": 1}})
        assert answer.status_code == 200 and len(answer.json()["predictions"]) == 1
        assert server.end() == 0


def test_sagemaker_puts_the_model_in_its_folder(tmp_path):
    listens = ["serve.host=0.0.0.0", "serve.port=8080"]
    assert given_by({}, tmp_path) == (str(tmp_path), listens)
    (tmp_path / "job.yaml").touch()
    job = str(tmp_path / "job.yaml")
    assert given_by({"SAGEMAKER_BIND_TO_PORT": "9000"}, tmp_path) == (job, ["serve.host=0.0.0.0", "serve.port=9000"])
    assert given_by({}, tmp_path / "nix") == (None, [])


def test_without_a_job_the_command_asks_for_one():
    done = jobs.cli("serve", "--check")
    assert done.returncode == 2 and "name the job file, or the folder of a model" in done.stderr
