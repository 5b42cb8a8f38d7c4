"""What the server reports: the account of rows closes whatever happens, and log, metrics and headers agree with it."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import threading
import time

import grpc
import jobs
import numpy as np
import pytest
import requests
import serving
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import predict_pb2

GOOD = {"age": 1, "income": 1.5, "score": 0.5}
BAD = {"age": 300, "income": 1.0, "score": 0.5}
SECRET = 123456.789
OUTCOMES = ("predicted", "rejected", "failed", "shed")


@pytest.fixture
def server(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people"})
    with serving.served(tmp_path, job) as running, concurrent.futures.ThreadPoolExecutor(1) as reader:
        running.log = reader.submit(running.process.stderr.read)  # a full pipe would stop the process of the model
        yield running
        running.process.kill()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return each sample of a scrape by its name and its labels but for model and version."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [value for label, value in sorted(sample.labels.items()) if label not in ("model", "version")]
            found[(sample.name, *labels)] = sample.value
    return found


def rows(found: dict[tuple[str, ...], float]) -> dict[str, int]:
    kinds = {outcome: int(found.get(("beam_score_rows_total", outcome), 0)) for outcome in ("received", *OUTCOMES)}
    return kinds | {"in_flight": int(found.get(("beam_score_inflight_rows",), 0))}


def closes(account: dict[str, int]) -> bool:
    return account["received"] == sum(account[name] for name in (*OUTCOMES, "in_flight"))


def lines(server) -> list[dict]:
    """End the server, and return its lines of JSON."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait() == 0
    written = server.log.result(30)
    return [json.loads(line) for line in written.splitlines() if line.startswith("{")]


class Clients:
    """Clients that ask at random, and count what they see."""

    def __init__(self, server, disconnects: bool):
        self.server, self.disconnects = server, disconnects
        self.codes: collections.Counter[int] = collections.Counter()
        self.rows: collections.Counter[str] = collections.Counter()
        self.gone = 0
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        chance, session = random.Random(number), requests.Session()
        with grpc.insecure_channel(self.server.rpc) as channel:
            for _ in range(12):
                kind = chance.random()
                if kind < 0.2 and self.disconnects:
                    self._disconnect(chance)
                elif kind < 0.4:
                    self._ask_grpc(channel, chance)
                else:
                    self._ask(session, chance)

    def _ask(self, session: requests.Session, chance: random.Random) -> None:
        count, bad, partial = chance.randint(1, 20), chance.random() < 0.3, chance.random() < 0.5
        body = {"instances": [GOOD] * count + [BAD] * bad} | ({"on_error": "row"} if partial else {})
        timeout = {"X-Request-Timeout-Ms": "40"} if chance.random() < 0.1 else {}
        answer = session.post(self.server.address + "/predict", data=json.dumps(body), headers=timeout, timeout=60)
        code = answer.status_code
        with self._lock:
            self.codes[code] += 1
            if code == 200:
                self.rows["predicted"] += count
                self.rows["rejected"] += bad
            elif code == 400:
                self.rows["rejected"] += count + bad
            else:
                self.rows["failed" if code == 500 else "shed"] += 1

    def _ask_grpc(self, channel: grpc.Channel, chance: random.Random) -> None:
        count, bad = chance.randint(1, 20), chance.random() < 0.2
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "people"
        for name in GOOD:
            values = np.full(count, BAD[name] if bad else GOOD[name], np.float32)
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        try:
            call(request.SerializeToString(), timeout=60)
            outcome, code, number = "predicted", 200, count
        except grpc.RpcError as error:
            refused = error.code() == grpc.StatusCode.INVALID_ARGUMENT
            outcome, code, number = ("rejected", 400, count) if refused else ("shed", 503, 1)
        with self._lock:
            self.codes[code] += 1
            self.rows[outcome] += number

    def _disconnect(self, chance: random.Random) -> None:
        host, _, port = self.server.address.removeprefix("http://").rpartition(":")
        body = json.dumps({"instances": [GOOD]}).encode()
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            time.sleep(chance.random() * 0.02)
        with self._lock:
            self.gone += 1


@pytest.mark.parametrize("disconnects", [False, True])
def test_the_account_closes_under_kills_timeouts_and_bad_rows(server, disconnects):
    clients, done, scrapes = Clients(server, disconnects), threading.Event(), []

    def disturb() -> None:
        chance = random.Random(5)
        while not done.wait(0.1):
            scrapes.append(rows(samples(server.get("/metrics").text)))
            if len(scrapes) == 4:
                with contextlib.suppress(IndexError, ProcessLookupError):
                    os.kill(server.model_process, signal.SIGKILL)
            elif chance.random() < 0.15:
                with contextlib.suppress(IndexError, ProcessLookupError):
                    os.kill(child := server.model_process, signal.SIGSTOP)
                    time.sleep(0.1)
                    os.kill(child, signal.SIGCONT)

    with concurrent.futures.ThreadPoolExecutor(101) as pool:
        disturbing = pool.submit(disturb)
        try:
            for asking in [pool.submit(clients.run, number) for number in range(100)]:
                asking.result()
        finally:
            done.set()
        disturbing.result()
    late = time.monotonic() + 30
    while (account := rows(found := samples(server.get("/metrics").text)))["in_flight"] and time.monotonic() < late:
        time.sleep(0.05)
    assert account["in_flight"] == 0 and closes(account) and all(map(closes, scrapes)) and len(scrapes) > 4
    codes: collections.Counter[int] = collections.Counter()
    for (name, *labels), value in found.items():
        if name == "beam_score_requests_total":
            codes[int(labels[0])] += int(value)
    assert clients.codes[503] > 0 and clients.codes[400] > 0
    if not disconnects:
        assert codes == clients.codes
        assert {name: account[name] for name in OUTCOMES} == {name: clients.rows[name] for name in OUTCOMES}
    else:
        assert all(codes[code] >= clients.codes[code] for code in clients.codes)
        assert clients.codes.total() < codes.total() <= clients.codes.total() + clients.gone and codes[499]
        assert account["rejected"] == clients.rows["rejected"]
        assert 0 <= account["predicted"] - clients.rows["predicted"] <= clients.gone
    logged = lines(server)
    (total,) = [line for line in logged if line["event"] == "account"]
    assert {name: total[name] for name in account} == account
    assert sum(line["event"] == "request" for line in logged) == codes.total()


def test_a_line_a_request_without_any_value(tmp_path, server):
    sent = {"age": 77.0625, "income": SECRET, "score": 0.5}
    answer = server.post("/predict", {"instances": [sent] * 3}, headers={"X-Request-ID": "line-1"})
    server.post("/predict", {"instances": [sent, BAD | {"income": SECRET}]}, headers={"X-Request-ID": "line-2"})
    server.post("/v1/models/nix:predict", {"instances": [sent]}, headers={"X-Request-ID": "line-3"})
    timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert list(timing) == ["queue", "validate", "model", "encode"] and all(float(ms) >= 0 for ms in timing.values())
    found = {line.get("id"): line for line in lines(server)}
    good, bad = found["line-1"], found["line-2"]
    expected = {"protocol": "rest", "model": "people", "version": 1, "signature": "contract", "code": 200, "rows": 3}
    expected |= {"predicted": 3, "rejected": {}, "batch_rows": 3}
    assert {key: good[key] for key in expected} == expected
    assert {name: float(ms) for name, ms in timing.items()} == {n: good["ms"][n] for n in timing}
    assert good["bytes_out"] == len(answer.content) and sum(good["ms"][n] for n in timing) <= good["ms"]["total"] + 0.01
    assert [bad[key] for key in ("code", "rows", "predicted", "rejected")] == [400, 2, 0, {"out_of_range": 1}]
    assert found["line-3"]["code"] == 404
    said = json.dumps(list(found.values()))
    assert str(SECRET) not in said and "77.06" not in said


def test_logs_can_be_sampled_and_left_out(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"log": {"sample": 0}})
    with serving.served(tmp_path, job) as server:
        server.post("/predict", {"instances": [GOOD]})
        assert server.end() == 0 and '"event"' not in server.process.communicate()[1]


def test_metrics_name_stages_columns_versions_and_the_build(server):
    assert server.post("/predict", {"instances": [GOOD, BAD], "on_error": "row"}).status_code == 200
    own = {"signature_name": "serving_default", "instances": [[1, 2, 3]]}
    assert server.post("/predict", own).status_code == 200
    found = samples(server.get("/metrics").text)
    for stage in ("queue", "validate", "model", "encode"):
        assert found["beam_score_stage_seconds_count", stage] == 2
    assert found["beam_score_rejected_rows_total", "age", "out_of_range"] == 1
    assert found["beam_score_requests_total", "200", "rest", "contract"] == 1
    assert found["beam_score_requests_total", "200", "rest", "serving_default"] == 1
    assert found["beam_score_request_seconds_count", "serving_default"] == 1
    assert found["beam_score_model_state", "AVAILABLE"] == 1 and found["beam_score_model_load_seconds",] > 0
    assert any(key[0] == "beam_score_model_info" and len(key[1]) == 64 for key in found)
    assert any(key[0] == "beam_score_build_info" for key in found)


def test_the_metrics_of_tensorflow_serving_have_its_names(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "monitoring": "/tf"})
    with serving.served(tmp_path, job) as server:
        server.post("/predict", {"instances": [GOOD]})
        server.post("/predict", {"instances": [BAD]})
        assert server.get("/monitoring/prometheus/metrics").status_code == 404
        answer = server.get("/tf")
        assert answer.headers["content-type"].startswith("text/plain")
        assert ':tensorflow:serving:request_count{model_name="people",status="OK"} 1\n' in answer.text
        found = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                found[(sample.name, *(value for _, value in sorted(sample.labels.items())))] = sample.value
        assert found[":tensorflow:serving:request_count_total", "people", "OK"] == 1
        assert found[":tensorflow:serving:request_count_total", "people", "INVALID_ARGUMENT"] == 1
        assert found[":tensorflow:serving:request_latency_count", "predict", "REST", "people"] == 2
        assert found[":tensorflow:serving:request_latency_bucket", "predict", "REST", "10", "people"] == 0
        assert found[":tensorflow:serving:runtime_latency_count", "Predict", "people", "TF1"] == 2
        assert found[":tensorflow:serving:request_latency_sum", "predict", "REST", "people"] > 100  # microseconds
