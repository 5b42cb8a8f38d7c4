"""The server as its clients see it: routes, errors, limits, accounts, and the end of a process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import json
import os
import signal
import time
from pathlib import Path

import jobs
import pytest
import serving
from prometheus_client.parser import text_string_to_metric_families

GOOD = {"age": 1, "income": 1.5, "score": 0.5}
BAD = {"age": 300, "income": 1.0, "score": "?"}


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("served")
    job = jobs.write_job(folder, model("multiply"), serve={"name": "people", "limits": {"body": "64KiB"}})
    with serving.served(folder, job) as running:
        yield running
        assert running.end() == 0


def test_rows_are_predicted_by_every_route(server):
    for path in ("/predict", "/v1/models/people:predict", "/V1/Models/people/versions/1:PREDICT"):
        answer = server.post(path, {"instances": [GOOD, GOOD]})
        assert answer.status_code == 200, answer.text
        (one, other) = answer.json()["predictions"]
        assert one == other and 0 < one < 1
        assert answer.headers["content-type"] == "application/json" and answer.headers["x-model-version"] == "1"


def test_contract_and_signature_of_the_model_answer_side_by_side(server):
    contract = server.post("/predict", {"signature_name": "contract", "instances": [GOOD]}).json()
    own = server.post("/predict", {"signature_name": "serving_default", "instances": [[1, 1.5, 0.5]]}).json()
    column = server.post("/predict", {"signature_name": "serving_default", "inputs": [[1, 1.5, 0.5]]}).json()
    assert own == {"predictions": column["outputs"]}
    assert own["predictions"] == [contract["predictions"]]  # the contract writes [rows, 1] as a number a row


def test_status_and_metadata_are_those_of_tensorflow_serving(server):
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert server.get("/v1/models/people").json() == {"model_version_status": [status]}
    assert server.get("/v1/models/people/versions/1").json() == {"model_version_status": [status]}
    metadata = server.get("/v1/models/people/metadata").json()
    assert metadata["model_spec"] == {"name": "people", "signature_name": "", "version": "1"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "contract"}
    assert signatures["serving_default"]["inputs"]["inputs"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}],
        "unknown_rank": False,
    }
    assert list(signatures["contract"]["inputs"]) == ["age", "income", "score"]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/models/nix", "Could not find any versions of model nix"),
        ("/v1/models/people/versions/7", "Could not find version 7 of model people"),
        ("/v1/models/people/versions/7/metadata", "Specific(people, 7)"),
        ("/nix", "docs/serving.md"),
    ],
)
def test_what_is_not_there_is_404(server, path, error):
    answer = server.get(path)
    assert answer.status_code == 404 and error in answer.json()["error"]


def test_refusals_are_json_with_a_code_and_the_id_of_the_request(server):
    answer = server.post("/predict", {"instances": [GOOD, BAD]}, headers={"X-Request-ID": "mine-1"})
    body = answer.json()
    assert answer.status_code == 400 and answer.headers["x-request-id"] == "mine-1"
    assert list(body)[:3] == ["error", "code", "request_id"] and body["request_id"] == "mine-1"
    assert body["code"] == "INVALID_ARGUMENT" and "1 of 2 instances" in body["error"]
    assert [(d["index"], d["column"], d["reason"]) for d in body["details"]] == [
        (1, "age", "out_of_range"),
        (1, "score", "wrong_type"),
    ]
    assert server.post("/predict", {"instances": [GOOD]}, headers={"X-Request-ID": "no spaces"}).headers[
        "x-request-id"
    ] not in ("", "no spaces")


def test_the_good_rows_are_predicted_on_request(server):
    body = server.post("/predict", {"instances": [BAD, GOOD], "on_error": "row"}).json()
    assert body["predictions"][0] is None and 0 < body["predictions"][1] < 1
    assert body["counts"] == {"received": 2, "predicted": 1, "rejected": 1}
    assert {error["index"] for error in body["errors"]} == {0}


def test_methods_encodings_and_sizes_have_their_codes(server):
    assert server.get("/predict").status_code == 405
    assert server.post("/v1/models/people", {}).headers["allow"] == "GET, HEAD"
    packed = gzip.compress(json.dumps({"instances": [GOOD]}).encode())
    assert server.post("/predict", packed, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert server.post("/predict", packed[:-9], headers={"Content-Encoding": "gzip"}).status_code == 400
    assert server.post("/predict", b"not gzip", headers={"Content-Encoding": "gzip"}).status_code == 400
    assert server.post("/predict", packed, headers={"Content-Encoding": "br"}).status_code == 415
    assert server.post("/predict", b" " * 70_000).status_code == 413
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 65_000
    assert server.post("/predict", bomb, headers={"Content-Encoding": "gzip"}).status_code == 413
    too_many = {"instances": [{"age": 1, "income": 1, "score": 1}] * 1025}
    answer = server.post("/predict", too_many)
    assert answer.status_code == 413 and "1,024" in answer.json()["error"]


def counted(server) -> dict[str, float]:
    """Return the rows by outcome."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    samples = {family.name: family.samples for family in families}
    rows = {s.labels["outcome"]: s.value for s in samples["beam_score_rows"] if s.name.endswith("_total")}
    return rows | {"in flight": samples["beam_score_inflight_rows"][0].value}


def test_the_account_of_rows_closes(server):
    before = counted(server)
    bodies = [{"instances": [GOOD] * n} for n in range(1, 30)] + [{"instances": [GOOD, BAD]}] * 10
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: server.post("/predict", body), bodies))
    assert sum(answer.status_code == 200 for answer in answers) == 29
    after = counted(server)
    assert after["predicted"] - before["predicted"] == sum(range(1, 30))
    assert after["rejected"] - before["rejected"] == 20
    assert server.post("/predict", b"not JSON").status_code == 400
    unread, after = after, counted(server)
    assert after["rejected"] - unread["rejected"] == 1  # a body without rows counts as one
    assert after["in flight"] == 0
    assert after["received"] == sum(after[name] for name in ("predicted", "rejected", "failed", "shed"))


def test_each_answer_goes_to_its_own_request(tmp_path, model):
    columns = {"id": {"dtype": "int64"}, "x": {"dtype": "float32", "shape": [3]}}
    with serving.served(tmp_path, serving.echo_job(tmp_path, model("echo"), columns)) as server:

        def ask(number: int) -> None:
            rows = [{"id": number * 100 + i, "x": [number, i, 0.5]} for i in range(number % 7 + 1)]
            answer = server.post("/predict", {"instances": rows})
            assert answer.json()["predictions"] == [
                {"out": row["id"], "y": [float(v) for v in row["x"]]} for row in rows
            ]

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            list(pool.map(ask, range(600)))


def test_a_model_process_that_dies_is_replaced(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people"})
    with serving.served(tmp_path, job) as server:
        os.kill(server.model_process, signal.SIGKILL)
        late = time.monotonic() + 60
        codes = set()
        while time.monotonic() < late:
            answer = server.post("/predict", {"instances": [GOOD]})
            codes.add(answer.status_code)
            if answer.status_code == 200 and server.get("/readyz").status_code == 200:
                break
            assert server.get("/healthz").status_code == 200
            time.sleep(0.1)
        assert codes <= {200, 503} and answer.status_code == 200


def test_the_processes_of_models_end_with_the_first_process(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "uds": str(tmp_path / "http")})
    with serving.served(tmp_path, job) as server:
        of_model, late = server.model_process, time.monotonic() + 60
        os.kill(server.process.pid, signal.SIGKILL)
        while os.path.exists(f"/proc/{of_model}/cmdline") and Path(f"/proc/{of_model}/cmdline").read_bytes():
            assert time.monotonic() < late
            time.sleep(0.05)
    with serving.served(tmp_path, job) as server:  # what it has left does not disturb the next
        assert server.post("/predict", {"instances": [GOOD]}).status_code == 200


def test_a_model_process_that_hangs_is_replaced(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "limits": {"request": "1s"}})
    with serving.served(tmp_path, job) as server:
        hanging = server.model_process
        os.kill(hanging, signal.SIGSTOP)
        answer = server.post("/predict", {"instances": [GOOD]})
        assert answer.status_code == 504 and answer.json()["code"] == "DEADLINE_EXCEEDED"
        late = time.monotonic() + 60
        while time.monotonic() < late and (server.get("/readyz").status_code != 200 or server.model_process == hanging):
            time.sleep(0.1)
        # On a busy machine a first answer of the new process may take longer than a request may.
        while (answer := server.post("/predict", {"instances": [GOOD]})).status_code != 200:
            assert answer.status_code == 504 and time.monotonic() < late
        assert server.model_process != hanging


def test_more_requests_than_allowed_are_refused_at_once(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "limits": {"requests": 2}})
    with serving.served(tmp_path, job) as server, concurrent.futures.ThreadPoolExecutor(2) as pool:
        child = server.model_process
        os.kill(child, signal.SIGSTOP)
        asked = [pool.submit(server.post, "/predict", {"instances": [GOOD]}) for _ in range(2)]
        while counted(server)["in flight"] < 2:
            time.sleep(0.02)
        refused = server.post("/predict", {"instances": [GOOD]})
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        os.kill(child, signal.SIGCONT)
        assert [answer.result().status_code for answer in asked] == [200, 200]


def test_what_was_accepted_is_answered_before_the_server_ends(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people"})
    with serving.served(tmp_path, job) as server:
        child = server.model_process
        os.kill(child, signal.SIGSTOP)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(server.post, "/predict", {"instances": [GOOD]}) for _ in range(8)]
            while counted(server)["in flight"] < 8:
                time.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            os.kill(child, signal.SIGCONT)
            assert [answer.result().status_code for answer in asked] == [200] * 8
        assert server.process.wait(30) == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"serve": {"prot": 5}}, "prot"),
        ({"serve": {"port": 70000}}, "at most 65535"),
        ({"columns": {"age": {"dtype": "float32"}}}, "income"),
        ({"model": {"path": "nix"}}, "nix"),
        ({"serve": {"host": "no host"}}, "serve.host: no host: "),
        ({"serve": {"name": "a/b"}}, "serve.name"),
        ({"serve": {"admin": "/nix/admin"}}, "serve.admin: there is no folder /nix"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(tmp_path, model, change, problem):
    job = jobs.write_job(tmp_path, model("multiply"), **change)
    done = jobs.cli("serve", job, "--check")
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr


def test_all_that_is_wrong_is_said_at_once(tmp_path, model):
    serve = {
        "host": "no host",
        "uds": "/nix/http",
        "token": {"file": "/nix"},
        "tls": {"certificate": "/nix", "key": "/nix"},
        "default": "nix",
        "versions": {"labels": {"stable": 77}},
        "rollout": {"compare": "/nix.jsonl"},
    }
    job = jobs.write_job(tmp_path, model("multiply"), serve=serve, columns={"age": {"dtype": "float32"}})
    done = jobs.cli("serve", job, "--check")
    said = (
        "serve.host",
        "serve.uds",
        "serve.token",
        "serve.tls",
        "serve.default",
        "labels: stable",
        "compare",
        "income",
    )
    assert done.returncode == 2 and [key for key in said if key not in done.stderr] == []


def test_a_host_of_another_machine_is_named(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"host": "192.0.2.1"})
    done = jobs.cli("serve", job, "--port", "0")
    assert done.returncode == 2 and "serve.host: 192.0.2.1: " in done.stderr


def test_a_ready_file_is_only_there_while_requests_are_answered(tmp_path, model):
    job, ready = jobs.write_job(tmp_path, model("multiply")), tmp_path / "ready"
    ready.write_text("stale")
    process = jobs.start("serve", job, "--port", "0", "--grpc-port", "0", "--ready-file", str(ready))
    late = time.monotonic() + 60
    with contextlib.suppress(FileNotFoundError):
        while ready.read_text() == "stale":
            assert time.monotonic() < late and process.poll() is None
            time.sleep(0.01)
    with serving.until_ready(process, ready) as server:
        assert server.get("/readyz").status_code == 200
        assert server.end() == 0
    assert not ready.exists()


def test_a_port_that_is_taken_is_named(tmp_path, model, server):
    job = jobs.write_job(tmp_path, model("multiply"))
    done = jobs.cli("serve", job, "--port", server.address.rpartition(":")[2])
    assert done.returncode == 2 and "serve.port" in done.stderr and "in use" in done.stderr


def test_where_the_extra_is_missing_the_command_says_what_to_install(tmp_path, model):
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "httptools.py").write_text("raise ModuleNotFoundError('no httptools', name='httptools')\n")
    job = jobs.write_job(tmp_path, model("multiply"))
    done = jobs.anew("serve", job, "--check", PYTHONPATH=str(tmp_path / "missing"))
    assert done.returncode == 2 and "pip install 'beam-score[serve]'" in done.stderr
