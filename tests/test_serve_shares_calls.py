"""Requests that share a call of the model: each has its own answer, and only the one at fault fails."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import time

import asking
import grpc
import jobs
import numpy as np
import pytest
import requests
import serving
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import predict_pb2

from beam_score.pipeline.job.job import load_job
from beam_score.pipeline.serve.answering.answer import Request
from beam_score.pipeline.serve.models.admission import Pace
from beam_score.pipeline.serve.models.call_rows import asked_rows, swept_rows
from beam_score.pipeline.serve.models.deadlines import Deadlines
from beam_score.pipeline.serve.models.queue import Waiting
from beam_score.transforms.model.signature import Signature, Tensor

REQUESTS = int(os.environ.get("BEAM_SCORE_REQUESTS", "8000"))
COLUMNS = {"id": {"dtype": "int64"}, "x": {"dtype": "float32", "shape": [3]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("shared")
    job = serving.echo_job(folder, model("echo_and_multiply"), COLUMNS)
    with serving.served(folder, job, "--set=serve.limits.request=10m") as running:  # also on a busy machine
        yield running
        assert running.end() == 0


@contextlib.contextmanager
def stopped(server):
    """Stop the process of the model while the body runs, so that requests wait."""
    child = server.model_process
    os.kill(child, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child, signal.SIGCONT)


def metrics(server) -> dict[str, float]:
    """Return the value of each sample, by its name and its labels but for the model's."""
    found = {}
    for family in text_string_to_metric_families(server.get("/metrics").text):
        for sample in family.samples:
            labels = [value for label, value in sample.labels.items() if label not in ("model", "version")]
            found["/".join((sample.name, *labels))] = sample.value
    return found


def wait_for(server, name: str, value: float) -> None:
    late = time.monotonic() + 30
    while metrics(server).get(name) != value:
        assert time.monotonic() < late, metrics(server)
        time.sleep(0.02)


def kind_of(number: int) -> int:
    """0: another shape; 1: the model raises (seldom: it is called again and again then); 2 to 5: other forms."""
    return 1 if number % 100 == 99 else 0 if number % 5 == 0 else number % 4 + 2


def row(number: int, x: float | None = None) -> dict:
    return {"id": number, "x": [number if x is None else x, 0.5, -1]}


def test_one_poisonous_request_costs_no_other(server):
    alone = server.post("/predict", {"instances": [row(1)]})
    before = metrics(server)
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        with stopped(server):
            asked = [pool.submit(server.post, "/predict", {"instances": [row(1)]})]  # the batch with the process
            wait_for(server, "beam_score_inflight_rows", 1)
            good = [pool.submit(server.post, "/predict", {"instances": [row(1)]}) for _ in range(31)]
            bad = pool.submit(
                server.post, "/predict", {"instances": [row(2), row(3, 2e6)]}, headers={"X-Request-ID": "p"}
            )
            wait_for(server, "beam_score_inflight_rows", 33)
        assert [answer.result().text for answer in good + asked] == [alone.text] * 32
    assert bad.result().status_code == 400
    (detail,) = bad.result().json()["details"]
    assert (detail["index"], detail["reason"]) == (1, "model_error") and "2000000" not in bad.result().text
    after = metrics(server)
    assert after["beam_score_batch_rows_count"] - before["beam_score_batch_rows_count"] == 2
    assert after["beam_score_rows_total/predicted"] - before["beam_score_rows_total/predicted"] == 32
    assert after["beam_score_rows_total/rejected"] - before["beam_score_rows_total/rejected"] == 2


def test_no_answer_goes_to_another_request(server):
    """Shapes, signatures, forms and faults mixed: each request contains its number, and so does its answer."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "echo"

    def asked(number: int) -> tuple[str, bytes]:
        kind, rows = kind_of(number), number % 4 + 1
        instances = [{"id": number * 10 + i, "x": [number, i, 0.5]} for i in range(rows)]
        if kind == 0:
            instances[-1] = {"id": number * 10, "x": [1, 2]}
        elif kind == 1:
            instances[-1] = {"id": number * 10, "x": [5e6, 2, 3]}
        if kind == 2:
            columns = {name: [one[name] for one in instances] for name in ("id", "x")}
            return "/v1/models/echo:predict", json.dumps(
                {"signature_name": "serving_default", "inputs": columns}
            ).encode()
        if kind == 3:
            shapes = {"id": ("INT64", [rows]), "x": ("FP32", [rows, 3])}
            inputs = [
                {"name": n, "datatype": d, "shape": s, "data": [one[n] for one in instances]}
                for n, (d, s) in shapes.items()
            ]
            return "/v2/models/echo/infer", json.dumps({"id": str(number), "inputs": inputs}).encode()
        named = {"signature_name": "serving_default"} if kind == 4 else {}
        return "/predict", json.dumps(named | {"instances": instances}).encode()

    seen = np.zeros(REQUESTS, bool)

    def see(number: int, status: int, body: bytes) -> None:
        kind, rows = kind_of(number), number % 4 + 1
        ids, answer = [number * 10 + i for i in range(rows)], json.loads(body)
        if kind in (0, 1):
            assert status == 400, body
            assert {detail["index"] for detail in answer["details"]} == {rows - 1}
        elif kind == 2:
            assert answer["outputs"]["out"] == ids, body
        elif kind == 3:
            outputs = {one["name"]: one["data"] for one in answer["outputs"]}
            assert answer["id"] == str(number) and outputs["out"] == ids and outputs["y"][::3] == [number] * rows
        else:
            assert [one["out"] for one in answer["predictions"]] == ids, body
        seen[number] = True
        if number % 100_000 == 0:  # a million take a quarter of an hour
            print(number, time.strftime("%X"), flush=True)

    asyncio.run(asking.ask_all(server.address, map(asked, range(REQUESTS)), see, 32))
    assert seen.all()
    found = metrics(server)
    assert found["beam_score_inflight_rows"] == 0
    assert found["beam_score_batch_rows_sum"] / found["beam_score_batch_rows_count"] > 3


def test_a_client_that_has_gone_leaves_the_queue(server):
    before = metrics(server)
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    body = json.dumps({"instances": [row(1)] * 7}).encode()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "echo"
    request.inputs["id"].CopyFrom(tf.make_tensor_proto(np.arange(7)))
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros((7, 3), np.float32)))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with stopped(server), grpc.insecure_channel(server.rpc) as channel:
            for ahead in (1, 2):
                asked = [pool.submit(server.post, "/predict", {"instances": [row(1)]})]
                wait_for(server, "beam_score_inflight_rows", ahead)
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                wait_for(server, "beam_score_inflight_rows", 3)
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            future = call.future(request.SerializeToString())
            wait_for(server, "beam_score_inflight_rows", 3)  # the first has gone
            future.cancel()
            late = server.post("/predict", {"instances": [row(1)] * 7}, headers={"X-Request-Timeout-Ms": "100"})
            assert late.status_code == 504
            wait_for(server, "beam_score_inflight_rows", 2)
        assert asked[0].result().status_code == 200
    after = metrics(server)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["beam_score_rows_total/shed"] == 3 and grown["beam_score_rows_total/predicted"] == 2
    assert grown["beam_score_batch_rows_sum"] == 2  # the model has never seen the others
    assert grown["beam_score_rows_total/received"] == 5


def test_what_would_be_late_is_refused_at_once(tmp_path, model):
    serve = {"name": "people", "batching": {"rows": 1}}
    job = jobs.write_job(tmp_path, model("multiply"), serve=serve)
    good = {"age": 1, "income": 1.5, "score": 0.5}
    with serving.served(tmp_path, job) as server, concurrent.futures.ThreadPoolExecutor(30) as pool:
        for _ in range(3):
            with concurrent.futures.ThreadPoolExecutor(1) as slow:  # calls that take a fifth of a second
                with stopped(server):
                    asked = slow.submit(server.post, "/predict", {"instances": [good]})
                    time.sleep(0.2)
                assert asked.result().status_code == 200
        with stopped(server):
            waiting = [pool.submit(server.post, "/predict", {"instances": [good]}) for _ in range(20)]
            wait_for(server, "beam_score_inflight_rows", 20)
            began = time.monotonic()
            refused = server.post("/predict", {"instances": [good]}, headers={"X-Request-Timeout-Ms": "500"})
            assert refused.status_code == 503 and time.monotonic() - began < 0.4
            assert refused.json()["code"] == "UNAVAILABLE" and 1 <= int(refused.headers["retry-after"]) <= 20
        assert [answer.result().status_code for answer in waiting] == [200] * 20
        assert metrics(server)["beam_score_rows_total/shed"] == 1


def test_the_time_of_calls_is_fitted():
    pace = Pace(1000)
    assert pace.wait_s(10**9) == 0.0
    now = 0.0
    for rows in [1, 10, 100, 1000] * 20:  # 1 ms a call, and 10 us a row
        pace.note(rows, now, now := now + 1e-3 + 1e-5 * rows)
    assert pace.wait_s(10**9) == 0.0  # nothing is ahead
    pace.rows = 1
    assert pace.wait_s(499) == pytest.approx(1e-3 + 5e-3, rel=0.05)
    pace.rows = 100_000
    assert pace.wait_s(1) == pytest.approx(101e-3 + 1.0, rel=0.05)


def test_calls_of_single_rows_do_not_make_a_model_look_slow():
    pace = Pace(1000)
    for number in range(100):
        pace.note(1, number * 2e-3, number * 2e-3 + 1e-3)
    pace.rows = 5000
    assert pace.wait_s(1) < 0.1


def test_a_window_gathers_company(tmp_path, model):
    job = jobs.write_job(
        tmp_path, model("multiply"), serve={"name": "people", "batching": {"rows": 8, "window_ms": 400}}
    )
    good = {"age": 1, "income": 1.5, "score": 0.5}
    with serving.served(tmp_path, job) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        session = requests.Session()
        began = time.monotonic()
        assert session.post(server.address + "/predict", json={"instances": [good]}, timeout=30).status_code == 200
        assert time.monotonic() - began > 0.3
        before = metrics(server)["beam_score_batch_rows_count"]
        began = time.monotonic()
        list(pool.map(lambda _: server.post("/predict", {"instances": [good]}), range(8)))
        assert metrics(server)["beam_score_batch_rows_count"] - before == 1 and time.monotonic() - began < 0.4


class Timed:
    """A model whose calls take 1 ms, and 20 us a row above 50; it refuses more rows than some."""

    def __init__(self, most_rows: int, shape: tuple[int | None, ...] = (None,)):
        self.signature = Signature("serving_default", {"x": Tensor("x", "float32", shape)}, {})
        self._most_rows, self.calls = most_rows, list[int]()

    def call(self, feeds, deadline_s=None):
        rows = len(feeds["x"])
        self.calls.append(rows)
        if rows > self._most_rows:
            raise ValueError
        time.sleep(max(1e-3, 2e-5 * rows))
        return {}


def test_a_sweep_chooses_the_rows_of_a_call():
    model, began = Timed(1 << 20), time.monotonic()
    rows, why = swept_rows(model)
    assert rows >= 64 and f"{rows:,} rows a call, the fastest of 32 to 8,192" == why
    assert max(model.calls) == 8192 and time.monotonic() - began < 5  # no larger one after 0.1 s
    assert swept_rows(Timed(100))[1].endswith("of 32 to 64")
    assert swept_rows(Timed(0)) == (1024, "1,024 rows a call, since it refuses zeros")
    for shape in ((None, None), (8,), ()):
        assert swept_rows(Timed(100, shape))[0] == 1024


def test_a_job_sets_the_rows_of_a_call_or_lets_each_version_choose(tmp_path, model):
    for batching, batch_rows, expected in (
        ({"rows": 5}, 7, 5),
        ({}, 7, 7),
        ({}, "auto", None),
    ):
        serve = {"name": "people", "batching": batching}
        job = jobs.write_job(tmp_path, model("multiply"), serve=serve, model={"batch_rows": batch_rows})
        assert asked_rows(load_job(job)) == expected
    with serving.served(tmp_path, job) as server:
        assert server.post("/predict", {"instances": [{"age": 1, "income": 1.5, "score": 0.5}]}).status_code == 200
        assert server.end() == 0
        log = server.process.stderr.read()
    assert "people: version 1 is loaded, in" in log and " rows a call, the fastest of 32 to" in log


def test_an_error_at_the_end_of_one_request_keeps_no_other_waiting():
    late = []

    def expire(waiting):
        deadlines.discard(waiting)
        late.append(waiting.request.id)
        if len(late) == 1:
            raise ValueError

    async def test():
        now = time.perf_counter()
        for id_, seconds in (("a", 0.0), ("b", 0.0), ("c", 0.1)):
            deadlines.add(Waiting(Request(id_, b"", "json"), 1, "rest", now, now + seconds, None))
        await asyncio.sleep(0.3)

    deadlines = Deadlines(expire)
    asyncio.run(test())
    assert sorted(late) == ["a", "b", "c"]
