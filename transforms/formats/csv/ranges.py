"""Division of a CSV file into ranges that are read independently of each other."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.csv.header import header_of
from beam_score.transforms.framing import csv as csv_records
from beam_score.transforms.framing.lines import CR, LF
from beam_score.transforms.stores.compression import RawStream, is_compressed, open_file
from beam_score.transforms.stores.objects import is_object

_SCAN_BYTES = 4 << 20
_BORDER_BYTES = 1 << 16
_OBJECT_READERS = 4  # of one file: each request has a latency


def cut(path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None) -> list[FileRange]:
    """Return ranges of about `split_bytes`, if every border is provably the end of a record; else one range.

    Every byte is examined, since the number of a range's first row is that of the records before it; a file without
    quotes by several threads. Raises OSError.
    """
    compressed = is_compressed(path, size, split_bytes, version)
    whole = FileRange(path, size, bytes=size * 4 if compressed else size)
    if compressed or size <= split_bytes * 1.5:
        return [whole]
    try:
        header = header_of(path, settings, version)
    except UnusableFile:
        return [whole]
    if header is None:
        return [whole]
    file = _File(path, version)
    borders = _at_line_ends(file, header.size, size, split_bytes, settings)
    if borders is None:
        borders = _outside_quotes(file, header.size, size, split_bytes, settings)
    ends = [start for start, _ in borders[1:]] + [size]
    return [
        FileRange(path, size, start, end, first_row, index, end - start)
        for index, ((start, first_row), end) in enumerate(zip(borders, ends, strict=True))
    ]


def _at_line_ends(
    file: _File, start: int, size: int, split_bytes: int, settings: ReadSettings
) -> list[tuple[int, int]] | None:
    """Return (position, number of the first row) of each range; None if the file has quotes."""
    cuts = [start]
    while (at := cuts[-1] + split_bytes) < size - split_bytes // 2:
        border = _after_line_end(file, at, size)
        if border >= size:
            break
        cuts.append(border)
    ranges = list(zip(cuts, [*cuts[1:], size], strict=True))
    with ThreadPoolExecutor(file.readers) as pool:
        found = list(pool.map(lambda r: _count_lines(file, r[0], r[1], settings.options.quote.encode()), ranges))
    counts = [count for count in found if count is not None]
    if len(counts) < len(found):
        return None
    rows = np.cumsum([0, *counts[:-1]])
    return list(zip(cuts, rows.tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class _File:
    """A file, at the version that is cut."""

    path: str
    version: str | None

    def bytes(self, start: int, end: int) -> bytes:
        with open_file(self.path, self.version) as file:
            file.seek(start)
            return file.read(end - start)

    @property
    def readers(self) -> int | None:
        """The number of threads that read it at once."""
        return _OBJECT_READERS if is_object(self.path) else os.cpu_count()


def _after_line_end(file: _File, at: int, size: int) -> int:
    """Return the position after the first line end from `at` on; `size` if there is none."""
    while at < size:
        piece = file.bytes(at, min(at + _BORDER_BYTES, size))
        found = [p for p in (piece.find(b"\n"), piece.find(b"\r")) if p >= 0]
        if found:
            return at + min(found) + 1
        at += _BORDER_BYTES
    return size


def _count_lines(file: _File, start: int, end: int, quote: bytes) -> int | None:
    """Return the number of non-blank lines in a range that begins at the start of a line; None if it has quotes."""
    count, after_end = 0, True
    for at in range(start, end, _SCAN_BYTES):
        data = file.bytes(at, min(at + _SCAN_BYTES, end))
        if not data:
            break  # the file has been cut short since it was listed
        if quote and quote in data:
            return None
        text = np.frombuffer(data, np.uint8)
        is_end = text == LF
        if b"\r" in data:
            is_end |= text == CR
        # A record starts at a byte that is not a line end and follows a line end.
        count += int(np.count_nonzero(is_end[:-1] & ~is_end[1:])) + int(after_end and not is_end[0])
        after_end = bool(is_end[-1])
    return count


def _outside_quotes(
    file: _File, start: int, size: int, split_bytes: int, settings: ReadSettings
) -> list[tuple[int, int]]:
    """Return (position, number of the first row) of each range of a file with quotes: sequentially, since the state
    at a border depends on all bytes before."""
    with RawStream(file.path, start, size, file.version, ahead=True) as stream:
        return _borders(stream, start, size, split_bytes, settings)


def _borders(
    stream: RawStream, start: int, size: int, split_bytes: int, settings: ReadSettings
) -> list[tuple[int, int]]:
    borders, rows, at, rest = [(start, 0)], 0, start, b""
    while piece := stream.read(_SCAN_BYTES):
        data, begin, at = rest + piece, at - len(rest), at + len(piece)
        found = csv_records.spans(data, *settings.options.dialect)
        starts, complete = found.starts, len(found.starts)
        if complete and found.ends[-1] == len(data):
            complete -= 1  # the last one may be incomplete
        while (border := borders[-1][0] + split_bytes) < size - split_bytes // 2:
            index = int(np.searchsorted(starts, border - begin))
            if index >= len(starts):
                break
            borders.append((begin + int(starts[index]), rows + index))
        rows += complete
        rest = data[starts[complete] :] if complete < len(starts) else b""
        if len(rest) > settings.max_row_bytes + _SCAN_BYTES:
            break  # one endless record: the rest of the file belongs to the last range
    return borders
