"""The CSV reader: records to columns. Numbers are parsed directly where possible (see `transforms.formats.csv.typed`);
other columns are text, which `transforms.scoring.validate` parses later in one vectorised path."""

from __future__ import annotations

import array
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from beam_score.transforms.arrays.plain import valid_utf8
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.numbers import BLANKS
from beam_score.transforms.formats.base import Chunk, Format, Options, ReadSettings, Wanted, empty_rows
from beam_score.transforms.formats.csv.blocks import Broken, Records, blocks
from beam_score.transforms.formats.csv.first_rows import first_rows
from beam_score.transforms.formats.csv.header import Header, header_of
from beam_score.transforms.formats.csv.options import CsvOptions
from beam_score.transforms.formats.csv.ranges import cut
from beam_score.transforms.formats.csv.text import Text
from beam_score.transforms.formats.csv.typed import Typed, TypedColumns, failed_value
from beam_score.transforms.formats.first_rows import FirstRows, Hints
from beam_score.transforms.framing import csv as csv_records
from beam_score.transforms.framing.lines import BOM
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import (
    FAULTS,
    NO_REJECTED,
    Fault,
    dead_letters,
    fault_lists,
    faults_column,
    known_rows,
    stretch,
)
from beam_score.transforms.rows.origin import Origin

_NONE = np.array([], np.int64)

_MOST_FAILURES = 8  # of reads of one block before it is read as text
_HEAD_BYTES = 1 << 16  # of a block, from which is learned how to read it: each failure costs a read
_MOST_PADDED = 1000  # texts remembered from one block to the next


class Csv(Format):
    """Comma-separated values: every value is a text; the header names the columns."""

    name, title = "csv", "CSV"
    suffixes = (".csv", ".tsv")
    values, payload_kind = "text", "text"
    options_type = CsvOptions

    def options(self, wanted: Wanted) -> CsvOptions:
        options = wanted.sections[self.name]
        assert isinstance(options, CsvOptions)
        return options

    def setting_problems(self, columns: Contract, keep: tuple[str, ...] | None, options: Options) -> list[str]:
        return [
            f"columns.{name}: shape {list(column.shape)}: a CSV field contains one value: declare a column for each "
            "value, and pack them in inputs"
            for name, column in columns.columns.items()
            if column.shape
        ]

    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> str | None:
        header = header_of(path, settings, version)
        return None if header is None else header.text

    header_of = check

    def columns_of(
        self, path: str, settings: ReadSettings, version: str | None = None
    ) -> dict[str, pa.DataType] | None:
        # Without the kept columns: whether they are there is the question.
        header = header_of(path, dataclasses.replace(settings, keep=()), version)
        return None if header is None else dict.fromkeys(header.names, pa.string())

    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        return cut(path, size, split_bytes, settings, version)

    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        header = header_of(range_.path, settings, range_.version)
        if header is None:
            return
        parser, row = _Parser(header, settings), range_.first_row
        for block in blocks(range_, header.size, settings):
            if isinstance(block, Records):
                chunk = parser.parse(block, row)
            elif isinstance(block, Broken):
                chunk = Chunk(empty_rows(settings), stretch(row, None, "unreadable", block.message))
            else:
                payload = block.head if settings.payload else None
                chunk = Chunk(empty_rows(settings), stretch(row, 1, block.reason, block.message, payload=payload))
            row += chunk.rows.num_rows + known_rows(chunk.rejected)
            yield from _bounded(chunk, settings.max_block_rows)

    def first_rows(self, path: str, count: int, hints: Hints) -> FirstRows:
        return first_rows(self, path, count, hints)

    def record_spans(self, data: bytes, settings: ReadSettings) -> tuple[np.ndarray, np.ndarray]:
        found = csv_records.spans(data, *settings.options.dialect)
        return found.starts, found.ends

    def file_of(self, records: Sequence[bytes], header: str | None) -> bytes:
        # The byte order mark is the file's, so one at the start of a record stays part of the record.
        return BOM + (b"" if header is None else header.encode() + b"\n") + b"\n".join(records)


FORMAT = Csv()


class _Read(NamedTuple):
    """The result of a call of pyarrow's reader.

    Attributes:
      columns: by name.
      rows: their number.
      ragged: numbers, in the text, of the records with another number of fields than the header: they are not rows.
      fields: the number of fields of each of them.
    """

    columns: dict[str, pa.Array]
    rows: int
    ragged: np.ndarray
    fields: np.ndarray


_NOTHING = _Read({}, 0, _NONE, _NONE)


class _Parser:
    """Parses whole records of one file to chunks."""

    def __init__(self, header: Header, settings: ReadSettings):
        self._settings = settings
        # By number, since names of unused columns may be duplicated.
        self._fields = [str(i) for i in range(len(header.names))]
        self._contract = settings.contract_columns
        used = [*self._contract, *settings.kept_undeclared]
        at = {name: i for i, name in reversed([*enumerate(header.names)])}  # the first of duplicate names
        self._field_of = {name: str(at[name]) for name in used if name in at}
        self._typed = TypedColumns({n: c for n, c in self._contract.items() if n in self._field_of})
        self._expects_bad = self._typed.was_bad
        # Null text is distinguished from quoted text while parsing, so each set of nulls is a pass.
        self._passes: dict[tuple[tuple[str, ...], bool], list[str]] = {}
        for name in self._field_of:
            column = self._contract.get(name)
            nulls = ("", *settings.options.nulls, *(column.nulls if column else ()))
            strip = bool(column.strip) if column else settings.strip
            if strip:  # before they are looked up
                nulls = tuple(n for n in nulls if n == n.strip(BLANKS))
            self._passes.setdefault((tuple(dict.fromkeys(nulls)), strip), []).append(name)
        # For each stripped set of nulls: the padded texts seen so far that are null without their blanks.
        self._padded: dict[tuple[str, ...], tuple[str, ...]] = {nulls: () for nulls, strip in self._passes if strip}

    def parse(self, block: Records, row: int) -> Chunk:
        """Return the records of a block as a chunk; the first record is number `row`."""
        settings, data = self._settings, block.data
        dialect = settings.options.dialect
        origin = None
        if settings.payload:
            origin = Origin("csv", row, pa.py_buffer(data), dialect)
        text, broken, why = self._without_broken(block)
        columns: dict[str, pa.Array] = {}
        ragged, fields = _NONE, _NONE
        faults: list[Fault] = []
        good = 0
        if not len(broken) or text.strip(b"\r\n"):
            text = csv_records.without_escapes(text, *dialect)
            records = Text.of(text, dialect[0], dialect[1])
            (columns, good, ragged, fields), faults = self._columns(records)
            if origin is not None and records.content is data and (faults or len(ragged)):  # payloads are needed
                origin = dataclasses.replace(origin, known=records.positions)
        numbers = np.arange(row, row + good + len(ragged) + len(broken))
        rejected = NO_REJECTED
        if len(ragged) or len(broken):
            index = np.delete(np.arange(len(numbers)), broken)[ragged] if len(broken) else ragged
            like = "as in the header" if settings.options.header else "one for each column"
            message = _each(fields, f"found {{}} fields, expected {len(self._fields)}, {like}")
            found = [Fault(index, None, "ragged_row", message), Fault(broken, None, "malformed", why)]
            refused, errors = fault_lists(found, {})
            rejected = dead_letters(row + refused, errors, "read", origin)
            numbers = np.delete(numbers, refused)
        rows = {ROW: pa.array(numbers)}
        for name in (*settings.contract_columns, *settings.kept_undeclared):
            rows[name] = columns[name] if name in columns else pa.nulls(good, pa.string())
        if faults:
            rows[FAULTS] = faults_column(good, faults, settings.columns.order)
        return Chunk(pa.RecordBatch.from_pydict(rows), rejected, origin)

    def _without_broken(self, block: Records) -> tuple[bytes, np.ndarray, pa.Array]:
        """Return the text without records with text after a closing quote, which pyarrow joins silently; the numbers
        of these records in the block, and what is wrong with each."""
        data, settings = block.data, self._settings
        if not len(block.joined):
            return data, np.array([], np.int64), pa.array([], pa.string())
        found = csv_records.spans(data, *settings.options.dialect)
        broken = np.unique(np.searchsorted(found.starts, block.joined, "right") - 1)
        kept, why, begin = [], [], 0
        for start, end in zip(found.starts[broken].tolist(), found.ends[broken].tolist(), strict=True):
            kept.append(data[begin:start])
            why.append(csv_records.joined_message(data[start:end], settings.options.quote, settings.options.escape))
            begin = end
        return b"".join([*kept, data[begin:]]), broken, pa.array(why, pa.string())

    def _columns(self, text: Text) -> tuple[_Read, list[Fault]]:
        """Return the columns, and faults of single values."""
        columns: dict[str, pa.Array] = {}
        faults: list[Fault] = []
        read = _NOTHING
        # The rows are counted even if no column is used.
        for (nulls, strip), names in (self._passes or {(("",), False): []}).items():
            as_nulls = (*nulls, *self._padded.get(nulls, ())) if strip else nulls
            read, certain, typed = self._parse(text, as_nulls, names)
            parsed = read.columns
            if strip:
                parsed = self._stripped(parsed, text.content, nulls, text.is_utf8)
            settled, found = self._settled(typed, text, read.ragged, nulls, strip)
            parsed |= certain | settled
            faults += found
            for name, values in parsed.items():
                if not text.is_utf8:
                    values, fault = self._from_latin1(name, values)
                    faults += fault
                elif self._is_binary(name):
                    values = values.cast(pa.binary())
                columns[name] = values
        self._expects_bad = False
        return read._replace(columns=columns), faults

    def _stripped(
        self, parsed: dict[str, pa.Array], text: bytes | pa.Buffer, nulls: tuple[str, ...], is_utf8: bool
    ) -> dict[str, pa.Array]:
        """Return text columns, with padded texts null if they are null without the blanks around them. New ones cause
        a second parse, since quoted text is never null. Text of columns that the contract does not declare is
        trimmed here."""
        known = self._padded[nulls]
        as_read = pa.array(_as_read((*nulls, *known), is_utf8))
        new: set[str] = set()
        for values in parsed.values():
            trimmed = pc.is_in(pc.utf8_trim(values, BLANKS), as_read)
            padded = values.filter(pc.and_(pc.and_(trimmed, values.is_valid()), pc.invert(pc.is_in(values, as_read))))
            new.update(padded.unique().to_pylist())
        if new:
            texts = sorted(new if is_utf8 else (t.encode("latin-1").decode() for t in new))
            types = dict.fromkeys(parsed, pa.string())
            parsed = self._read(text, (*nulls, *known, *texts), types, is_utf8).columns
            if len(known) + len(texts) <= _MOST_PADDED:
                self._padded[nulls] = (*known, *texts)
        undeclared = [n for n in parsed if n not in self._contract]
        return parsed | {n: pc.utf8_trim(parsed[n], BLANKS) for n in undeclared}

    def _parse(
        self, text: Text, nulls: tuple[str, ...], names: list[str]
    ) -> tuple[_Read, dict[str, pa.Array], dict[str, Typed]]:
        """Return the columns that are text; and those that are parsed directly, without and with values that may be in
        doubt; all by name."""
        wanted = set(names)
        types = {n: t for n, t in self._typed.types(text.content).items() if n in wanted} if text.is_utf8 else {}
        for failed in itertools.count():
            try:
                # Of a block with bad values the beginning shows how to read it, after the first or without a failure.
                if types and failed == (0 if self._expects_bad else 1) and (head := _head(text)):
                    self._parse(head, nulls, names)
                    types = {n: t for n, t in types.items() if self._typed.is_direct(n)}
                read = self._read_all(text, nulls, names, types)
            except pa.ArrowInvalid as error:
                name, value = self._failed(error)
                if name not in types:
                    raise
                if not self._typed.learn(name, value):
                    self._typed.give_up(name)
                    types = {} if failed >= _MOST_FAILURES else {n: t for n, t in types.items() if n != name}
                continue
            found = dict(read.columns)
            with_bad_texts = bool(self._typed.bad_texts)  # some are forgotten when a column is given up
            certain = self._typed.certain({name: found[name] for name in types})
            typed, given = dict[str, Typed](), dict[str, pa.DataType]()
            for name in types:
                values = found.pop(name)
                if name in certain:
                    continue
                if (accepted := self._typed.accept(name, values, with_bad_texts)) is None:
                    self._typed.give_up(name)
                    given[name] = pa.string()
                else:
                    typed[name] = accepted
            if given:
                found |= self._read(text.content, nulls, given, text.is_utf8).columns
            return read._replace(columns=found), certain, typed
        raise AssertionError("count has no end")

    def _failed(self, error: pa.ArrowInvalid) -> tuple[str | None, str]:
        """Return the column and the text of the value that pyarrow failed to convert."""
        field, value = failed_value(error) or (-1, "")
        return next((n for n, of in self._field_of.items() if of == str(field)), None), value

    def _read_all(self, text: Text, nulls: tuple[str, ...], names: list[str], types: dict[str, pa.DataType]) -> _Read:
        """Return columns, with some types and else as text."""
        others = {n: pa.string() for n in names if n not in types}
        bad_texts = self._typed.bad_texts
        if not (types and bad_texts):
            return self._read(text.content, nulls, others | types, text.is_utf8)
        read = self._read(text.content, (*nulls, *bad_texts), types, text.is_utf8)
        if not others:
            return read
        more = self._read(text.content, nulls, others, text.is_utf8)  # in which a bad text may be a good one
        return read._replace(columns=read.columns | more.columns)

    def _settled(
        self, typed: dict[str, Typed], text: Text, ragged: np.ndarray, nulls: tuple[str, ...], strip: bool
    ) -> tuple[dict[str, pa.Array], list[Fault]]:
        """Return the directly parsed columns, once their records in doubt are read again as text; and the faults."""
        doubtful = [n for n, column in typed.items() if len(column.doubtful)]
        if not doubtful:
            return {name: column.as_array() for name, column in typed.items()}, []
        rows = len(typed[doubtful[0]].null) + len(ragged)
        assert len(text.positions) == rows, f"{len(text.positions)} records, and {rows} rows"
        index = np.unique(np.concatenate([typed[name].doubtful for name in doubtful]))
        before = np.searchsorted(ragged - np.arange(len(ragged)), index, "right")  # ragged records before each row
        records = text.records(index + before)
        as_nulls = (*nulls, *self._padded.get(nulls, ())) if strip else nulls
        texts = self._read(records, as_nulls, dict.fromkeys(doubtful, pa.string()), True).columns
        if strip:
            texts = self._stripped(texts, records, nulls, True)
        settled, faults = dict[str, pa.Array](), list[Fault]()
        for name, column in typed.items():
            if len(column.doubtful):
                own = texts[name].take(pa.array(np.searchsorted(index, column.doubtful)))
                column, more = self._typed.judged(name, column, own, self._settings.payload)
                faults += more
            settled[name] = column.as_array()
        return settled, faults

    def _read(
        self, text: bytes | pa.Buffer, nulls: tuple[str, ...], types: dict[str, pa.DataType], is_utf8: bool
    ) -> _Read:
        """Return columns. Raises pa.ArrowInvalid if a value is of another type."""
        settings = self._settings
        fields = {self._field_of[n]: type_ for n, type_ in types.items()} or {self._fields[0]: pa.string()}
        skipped = array.array("q")  # number and fields of each, as integers: there may be as many as rows

        def skip(record: pacsv.InvalidRow) -> str:
            skipped.extend((record.number - 1, record.actual_columns))
            return "skip"

        # Not `open_csv`: it parses in another thread, and a call of Python from there takes ten times as long.
        table = pacsv.read_csv(
            pa.BufferReader(text),
            pacsv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=self._fields),
            pacsv.ParseOptions(
                delimiter=settings.options.delimiter,
                quote_char=settings.options.quote or False,
                newlines_in_values=True,
                invalid_row_handler=skip,
            ),
            pacsv.ConvertOptions(
                check_utf8=False,  # already checked
                column_types=fields,
                include_columns=list(fields),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=_as_read(nulls, is_utf8),
            ),
        )
        columns = [c.chunk(0) if c.num_chunks == 1 else c.combine_chunks() for c in table.columns]
        ragged = np.array(skipped).reshape(-1, 2)
        return _Read(dict(zip(types, columns, strict=False)), table.num_rows, ragged[:, 0], ragged[:, 1])

    def _is_binary(self, name: str) -> bool:
        column = self._contract.get(name)
        return column is not None and column.dtype == "bytes"

    def _from_latin1(self, name: str, values: pa.Array) -> tuple[pa.Array, list[Fault]]:
        """Return the original values, before each byte became a character; values that are not UTF-8 are null and at
        fault, except in a number column, which rejects them anyway."""
        ascii_ = pc.fill_null(pc.string_is_ascii(values), True)
        index = np.flatnonzero(~ascii_.to_numpy(zero_copy_only=False))
        raw = [v.encode("latin-1") for v in values.take(pa.array(index)).to_pylist()]
        if self._is_binary(name):
            return _replaced(values.cast(pa.binary()), index, raw), []
        column = self._contract.get(name)
        if column is not None and not column.is_text:
            return _replaced(values, index, [r.decode("utf-8", "replace") for r in raw]), []
        good = [valid_utf8(r) for r in raw]
        values = _replaced(values, index, [r.decode() if g else None for r, g in zip(raw, good, strict=True)])
        bad = index[~np.array(good, bool)]
        message = f"column {name!r} is not UTF-8 text: convert it, or declare it as bytes"
        return values, [Fault(bad, name, "bad_encoding", message)] if len(bad) else []


def _head(text: Text) -> Text | None:
    """Return the first whole records of a block, if they are a small part of it."""
    if len(text.content) < 2 * _HEAD_BYTES:
        return None
    head = text.content[:_HEAD_BYTES]
    head = head[: csv_records.whole_records(head, text.delimiter, text.quote).end]
    return dataclasses.replace(text, content=head) if head.strip(b"\r\n") else None


def _each(numbers: np.ndarray, text: str) -> pa.Array:
    """Return the text with each of the numbers in it."""
    distinct, at = np.unique(numbers, return_inverse=True)
    return pa.array([text.format(number) for number in distinct.tolist()], pa.string()).take(pa.array(at))


def _as_read(texts: tuple[str, ...], is_utf8: bool) -> list[str]:
    """Return texts as they appear in a block; in a block that is not UTF-8 each byte is a character."""
    return [t if is_utf8 else t.encode().decode("latin-1") for t in texts]


def _replaced(values: pa.Array, index: np.ndarray, new: list[Any]) -> pa.Array:
    mask = np.zeros(len(values), bool)
    mask[index] = True
    return pc.replace_with_mask(values, pa.array(mask), pa.array(new, values.type))


def _bounded(chunk: Chunk, most: int) -> Iterator[Chunk]:
    """Yield chunks of at most `most` rows; each contains the dead letters positioned before its end."""
    rows, rejected = chunk.rows, chunk.rejected
    if rows.num_rows <= most:
        yield chunk
        return
    numbers, refused = rows[ROW].to_numpy(), rejected["row"].to_numpy()
    done = 0
    for at in range(0, rows.num_rows, most):
        last = at + most >= rows.num_rows
        until = len(refused) if last else int(np.searchsorted(refused, numbers[at + most - 1]))
        yield Chunk(rows.slice(at, most), rejected.slice(done, until - done), chunk.origin)
        done = until
