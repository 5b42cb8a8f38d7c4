"""Bytes of a JSON Lines file to blocks of whole lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.detect import refuse_foreign
from beam_score.transforms.framing.lines import BOM, MAX_PAYLOAD_BYTES
from beam_score.transforms.stores.compression import CorruptStream, RawStream, Refuted

HEAD_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class LineBlock:
    """Some lines of a file.

    Attributes:
      data: whole lines.
      large: after them, the beginning of a line over `max_row_bytes`; else None.
      large_bytes: the size of that line.
      damage: after them, why the rest cannot be read; else None.
    """

    data: bytes = b""
    large: bytes | None = None
    large_bytes: int = 0
    damage: str | None = None


def blocks(range_: FileRange, settings: ReadSettings) -> Iterator[LineBlock]:
    """Yield the lines of a range in blocks of about `max_block_bytes`, without the byte order mark."""
    line = _OpenLine(settings.max_row_bytes)
    first = range_.start == 0
    with RawStream(range_.path, range_.start, range_.end, range_.version, True, range_.sound) as stream:
        while True:
            try:
                piece = stream.read(max(settings.max_block_bytes, HEAD_BYTES))
            except Refuted:
                raise
            except CorruptStream as damage:
                yield LineBlock(damage=str(damage))  # an incomplete line is never treated as a whole one
                return
            ended = not piece
            if first:
                refuse_foreign(piece)
                piece, first = piece.removeprefix(BOM), False
            stop = _first_line_end(piece)
            line.add(piece[:stop])
            if stop == len(piece) and not ended:
                continue
            if line.size <= settings.max_row_bytes:
                end = _after_last_line_end(piece)
                data = b"".join([*line.parts, memoryview(piece)[stop:end]])
            else:
                if not line.is_white:
                    yield LineBlock(large=line.parts[0], large_bytes=line.size)
                end = max(_after_last_line_end(piece), stop)
                data = piece[stop:end]
            if data:
                yield LineBlock(data)
            if ended:
                return
            line = _OpenLine(settings.max_row_bytes)
            line.add(piece[end:])


class _OpenLine:
    """A line without its end so far; once it is too large, only its payload is kept.

    Attributes:
      parts: its bytes; if it is too large, one part, its beginning.
      size: in bytes.
      is_white: of a line that is too large, whether it is all spaces and tabs: a blank line.
    """

    def __init__(self, max_row_bytes: int):
        self._most = max_row_bytes
        self.parts: list[bytes] = []
        self.size = 0
        self.is_white = True

    def add(self, part: bytes) -> None:
        was_large = self.size > self._most
        self.size += len(part)
        self.parts.append(part)
        if self.size > self._most:
            self.is_white = self.is_white and not any(p.strip(b" \t") for p in self.parts[was_large:])
            self.parts = [b"".join(self.parts)[: MAX_PAYLOAD_BYTES + 1]]


def _first_line_end(piece: bytes) -> int:
    """Return the position of the first LF or CR; the length if there is none."""
    lf = piece.find(b"\n")
    cr = piece.find(b"\r", 0, lf if lf >= 0 else len(piece))
    return cr if cr >= 0 else lf if lf >= 0 else len(piece)


def _after_last_line_end(piece: bytes) -> int:
    lf = piece.rfind(b"\n")
    return max(lf, piece.rfind(b"\r", lf + 1)) + 1
