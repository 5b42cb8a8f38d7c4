"""The front's end of the process of one version."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.models.frames import frame, read_frame

_log = logging.getLogger(__name__)


class LoadFailed(Exception):
    """A version that did not load.

    Args:
      message: a sentence for the user.
      passing: whether it may load later, as it is.
    """

    def __init__(self, message: str, passing: bool = False):
        super().__init__(message)
        self.passing = passing


class LoadDied(LoadFailed):
    """A version whose process ended while it loaded."""


class ProcessDied(Exception):
    """The process of a version ended while it had requests."""


@dataclasses.dataclass(frozen=True)
class Version:
    """A version of the model.

    Attributes:
      name: of the model.
      number: of the version.
      path: its SavedModel folder, local or in a store.
      sha256: its hash; None if it is not known before it is loaded.
      batch_rows: maximum rows of a call; None if they are to be found out when it is loaded.
    """

    name: str
    number: int
    path: str
    sha256: str | None = None
    batch_rows: int | None = None


def how(code: int) -> str:
    """Return how a process has ended, by its exit code, which is negative for a signal."""
    return f"signal {-code}" if code < 0 else f"code {code}"


class _Child:
    """A process that the loop can wait for. It is not started by the loop: uvloop forks, and runs code of Python in the
    child, which may wait for ever for a lock that another thread had at that moment, and the loop with it."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        descriptor = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(descriptor, self._reap, descriptor)

    @classmethod
    def start(cls, module: str) -> tuple[_Child, socket.socket]:
        """Start a module, in a millisecond or two, with the descriptor of a socket as its argument; return the other
        end of the socket, too."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        return cls(process), ours

    def _reap(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._ended.set_result(self._process.wait())

    async def wait(self) -> int:
        """Wait until it ends; return its exit code, negative for a signal."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """End it at once."""
        if not self._ended.done():
            self._process.kill()


class ModelProcess:
    """A loaded version in a process of its own.

    Attributes:
      version: with its hash and the rows of its calls.
      metadata: its signatures; see `front.metadata`.
      notes: phrases for the log on how it was loaded.
    """

    def __init__(
        self,
        version: Version,
        metadata: Mapping[str, Any],
        notes: Sequence[str],
        process: _Child,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ):
        self.version, self.metadata, self.notes = version, metadata, notes
        self._process, self._reader, self._writer = process, reader, writer
        self._owed: collections.deque[asyncio.Future[list[Answer]]] = collections.deque()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def load(cls, version: Version, job: Mapping[str, Any]) -> ModelProcess:
        """Start a process and load a version in it.

        Args:
          job: the job file's content.

        Raises:
          LoadFailed: with the reason.
        """
        process, ours = _Child.start("beam_score.pipeline.serve.models.child")
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        try:
            writer.writelines(frame(dataclasses.asdict(version) | {"job": job}, []))
            try:
                header, _ = await read_frame(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                message = f"version {version.number}: its process ended with {how(await process.wait())}"
                raise LoadDied(message, passing=True) from None
            if "error" in header:
                raise LoadFailed(f"version {version.number}: {header['error']}", header["passing"])
        except BaseException:
            writer.close()
            process.kill()
            raise
        version = dataclasses.replace(version, sha256=header["sha256"], batch_rows=header["batch_rows"])
        return cls(version, header["metadata"], header["notes"], process, reader, writer)

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
        self._process.kill()

    async def close(self) -> None:
        """End the process, after its outstanding answers."""
        self._writer.close()
        await self._process.wait()
