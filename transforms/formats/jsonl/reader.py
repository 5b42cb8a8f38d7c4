"""The JSON Lines reader: whole lines to typed columns, by the rules of `docs/contract.md`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import Chunk, ReadSettings, UnusableFile, empty_rows
from beam_score.transforms.formats.foreign import refuse_foreign
from beam_score.transforms.formats.jsonl.rows import FAST_WAYS, LineParser, too_large
from beam_score.transforms.framing.lines import MAX_PAYLOAD_BYTES, line_end_positions, line_spans
from beam_score.transforms.rows.faults import stretch
from beam_score.transforms.rows.origin import Origin
from beam_score.transforms.stores.compression import CorruptStream, RawStream, Refuted, is_compressed, open_file

_BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 4096

_FEW_BYTES = 4096
"""In a smaller file every line goes to the exact judge, at some 20 microseconds each: the fast ways take 3 ms to
start."""


def check(path: str, settings: ReadSettings, version: str | None = None) -> None:
    """Raise UnusableFile for a file that is not UTF-8 text or not a valid stream of its compression, and ValueError
    for settings that this format does not support."""
    if settings.keep is None:
        raise ValueError(
            "keep: all is not possible with JSON Lines, whose keys may differ from line to line: name them"
        )
    _check_encoding(path, version)


def _check_encoding(path: str, version: str | None) -> None:
    with RawStream(path, version=version) as stream:
        try:
            head = stream.read(_HEAD_BYTES)
        except CorruptStream as damage:
            raise UnusableFile("unreadable", str(damage)) from None
    refuse_foreign(head)


def cut(path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None) -> list[FileRange]:
    """Return ranges of about `split_bytes` that end at line ends; a compressed file is one range."""
    compressed = is_compressed(path, size, split_bytes, version)
    if compressed or size <= split_bytes * 1.5:
        return [FileRange(path, size, bytes=size * 4 if compressed else size)]
    starts = [0]
    with open_file(path, version) as file:
        for at in range(split_bytes, size - split_bytes // 2, split_bytes):
            border = _line_start(file, max(at, starts[-1]), size)
            if starts[-1] < border < size:
                starts.append(border)
    ranges = [
        FileRange(path, size, start, end, 0, 0, end - start, version)
        for start, end in zip(starts, [*starts[1:], size], strict=True)
    ]
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counts = list(pool.map(lambda range_: _count_rows(range_, settings), ranges))
    except UnusableFile:
        return [FileRange(path, size, bytes=size)]  # the reader reports what is wrong
    first_rows = np.cumsum([0, *counts[:-1]]).tolist()
    return [
        dataclasses.replace(range_, index=index, first_row=row)
        for index, (range_, row) in enumerate(zip(ranges, first_rows, strict=True))
    ]


def _count_rows(range_: FileRange, settings: ReadSettings) -> int:
    """Return the number of records in a range of a plain file, as `read` would number them."""
    return sum(len(line_spans(b.data)[0]) + (b.large is not None) for b in _blocks(range_, settings))


def _line_start(file, at: int, size: int) -> int:
    """Return the first start of a line after byte `at`, CRLF kept whole; `size` if there is none."""
    file.seek(at)
    while piece := file.read(1 << 16):
        found = line_end_positions(np.frombuffer(piece, np.uint8))
        if len(found):
            at += int(found[0])
            file.seek(at)
            return at + (2 if file.read(2) == b"\r\n" else 1)
        at += len(piece)
    return size


def read(range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
    """Yield the rows of one range. Raises UnusableFile before the first chunk, OSError anywhere."""
    if range_.start:
        _check_encoding(range_.path, range_.version)  # faults of the whole file are reported by its first range
    size = (range_.size if range_.end < 0 else range_.end) - range_.start
    parser, row = LineParser(settings, () if size <= _FEW_BYTES else FAST_WAYS), range_.first_row
    for block in _blocks(range_, settings):
        for chunk in _chunks(parser, block.data, row, settings):
            yield chunk
            row += chunk.rows.num_rows + chunk.rejected.num_rows
        if block.large is not None:
            payload = block.large if settings.payload else None
            letter = stretch(row, 1, "too_large", too_large(block.large_bytes, settings), payload=payload)
            yield Chunk(empty_rows(settings), letter)
            row += 1
        if block.damage is not None:
            yield Chunk(empty_rows(settings), stretch(row, None, "unreadable", block.damage))


def _chunks(parser: LineParser, data: bytes, row: int, settings: ReadSettings) -> Iterator[Chunk]:
    """Yield chunks of at most `max_block_rows` of the lines in `data`; the first line is number `row`."""
    starts, ends = line_spans(data)
    most = settings.max_block_rows
    for at in range(0, len(starts), most):
        whole = len(starts) <= most
        begin, end = (0, len(data)) if whole else (int(starts[at]), int(ends[min(at + most, len(ends)) - 1]))
        part = data if whole else data[begin:end]
        origin = Origin("jsonl", row + at, pa.py_buffer(part)) if settings.payload else None
        yield parser.parse(part, starts[at : at + most] - begin, ends[at : at + most] - begin, row + at, origin)


@dataclasses.dataclass(frozen=True)
class _Block:
    """A part of a file.

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


def _blocks(range_: FileRange, settings: ReadSettings) -> Iterator[_Block]:
    """Yield the lines of a range in blocks of about `max_block_bytes`, without the byte order mark."""
    line = _OpenLine(settings.max_row_bytes)
    first = range_.start == 0
    with RawStream(range_.path, range_.start, range_.end, range_.version, True, range_.sound) as stream:
        while True:
            try:
                piece = stream.read(max(settings.max_block_bytes, _HEAD_BYTES))
            except Refuted:
                raise
            except CorruptStream as damage:
                yield _Block(damage=str(damage))  # an incomplete line is never treated as a whole one
                return
            ended = not piece
            if first:
                refuse_foreign(piece)
                piece, first = piece.removeprefix(_BOM), False
            stop = _first_line_end(piece)
            line.add(piece[:stop])
            if stop == len(piece) and not ended:
                continue
            if line.size <= settings.max_row_bytes:
                end = _after_last_line_end(piece)
                data = b"".join([*line.parts, memoryview(piece)[stop:end]])
            else:
                if not line.is_white:
                    yield _Block(large=line.parts[0], large_bytes=line.size)
                end = max(_after_last_line_end(piece), stop)
                data = piece[stop:end]
            if data:
                yield _Block(data)
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
