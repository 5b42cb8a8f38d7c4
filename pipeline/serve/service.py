"""The server: from a job to a service that answers until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.serve.front.containers import aliases
from beam_score.pipeline.serve.front.http import Application
from beam_score.pipeline.serve.front.models import Models
from beam_score.pipeline.serve.front.rpc import Rpc
from beam_score.pipeline.serve.http1.listener import Listener
from beam_score.pipeline.serve.versions.admin import admin_socket
from beam_score.pipeline.serve.versions.changes import Changes, sources_of
from beam_score.pipeline.serve.versions.source import check_sources


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
        check_sources(sources_of(job), {})

    @property
    def name(self) -> str:
        """The name of the model in paths."""
        return self._models.main

    async def run(self, ready: Callable[[str, int, int | None], None], admin: str | None = None) -> None:
        """Listen, load, answer, and end with SIGTERM or SIGINT, once everything accepted is answered.

        Args:
          ready: called with the host, the port of HTTP and that of gRPC, once requests are answered.
          admin: the path of a socket for an operator; see `versions.admin`.

        Raises:
          JobError: the address is not available, or the model does not load.
        """
        settings = self._settings
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(_listening(settings.host, settings.port))
            await stack.enter_async_context(admin_socket(admin, self._changes.revert))
            port = listener.getsockname()[1]
            server = Listener(self._application(), [listener], settings.drain)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end, server)
            loop.add_signal_handler(signal.SIGHUP, self._changes.reload)
            rpc = None
            if settings.grpc_port is not None:
                rpc = Rpc(self._models, settings.limits, settings.host, settings.grpc_port)
                await rpc.start()
            serving = asyncio.create_task(server.serve())
            try:
                await self._load()
            except JobError:
                server.end()
                await serving
                raise
            if not self._ending.is_set():  # a signal came while it loaded
                if rpc is not None:
                    await rpc.be(True)
                ready(settings.host, port, None if rpc is None else rpc.port)
            await asyncio.gather(serving, self._stopped(rpc))
            await self._changes.close()

    def _application(self) -> Application:
        settings = self._settings
        lenient = settings.compat == "tfserving"
        return Application(self._models, settings.limits, lenient, settings.cors, aliases(os.environ))

    async def _stopped(self, rpc: Rpc | None) -> None:
        """Wait for a signal, then for the calls of gRPC that were accepted."""
        await self._ending.wait()
        if rpc is not None:
            await rpc.be(False)
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

    def _end(self, server: Listener) -> None:
        self._models.draining = True
        self._ending.set()
        server.end()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        remedy = "choose another, or 0 for any that is free"
        raise JobError([f"serve.port: {host}:{port}: {error.strerror}; {remedy}"]) from None


def write_ready_file(path: str, host: str, ports: Sequence[int]) -> None:
    """Write a line `HOST:PORT` for HTTP, and one for gRPC, to a file that appears whole."""
    partial = f"{path}.{os.getpid()}"
    Path(partial).write_text("".join(f"{host}:{port}\n" for port in ports), encoding="utf-8")
    os.replace(partial, path)
