"""The front's end of the process of one version."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.models.frames import Frame, Frames, frame

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


Done = Callable[[Sequence[Answer] | None], None]
"""Called with the answers to a batch, in order; None if the process has ended."""

_Result = TypeVar("_Result")


def into(future: asyncio.Future[_Result]) -> Callable[[_Result], None]:
    """Return a function that sets the result of a future, unless it has one or nobody waits for it any more."""

    def done(result: _Result) -> None:
        if not future.done():
            future.set_result(result)

    return done


class _Pipe(asyncio.Protocol):
    """The socket of a process.

    Attributes:
      on_frame: called with each frame.
      on_end: called at the end.
      is_closed: whether that has come.
    """

    def __init__(self) -> None:
        self._frames = Frames()
        self.on_frame: Callable[[Frame], None] = lambda _: None
        self.on_end: Callable[[], None] = lambda: None
        self.is_closed = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for one in self._frames.feed(data):
            self.on_frame(one)

    def connection_lost(self, _: Exception | None) -> None:
        self.is_closed = True
        self.on_end()

    def send(self, header: dict[str, Any], bodies: Sequence[bytes] = ()) -> None:
        """Send a frame."""
        self._transport.writelines(frame(header, bodies))

    def close(self) -> None:
        """Close it once all is sent."""
        self._transport.close()

    async def first(self) -> Frame | None:
        """Return the first frame; None if the process ends before."""
        if self.is_closed:
            return None
        future: asyncio.Future[Frame | None] = asyncio.get_running_loop().create_future()
        done = into(future)
        self.on_frame, self.on_end = done, functools.partial(done, None)
        return await future


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
        pipe: _Pipe,
    ):
        self.version, self.metadata, self.notes = version, metadata, notes
        self._process, self._pipe = process, pipe
        self._owed: collections.deque[Done] = collections.deque()
        pipe.on_frame, pipe.on_end = self._answered, self._lost

    @classmethod
    async def load(cls, version: Version, job: Mapping[str, Any]) -> ModelProcess:
        """Start a process and load a version in it.

        Args:
          job: the job file's content.

        Raises:
          LoadFailed: with the reason.
        """
        process, ours = _Child.start("beam_score.pipeline.serve.models.child")
        _, pipe = await asyncio.get_running_loop().create_connection(_Pipe, sock=ours)
        try:
            pipe.send(dataclasses.asdict(version) | {"job": job})
            if (loaded := await pipe.first()) is None:
                message = f"version {version.number}: its process ended with {how(await process.wait())}"
                raise LoadDied(message, passing=True)
            header, _ = loaded
            if "error" in header:
                raise LoadFailed(f"version {version.number}: {header['error']}", header["passing"])
        except BaseException:
            pipe.close()
            process.kill()
            raise
        version = dataclasses.replace(version, sha256=header["sha256"], batch_rows=header["batch_rows"])
        return cls(version, header["metadata"], header["notes"], process, pipe)

    def answer(self, batch: Sequence[Request], done: Done) -> None:
        """Answer a batch. `done` is called later, never before this returns."""
        if self._pipe.is_closed:
            asyncio.get_running_loop().call_soon(done, None)
            return
        self._pipe.send({"requests": [(r.id, r.form) for r in batch]}, [r.body for r in batch])
        self._owed.append(done)

    def _answered(self, answered: Frame) -> None:
        """Pass on the answers to a batch: they come in the order of the batches."""
        header, bodies = answered
        stages, rows = header["stages"], header["rows"]
        answers = [
            Answer(status, body, received, predicted, rejected, reasons, False, 1, signature, stages, rows)
            for (status, received, predicted, rejected, reasons, signature), body in zip(
                header["answers"], bodies, strict=True
            )
        ]
        if header["trace"]:
            _log.error("a prediction failed: %s", header["trace"])
        self._owed.popleft()(answers)

    def _lost(self) -> None:
        while self._owed:
            self._owed.popleft()(None)

    async def ended(self) -> int:
        """Wait until the process ends; return its exit code, negative for a signal."""
        return await self._process.wait()

    def kill(self) -> None:
        """End the process at once: it does not answer."""
        self._process.kill()

    async def close(self) -> None:
        """End the process. What it has not answered yet is not answered: nobody waits for it."""
        self._pipe.close()
        await self._process.wait()
