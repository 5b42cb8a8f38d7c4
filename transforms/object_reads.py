"""Objects read as files: what a reader will want next is fetched ahead of it, by threads of their own.

A chain of steps is serial in its thread, so a reader that waits for a store holds up the model. Every request asks
for one version of the object: what comes back is of that version, or nothing does.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from transforms.file_versions import check_unchanged, of_object
from transforms.objects import ObjectPath, VersionMismatch, is_object, store_of
from transforms.splits import FileRange

THREAD = "object-reads"
"""How the threads that fetch are called."""

HEAD_BYTES = 1 << 16
"""The least that is asked for: a header, or a footer, and what tells the compression."""

WHOLE_BYTES = 8 << 20
"""An object of at most this size is fetched in one request once its rows are read."""

PIECE_BYTES = 8 << 20
_PIECES_AHEAD = 3
"""Of a large object: while one piece is read, so many more are on their way."""

_RANGES_AHEAD, _BYTES_AHEAD = 16, 16 << 20
"""Of the small objects of a split: so many, with so many bytes, are on their way beside the one that is read."""

_ENDS_HELD = 1024
_AT_ONCE = 32


class StoreFails(RuntimeError):
    """A store did not give an object that it has, tried again for a while. No fault of the file: no row is refused
    for it, and the same command goes on. The text is a sentence with the object's name."""


class ObjectFile(io.RawIOBase):
    """An object as a seekable file of bytes. `read` and `readinto` give all that is asked for, up to the end.

    Args:
      path: `gs://` or `s3://`.
      version: that is read (`transforms.file_versions`); None: the one that is there now.

    Raises:
      FileNotFoundError: there is none, and no version was given.
    """

    def __init__(self, path: str, version: str | None = None):
        super().__init__()
        self.name, self._where = path, ObjectPath.parse(path)
        if version is None:
            info = ask_store(path, lambda: store_of(self._where).info(self._where))
            if info is None:
                raise FileNotFoundError(2, "there is no such object", path)
            version = f"{info.size}@{info.version}"
        self.version = version
        self.size, self._object_version = of_object(version)
        self._at = 0
        self._spans: list[Span] = []
        self._last, self._step = (0, b""), HEAD_BYTES

    def stream(self, start: int, end: int) -> None:
        """Says that the bytes from `start` to before `end` will be read in order; not the first, a head, alone."""
        self.hold([(max(start, HEAD_BYTES), end)], PIECE_BYTES, _PIECES_AHEAD, keeps=False)

    def hold(self, spans: Sequence[tuple[int, int]], piece: int, ahead: int, keeps: bool) -> list[Span]:
        """Says that the bytes of some spans will be read: for `drop`, once they have been.

        Args:
          spans: (start, end) of each.
          piece, ahead, keeps: see `Span`.
        """
        if _held.whole(self.name, self.version) is not None:
            return []
        made = [Span(self._request, start, min(end, self.size), piece, ahead, keeps) for start, end in spans]
        self._spans += (new := [span for span in made if span.start < span.end])
        return new

    def drop(self, spans: Sequence[Span]) -> None:
        """Lets go of what was held."""
        for span in spans:
            span.close()
        self._spans = [span for span in self._spans if span not in spans]

    def read(self, n: int | None = -1) -> bytes:
        end = self.size if n is None or n < 0 else min(self._at + n, self.size)
        parts = []
        while self._at < end:
            parts.append(self._some(self._at, end))
            self._at += len(parts[-1])
        return b"".join(parts)

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self.drop(self._spans)
            self._last = (0, b"")
        super().close()

    def _some(self, at: int, end: int) -> memoryview:
        """At least one of the bytes from `at` to before `end`."""
        whole = _held.whole(self.name, self.version)
        if whole is not None:
            # Cancelled where who asked for it has just let go of it.
            with contextlib.suppress(CancelledError):
                return memoryview(whole.result())[at:end]
        for span in self._spans:
            if span.start <= at < span.end:
                return span.read(at, end)
        if at < HEAD_BYTES:
            return memoryview(_held.of(self.name, self.version, 0, min(HEAD_BYTES, self.size)))[at:end]
        if at >= (tail := self.size - HEAD_BYTES):
            return memoryview(_held.of(self.name, self.version, tail, self.size))[at - tail : end - tail]
        start, data = self._last
        if not start <= at < start + len(data):
            # Who reads on where the last request ended will go on: more at a time.
            self._step = min(2 * self._step, PIECE_BYTES) if data and at == start + len(data) else HEAD_BYTES
            start, data = self._last = at, self._request(at, min(max(end, at + self._step), self.size))
        return memoryview(data)[at - start : end - start]

    def _request(self, start: int, end: int) -> bytes:
        return fetch(self.name, self.version, start, end)


class Span:
    """Bytes of an object that are fetched in pieces, ahead of who reads them in order.

    Args:
      request: gives bytes (start, end).
      start, end: of the span.
      piece: bytes a request.
      ahead: how many pieces are on their way while one is read.
      keeps: whether a piece stays once one after it is read.
    """

    def __init__(self, request, start: int, end: int, piece: int, ahead: int, keeps: bool):
        self.start, self.end = start, end
        self._request, self._piece, self._ahead, self._keeps = request, piece, ahead, keeps
        self._count = -(-(end - start) // piece)
        self._pieces: dict[int, Future[bytes]] = {}

    def begin(self, number: int = 0) -> None:
        """Has a piece, and those after it, fetched."""
        for n in range(number, min(number + self._ahead + 1, self._count)):
            if n not in self._pieces:
                start = self.start + n * self._piece
                self._pieces[n] = _submit(self._request, start, min(start + self._piece, self.end))

    def read(self, at: int, end: int) -> memoryview:
        number, offset = divmod(at - self.start, self._piece)
        if not self._keeps:
            for passed in [n for n in self._pieces if n < number]:
                self._pieces.pop(passed).cancel()
        self.begin(number)
        return memoryview(self._pieces[number].result())[offset : offset + end - at]

    def close(self) -> None:
        for piece in self._pieces.values():
            piece.cancel()
        self._pieces.clear()


class Ahead:
    """The small objects of some ranges, each fetched whole by one request, before its turn; a context manager."""

    def __init__(self, ranges: Sequence[FileRange]):
        self._ranges = [r for r in ranges if _is_whole(r)]
        self._begun: collections.deque[FileRange] = collections.deque()
        self._next = 0

    def turn_of(self, range_: FileRange) -> None:
        """A range is read now: has it, and some of those after it, on their way; those before it are let go of."""
        if not _is_whole(range_):
            return
        while self._begun and self._begun[0] is not range_:
            self._release(self._begun.popleft())
        while self._next < len(self._ranges) and self._room():
            next_ = self._ranges[self._next]
            _held.fetch_whole(next_.path, next_.version)
            self._begun.append(next_)
            self._next += 1

    def _room(self) -> bool:
        waiting = sum(r.size for r in list(self._begun)[1:])
        return len(self._begun) <= 1 or (len(self._begun) <= _RANGES_AHEAD and waiting < _BYTES_AHEAD)

    def _release(self, range_: FileRange) -> None:
        _held.release(range_.path, range_.version)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *exc) -> None:
        while self._begun:
            self._release(self._begun.popleft())


def _is_whole(range_: FileRange) -> bool:
    """Whether a range is of a small object, at the version that it means."""
    return is_object(range_.path) and range_.version is not None and 0 < range_.size <= WHOLE_BYTES


class _Held:
    """What is held of objects for all who open them in this process: heads and tails, since each range of a file
    is read with its header or footer; and small ones that are read now."""

    def __init__(self):
        self._lock = threading.Lock()
        self._ends: collections.OrderedDict[tuple[str, str, int], bytes] = collections.OrderedDict()
        self._wholes: dict[tuple[str, str], tuple[Future[bytes], int]] = {}

    def of(self, path: str, version: str, start: int, end: int) -> bytes:
        """The first, or last, bytes of an object."""
        key = (path, version, start)
        with self._lock:
            if key in self._ends:
                self._ends.move_to_end(key)
                return self._ends[key]
        data = fetch(path, version, start, end)
        with self._lock:
            self._ends[key] = data
            while len(self._ends) > _ENDS_HELD:
                self._ends.popitem(last=False)
        return data

    def whole(self, path: str, version: str) -> Future[bytes] | None:
        """All of an object, where it was asked for."""
        held = self._wholes.get((path, version))
        return None if held is None else held[0]

    def fetch_whole(self, path: str, version: str) -> None:
        """Has all of an object fetched; held until each who asked for it has released it."""
        key = (path, version)
        with self._lock:
            found = self._wholes.get(key)
            future = _submit(fetch, path, version, 0, of_object(version)[0]) if found is None else found[0]
            self._wholes[key] = (future, 1 if found is None else found[1] + 1)

    def release(self, path: str, version: str) -> None:
        key = (path, version)
        with self._lock:
            future, users = self._wholes.pop(key)
            if users > 1:
                self._wholes[key] = (future, users - 1)
            else:
                future.cancel()


def fetch(path: str, version: str, start: int, end: int) -> bytes:
    """Bytes of an object at a version, all of them.

    Raises:
      InputChanged: it is not at that version any more.
      StoreFails: the store does not give them.
    """
    where, (size, object_version) = ObjectPath.parse(path), of_object(version)
    try:
        # All of it is asked for as that: the store client then compares its checksum.
        until = None if start == 0 and end == size else end
        data = ask_store(path, lambda: store_of(where).read(where, start, until, object_version))
    except (VersionMismatch, FileNotFoundError) as error:
        ask_store(path, lambda: check_unchanged(path, version))
        raise StoreFails(f"{path}: {error.strerror}: it was taken away or replaced, and put back") from error
    except PermissionError as error:
        raise StoreFails(f"{path}: {error.strerror}") from error
    if len(data) != end - start:
        raise StoreFails(f"{path}: the store gave {len(data):,} of the bytes {start:,} to {end:,}, of {size:,}")
    return data


def ask_store(path: str, call: Callable[[], Any]) -> Any:
    """What a store answers.

    Args:
      path: that is asked for.
      call: asks.

    Raises:
      StoreFails: it does not answer.
      VersionMismatch, FileNotFoundError, PermissionError: what it answers.
    """
    try:
        return call()
    except (VersionMismatch, FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise StoreFails(f"{error.filename or path}: {error.strerror or type(error).__name__}") from error


def _submit(call, *arguments) -> Future:
    return _pool().submit(call, *arguments)


def _pool() -> ThreadPoolExecutor:
    global _threads
    with _making:
        if _threads is None:
            _threads = ThreadPoolExecutor(_AT_ONCE, THREAD)
        return _threads


def _begin_anew() -> None:
    """After a fork: the threads, and what they were to fetch, are the parent's."""
    global _threads, _held, _making
    _threads, _held, _making = None, _Held(), threading.Lock()


_begin_anew()
os.register_at_fork(after_in_child=_begin_anew)
