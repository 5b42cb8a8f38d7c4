"""The server: from a job to a service that answers until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.serve.front.containers import aliases
from beam_score.pipeline.serve.front.http import Application
from beam_score.pipeline.serve.front.models import Models
from beam_score.pipeline.serve.front.rpc import Rpc
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
        _check_address(job.serve.host, job.serve.admin)
        check_sources(sources_of(job), {})

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
        settings = self._settings
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(_listening(settings.host, settings.port))
            await stack.enter_async_context(admin_socket(admin, self._changes.revert))
            stack.enter_context(_removed(ready_file))
            port = listener.getsockname()[1]
            server = _Server(
                uvicorn.Config(
                    self._application(),
                    http="httptools",
                    loop="uvloop",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    date_header=False,
                    timeout_graceful_shutdown=max(1, math.ceil(settings.drain)),
                )
            )
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end, server)
            loop.add_signal_handler(signal.SIGHUP, self._changes.reload)
            rpc = None
            if settings.grpc_port is not None:
                rpc = Rpc(self._models, settings.limits, settings.host, settings.grpc_port)
                await rpc.start()
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await self._load()
            except JobError:
                server.should_exit = True
                await serving
                raise
            following = None
            if not server.should_exit:  # a signal came while it loaded
                if rpc is not None:
                    await rpc.be(True)
                    following = asyncio.create_task(rpc.follow())
                ready(settings.host, port, None if rpc is None else rpc.port)
            await asyncio.gather(serving, self._stopped(rpc))
            if following is not None:
                following.cancel()
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

    def _end(self, server: uvicorn.Server) -> None:
        self._models.draining = True
        self._ending.set()
        server.should_exit = True


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `Service.run`: uvicorn would raise them again at its end."""
        yield


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise JobError([f"serve.host: {host}: {error.strerror}"]) from None
        remedy = "choose another, or 0 for any that is free"
        raise JobError([f"serve.port: {host}:{port}: {error.strerror}; {remedy}"]) from None


def _check_address(host: str, admin: str | None) -> None:
    """Raise JobError if a host is not known, or if a socket's folder is not there; nothing is bound."""
    problems = []
    try:
        socket.getaddrinfo(host or None, 0, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        problems.append(f"serve.host: {host}: {getattr(error, 'strerror', None) or error}")
    if admin is not None and not Path(admin).absolute().parent.is_dir():
        problems.append(f"serve.admin: there is no folder {Path(admin).absolute().parent}")
    if problems:
        raise JobError(problems)


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
