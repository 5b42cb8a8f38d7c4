"""What a client may cost: bytes, rows, depth, time, connections. Each limit has its code, and its bound on memory."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import json
import os
import resource
import signal
import socket
import time

import jobs
import pytest
import requests
import serving

GOOD = {"age": 1, "income": 1.5, "score": 0.5}
BODY = json.dumps({"instances": [GOOD]}).encode()
LIMITS = {"body": "1MiB", "rows": 100, "header_time": "1s", "body_time": "1s", "connections": 40}


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("limits")
    job = jobs.write_job(folder, model("multiply"), serve={"name": "people", "limits": LIMITS})
    with serving.served(folder, job) as running:
        yield running
        assert running.end() == 0


def raw(server, sent: bytes, then: bytes = b"") -> tuple[int, dict]:
    """Send bytes as they are, and return the status and the JSON of the answer; 0 if the connection is closed."""
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):  # what is sent to a closed connection resets it
            connection.sendall(sent)
            connection.sendall(then)
            while part := connection.recv(1 << 16):
                answer += part
    if not answer:
        return 0, {}
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had since it began."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def post(length: int, *headers: str) -> bytes:
    lines = ["POST /predict HTTP/1.1", "Host: x", f"Content-Length: {length}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_bytes_that_are_announced_are_judged_before_they_come(server):
    code, answer = raw(server, post(1 << 40))  # no byte of it is ever sent
    assert code == 413 and "1,099,511,627,776 bytes" in answer["error"] and answer["code"] == "RESOURCE_EXHAUSTED"


def test_a_body_over_the_limit_is_refused_and_its_client_reads_so(server):
    answer = server.post("/predict", b" " * (20 << 20))
    assert answer.status_code == 413 and answer.json()["code"] == "RESOURCE_EXHAUSTED"
    chunked = requests.post(server.address + "/predict", data=iter([b" " * (1 << 19)] * 8), timeout=30)
    assert chunked.status_code == 413


def test_neither_a_bomb_nor_depth_takes_memory(server):
    assert server.post("/predict", BODY).status_code == 200
    before = peak_bytes(server.process.pid), peak_bytes(server.model_process)
    bomb = gzip.compress(b"[" * 500_000_000, 9)
    assert len(bomb) < 1 << 20
    assert server.post("/predict", bomb, headers={"Content-Encoding": "gzip"}).status_code == 413
    deep = b"[" * 1_000_000
    for body in (deep, b'{"instances":' + deep, b'{"instances": [{"age": ' + deep, b'{"x":' * 200_000):
        for path in ("/predict", "/v2/models/people/infer"):
            began = time.monotonic()
            answer = server.post(path, body)
            assert answer.status_code == 400 and time.monotonic() - began < 5, answer.text[:300]
    own = b'{"signature_name": "serving_default", "instances": ' + deep
    assert server.post("/predict", own).status_code == 400
    assert peak_bytes(server.process.pid) < before[0] + (64 << 20)
    assert peak_bytes(server.model_process) < before[1] + (128 << 20)


@pytest.mark.parametrize("signature", ["contract", "serving_default"])
def test_rows_are_limited_for_every_signature(server, signature):
    row = GOOD if signature == "contract" else [1, 2, 3]
    answer = server.post("/predict", {"signature_name": signature, "instances": [row] * 101})
    assert answer.status_code == 413 and "101 rows" in answer.json()["error"]


def test_headers_are_limited(server):
    code, answer = raw(server, post(0, "X: " + "a" * 20_000))
    assert code == 431 and "16,384" in answer["error"]
    code, answer = raw(server, post(0, *[f"X-{i}: {'a' * 100}" for i in range(200)]))
    assert code == 431
    unfinished = b"GET / HTTP/1.1\r\nX: "
    code, answer = raw(server, unfinished, b"a" * 2_000_000)
    assert code in (0, 431)
    assert server.post("/predict", BODY, headers={"X": "a" * 15_000}).status_code == 200


def test_a_header_may_arrive_with_the_body_of_the_request_before(server):
    request = post(len(BODY)).replace(b"Connection: close\r\n", b"") + BODY
    padded = post(900_000) + BODY + b" " * (900_000 - len(BODY))
    code, _ = raw(server, padded)
    assert code == 200
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request + request[:50])
        time.sleep(0.1)
        connection.sendall(request[50:] + request)
        answers = b""
        while answers.count(b'{"predictions"') < 3:
            answers += connection.recv(1 << 16)
        assert answers.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    ("sent", "code"),
    [(b"", 0), (b"POST /predict HTTP/1.1\r\nHost:", 408), (post(100) + b"{", 408)],
    ids=["nothing", "half a header", "half a body"],
)
def test_slow_clients_are_cut(server, sent, code):
    began = time.monotonic()
    found, answer = raw(server, sent)
    assert found == code and 0.9 < time.monotonic() - began < 5
    assert not code or answer["code"] == "DEADLINE_EXCEEDED"


def test_what_is_not_http_is_refused_in_json(server):
    code, answer = raw(server, b"hello\r\n\r\n")
    assert code == 400 and answer["code"] == "INVALID_ARGUMENT"


def test_connections_are_limited_and_those_that_are_open_go_on(server):
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        opened = list(pool.map(lambda _: socket.create_connection((host, int(port)), timeout=30), range(60)))
    try:
        refused = 0
        for connection in opened:
            connection.settimeout(0.2)
            try:
                refused += b"503 Service Unavailable" in connection.recv(1000)
            except TimeoutError:
                connection.settimeout(30)
                connection.sendall(post(len(BODY)) + BODY)
                assert b"200 OK" in connection.recv(1000)
        assert refused >= 20
    finally:
        for connection in opened:
            connection.close()


def test_the_deadline_of_a_request_is_the_sooner_one(server):
    assert server.post("/predict", BODY, headers={"X-Request-Timeout-Ms": "60000"}).status_code == 200
    for wrong in ("0", "-1", "1s", "9" * 20):
        assert server.post("/predict", BODY, headers={"X-Request-Timeout-Ms": wrong}).status_code == 400
    os.kill(server.model_process, signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = server.post("/predict", BODY, headers={"X-Request-Timeout-Ms": "200"})
        assert answer.status_code == 504 and time.monotonic() - began < 3
    finally:
        os.kill(server.model_process, signal.SIGCONT)


def test_where_no_file_descriptor_is_left_the_server_goes_on(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people"})
    with serving.served(tmp_path, job) as server:
        host, _, port = server.address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as mine:
            request = post(len(BODY)).replace(b"Connection: close\r\n", b"") + BODY
            mine.sendall(request)
            assert b"200 OK" in mine.recv(1000)
            used = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
            others = [socket.create_connection((host, int(port)), timeout=30) for _ in range(50)]
            time.sleep(0.3)
            mine.sendall(request)
            assert b"200 OK" in mine.recv(1000)
            for other in others:
                other.close()
        late = time.monotonic() + 30
        while time.monotonic() < late:
            try:
                assert server.post("/predict", BODY).status_code == 200
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError("it takes no connections any more")
