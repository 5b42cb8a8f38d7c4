"""The reader of TFRecord files of tf.Examples: records to typed columns.

A wrong data CRC costs its record; a wrong length costs the rest of the file, since the start of the next record is
unknown. See `transforms.framing.tfrecord` and `transforms.formats.tfrecord.examples`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.arrays.plain import broken_text
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.contract.values import convert_flat
from beam_score.transforms.formats.base import Chunk, Format, Options, ReadSettings, UnusableFile, Wanted, empty_rows
from beam_score.transforms.formats.detect import foreign
from beam_score.transforms.formats.first_rows import FIRST_BYTES, FirstRows, Hints
from beam_score.transforms.formats.tfrecord.examples import Examples, parse, python_rows
from beam_score.transforms.formats.tfrecord.options import TfRecordOptions
from beam_score.transforms.formats.tfrecord.wire import BYTES, FLOAT, INT64, KIND_NAMES, Lists
from beam_score.transforms.framing.tfrecord import (
    HEADER_BYTES,
    PADDING,
    Broken,
    Records,
    TooLarge,
    frame,
    is_header,
    read_records,
    walk,
)
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import (
    FAULTS,
    NO_REJECTED,
    Fault,
    dead_letters,
    fault_lists,
    faults_column,
    stretch,
)
from beam_score.transforms.rows.origin import Origin
from beam_score.transforms.stores.compression import CorruptStream, RawStream, compression_of, is_zlib, open_file
from beam_score.transforms.stores.object_file import ObjectFile

_WALK_BYTES = 8 << 20


class TfRecord(Format):
    """TFRecord files of tf.Examples."""

    name, title = "tfrecord", "TFRecord"
    suffixes = (".tfrecord", ".tfrecords")
    magic = re.compile(rb".{4}\0\0\0\0.{4}", re.DOTALL)  # a length below 4 GiB, and its CRC
    values, payload_kind = "flat", "binary"
    options_type = TfRecordOptions

    def options(self, wanted: Wanted) -> TfRecordOptions:
        return TfRecordOptions(wanted.record_column)

    def setting_problems(self, columns: Contract, keep: tuple[str, ...] | None, options: Options) -> list[str]:
        assert isinstance(options, TfRecordOptions)
        problems = []
        if keep is None:
            problems.append("output.keep: all is not possible with TFRecord: name the features")
        for name, column in columns.columns.items():
            if column.shape.count(None) > 1:
                problems.append(
                    f"columns.{name}: a tf.Example contains flat lists of values, so at most one dimension of "
                    f"{list(column.shape)} can be open"
                )
        if options.record_column in columns.columns:
            problems.append(
                f"columns.{options.record_column}: this is the name of the column for the whole record: rename it"
            )
        return problems

    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> None:
        try:
            with _content(FileRange(path, 0, version=version), ahead=False) as read_bytes:
                head = b""
                while len(head) < HEADER_BYTES and (piece := read_bytes(HEADER_BYTES - len(head))):
                    head += piece
        except CorruptStream as error:
            raise UnusableFile("unreadable", str(error)) from error
        if head and not is_header(head):
            kind = foreign(head)
            raise UnusableFile(
                "unreadable",
                f"not a TFRecord file: it is {kind.what}"
                if kind
                else "not a TFRecord file: it does not begin with a length and its CRC",
            )

    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        """Return ranges of about `split_bytes`, between records; compressed files are one range."""
        borders = [(0, 0)]
        if size > 1.5 * split_bytes and not _compression(path, version):
            borders += [(at, row) for at, row in _borders(path, version, split_bytes) if size - at > split_bytes / 2]
        ends = [at for at, _ in borders[1:]]
        return [
            FileRange(path, size, start, end, row, index, (size if end < 0 else end) - start)
            for index, ((start, row), end) in enumerate(zip(borders, [*ends, -1], strict=True))
        ]

    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        row = range_.first_row
        with _content(range_) as read_bytes:
            for found in read_records(read_bytes, settings.max_block_bytes, settings.max_row_bytes):
                if isinstance(found, Records):
                    for start in range(0, len(found), settings.max_block_rows):
                        records = found.slice(start, start + settings.max_block_rows)
                        yield _chunk(records, row, settings)
                        row += len(records)
                elif isinstance(found, TooLarge):
                    message = f"the record has {found.size} bytes, more than max_row_bytes {settings.max_row_bytes}"
                    payload = found.head if settings.payload else None
                    letter = stretch(row, 1, "too_large", message, payload=payload, kind="binary")
                    yield Chunk(empty_rows(settings), letter)
                    row += 1
                elif isinstance(found, Broken):
                    yield Chunk(empty_rows(settings), stretch(row, None, "unreadable", found.message))

    def first_rows(self, path: str, count: int, hints: Hints) -> FirstRows:
        self.check(path, ReadSettings(self.name, Contract(columns={})))
        rows: list[dict[str, Any]] = []
        bad = 0
        with _content(FileRange(path, 0)) as read_bytes:
            for found in read_records(read_bytes, FIRST_BYTES, FIRST_BYTES):
                if isinstance(found, Records):
                    parsed, bad = python_rows(found.slice(0, count))
                    rows += parsed
                break
        if bad and not rows:
            raise UnusableFile("malformed", "none of its records is a tf.Example")
        return FirstRows(rows, unreadable=bad)

    def file_of(self, records: Sequence[bytes], header: str | None) -> bytes:
        return b"".join(map(frame, records))


FORMAT = TfRecord()


# Files.


def _compression(path: str, version: str | None) -> str | None:
    """Return `gzip`, `bzip2`, `zstd`, `zlib` (TensorFlow's ZLIB), or None."""
    with open_file(path, version) as file:
        head = file.read(HEADER_BYTES)
    # A length may begin with the same bytes as a compressed file.
    if is_header(head):
        return None
    return compression_of(path, version) or ("zlib" if is_zlib(head) else None)


@contextlib.contextmanager
def _content(range_: FileRange, ahead: bool = True) -> Iterator[Callable[[int], bytes]]:
    path, version = range_.path, range_.version
    if kind := _compression(path, version):
        with RawStream(path, version=version, ahead=ahead, sound=range_.sound, kind=kind) as stream:
            yield stream.read
        return
    with open_file(path, version) as file:
        if ahead and isinstance(file, ObjectFile):
            file.stream(range_.start, file.size if range_.end < 0 else range_.end)
        file.seek(range_.start)
        left = sys.maxsize if range_.end < 0 else range_.end - range_.start

        def read_bytes(count: int) -> bytes:
            nonlocal left
            piece = file.read(min(count, left))
            left -= len(piece)
            return piece

        yield read_bytes


def _borders(path: str, version: str | None, step: int) -> Iterator[tuple[int, int]]:
    """Yield where records start, about each `step` bytes, as (position, row); up to the first bad length."""
    at, row, target = 0, 0, step
    with open_file(path, version) as file:
        if isinstance(file, ObjectFile):
            file.stream(0, file.size)
        while True:
            file.seek(at)
            block = file.read(_WALK_BYTES)
            buffer = block + PADDING
            records, used, state = walk(buffer, len(block), sys.maxsize)
            heads = records.starts - HEADER_BYTES + at
            while (i := int(np.searchsorted(heads, target))) < len(heads):
                yield int(heads[i]), row + i
                target = int(heads[i]) + step
            row += len(records)
            if not used and state == "unfinished":  # a record larger than the bytes read
                used, row = int.from_bytes(block[:8], "little") + HEADER_BYTES + 4, row + 1
            if not used or state == "bad length":
                return
            at += used


# Rows.


def _chunk(records: Records, row: int, settings: ReadSettings) -> Chunk:
    sound = records.sound()
    corrupt = np.flatnonzero(~sound)
    numbers = np.arange(row, row + len(records))
    origin = None
    if settings.payload:
        origin = Origin("records", row, pa.RecordBatch.from_arrays([records.array], ["record"]))
    if len(corrupt):
        records, numbers = Records(records.buffer, records.starts[sound], records.ends[sound]), numbers[sound]
    names = (*settings.contract_columns, *settings.kept_undeclared)
    examples = parse(records, names, settings.extra == "reject")
    rows = _rows(records, numbers, examples, settings)
    malformed = numbers[examples.malformed]
    if len(malformed):
        keep = np.ones(len(records), bool)
        keep[examples.malformed] = False
        rows = rows.filter(pa.array(keep))
    if not len(corrupt) and not len(malformed):
        return Chunk(rows, NO_REJECTED, origin)
    faults = [
        Fault(corrupt, None, "corrupt_record", "the CRC of the record's data is wrong: damaged after it was written"),
        Fault(malformed - row, None, "malformed", "not a tf.Example, expected a serialized tf.train.Example"),
    ]
    positions, errors = fault_lists(faults, {})
    return Chunk(rows, dead_letters(positions + row, errors, "read", origin), origin)


def _rows(records: Records, numbers: np.ndarray, examples: Examples, settings: ReadSettings) -> pa.RecordBatch:
    count = len(records)
    arrays: dict[str, pa.Array] = {ROW: pa.array(numbers)}
    faults: list[Fault] = []
    for name, column in settings.contract_columns.items():
        arrays[name], found = _typed(examples, count, name, column, settings.payload)
        faults += found
    for name in settings.kept_undeclared:
        arrays[name] = _as_text(examples, count, name)
    if settings.options.record_column is not None:
        arrays[settings.options.record_column] = records.array
    order = settings.columns.order
    for name in sorted({name for _, name in examples.others}):
        index = np.array([i for i, other in examples.others if other == name], np.int64)
        faults.append(Fault(index, name, "not_allowed", f"feature {name!r} is not in the contract"))
        order = {name: len(order)} | order
    if faults:
        arrays[FAULTS] = faults_column(count, faults, order)
    return pa.RecordBatch.from_pydict(arrays)


def _kinds_of(column: Column) -> tuple[int, ...]:
    """Return the kinds of feature that a column accepts."""
    return (FLOAT, INT64) if column.is_float else (BYTES,) if column.is_text else (INT64,)


def _typed(examples: Examples, count: int, name: str, column: Column, show: bool) -> tuple[pa.Array, list[Fault]]:
    """Return a contract column; null where the feature is absent, empty or at fault."""
    wanted = _kinds_of(column)
    arrays: list[pa.Array] = []
    faults: list[Fault] = []
    which = np.zeros(count, np.int64)
    for kind, label in KIND_NAMES.items():
        lists = examples.features.get((name, kind))
        if lists is None:
            continue
        if kind in wanted:
            array, found = convert_flat(lists.values, lists.counts, lists.rows, count, name, column, show)
            which[lists.rows] = len(arrays)
            arrays.append(array)
            faults += found
        elif len(index := lists.rows[lists.counts > 0]):
            expected = " or ".join(_an(KIND_NAMES[kind]) for kind in wanted)
            message = f"column {name!r} is {_an(label)}, expected {expected} for {column.describe()}"
            faults.append(Fault(index, name, "wrong_type", message))
    if not arrays:
        return pa.nulls(count, column.arrow_type), faults
    if len(arrays) == 1:
        return arrays[0], faults
    # Some rows contain floats, others integers.
    return pa.concat_arrays(arrays).take(pa.array(which * count + np.arange(count))), faults


def _an(label: str) -> str:
    return f"an {label}" if label[0] == "i" else f"a {label}"


def _as_text(examples: Examples, count: int, name: str) -> pa.Array:
    """Return a kept feature that the contract does not declare: a single value as text, several as a JSON list;
    bytes that are not UTF-8 in base64; null if it is absent or empty."""
    rows, texts = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for kind in KIND_NAMES:
        lists = examples.features.get((name, kind))
        if lists is not None:
            rows.append(lists.rows[lists.counts > 0])
            texts.append(_texts(lists, kind))
    index = np.concatenate(rows)
    place = np.full(count, -1)
    place[index] = np.arange(len(index))
    return pa.concat_arrays(texts).take(pa.array(place, mask=place < 0))


def _texts(lists: Lists, kind: int) -> pa.Array:
    """Return one text for each row that has values."""
    values, counts = lists.values, lists.counts[lists.counts > 0]
    if kind == BYTES:
        broken = broken_text(values)
        if len(broken):
            raw = values.to_pylist()
            for i in broken:
                raw[i] = base64.b64encode(raw[i])
            values = pa.array(raw, pa.binary())
    texts = values.cast(pa.string())
    if kind == FLOAT and not pc.all(pc.is_finite(values)).as_py():
        for spelled, name in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")):
            texts = pc.if_else(pc.equal(texts, spelled), name, texts)
    if (counts == 1).all():
        return texts
    if kind == BYTES:
        quoted = pa.array([json.dumps(text, ensure_ascii=False) for text in texts.to_pylist()], pa.string())
    elif kind == FLOAT:
        finite = pc.is_finite(values)
        quoted = pc.if_else(finite, texts, pc.binary_join_element_wise('"', texts, '"', ""))
    else:
        quoted = texts
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, quoted), ",")
    joined = pc.binary_join_element_wise("[", joined, "]", "")
    single = texts.take(pa.array(offsets[:-1]))
    return pc.if_else(pa.array(counts == 1), single, joined)
