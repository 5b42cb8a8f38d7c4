"""CSV: records to text columns. Numbers are parsed later, by `transforms.validate`: one vectorised
path then serves clean and dirty rows alike."""

from __future__ import annotations

import collections
import csv
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from transforms import csv_records
from transforms.block import (
    FAULTS,
    FAULTS_TYPE,
    NO_REJECTED,
    ROW,
    Fault,
    dead_letters,
    fault_lists,
    stretch,
)
from transforms.compression import Damaged, compression_of, open_stream
from transforms.names import near_miss
from transforms.payload import MAX_PAYLOAD_BYTES, Origin
from transforms.read import Chunk, ReadSettings, UnusableFile, empty_rows
from transforms.splits import FileRange

_BOM = b"\xef\xbb\xbf"
_SCAN_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class _Header:
    """Attributes:
    names: of the fields, in the file's order.
    size: bytes before the first record: byte order mark, blank lines and header.
    """

    names: tuple[str, ...]
    size: int


def check(path: str, settings: ReadSettings) -> None:
    """Raises UnusableFile where the header shows that the file cannot be used."""
    _header(path, settings)


def columns_of(path: str, settings: ReadSettings) -> dict[str, pa.DataType] | None:
    """The columns of a file, all text; None for a file without a header."""
    header = _header(path, settings)
    return None if header is None else dict.fromkeys(header.names, pa.string())


def _header(path: str, settings: ReadSettings) -> _Header | None:
    """The header of a file; None for a file without a record. Raises UnusableFile, OSError."""
    with open_stream(path) as stream:
        head = b""
        while True:
            try:
                piece = stream.read(1 << 16)
            except Damaged as damage:
                if head.strip(b"\r\n"):
                    break
                raise UnusableFile("unreadable", str(damage)) from None
            head += piece
            end = csv_records.spans(head, settings.delimiter, settings.quote)
            if not piece or len(end.starts) > 1:
                break
            if len(head) > settings.max_row_bytes:
                raise UnusableFile("too_large", f"the header is longer than {settings.max_row_bytes} bytes")
    _refuse_utf16(head)
    bom = len(_BOM) if head.startswith(_BOM) else 0
    if not settings.header:
        return _Header((*settings.contract_columns, *settings.kept_undeclared), bom)
    found = csv_records.spans(head[bom:], settings.delimiter, settings.quote)
    if not len(found.starts):
        return None
    if found.open_quote and len(found.starts) == 1:
        raise UnusableFile("unterminated_quote", "the header has a quote that is never closed")
    start, end = bom + int(found.starts[0]), bom + int(found.ends[0])
    try:
        text = head[start:end].decode()
    except UnicodeDecodeError:
        raise UnusableFile("bad_encoding", "the header is not UTF-8 text: convert the file") from None
    quoting = {"quotechar": settings.quote} if settings.quote else {"quoting": csv.QUOTE_NONE}
    names = tuple(next(csv.reader([text], delimiter=settings.delimiter, **quoting)))
    _refuse_header(names, settings)
    return _Header(names, end)


def _refuse_utf16(head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(head) > 3 and head[1] == 0 == head[3] and head[0] and head[2]):
        raise UnusableFile("bad_encoding", "the file is UTF-16, expected UTF-8: convert it, as with iconv -f UTF-16 -t UTF-8")


def _refuse_header(names: tuple[str, ...], settings: ReadSettings) -> None:
    counts = collections.Counter(names)
    for name, column in settings.contract_columns.items():
        if counts[name] > 1:
            raise UnusableFile("duplicate_key", f"the header has column {name!r} {counts[name]} times", name)
        if not counts[name] and column.required:
            raise UnusableFile("missing_column", f"the header has no column {name!r}{near_miss(name, names)}", name)
    for name in settings.kept_undeclared:
        if counts[name] != 1:
            raise UnusableFile(
                "missing_column" if not counts[name] else "duplicate_key",
                f"the kept column {name!r} is {counts[name]} times in the header{near_miss(name, names)}",
                name,
            )
    if settings.extra == "reject":
        known = settings.contract_columns.keys() | set(settings.kept_undeclared)
        if extra := [n for n in names if n not in known]:
            raise UnusableFile("not_allowed", f"the header has columns that the contract does not name: {extra}", extra[0])


def _parse_options(settings: ReadSettings, newlines: bool, on_invalid=None) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(
        delimiter=settings.delimiter,
        quote_char=settings.quote or False,
        double_quote=True,
        newlines_in_values=newlines,
        ignore_empty_lines=True,
        invalid_row_handler=on_invalid,
    )


def cut(path: str, size: int, split_bytes: int, settings: ReadSettings) -> list[FileRange]:
    """Ranges of about `split_bytes`, where every border is provably a record's end; else one."""
    compressed = compression_of(path) is not None
    whole = FileRange(path, size, bytes=size * 4 if compressed else size)
    if compressed or size <= split_bytes * 1.5:
        return [whole]
    try:
        header = _header(path, settings)
    except UnusableFile:
        return [whole]
    if header is None:
        return [whole]
    borders = _borders(path, size, header.size, split_bytes, settings)
    if borders is None:
        return [whole]
    ends = [start for start, _ in borders[1:]] + [size]
    return [
        FileRange(path, size, start, end, first_row, index, end - start)
        for index, ((start, first_row), end) in enumerate(zip(borders, ends, strict=True))
    ]


def _borders(path: str, size: int, start: int, split_bytes: int, settings: ReadSettings) -> list[tuple[int, int]] | None:
    """(position, number of the first row) of each range; None where no safe border can be told."""
    pieces = [(at, min(at + _SCAN_BYTES, size)) for at in range(start, size, _SCAN_BYTES)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if settings.quote and any(pool.map(lambda p: settings.quote.encode() in _slice(path, *p), pieces)):
            return _borders_with_quotes(path, size, start, split_bytes, settings)
        cuts = [start]
        for at in range(start + split_bytes, size - split_bytes // 2, split_bytes):
            border = _after_line_end(path, at, size, settings.max_row_bytes)
            if border is None:
                return None
            if cuts[-1] < border < size:
                cuts.append(border)
        ranges = list(zip(cuts, [*cuts[1:], size], strict=True))
        counts = list(pool.map(lambda r: _count_lines(path, *r), ranges))
    rows = np.cumsum([0, *counts[:-1]])
    return list(zip(cuts, rows.tolist(), strict=True))


def _slice(path: str, start: int, end: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        return file.read(end - start)


def _after_line_end(path: str, at: int, size: int, most: int) -> int | None:
    """The position after the first line end from `at` on; None if there is none within `most`."""
    piece = _slice(path, at, min(at + most, size))
    found = [p for p in (piece.find(b"\n"), piece.find(b"\r")) if p >= 0]
    return at + min(found) + 1 if found else None


def _count_lines(path: str, start: int, end: int) -> int:
    """Lines that are not blank in a range that begins at the start of a line and has no quotes."""
    count, after_end = 0, True
    for at in range(start, end, _SCAN_BYTES):
        text = np.frombuffer(_slice(path, at, min(at + _SCAN_BYTES, end)), np.uint8)
        is_end = text == csv_records.LF
        if (carriage := text == csv_records.CR).any():
            is_end |= carriage
        # A record starts at a byte that ends no line, after one that does.
        count += int(np.count_nonzero(is_end[:-1] & ~is_end[1:])) + int(after_end and not is_end[0])
        after_end = bool(is_end[-1])
    return count


def _borders_with_quotes(path, size, start, split_bytes, settings) -> list[tuple[int, int]] | None:
    """The same for a file with quotes: in order, since the state at a border is that of all before."""
    borders, rows, at, next_cut, rest = [(start, 0)], 0, start, start + split_bytes, b""
    while at < size:
        data = rest + _slice(path, at, min(at + _SCAN_BYTES, size))
        text = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(text == ord(settings.quote))
        if not csv_records.quotes_are_plain(text, quotes, settings.delimiter, settings.quote):
            return None
        begin, at = at - len(rest), min(at + _SCAN_BYTES, size)
        done = csv_records.last_record_end(data, settings.delimiter, settings.quote)
        found = csv_records.spans(data[:done], settings.delimiter, settings.quote)
        for _ in range(len(found.starts)):
            later = np.searchsorted(found.starts, next_cut - begin)
            if later >= len(found.starts) or next_cut > size - split_bytes // 2:
                break
            borders.append((begin + int(found.starts[later]), rows + int(later)))
            next_cut = borders[-1][0] + split_bytes
        rows += len(found.starts)
        rest = data[done:]
        if len(rest) > settings.max_row_bytes + _SCAN_BYTES:
            return None
    return borders


def read(range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
    """The rows of one range. Raises UnusableFile before the first chunk, OSError anywhere."""
    header = _header(range_.path, settings)
    if header is None:
        return
    parser = _Parser(header, settings)
    # The header's bytes are passed over as they come, since a compressed file cannot be entered inside.
    skip = 0 if range_.start else header.size
    row = range_.first_row
    pieces = _pieces(range_, settings.max_block_bytes)
    data, damage, more = b"", None, True
    while more:
        try:
            piece = next(pieces, b"")
        except Damaged as error:
            piece, damage = b"", error
        more = bool(piece)
        if skip:
            dropped = min(skip, len(piece))
            piece, skip = piece[dropped:], skip - dropped
        data = data + piece if data else piece
        if more:
            end = csv_records.last_record_end(data, settings.delimiter, settings.quote)
        else:
            # A file that breaks off has its last record cut in half: only what a line end closed stands.
            end = csv_records.last_record_end(data, settings.delimiter, settings.quote) if damage else len(data)
        if end:
            for chunk in parser.parse(data[:end], row, last=not more and damage is None):
                yield chunk
                row += chunk.rows.num_rows + int(np.nansum(chunk.rejected["rows"].to_numpy(zero_copy_only=False)))
            data = data[end:]
        if len(data) > settings.max_row_bytes and more:
            chunk, data, damage, more = _pass_over(data, pieces, row, settings)
            if chunk is not None:
                yield chunk
                row += 1
            if not more and damage is None and data:
                yield from parser.parse(data, row, last=True)
    if damage is not None:
        yield Chunk(empty_rows(settings), stretch(row, None, "unreadable", str(damage)))


def _pieces(range_: FileRange, size: int) -> Iterator[bytes]:
    with open_stream(range_.path, range_.start, range_.end) as stream:
        while piece := stream.read(size):
            yield piece


def _pass_over(data: bytes, pieces: Iterator[bytes], row: int, settings: ReadSettings):
    """Passes over one record that is too large to hold, to its true end.

    Returns (its dead letter or None if the file broke off in it, bytes after it, damage, more)."""
    skipper = csv_records.RecordSkipper(settings.delimiter, settings.quote)
    shown = data[:MAX_PAYLOAD_BYTES + 1]
    size = 0
    while True:
        end = skipper.feed(data)
        if end is not None:
            break
        size += len(data)
        try:
            data = next(pieces, b"")
        except Damaged as error:
            return None, b"", error, False
        if not data:
            break
    if end is None and skipper.in_quotes:
        return _record_letter(shown, row, "unterminated_quote", _UNTERMINATED, settings), b"", None, False
    size += end or 0
    message = f"the record has {size} bytes, more than max_row_bytes {settings.max_row_bytes}"
    letter = _record_letter(shown, row, "too_large", message, settings)
    return letter, data[end:] if end is not None else b"", None, end is not None


_UNTERMINATED = "a quote is opened in this record and never closed before the end of the file: close it"


def _record_letter(record: bytes, row: int, reason: str, message: str, settings: ReadSettings) -> Chunk:
    payload = record if settings.payload else None
    return Chunk(empty_rows(settings), stretch(row, 1, reason, message, payload=payload))


class _Parser:
    """Whole records of one file to chunks."""

    def __init__(self, header: _Header, settings: ReadSettings):
        self._settings = settings
        self._names = [str(i) for i in range(len(header.names))]
        used = [*settings.contract_columns, *settings.kept_undeclared]
        self._at = {name: header.names.index(name) for name in used if name in header.names}
        self._absent = [name for name in used if name not in self._at]
        # Text that is null is told from quoted text while parsing, so each set of nulls is a pass.
        self._passes: dict[tuple[str, ...], list[str]] = {}
        for name in self._at:
            column = settings.contract_columns.get(name)
            nulls = tuple(dict.fromkeys(("", *settings.nulls, *(column.nulls if column else ()))))
            self._passes.setdefault(nulls, []).append(name)

    def parse(self, data: bytes, row: int, last: bool) -> Iterator[Chunk]:
        """Chunks of the records in `data`, the first of which is number `row`.

        Args:
          last: whether the file ends here, so that an open quote is never closed.
        """
        settings = self._settings
        if len(data) <= settings.max_row_bytes and not (last and settings.quote and settings.quote.encode() in data):
            yield from self._parse(data, row)
            return
        found = csv_records.spans(data, settings.delimiter, settings.quote)
        large = found.ends - found.starts > settings.max_row_bytes
        if found.open_quote:
            large[-1] = True
        begin = 0
        for index in np.flatnonzero(large):
            start, end = int(found.starts[index]), int(found.ends[index])
            first = int(np.searchsorted(found.starts, begin))
            yield from self._parse(data[begin:start], row + first)
            if found.open_quote and index == len(large) - 1:
                reason, message = "unterminated_quote", _UNTERMINATED
            else:
                reason = "too_large"
                message = f"the record has {end - start} bytes, more than max_row_bytes {settings.max_row_bytes}"
            yield _record_letter(data[start : min(end, start + MAX_PAYLOAD_BYTES + 1)], row + int(index), reason, message, settings)
            begin = end
        first = int(np.searchsorted(found.starts, begin))
        yield from self._parse(data[begin:], row + first)

    def _parse(self, data: bytes, row: int) -> Iterator[Chunk]:
        settings = self._settings
        if not data.strip(b"\r\n"):
            return
        origin = None
        if settings.payload:
            origin = Origin("csv", row, pa.py_buffer(data), settings.delimiter, settings.quote)
        columns, ragged, faults = self._columns(data)
        good = len(next(iter(columns.values()))) if columns else 0
        count = good + len(ragged)
        numbers = np.arange(row, row + count)
        rejected = NO_REJECTED
        if ragged:
            index = np.array([number for number, _ in ragged])
            expected = len(self._names)
            message = pa.array([f"found {fields} fields, expected {expected}, as in the header" for _, fields in ragged])
            _, errors = fault_lists([Fault(np.arange(len(index)), None, "ragged_row", message)], {})
            rejected = dead_letters(row + index, errors, "read", origin)
            numbers = np.delete(numbers, index)
        batch = {ROW: pa.array(numbers, pa.int64())}
        for name in (*settings.contract_columns, *settings.kept_undeclared):
            batch[name] = columns[name] if name in columns else pa.nulls(good, pa.string())
        if faults:
            positions, lists = fault_lists(faults, settings.columns.order)
            batch[FAULTS] = _scatter(positions, lists, good)
        yield from _bounded(pa.RecordBatch.from_pydict(batch), rejected, origin, settings.max_block_rows)

    def _columns(self, data: bytes) -> tuple[dict[str, pa.Array], list[tuple[int, int]], list[Fault]]:
        """Text columns by name; (index, number of fields) of the ragged rows; what is not UTF-8."""
        settings = self._settings
        newlines = bool(settings.quote) and settings.quote.encode() in data
        columns: dict[str, pa.Array] = {}
        faults: list[Fault] = []
        ragged: list[tuple[int, int]] = []
        # With no column used at all the rows are still counted, by the first field.
        for nulls, names in (self._passes or {("",): []}).items():
            ragged = []

            def on_invalid(bad, ragged=ragged):
                ragged.append((bad.number - 1, bad.actual_columns))
                return "skip"

            def parse(type_of, names=names, nulls=nulls, on_invalid=on_invalid):
                include = [self._names[self._at[n]] for n in names] or [self._names[0]]
                types = {self._names[self._at[n]]: type_of(n) for n in names} or {self._names[0]: pa.binary()}
                table = pacsv.read_csv(
                    pa.BufferReader(data),
                    pacsv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=self._names),
                    _parse_options(settings, newlines, on_invalid),
                    pacsv.ConvertOptions(
                        column_types=types,
                        include_columns=include,
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        null_values=list(nulls),
                    ),
                )
                return dict(zip(names or [ROW], (_whole(c) for c in table.columns), strict=True))

            try:
                columns |= parse(self._text_type)
            except pa.ArrowInvalid:
                del ragged[:]
                raw = parse(lambda name: pa.binary())
                for name, values in raw.items():
                    columns[name], fault = self._judge_encoding(name, values)
                    faults += fault
        return columns, ragged, faults

    def _text_type(self, name: str) -> pa.DataType:
        column = self._settings.contract_columns.get(name)
        return pa.binary() if column is not None and column.dtype == "bytes" else pa.string()

    def _judge_encoding(self, name: str, values: pa.Array) -> tuple[pa.Array, list[Fault]]:
        if name == ROW or self._text_type(name) == pa.binary():
            return values, []
        try:
            return values.cast(pa.string()), []
        except pa.ArrowInvalid:
            pass
        texts = [None if v is None else v.decode("utf-8", "replace") for v in values.to_pylist()]
        bad = np.array([t is not None and "\ufffd" in t and not _is_utf8(v) for t, v in zip(texts, values.to_pylist(), strict=True)])
        column = self._settings.contract_columns.get(name)
        if column is not None and not column.is_text:
            return pa.array(texts, pa.string()), []  # no number has such bytes: it is refused as wrong_type
        text = pa.array([None if b else t for t, b in zip(texts, bad, strict=True)], pa.string())
        return text, [Fault(np.flatnonzero(bad), name, "bad_encoding", f"column {name!r} is not UTF-8 text: convert it, or declare it as bytes")]


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _scatter(positions: np.ndarray, lists: pa.Array, count: int) -> pa.Array:
    """The lists at their positions in a column of `count` rows; null elsewhere."""
    take = np.full(count, -1)
    take[positions] = np.arange(len(positions))
    return lists.take(pa.array(take, mask=take < 0)).cast(FAULTS_TYPE)


def _bounded(rows: pa.RecordBatch, rejected: pa.RecordBatch, origin: Origin | None, most: int) -> Iterator[Chunk]:
    """Chunks of at most `most` rows; each takes the dead letters that stand before its end."""
    if rows.num_rows <= most:
        yield Chunk(rows, rejected, origin)
        return
    numbers, refused = rows[ROW].to_numpy(), rejected["row"].to_numpy()
    done = 0
    for at in range(0, rows.num_rows, most):
        piece = rows.slice(at, most)
        last = at + most >= rows.num_rows
        until = len(refused) if last else int(np.searchsorted(refused, numbers[at + most - 1]))
        yield Chunk(piece, rejected.slice(done, until - done), origin)
        done = until

