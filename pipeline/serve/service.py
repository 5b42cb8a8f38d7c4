"""The server: from a job to a service that answers until a signal ends it."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.serve.answering.rows import CONTRACT
from beam_score.pipeline.serve.binding import steps_of
from beam_score.pipeline.serve.front.connections import Listener
from beam_score.pipeline.serve.front.guard import check_tls, guard_of
from beam_score.pipeline.serve.front.http import Application
from beam_score.pipeline.serve.front.metadata import metadata, of_contract, of_signature
from beam_score.pipeline.serve.front.models import Models, Served
from beam_score.pipeline.serve.front.rpc import Rpc
from beam_score.pipeline.serve.listening import http_server, is_open_to_others, listening
from beam_score.pipeline.serve.models.process import LoadFailed, ModelProcess, Version
from beam_score.pipeline.serve.reports.log_thread import logging_in_thread
from beam_score.pipeline.serve.reports.request_log import RequestLog, writer
from beam_score.pipeline.serve.reports.traces import Traces
from beam_score.pipeline.serve.reports.versions import VersionMetrics
from beam_score.transforms.model.copies import hashed_model
from beam_score.transforms.model.signature import ModelError, choose_signature, read_signatures
from beam_score.transforms.model.versions import find_version

_log = logging.getLogger(__name__)


class Service:
    """A server for one job.

    Args:
      job: its contract and model, and how they are served.
    """

    def __init__(self, job: Job):
        self._job, self._settings = job, job.serve
        self._models = Models()
        self._ending = asyncio.Event()
        self._version, self._metadata = self._prepare()
        check_tls(job.serve.tls)
        self._guard = guard_of(job.serve.token)
        if is_open_to_others(job.serve):
            _log.warning(
                "everybody who reaches %s may ask: serve.token or serve.tls.client_ca limit that", job.serve.host
            )
        logs = _log.isEnabledFor(logging.INFO) and job.serve.log.sample > 0
        self._log = RequestLog(writer(sys.stderr.fileno()), job.serve.log.sample) if logs else None

    def _prepare(self) -> tuple[Version, dict[str, Any]]:
        """Return the version to serve and what is said of it. Raises JobError."""
        job = self._job
        try:
            found = find_version(job.model.path, job.model.version)
            local, sha256 = hashed_model(found.path)
            signatures = read_signatures(local)
            own = choose_signature(signatures, job.model.signature)
            steps = steps_of(job, str(local), sha256)
        except (ModelError, OSError) as error:
            raise JobError([f"model.path: {error}"]) from None
        name = self._settings.name or Path(job.model.path.rstrip("/")).name
        version = Version(name, int(found.version or 1), str(local), sha256)
        shown = {own.name: of_signature(own), CONTRACT: of_contract(job.contract.columns, steps.outputs)}
        return version, metadata(version.name, version.number, shown)

    @property
    def name(self) -> str:
        """The name of the model in paths."""
        return self._version.name

    async def run(self, ready: Callable[[str, int, int | None], None]) -> None:
        """Listen, load, answer, and end with SIGTERM or SIGINT, once everything accepted is answered.

        Args:
          ready: called with the host, the port of HTTP and that of gRPC, once requests are answered.

        Raises:
          JobError: the address is not available, or the model does not load.
        """
        settings, log = self._settings, self._log
        if log is not None:
            self._models.accounts.observers.append(log.observe)
        traces = self._traces()
        self._models.accounts.registry.register(VersionMetrics(self._models))
        with logging_in_thread(), listening(settings) as listeners:
            port = listeners[0].getsockname()[1]
            server = http_server(Application(self._models, settings, self._guard, log), settings)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end)
            rpc = None
            if settings.grpc_port is not None:
                rpc = Rpc(self._models, settings, settings.grpc_port, self._guard, log)
                await rpc.start()
            serving = asyncio.create_task(server.serve(sockets=listeners))
            served = self._served()
            self._models.add(served)
            try:
                await served.start()
            except LoadFailed as error:
                server.should_exit = True
                await serving
                raise JobError([str(error)]) from None
            if not self._ending.is_set():  # a signal came while it loaded
                if rpc is not None:
                    await rpc.be(True)
                ready(settings.host, port, None if rpc is None else rpc.port)
            await asyncio.gather(serving, self._drained(server, rpc))
            await self._models.close()
            if log is not None:
                await log.end(self._models.accounts)
            if traces is not None:
                await loop.run_in_executor(None, traces.close)

    def _traces(self) -> Traces | None:
        """Observe requests for OpenTelemetry, where that is asked for. Raises JobError."""
        endpoint = self._settings.traces.endpoint
        if endpoint is None and "OTEL_EXPORTER_OTLP_ENDPOINT" not in os.environ:
            return None
        traces = Traces(endpoint)
        self._models.accounts.observers.append(traces.observe)
        return traces

    async def _drained(self, server: Listener, rpc: Rpc | None) -> None:
        """Wait for a signal, then until everything that was accepted is answered."""
        await self._ending.wait()
        if rpc is not None:
            await rpc.be(False)
        await asyncio.sleep(self._settings.drain_delay)
        server.should_exit = True
        if rpc is not None:
            await rpc.stop(self._settings.drain)

    def _served(self) -> Served:
        version, settings = self._version, self._settings
        load = functools.partial(ModelProcess.load, version, self._job.as_json())
        account = self._models.accounts.of(version.name, version.number)
        hangs_s = 2 * settings.limits.request  # all requests of a batch are late by then
        batching = settings.batching
        window_s = batching.window_ms / 1000
        return Served(load, version, self._metadata, account, batching.rows, hangs_s, window_s)

    def _end(self) -> None:
        if self._ending.is_set():  # the second signal
            os._exit(ExitCode.FAILED)
        self._models.draining = True
        self._ending.set()


def write_ready_file(path: str, host: str, ports: Sequence[int]) -> None:
    """Write a line `HOST:PORT` for HTTP, and one for gRPC, to a file that appears whole."""
    partial = f"{path}.{os.getpid()}"
    Path(partial).write_text("".join(f"{host}:{port}\n" for port in ports), encoding="utf-8")
    os.replace(partial, path)
