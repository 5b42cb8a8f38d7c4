"""The server: from a job to a service that answers until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError, together
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.serve.front.containers import aliases
from beam_score.pipeline.serve.front.guard import check_tls, guard_of
from beam_score.pipeline.serve.front.http import Application
from beam_score.pipeline.serve.front.models import Models
from beam_score.pipeline.serve.front.rpc import Rpc
from beam_score.pipeline.serve.http1.listener import Listener
from beam_score.pipeline.serve.listening import check_addresses, http_listener, is_open_to_others, listening
from beam_score.pipeline.serve.reports.log_thread import logging_in_thread
from beam_score.pipeline.serve.reports.request_log import RequestLog, writer
from beam_score.pipeline.serve.reports.traces import Traces
from beam_score.pipeline.serve.versions.admin import admin_socket
from beam_score.pipeline.serve.versions.changes import Changes, sources_of
from beam_score.pipeline.serve.versions.source import check_sources

_log = logging.getLogger(__name__)


class Service:
    """A server for one job, or for the folder of a model.

    Args:
      job: its contract and model, and how they are served.
      read: reads the job again, at SIGHUP. Raises JobError.
    """

    def __init__(self, job: Job | ModelFolder, read: Callable[[], Job | ModelFolder] | None = None):
        self._settings = job.serve
        self._models = Models()
        self._changes = Changes(self._models, job, read)
        self._ending = asyncio.Event()
        *_, self._guard = together(
            lambda: check_addresses(job.serve),
            lambda: check_sources(sources_of(job), {}),
            lambda: check_tls(job.serve.tls),
            lambda: guard_of(job.serve.token),
        )
        if is_open_to_others(job.serve):
            _log.warning(
                "everybody who reaches %s may ask: serve.token or serve.tls.client_ca limit that", job.serve.host
            )
        logs = _log.isEnabledFor(logging.INFO) and job.serve.log.sample > 0
        self._log = RequestLog(writer(sys.stderr.fileno()), job.serve.log.sample) if logs else None

    @property
    def name(self) -> str:
        """The name of the model in paths."""
        return self._models.main

    async def run(
        self, ready: Callable[[str, int, int | None], None], admin: str | None = None, ready_file: str | None = None
    ) -> None:
        """Listen, load, answer, and end with SIGTERM or SIGINT, once everything accepted is answered.

        Args:
          ready: called with the host, the port of HTTP and that of gRPC, once requests are answered.
          admin: the path of a socket for an operator; see `versions.admin`.
          ready_file: that `ready` writes: an older one is removed before, and this one at the end.

        Raises:
          JobError: the address is not available, or the model does not load.
        """
        settings, log = self._settings, self._log
        if log is not None:
            self._models.accounts.observers.append(log.observe)
        traces = self._traces()
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(logging_in_thread())
            listeners = stack.enter_context(listening(settings))
            await stack.enter_async_context(admin_socket(admin, self._changes.revert))
            stack.enter_context(_removed(ready_file))
            port = listeners[0].getsockname()[1]
            application = Application(self._models, settings, self._guard, log, aliases(os.environ))
            server = http_listener(application, listeners, settings)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end)
            loop.add_signal_handler(signal.SIGHUP, self._changes.reload)
            rpc = None
            if settings.grpc_port is not None:
                rpc = Rpc(self._models, settings, settings.grpc_port, self._guard, log)
                await rpc.start()
            serving = asyncio.create_task(server.serve())
            try:
                await self._load()
            except JobError:
                server.end()
                await serving
                raise
            following = None
            if not self._ending.is_set():  # a signal came while it loaded
                if rpc is not None:
                    await rpc.be(True)
                    following = asyncio.create_task(rpc.follow())
                ready(settings.host, port, None if rpc is None else rpc.port)
            await asyncio.gather(serving, self._drained(server, rpc))
            if following is not None:
                following.cancel()
            await self._changes.close()
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
        server.end()
        if rpc is not None:
            await rpc.stop(self._settings.drain)

    async def _load(self) -> None:
        """Load the model, unless a signal ends the server before. Raises JobError."""
        loading = asyncio.create_task(self._changes.start())
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((loading, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if loading.done():
            loading.result()
        else:
            loading.cancel()
            await asyncio.wait((loading,))

    def _end(self) -> None:
        if self._ending.is_set():  # the second signal
            os._exit(ExitCode.FAILED)
        self._models.draining = True
        self._ending.set()


@contextlib.contextmanager
def _removed(ready_file: str | None) -> Iterator[None]:
    """Remove a file before the body runs, and after it. Raises JobError if there is another thing at its path."""
    if ready_file is None:
        yield
        return
    try:
        Path(ready_file).unlink(missing_ok=True)
    except OSError as error:
        raise JobError([f"--ready-file: {ready_file}: {error.strerror}"]) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            Path(ready_file).unlink()


def write_ready_file(path: str, host: str, ports: Sequence[int]) -> None:
    """Write a line `HOST:PORT` for HTTP, and one for gRPC, to a file that appears whole."""
    partial = f"{path}.{os.getpid()}"
    Path(partial).write_text("".join(f"{host}:{port}\n" for port in ports), encoding="utf-8")
    os.replace(partial, path)
