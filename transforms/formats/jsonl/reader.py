"""The JSON Lines reader: whole lines to typed columns, by the rules of `docs/contract.md`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import Chunk, Format, Options, ReadSettings, UnusableFile, Wanted, empty_rows
from beam_score.transforms.formats.detect import refuse_foreign
from beam_score.transforms.formats.first_rows import FirstRows, Hints
from beam_score.transforms.formats.jsonl.blocks import HEAD_BYTES, blocks
from beam_score.transforms.formats.jsonl.first_rows import first_rows
from beam_score.transforms.formats.jsonl.options import JsonLinesOptions
from beam_score.transforms.formats.jsonl.rows import FAST_WAYS, LineParser, too_large
from beam_score.transforms.framing.lines import BOM, line_end_positions, line_spans
from beam_score.transforms.rows.faults import stretch
from beam_score.transforms.rows.origin import Origin
from beam_score.transforms.stores.byte_file import ByteFile
from beam_score.transforms.stores.compression import CorruptStream, RawStream, is_compressed, open_file

_FEW_BYTES = 4096
"""In a smaller file every line goes to the exact judge, at some 20 microseconds each: the fast ways take 3 ms to
start."""


class JsonLines(Format):
    """JSON Lines: an object keyed by column on each line, or a value of one column."""

    name, title = "jsonl", "JSON Lines"
    suffixes = (".jsonl", ".ndjson", ".json")
    magic = re.compile(rb"\s*[\[{]")
    payload_kind = "text"
    options_type = JsonLinesOptions

    def options(self, wanted: Wanted) -> JsonLinesOptions:
        return JsonLinesOptions(wanted.value_column)

    def setting_problems(self, columns: Contract, keep: tuple[str, ...] | None, options: Options) -> list[str]:
        if keep is not None:
            return []
        return ["output.keep: all is not possible with JSON Lines, whose keys may differ from line to line: name them"]

    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> None:
        _check_encoding(path, version)

    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        return cut_lines(path, size, split_bytes, settings, version)

    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        if range_.start:
            _check_encoding(range_.path, range_.version)  # faults of the whole file are reported by its first range
        size = (range_.size if range_.end < 0 else range_.end) - range_.start
        parser, row = LineParser(settings, () if size <= _FEW_BYTES else FAST_WAYS), range_.first_row
        for block in blocks(range_, settings):
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

    def first_rows(self, path: str, count: int, hints: Hints) -> FirstRows:
        return first_rows(path, count)

    def record_spans(self, data: bytes, settings: ReadSettings) -> tuple[np.ndarray, np.ndarray]:
        return line_spans(data)

    def file_of(self, records: Sequence[bytes], header: str | None) -> bytes:
        # The byte order mark is the file's, so one at the start of a record stays part of the record.
        return BOM + b"\n".join(records)


FORMAT = JsonLines()


def _check_encoding(path: str, version: str | None) -> None:
    with RawStream(path, version=version) as stream:
        try:
            head = stream.read(HEAD_BYTES)
        except CorruptStream as damage:
            raise UnusableFile("unreadable", str(damage)) from None
    refuse_foreign(head)


def cut_lines(
    path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
) -> list[FileRange]:
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
    return sum(len(line_spans(b.data)[0]) + (b.large is not None) for b in blocks(range_, settings))


def _line_start(file: ByteFile, at: int, size: int) -> int:
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


def _chunks(parser: LineParser, data: bytes, row: int, settings: ReadSettings) -> Iterator[Chunk]:
    """Yield chunks of at most `max_block_rows` of the lines in `data`; the first line is number `row`."""
    starts, ends = line_spans(data)
    most = settings.max_block_rows
    for at in range(0, len(starts), most):
        whole = len(starts) <= most
        begin, end = (0, len(data)) if whole else (int(starts[at]), int(ends[min(at + most, len(ends)) - 1]))
        part = data if whole else data[begin:end]
        origin = Origin("lines", row + at, pa.py_buffer(part)) if settings.payload else None
        yield parser.parse(part, starts[at : at + most] - begin, ends[at : at + most] - begin, row + at, origin)
