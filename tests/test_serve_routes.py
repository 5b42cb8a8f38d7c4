"""Paths, verbs and headers of HTTP, by default and as TensorFlow Serving answers them."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time

import pytest
import serving

BODY = json.dumps({"instances": [[1, 1.5, 0.5]]})


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    arguments = ("--set", f"serve.name={json.dumps('a b')}", "--set", "serve.cors=true")
    with serving.served(tmp_path_factory.mktemp("routes"), model("multiply"), *arguments) as running:
        yield running
        assert running.end() == 0


@pytest.fixture(scope="module")
def lenient(tmp_path_factory, model):
    arguments = ("--set", "serve.name=m", "--compat", "tfserving")
    with serving.served(tmp_path_factory.mktemp("lenient"), model("multiply"), *arguments) as running:
        yield running
        assert running.end() == 0


def ask(server, verb, path, body=None, **headers):
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
    connection.request(verb, path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), json.loads(text) if text.startswith("{") else text


@pytest.mark.parametrize("path", ["/v1/models/a%20b:predict", "/V1/MODELS/%61 b:Predict".replace(" ", "%20")])
def test_names_are_decoded_and_paths_match_in_any_case(server, path):
    assert ask(server, "POST", path, BODY)[0] == 200
    assert ask(server, "POST", path + "?trace=1", BODY)[0] == 200
    assert ask(server, "GET", "/v2/models/a%20b/ready")[0] == 200


def test_a_slash_in_a_name_is_part_of_it(server):
    status, _, body = ask(server, "POST", "/v1/models/a%20b%2Fmetadata:predict", BODY)
    assert status == 404 and body["error"] == "Servable not found for request: Latest(a b/metadata)"
    status, _, body = ask(server, "GET", "/v1/models/a%20b%2Fmetadata")
    assert status == 404 and "Could not find any versions of model a b/metadata" in body["error"]


@pytest.mark.parametrize(
    "path", ["/v1/models/m/versions/N:predict", "/v1/models/m/versions/N", "/v2/models/m/versions/N/infer"]
)
def test_a_version_beyond_64_bits_is_refused(server, path):
    verb = "GET" if path.endswith("N") else "POST"
    for number in (1 << 63, 10**30):
        status, _, body = ask(server, verb, path.replace("N", str(number)), BODY)
        assert status == 400 and body["error"].startswith("Failed to convert version: ")
    status, _, body = ask(server, verb, path.replace("N", str((1 << 63) - 1)), BODY)
    assert status == 404


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "PATCH"])
def test_other_verbs_are_405_as_json(server, verb):
    for path in ("/predict", "/v1/models/a%20b:predict", "/v1/models/a%20b", "/healthz", "/v2/models/a%20b/infer"):
        status, headers, body = ask(server, verb, path, BODY)
        assert status == 405 and body["code"] == "METHOD_NOT_ALLOWED" and headers["allow"]


def test_what_is_not_there_is_404_for_every_verb(server):
    for verb in ("GET", "POST", "PUT"):
        for path, error in (
            ("/nix", "docs/serving.md"),
            ("/v1/models/nix", "Could not find any versions of model nix"),
        ):
            status, _, body = ask(server, verb, path, BODY)
            assert status == 404 and error in body["error"]


def test_head_has_the_headers_of_get(server):
    status, headers, body = ask(server, "HEAD", "/v1/models/a%20b")
    assert status == 200 and int(headers["content-length"]) > 0 and body == ""
    assert ask(server, "HEAD", "/predict")[0] == 405


CORS = {"access-control-allow-origin": "*", "access-control-allow-methods": "POST, GET"}


def test_pages_of_other_origins_may_ask(server):
    status, headers, body = ask(server, "OPTIONS", "/v1/models/a%20b:predict", Origin="https://example.com")
    assert status == 200 and body == "" and CORS.items() <= headers.items()
    status, headers, body = ask(server, "OPTIONS", "/predict")
    assert status == 400 and body["error"] == "Origin header is missing in CORS preflight"
    assert CORS.items() <= ask(server, "POST", "/predict", BODY)[1].items()
    assert CORS.items() <= ask(server, "POST", "/predict", "{")[1].items()


def test_malformed_requests_have_the_text_of_tensorflow_serving(lenient):
    for verb, path in [
        ("POST", "/v1/models/m:predict?trace=1"),
        ("GET", "/v1/models/m:predict"),
        ("PUT", "/v1/models/m:predict"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:nix"),
        ("GET", "/v1/nix"),
    ]:
        status, _, body = ask(lenient, verb, path, BODY)
        assert (status, body["error"]) == (400, f"Malformed request: {verb} {path}")
    assert ask(lenient, "HEAD", "/v1/models/m")[0] == 400
    assert ask(lenient, "GET", "/v1/models")[2]["error"] == "Missing model name in request."
    assert ask(lenient, "OPTIONS", "/v1/models/m:predict", Origin="http://x")[0] == 200
    assert not CORS.items() <= ask(lenient, "GET", "/v1/models/m")[1].items()
    assert ask(lenient, "POST", "/V1/models/m/versions/1:Predict", BODY)[0] == 200
    assert ask(lenient, "GET", "/v1/models/m/metadata")[0] == 200


def test_without_cors_other_origins_get_no_leave(tmp_path, model):
    with serving.served(tmp_path, model("multiply")) as server:
        status, headers, _ = ask(server, "OPTIONS", "/predict", Origin="https://example.com")
        assert status == 405 and not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    "given", [(BODY.encode(), 200), (b'{"instances": [[1, 2]]}', 400), (b"[" * 100, 400)], ids=["good", "bad", "broken"]
)
def test_a_request_has_the_same_answer_however_it_comes(server, given):
    """Whole, byte by byte, in chunks, behind another request, or compressed: the same bytes, but for the times."""
    body, expected = given
    host, _, port = server.address.removeprefix("http://").rpartition(":")

    def asked(body: bytes, *headers: str, chunked: bool = False) -> bytes:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = ("POST /predict HTTP/1.1", "Host: x", "X-Request-ID: same", length, *headers)
        sent = b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body))) + b"0\r\n\r\n"
        return "\r\n".join(head).encode() + b"\r\n\r\n" + (sent if chunked else body)

    ways = [
        [asked(body)],
        [bytes([one]) for one in asked(body)],
        [asked(body, chunked=True)],
        [asked(gzip.compress(body), "Content-Encoding: gzip")],
        [asked(body) * 3],
        [asked(body) + asked(body)[:-3], asked(body)[-3:]],
    ]
    answers = set()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for pieces in ways:
            count = b"".join(pieces).count(b"POST ")
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.001)
            with connection.makefile("rb") as stream:
                for _ in range(count):
                    head = list(iter(stream.readline, b"\r\n"))
                    length = next(int(line.split()[1]) for line in head if line.startswith(b"content-length"))
                    times = b"server-timing"
                    kept = b"".join(line for line in head if not line.startswith(times)) + stream.read(length)
                    answers.add((kept, sum(line.startswith(times) for line in head)))
    ((answer, _),) = answers
    assert int(answer.split()[1]) == expected
