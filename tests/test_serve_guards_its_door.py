"""TLS, tokens, sockets, other origins, and the end: who may ask, where, and until when."""

from __future__ import annotations

import concurrent.futures
import datetime
import ipaddress
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import grpc
import jobs
import numpy as np
import pytest
import requests
import serving
import tensorflow as tf
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2

GOOD = {"age": 1, "income": 1.5, "score": 0.5}
BODY = json.dumps({"instances": [GOOD]}).encode()
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def request_bytes() -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "people"
    for name, value in GOOD.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.array([value], np.float32)))
    return request.SerializeToString()


def make_certificate(folder: Path, name: str) -> tuple[str, str]:
    """Write a certificate for 127.0.0.1, signed by itself, and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return str(certificate), str(secret)


def test_tls_of_both_protocols_asks_clients_for_a_certificate(tmp_path, model):
    certificate, key = make_certificate(tmp_path, "server")
    mine, my_key = make_certificate(tmp_path, "client")
    tls = {"certificate": certificate, "key": key, "client_ca": mine}
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "tls": tls})
    with serving.served(tmp_path, job) as server:
        url = server.address.replace("http:", "https:") + "/predict"
        answer = requests.post(url, data=BODY, verify=certificate, cert=(mine, my_key), timeout=30)
        assert answer.status_code == 200
        with pytest.raises(requests.RequestException):
            requests.post(url, data=BODY, verify=certificate, timeout=30)
        with pytest.raises(requests.RequestException):
            server.post("/predict", BODY)  # without TLS
        ca, pair = Path(certificate).read_bytes(), (Path(my_key).read_bytes(), Path(mine).read_bytes())
        with grpc.secure_channel(server.rpc, grpc.ssl_channel_credentials(ca, *pair)) as channel:
            assert channel.unary_unary(PREDICT)(request_bytes(), timeout=30)
        without = grpc.ssl_channel_credentials(ca)
        with grpc.secure_channel(server.rpc, without) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(PREDICT)(request_bytes(), timeout=5)
        assert server.end() == 0


@pytest.mark.parametrize("source", ["file", "env"])
def test_a_token_opens_all_but_health_and_is_shown_nowhere(tmp_path, model, source):
    secret = "s3cret-of-this-test"
    (tmp_path / "token").write_text(secret + "\n")
    token = {"file": str(tmp_path / "token")} if source == "file" else {"env": "BEAM_SCORE_TEST_TOKEN"}
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "token": token})
    variables = {"BEAM_SCORE_TEST_TOKEN": secret} if source == "env" else {}
    with serving.served(tmp_path, job, **variables) as server:
        for headers in ({}, {"Authorization": "Bearer nix"}, {"Authorization": secret}, {"Authorization": "Basic x"}):
            answer = server.post("/predict", BODY, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["code"] == "UNAUTHENTICATED"
        right = {"Authorization": f"Bearer {secret}"}
        assert server.post("/predict", BODY, headers=right).status_code == 200
        assert server.get("/readyz").status_code == 200 and server.get("/metrics").status_code == 401
        with grpc.insecure_channel(server.rpc) as channel:
            call = channel.unary_unary(PREDICT)
            with pytest.raises(grpc.RpcError) as refused:
                call(request_bytes(), timeout=30)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert call(request_bytes(), timeout=30, metadata=(("authorization", f"Bearer {secret}"),))
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
            assert health.status == health_pb2.HealthCheckResponse.SERVING
        metadata = requests.get(server.address + "/v1/models/people/metadata", headers=right, timeout=30).text
        processes = [server.process.pid, server.model_process]
        seen = [Path(f"/proc/{pid}/cmdline").read_text() for pid in processes]
        seen.append(Path(f"/proc/{server.model_process}/environ").read_text())
        assert server.end() == 0
        assert not any(secret in text for text in (*seen, metadata, *server.process.communicate()))


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        ({"token": {"file": "a", "env": "B"}}, "expected {file: PATH} or {env: NAME}"),
        ({"tls": {"client_ca": "a"}}, "expected a certificate and its key"),
        ({"token": {"file": "/nix"}}, "serve.token.file: /nix"),
        ({"token": {"env": "BEAM_SCORE_NIX"}}, "BEAM_SCORE_NIX has no token"),
        ({"tls": {"certificate": "/nix", "key": "/nix"}}, "serve.tls: /nix"),
        ({"monitoring": "metrics"}, "serve.monitoring"),
        ({"log": {"sample": 2}}, "serve.log.sample"),
        ({"limits": {"body_time": "soon"}}, "body_time"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(tmp_path, model, serve, problem):
    done = jobs.cli("serve", jobs.write_job(tmp_path, model("multiply"), serve=serve), "--check")
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr


def test_an_open_door_is_warned_of(tmp_path, model):
    done = jobs.cli("serve", jobs.write_job(tmp_path, model("multiply")), "--check", "--host", "0.0.0.0")
    assert done.returncode == 0 and "everybody who reaches 0.0.0.0 may ask" in done.stderr
    done = jobs.cli("serve", jobs.write_job(tmp_path, model("multiply")), "--check")
    assert "everybody" not in done.stderr


def test_unix_sockets_beside_the_ports(tmp_path, model):
    uds, grpc_uds = tmp_path / "http.sock", tmp_path / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as left:  # by a server that was killed
        left.bind(str(uds))
    job = jobs.write_job(
        tmp_path, model("multiply"), serve={"name": "people", "uds": str(uds), "grpc_uds": str(grpc_uds)}
    )
    with serving.served(tmp_path, job) as server:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(uds))
            connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
        with grpc.insecure_channel(f"unix:{grpc_uds}") as channel:
            assert channel.unary_unary(PREDICT)(request_bytes(), timeout=30)
        assert server.post("/predict", BODY).status_code == 200
        assert server.end() == 0 and not uds.exists()


def test_pages_of_other_origins_may_ask_where_that_is_set(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "cors": True})
    with serving.served(tmp_path, job) as server:
        assert server.post("/predict", BODY).headers["access-control-allow-origin"] == "*"
        asked = requests.options(server.address + "/predict", headers={"Origin": "http://x"}, timeout=30)
        assert asked.status_code == 200 and asked.headers["access-control-allow-methods"] == "POST, GET"


def test_nothing_that_was_accepted_fails_when_the_server_ends_under_load(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "drain_delay": 0.5})
    ended, failures, done = threading.Event(), [], [0, 0]

    def ask_rest(_: int) -> None:
        session = requests.Session()
        while True:
            try:
                answer = session.post(server.address + "/predict", data=BODY, timeout=30)
            except requests.ConnectionError as error:
                # A connection that is refused was not accepted; an answer that breaks off was.
                if "refused" not in str(error) or not ended.is_set():
                    failures.append(str(error))
                return
            done[0] += answer.status_code == 200
            if answer.status_code != 200:
                failures.append(answer.text)

    def ask_grpc(_: int) -> None:
        with grpc.insecure_channel(server.rpc) as channel:
            call = channel.unary_unary(PREDICT)
            while True:
                try:
                    call(request_bytes(), timeout=30)
                except grpc.RpcError as error:
                    # A call that comes in the moment when the port closes never reaches a handler (grpc.aio).
                    closed = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                    if error.code() not in closed or not ended.is_set():
                        failures.append(error.details())
                    return
                done[1] += 1

    with serving.served(tmp_path, job) as server, concurrent.futures.ThreadPoolExecutor(9) as pool:
        reading = pool.submit(server.process.stderr.read)
        asking = [pool.submit(ask_rest, n) for n in range(4)] + [pool.submit(ask_grpc, n) for n in range(4)]
        time.sleep(1)
        ended.set()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        ready = server.get("/readyz")
        assert ready.status_code == 503 and ready.headers["connection"] == "close"
        for one in asking:
            one.result(60)
        assert server.process.wait(60) == 0
        (account,) = [json.loads(line) for line in reading.result().splitlines() if '"account"' in line]
    assert not failures and min(done) > 0
    assert account["predicted"] == account["received"] == sum(done) and account["in_flight"] == 0


def test_the_second_signal_ends_the_server_at_once(tmp_path, model):
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people"})
    with serving.served(tmp_path, job) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        os.kill(server.model_process, signal.SIGSTOP)
        child = server.model_process
        asked = pool.submit(requests.post, server.address + "/predict", data=BODY, timeout=30)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        began = time.monotonic()
        assert server.end() == 1 and time.monotonic() - began < 5
        os.kill(child, signal.SIGCONT)
        with pytest.raises(requests.ConnectionError):
            asked.result()
