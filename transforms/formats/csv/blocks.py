"""Division of a CSV file's bytes into blocks of whole records, for any size of records and reads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.framing import csv as csv_records
from beam_score.transforms.framing.lines import CR, LF, MAX_PAYLOAD_BYTES, count_bytes
from beam_score.transforms.stores.compression import CorruptStream, RawStream, Refuted

_NONE = np.array([], np.int64)
_IN_RECORD = re.compile(rb"[^\r\n]")
_UNTERMINATED = "a quote is opened in this record and never closed: close it"


@dataclasses.dataclass(frozen=True)
class Records:
    """Some whole records, at least one; none is too large, and no quote is open at the end.

    Attributes:
      joined: see `transforms.framing.csv.Spans`.
    """

    data: bytes
    joined: np.ndarray


@dataclasses.dataclass(frozen=True)
class Refused:
    """A record that is too large or has no end.

    Attributes:
      head: its first bytes, one more than a payload contains if the record is longer.
      reason: `too_large` or `unterminated_quote`.
    """

    head: bytes
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Broken:
    """The file is damaged from here on; a record that it cut in two is part of the loss."""

    message: str


def blocks(range_: FileRange, header_bytes: int, settings: ReadSettings) -> Iterator[Records | Refused | Broken]:
    """Yield the records of a range, in order. Raises OSError.

    Args:
      header_bytes: how many bytes of the file precede its first record.
    """
    rest = b""
    with RawStream(range_.path, range_.start, range_.end, range_.version, True, range_.sound) as stream:
        pieces = _pieces(stream, 0 if range_.start else header_bytes, settings)
        try:
            for piece in pieces:
                data, joined, rest = _whole(rest, piece, settings)
                yield from _within_bounds(data, joined, settings)
                while len(rest) > settings.max_row_bytes:
                    refused, piece = _pass_over(rest, pieces, settings)
                    yield refused
                    data, joined, rest = _whole(b"", piece, settings)
                    yield from _within_bounds(data, joined, settings)
        except Refuted:
            raise
        except CorruptStream as damage:
            # All records that a line end closed have been yielded.
            yield Broken(str(damage))
            return
    yield from _within_bounds(rest, None, settings)


def _pieces(stream: RawStream, skip: int, settings: ReadSettings) -> Iterator[bytes]:
    """Yield the content of the stream without its first `skip` bytes: it is impossible to seek in a compressed file.
    A piece has about `max_block_rows` line ends at most: the record of a rejected row takes more memory than a row
    of two bytes."""
    while piece := stream.read(settings.max_block_bytes):
        if skip:
            dropped = min(skip, len(piece))
            piece, skip = piece[dropped:], skip - dropped
        line_ends = max(count_bytes(piece, LF), count_bytes(piece, CR) if b"\r" in piece else 0)
        parts = 1 + line_ends // settings.max_block_rows
        step = -(-len(piece) // parts)
        for at in range(0, len(piece), max(1, step)):
            yield piece[at : at + step]


def _whole(rest: bytes, piece: bytes, settings: ReadSettings) -> tuple[bytes, np.ndarray, bytes]:
    """Return the complete records of `rest` followed by `piece`, their `joined` (see `Records`), and what follows."""
    quote = settings.options.dialect[1].encode()
    if quote and (quote in rest or quote in piece):  # a quote may hold what looks like the end of a record
        rest, piece = b"", rest + piece
    whole = csv_records.whole_records(piece, *settings.options.dialect)
    if not whole.end:
        return b"", _NONE, rest + piece
    return rest + memoryview(piece)[: whole.end], whole.joined, piece[whole.end :]  # copies only once


def _within_bounds(data: bytes, joined: np.ndarray | None, settings: ReadSettings) -> Iterator[Records | Refused]:
    """Yield the whole records, separated from those that are too large, or unterminated at the end of the file.

    Args:
      joined: see `Records`; None at the end of the file, where the last record may have no end.
    """
    begin = 0
    may_be_open = joined is None and settings.options.quote and settings.options.quote.encode() in data
    if joined is None:
        joined = _NONE
    if len(data) > settings.max_row_bytes or may_be_open:
        found = csv_records.spans(data, *settings.options.dialect)
        joined = found.joined
        refused = found.ends - found.starts > settings.max_row_bytes
        if found.open_quote:
            refused[-1] = True
        for index in np.flatnonzero(refused):
            start, end = int(found.starts[index]), int(found.ends[index])
            yield from _records(data[begin:start], joined - begin)
            head = data[start : min(end, start + MAX_PAYLOAD_BYTES + 1)]
            yield _refusal(head, end - start, found.open_quote and index == len(refused) - 1, settings)
            begin = end
    yield from _records(data[begin:] if begin else data, joined - begin)


def _records(data: bytes, joined: np.ndarray) -> Iterator[Records]:
    if _IN_RECORD.search(data):
        yield Records(data, joined[(joined >= 0) & (joined < len(data))] if len(joined) else joined)


def _refusal(head: bytes, size: int, is_open: bool, settings: ReadSettings) -> Refused:
    if is_open:
        return Refused(head, "unterminated_quote", _UNTERMINATED)
    return Refused(head, "too_large", f"the record has {size} bytes, more than max_row_bytes {settings.max_row_bytes}")


def _pass_over(data: bytes, pieces: Iterator[bytes], settings: ReadSettings) -> tuple[Refused, bytes]:
    """Skip one record that is too large to hold, to its true end; return it and the bytes that follow."""
    skipper = csv_records.RecordSkipper(*settings.options.dialect)
    head, size = b"", 0
    while True:
        end = skipper.feed(data)
        in_record = len(data) if end is None else end
        head += data[: min(in_record, MAX_PAYLOAD_BYTES + 1 - len(head))]
        size += in_record
        if end is not None:
            return _refusal(head, size, False, settings), data[end:]
        data = next(pieces, b"")
        if not data:
            return _refusal(head, size, skipper.in_quotes, settings), b""
