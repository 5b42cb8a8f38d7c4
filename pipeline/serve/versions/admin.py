"""The socket by which an operator on the same machine changes a running server: a line of JSON each way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable, Mapping
from typing import Any

from beam_score.pipeline.job.mistakes import JobError

_LINE_BYTES = 1 << 16
_WAIT_S = 30.0


@contextlib.asynccontextmanager
async def admin_socket(path: str | None, revert: Callable[[str], str]) -> Any:
    """Listen on a socket that only its owner can use, while the body runs.

    Args:
      path: None for no socket.
      revert: goes back to the version before of a model; returns a sentence. Raises JobError.

    Raises:
      JobError: the path cannot be used.
    """
    if path is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(_answer(await reader.readline(), revert)).encode() + b"\n")
            await writer.drain()
        writer.close()

    _remove_stale(path)
    listener, before = socket.socket(socket.AF_UNIX), os.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        raise JobError([f"serve.admin: {path}: {error.strerror or error}"]) from None
    finally:
        os.umask(before)
    server = await asyncio.start_unix_server(answer, sock=listener, limit=_LINE_BYTES)
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(OSError):
            os.unlink(path)


def _answer(line: bytes, revert: Callable[[str], str]) -> Mapping[str, str]:
    try:
        return {"done": revert(str(json.loads(line)["revert"]))}
    except JobError as error:
        return {"error": str(error)}
    except (ValueError, KeyError, TypeError):
        return {"error": "expected a line of JSON with the key revert"}


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that has ended. Raises JobError if it has not, or if it is another file."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise JobError([f"serve.admin: {path} exists, and is not a socket"])
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise JobError([f"serve.admin: {path} is the socket of another server"])


def revert_over(path: str, model: str) -> str:
    """Let a running server go back to the version before of a model; return its sentence. Raises JobError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_WAIT_S)
            connection.connect(path)
            connection.sendall(json.dumps({"revert": model}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline(_LINE_BYTES) or b'{"error": "the server has ended"}')
    except OSError as error:
        raise JobError([f"{path}: no server answers: {error.strerror or error}"]) from None
    if "error" in answer:
        raise JobError([answer["error"]])
    return str(answer["done"])
