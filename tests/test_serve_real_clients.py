"""The clients of others, in an environment of their own: what they send is understood, and what they get is read."""

from __future__ import annotations

import json
import subprocess

import jobs
import pytest
import serving
from environments import environment

CLIENTS = jobs.ROOT / "tests/kit/clients"


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("kinds")
    with serving.served(folder, model("echo_kinds"), "--set", "serve.name=kinds") as running:
        yield running
        assert running.end() == 0


def answers(script: str, server) -> dict:
    python = environment("clients", CLIENTS / "requirements.txt") / "python"
    command = [python, CLIENTS / script, server.address, server.rpc, "kinds"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


EXPECTED = {
    "half": ["3.0", "-4.0"],
    "real": ["0.20000000298023224", "2.802596928649634e-45"],
    "count": ["2", "18014398509481986"],
    "flag": ["True", "False"],
    "text": ["", "gr\u00fcn"],
}


def test_the_clients_of_triton(server):
    found = answers("triton.py", server)
    assert "Missing but required" in found.pop("http error") and found.pop("grpc error") == "StatusCode.NOT_FOUND"
    assert len(found) == 8 and all(answer == EXPECTED for answer in found.values()), found


def test_the_clients_of_kserve(server):
    found = answers("kserve_v2.py", server)
    assert len(found) == 3 and all(answer == EXPECTED for answer in found.values()), found
