"""The server: from a job to a service that answers until a signal ends it."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.answering.rows import CONTRACT
from beam_score.pipeline.serve.binding import steps_of
from beam_score.pipeline.serve.front.http import Application
from beam_score.pipeline.serve.front.metadata import metadata, of_contract, of_signature
from beam_score.pipeline.serve.front.models import Models, Served
from beam_score.pipeline.serve.front.rpc import Rpc
from beam_score.pipeline.serve.http1.listener import Listener
from beam_score.pipeline.serve.models.process import LoadFailed, ModelProcess, Version
from beam_score.transforms.model.copies import hashed_model
from beam_score.transforms.model.signature import ModelError, choose_signature, read_signatures
from beam_score.transforms.model.versions import find_version


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
        settings = self._settings
        with _listening(settings.host, settings.port) as listener:
            port = listener.getsockname()[1]
            server = Listener(Application(self._models, settings.limits), [listener], settings.drain)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end, server)
            rpc = None
            if settings.grpc_port is not None:
                rpc = Rpc(self._models, settings.limits, settings.host, settings.grpc_port)
                await rpc.start()
            serving = asyncio.create_task(server.serve())
            served = self._served()
            self._models.add(served)
            try:
                await served.start()
            except LoadFailed as error:
                server.end()
                await serving
                raise JobError([str(error)]) from None
            if not self._ending.is_set():  # a signal came while it loaded
                if rpc is not None:
                    await rpc.be(True)
                ready(settings.host, port, None if rpc is None else rpc.port)
            await asyncio.gather(serving, self._stopped(rpc))
            await self._models.close()

    async def _stopped(self, rpc: Rpc | None) -> None:
        """Wait for a signal, then for the calls of gRPC that were accepted."""
        await self._ending.wait()
        if rpc is not None:
            await rpc.be(False)
            await rpc.stop(self._settings.drain)

    def _served(self) -> Served:
        version, settings = self._version, self._settings
        load = functools.partial(ModelProcess.load, version, self._job.as_json())
        account = self._models.accounts.of(version.name, version.number)
        hangs_s = 2 * settings.limits.request  # all requests of a batch are late by then
        return Served(load, version, self._metadata, account, settings.batching.rows, hangs_s)

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
