"""A local Dataflow service that supports the needs of a batch job: the REST calls of v1b3 that a launcher makes,
answered with the service's own messages, and parsed as strictly.

The outcome of a job is set before the job is created. A job that runs is really run: the staged graph, in a process
that shares nothing with the launcher.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.cloud import dataflow
from google.protobuf import json_format
from jobs import ROOT, environment

_PATH = re.compile(
    r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(?:/(?P<id>[^/]+))?(?:/(?P<of>\w+))?"
)
_ENDED = (dataflow.JobState.JOB_STATE_DONE, dataflow.JobState.JOB_STATE_FAILED, dataflow.JobState.JOB_STATE_CANCELLED)
_BY_IMPORTANCE = [
    f"JOB_MESSAGE_{name}" for name in ("IMPORTANCE_UNKNOWN", "DEBUG", "DETAILED", "BASIC", "WARNING", "ERROR")
]
"""The numbers of the enum are in another order."""


def section(temp: str, **settings: Any) -> dict[str, Any]:
    """Return `engine` of a job on this service, with `temp_location` and further `engine.dataflow` settings."""
    return {
        "runner": "dataflow",
        "workers": "auto",
        "split_bytes": "8KiB",
        "block_bytes": "1KiB",
        "xla": "off",
        "dataflow": {
            "project": "my-project",
            "region": "europe-west4",
            "temp_location": temp,
            "image": "europe-docker.pkg.dev/my-project/images/beam-score:1",
            "max_workers": 2,
            **settings,
        },
    }


@dataclasses.dataclass(frozen=True)
class Fate:
    """The outcome of a job: it runs, fails if there are errors, or waits to be cancelled if it `hangs`.

    Attributes:
      errors: the error messages with which it fails; like those of the service, they arrive after the job has failed.
      hangs: the job runs until it is cancelled.
      forbidden: the calls that are answered with 403, as "METHOD jobs" or "METHOD job".
    """

    errors: Sequence[str] = ()
    hangs: bool = False
    forbidden: Sequence[str] = ()


class Refused(Exception):
    """A call that the service refuses: (status, reason)."""


class Service:
    """A local Dataflow service.

    Attributes:
      jobs: the jobs created, by id.
      requests: "METHOD PATH" of all calls, in order.
      request_bytes: size of the largest body.
      fate: outcome of the jobs that are created from now on.
      taking: while it is not set, a call that creates a job gets no answer.
    """

    def __init__(self):
        self.jobs: dict[str, dataflow.Job] = {}
        self.requests: list[str] = []
        self.request_bytes = 0
        self.fate = Fate()
        self.taking = threading.Event()
        self.taking.set()
        self._messages: dict[str, list[dataflow.JobMessage]] = {}
        self._looks: dict[str, int] = {}
        self._workers: dict[str, subprocess.Popen] = {}
        self._lock = threading.Lock()

    def created(self, project: str, region: str, body: bytes) -> dataflow.Job:
        job = self._read(dataflow.Job, body)
        for name in ("name", "environment", "client_request_id"):
            if not getattr(job, name):
                raise Refused(400, f"a job needs {name}")
        if any(other.name == job.name and other.current_state not in _ENDED for other in self.jobs.values()):
            raise Refused(409, f"There is already an active job named {job.name}")
        now = datetime.datetime.now(datetime.UTC)
        job.id = f"{now:%Y-%m-%d_%H_%M_%S}-{len(self.jobs) + 1:018}"
        job.project_id, job.location, job.create_time = project, region, now
        job.current_state = dataflow.JobState.JOB_STATE_PENDING
        self.jobs[job.id], self._messages[job.id], self._looks[job.id] = job, [], 0
        self._say(job.id, "JOB_MESSAGE_BASIC", f"Worker configuration: {self._machine(job)} in {region}.")
        if not (self.fate.errors or self.fate.hangs):
            graph = dict(job.environment.sdk_pipeline_options["options"])["pipelineUrl"]
            command = [sys.executable, str(ROOT / "tests" / "kit" / "dataflow_worker.py"), graph]
            self._workers[job.id] = subprocess.Popen(
                command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        return job

    def looked_at(self, id_: str) -> dataflow.Job:
        """Return the current state of a job; each call advances the job by a step."""
        job = self._job(id_)
        self._looks[id_] += 1
        if job.current_state == dataflow.JobState.JOB_STATE_PENDING and self._looks[id_] > 1:
            job.current_state = dataflow.JobState.JOB_STATE_RUNNING
            self._say(id_, "JOB_MESSAGE_BASIC", "Workers have started successfully.")
        elif job.current_state == dataflow.JobState.JOB_STATE_RUNNING:
            worker = self._workers.get(id_)
            if self.fate.errors:
                job.current_state = dataflow.JobState.JOB_STATE_FAILED
            elif worker is not None and worker.poll() is not None:
                done = worker.returncode == 0
                job.current_state = dataflow.JobState.JOB_STATE_DONE if done else dataflow.JobState.JOB_STATE_FAILED
                if not done:
                    self._say(id_, "JOB_MESSAGE_ERROR", worker.stderr.read())
        elif job.current_state == dataflow.JobState.JOB_STATE_FAILED and self.fate.errors:
            for text in self.fate.errors:
                self._say(id_, "JOB_MESSAGE_ERROR", text)
            self.fate = Fate()
        return job

    def updated(self, id_: str, body: bytes) -> dataflow.Job:
        asked, job = self._read(dataflow.Job, body), self._job(id_)
        if asked.requested_state != dataflow.JobState.JOB_STATE_CANCELLED:
            raise Refused(400, f"cannot bring a job to {asked.requested_state!r}")
        job.current_state = dataflow.JobState.JOB_STATE_CANCELLED
        if worker := self._workers.get(id_):
            worker.kill()
        return job

    def end(self, id_: str, state: str) -> None:
        """End a job, as another client would."""
        with self._lock:
            self._job(id_).current_state = dataflow.JobState[state]

    def messages(self, id_: str, query: dict[str, list[str]]) -> dataflow.ListJobMessagesResponse:
        self._job(id_)
        asked = query.get("minimumImportance", ["0"])[0]  # a name or a number, as any enum in JSON
        least = dataflow.JobMessageImportance(int(asked)) if asked.isdigit() else dataflow.JobMessageImportance[asked]
        wanted = _BY_IMPORTANCE[_BY_IMPORTANCE.index(least.name) :]
        found = [m for m in self._messages[id_] if m.message_importance.name in wanted]
        if start := query.get("startTime"):
            since = datetime.datetime.fromisoformat(start[0])
            found = [m for m in found if m.time >= since]
        return dataflow.ListJobMessagesResponse(job_messages=found)

    def listed(self, query: dict[str, list[str]]) -> dataflow.ListJobsResponse:
        asked = dataflow.ListJobsRequest.Filter
        given = query.get("filter", ["0"])[0]  # a name or a number, as any enum in JSON
        found = list(self.jobs.values())
        if (asked(int(given)) if given.isdigit() else asked[given]) == asked.ACTIVE:
            found = [job for job in found if job.current_state not in _ENDED]
        if name := query.get("name"):
            found = [job for job in found if job.name == name[0]]
        return dataflow.ListJobsResponse(jobs=found)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.kill()
            worker.communicate()

    def answer(self, method: str, path: str, body: bytes):
        """Return the message that answers a call. Raises Refused."""
        url = urlsplit(path)
        found = _PATH.fullmatch(url.path)
        self.requests.append(f"{method} {url.path}")
        if method == "POST":
            self.taking.wait()
        with self._lock:
            self.request_bytes = max(self.request_bytes, len(body))
            if found is None:
                raise Refused(404, f"no such path: {url.path}")
            id_, of = found["id"], found["of"]
            if f"{method} {'jobs' if id_ is None else 'job'}" in self.fate.forbidden:
                raise Refused(403, "The caller does not have permission")
            if method == "POST" and id_ is None:
                return self.created(found["project"], found["region"], body)
            if method == "GET" and id_ is None:
                return self.listed(parse_qs(url.query))
            if method == "PUT" and of is None:
                return self.updated(id_, body)
            if method == "GET" and of is None:
                return self.looked_at(id_)
            if method == "GET" and of == "messages":
                return self.messages(id_, parse_qs(url.query))
            if method == "GET" and of == "metrics":
                return dataflow.JobMetrics(metrics=[])
            raise Refused(404, f"no such call: {method} {url.path}")

    def _job(self, id_: str) -> dataflow.Job:
        if id_ not in self.jobs:
            raise Refused(404, f"no such job: {id_}")
        return self.jobs[id_]

    def _say(self, id_: str, importance: str, text: str) -> None:
        said = self._messages[id_]
        said.append(
            dataflow.JobMessage(
                id=f"m{len(said)}",
                time=datetime.datetime.now(datetime.UTC),
                message_text=text,
                message_importance=dataflow.JobMessageImportance[importance],
            )
        )

    @staticmethod
    def _machine(job: dataflow.Job) -> str:
        return job.environment.worker_pools[0].machine_type

    @staticmethod
    def _read(kind, body: bytes):
        message = kind()
        try:
            json_format.Parse(body, message._pb, ignore_unknown_fields=False)
        except json_format.ParseError as error:
            raise Refused(400, str(error)) from None
        return message


@contextlib.contextmanager
def serving() -> Iterator[tuple[Service, str]]:
    """Yield a service and the address of its endpoint."""
    service = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                message = service.answer(self.command, self.path, body)
                status, text = 200, json_format.MessageToJson(message._pb)
            except Refused as refused:
                status, reason = refused.args
                text = json.dumps(
                    {"error": {"code": status, "message": reason, "status": http.HTTPStatus(status).name}}
                )
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service, f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        service.close()
        thread.join()


def staged(service: Service) -> list[Path]:
    """Return the graphs that the jobs were created with."""
    return [Path(dict(job.environment.sdk_pipeline_options["options"])["pipelineUrl"]) for job in service.jobs.values()]
