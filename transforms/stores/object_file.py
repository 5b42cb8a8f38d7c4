"""Objects read as files, with read-ahead in separate threads.

A chain of steps is serial in its thread, so a reader that waits for a store delays the model. Every request names one
version of the object and fails if the object is at another.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future

from beam_score.transforms.stores.byte_file import ByteFile
from beam_score.transforms.stores.fetch import ask_store, fetch, submit
from beam_score.transforms.stores.held import held
from beam_score.transforms.stores.objects import ObjectPath
from beam_score.transforms.stores.registry import store_of
from beam_score.transforms.stores.versions import of_object

HEAD_BYTES = 1 << 16
"""Minimum size of a request: enough for a header or a footer, and to detect the compression."""

PIECE_BYTES = 8 << 20
FIRST_PIECE_BYTES = 1 << 20
"""Size of the first few pieces of a range, which are small to shorten the first wait."""

_PIECES_AHEAD = 3
"""Pieces of a large object that are fetched in advance while one is read."""


class ObjectFile(ByteFile):
    """An object as a seekable file of bytes. `read` and `readinto` never return less than requested before the end.

    Args:
      path: `gs://` or `s3://`.
      version: the version to read (`transforms.stores.versions`); None for the current one.

    Raises:
      FileNotFoundError: no version was given, and there is no such object.
    """

    def __init__(self, path: str, version: str | None = None):
        super().__init__()
        self.name, self._where = path, ObjectPath.parse(path)
        if version is None:
            info = ask_store(path, lambda: store_of(self._where).info(self._where))
            if info is None:
                raise FileNotFoundError(2, "no such object", path)
            version = f"{info.size}@{info.version}"
        self.version = version
        self.size, self._object_version = of_object(version)
        self._spans: list[Span] = []
        self._last, self._step = (0, b""), HEAD_BYTES

    def stream(self, start: int, end: int) -> None:
        """Announce that the bytes from `start` to before `end` will be read in order. The head is not prefetched."""
        start = max(start, HEAD_BYTES)
        border = min(start + (_PIECES_AHEAD + 1) * FIRST_PIECE_BYTES, end)
        first = self.hold([(start, border)], FIRST_PIECE_BYTES, _PIECES_AHEAD, keeps=False)
        rest = self.hold([(border, end)], PIECE_BYTES, _PIECES_AHEAD, keeps=False)
        if first and rest:
            first[0].then = rest[0]

    def hold(self, spans: Sequence[tuple[int, int]], piece: int, ahead: int, keeps: bool) -> list[Span]:
        """Announce that the bytes of some spans will be read. Returns the spans, to `drop` once they were read.

        Args:
          spans: (start, end) of each.
          piece, ahead, keeps: see `Span`.
        """
        if held().whole(self.name, self.version) is not None:
            return []
        made = [Span(self._request, start, min(end, self.size), piece, ahead, keeps) for start, end in spans]
        self._spans += (new := [span for span in made if span.start < span.end])
        return new

    def drop(self, spans: Sequence[Span]) -> None:
        """Release spans that `hold` returned."""
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

    def readall(self) -> bytes:
        return self.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def close(self) -> None:
        if not self.closed:
            self.drop(self._spans)
            self._last = (0, b"")
        super().close()

    def _some(self, at: int, end: int) -> memoryview:
        """Return at least one of the bytes from `at` to before `end`."""
        whole = held().whole(self.name, self.version)
        if whole is not None:
            # The future is cancelled if its last user has just released it.
            with contextlib.suppress(CancelledError):
                return memoryview(whole.result())[at:end]
        for span in self._spans:
            if span.start <= at < span.end:
                return span.read(at, end)
        if at < HEAD_BYTES:
            return memoryview(held().of(self.name, self.version, 0, min(HEAD_BYTES, self.size)))[at:end]
        if at >= (tail := self.size - HEAD_BYTES):
            return memoryview(held().of(self.name, self.version, tail, self.size))[at - tail : end - tail]
        start, data = self._last
        if not start <= at < start + len(data):
            # Sequential reads: double the size of the request.
            self._step = min(2 * self._step, PIECE_BYTES) if data and at == start + len(data) else HEAD_BYTES
            start, data = self._last = at, self._request(at, min(max(end, at + self._step), self.size))
        return memoryview(data)[at - start : end - start]

    def _request(self, start: int, end: int) -> bytes:
        return fetch(self.name, self.version, start, end)


class Span:
    """Bytes of an object that are fetched in pieces, ahead of sequential reads.

    Args:
      request: returns the bytes (start, end).
      start, end: the range of the span.
      piece: bytes per request.
      ahead: number of pieces to fetch in advance while one is read.
      keeps: whether a piece is kept after a later one is read.

    Attributes:
      then: the span that is read after this one; its fetches start before this one ends.
    """

    def __init__(self, request: Callable[[int, int], bytes], start: int, end: int, piece: int, ahead: int, keeps: bool):
        self.start, self.end = start, end
        self._request, self._piece, self._ahead, self._keeps = request, piece, ahead, keeps
        self._count = -(-(end - start) // piece)
        self._pieces: dict[int, Future[bytes]] = {}
        self.then: Span | None = None

    def begin(self, number: int = 0) -> None:
        """Start to fetch a piece and the next `ahead` ones."""
        for n in range(number, min(number + self._ahead + 1, self._count)):
            if n not in self._pieces:
                start = self.start + n * self._piece
                self._pieces[n] = submit(self._request, start, min(start + self._piece, self.end))
        if self.then is not None and number + self._ahead >= self._count:
            self.then.begin()
            self.then = None

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
