"""The front's end of the process of one version."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.models.frames import frame, read_frame

_log = logging.getLogger(__name__)


class LoadFailed(Exception):
    """A version that did not load. Args: a sentence for the user."""


class ProcessDied(Exception):
    """The process of a version ended while it had requests."""


@dataclasses.dataclass(frozen=True)
class Version:
    """A version of the model.

    Attributes:
      name: of the model.
      number: of the version.
      path: its SavedModel folder.
      sha256: its hash.
    """

    name: str
    number: int
    path: str
    sha256: str


class ModelProcess:
    """A loaded version in a process of its own."""

    def __init__(
        self,
        version: Version,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ):
        self.version = version
        self._process, self._reader, self._writer = process, reader, writer
        self._owed: collections.deque[asyncio.Future[list[Answer]]] = collections.deque()
        self._reading: asyncio.Task[None]

    @classmethod
    async def load(cls, version: Version, job: Mapping[str, Any]) -> ModelProcess:
        """Start a process and load a version in it.

        Args:
          job: the job file's content.

        Raises:
          LoadFailed: with the reason.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "beam_score.pipeline.serve.models.child",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        self = cls(version, process, reader, writer)
        config = {"name": version.name, "path": version.path, "sha256": version.sha256, "job": job}
        writer.writelines(frame(config, []))
        try:
            header, _ = await read_frame(reader)
        except asyncio.IncompleteReadError:
            raise LoadFailed(f"version {version.number}: its process ended with {await process.wait()}") from None
        if "error" in header:
            raise LoadFailed(f"version {version.number}: {header['error']}")
        self._reading = asyncio.create_task(self._read())
        return self

    async def answer(self, batch: Sequence[Request]) -> list[Answer]:
        """Return the answers to a batch, in order. Raises ProcessDied."""
        if self._reading.done():
            raise ProcessDied
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._owed.append(future)
        self._writer.writelines(frame({"requests": [(r.id, r.form) for r in batch]}, [r.body for r in batch]))
        return await future

    async def _read(self) -> None:
        """Pass on answers, which come in the order of the batches, until the process ends."""
        try:
            while True:
                header, bodies = await read_frame(self._reader)
                stages, rows = header["stages"], header["rows"]
                answers = [
                    Answer(
                        status,
                        body,
                        received,
                        predicted,
                        rejected,
                        reasons,
                        signature=signature,
                        stages=stages,
                        batch_rows=rows,
                    )
                    for (status, received, predicted, rejected, reasons, signature), body in zip(
                        header["answers"], bodies, strict=True
                    )
                ]
                if header["trace"]:
                    _log.error("a prediction failed: %s", header["trace"])
                if not (future := self._owed.popleft()).done():
                    future.set_result(answers)
        except (asyncio.IncompleteReadError, ConnectionError):
            for future in self._owed:
                if not future.done():
                    future.set_exception(ProcessDied())
            self._owed.clear()

    async def ended(self) -> int:
        """Wait until the process ends; return its exit code, negative for a signal."""
        return await self._process.wait()

    def kill(self) -> None:
        """End the process at once: it does not answer."""
        if self._process.returncode is None:
            self._process.kill()

    async def close(self) -> None:
        """End the process, after its outstanding answers."""
        self._writer.close()
        await self._process.wait()
