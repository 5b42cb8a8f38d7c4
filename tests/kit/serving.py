"""A real server, and requests to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jobs
import requests

_START_S = 120


@dataclasses.dataclass
class Server:
    """A running `beam-score serve`.

    Attributes:
      process: the front.
      address: `http://HOST:PORT`.
      rpc: `HOST:PORT` of gRPC.
    """

    process: subprocess.Popen[str]
    address: str
    rpc: str

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        return requests.post(self.address + path, data=data, timeout=30, **options)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.address + path, timeout=30)

    @property
    def model_process(self) -> int:
        """The process id of the only model."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[-1])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        os.kill(self.process.pid, number)
        return self.process.wait(60)


def echo_job(folder: Path, saved_model: str, columns: dict[str, Any]) -> str:
    """Write a job over the model `echo`, and return its path."""
    settings = jobs.settings(folder, saved_model, columns=columns, inputs={}, serve={"name": "echo"})
    path = folder / "job.yaml"
    path.write_text(json.dumps(settings | {"input": {"files": "*.jsonl"}}))
    return str(path)


@contextlib.contextmanager
def served(folder: Path, job: str, *arguments: str) -> Iterator[Server]:
    """Serve a job on a free port while the body runs."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    process = jobs.start("serve", job, "--port", "0", "--grpc-port", "0", "--ready-file", str(ready), *arguments)
    with until_ready(process, ready) as server:
        yield server


@contextlib.contextmanager
def until_ready(process: subprocess.Popen[str], ready: Path) -> Iterator[Server]:
    """Wait until a server that was started is ready; end it with the body."""
    try:
        late = time.monotonic() + _START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > late:
                process.kill()
                raise AssertionError(f"the server did not start: {process.communicate()}")
            time.sleep(0.02)
        http, rpc = ready.read_text().split()
        yield Server(process, f"http://{http}", rpc)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
