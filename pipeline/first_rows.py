"""The first rows of a file, in any format, as Python values."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.mistakes import JobError
from transforms.compression import Damaged, RawStream, open_file
from transforms.files import InputFile, format_of

ROWS = 1000
"""Rows looked at, of the first files."""

_BYTES = 8 << 20  # of one file, decompressed, at most
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class FirstRows:
    """Up to `ROWS` rows of a file.

    Attributes:
      rows: a dict by column; of JSON Lines any value.
      unreadable: how many more could not be parsed.
      delimiter, header: of CSV.
    """

    rows: list[Any]
    unreadable: int = 0
    delimiter: str = ","
    header: bool = True


def first_rows(path: str, format: str) -> FirstRows:
    """The first rows of a file.

    Raises:
      JobError: the file cannot be read as this format.
    """
    try:
        return _FORMATS[format](path)
    except JobError:
        raise
    except (OSError, Damaged, ValueError, csv.Error) as error:
        raise JobError([f"{path} cannot be read as {format}: {error}"]) from error


def tell_format(files: Sequence[InputFile]) -> str:
    """`csv`, `jsonl`, `parquet` or `tfrecord`: by the names' ends, else by the first file's first bytes.

    Raises:
      JobError: neither tells.
    """
    told, why_not = format_of(files)
    if told:
        return told
    head = _head(files[0].path, 64)[0].lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"{", b"[")):
        return "jsonl"
    if len(head) >= 12 and head[4:8] == b"\0\0\0\0":  # a TFRecord's length, below 4 GiB
        return "tfrecord"
    raise JobError([f"{why_not.partition(';')[0]}; nor from the first bytes of {files[0].path}: rename the files"])


def _head(path: str, size: int) -> tuple[bytes, bool]:
    """The first bytes of a file's content, and whether they are all of it."""
    parts, left = [], size
    with RawStream(path) as stream:
        while left > 0:
            try:
                part = stream.read(left)
            except Damaged:  # what comes before the damage is enough to look at
                return b"".join(parts), False
            if not part:
                return b"".join(parts), True
            parts.append(part)
            left -= len(part)
    return b"".join(parts), False


def _text(path: str) -> tuple[str, bool]:
    data, whole = _head(path, _BYTES)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise JobError([f"{path} is UTF-16: write it as UTF-8"])
    return data.decode("utf-8-sig", errors="replace"), whole


def _csv(path: str) -> FirstRows:
    text, whole = _text(path)
    csv.field_size_limit(_BYTES)
    delimiters = ("\t",) if ".tsv" in path.lower() else (",", ";", "\t", "|")
    parsed = {d: _records(text, whole, d) for d in delimiters}
    # The comma, unless it finds one column and another finds more.
    best = next((d for d in delimiters if parsed[d] and len(parsed[d][0]) > 1), delimiters[0])
    records = parsed[best]
    if not records:
        return FirstRows([], 0, best)
    header = not any(DECIMAL.fullmatch(field.strip(" \t")) for field in records[0])
    names = records[0] if header else [f"column_{i}" for i in range(1, len(records[0]) + 1)]
    body = records[1:] if header else records
    rows = [{n: f or None for n, f in zip(names, r, strict=True)} for r in body if len(r) == len(names)]
    return FirstRows(rows, len(body) - len(rows), best, header)


def _records(text: str, whole: bool, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records = [r for r in itertools.islice(reader, ROWS + 2) if r]
    # The last record of a text that was cut off may be half a one.
    return records if whole or len(records) > ROWS + 1 else records[:-1]


def _jsonl(path: str) -> FirstRows:
    text, whole = _text(path)
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip(" \t")]
    rows, bad = [], 0
    for line in itertools.islice(lines if whole else lines[:-1], ROWS):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            bad += 1
    if bad and not rows:
        raise JobError([f"{path}: no line of it is a JSON text; expected JSON Lines, one object a line"])
    return FirstRows(rows, bad)


def _parquet(path: str) -> FirstRows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_file(path) as stream:
        try:
            batch = next(pq.ParquetFile(stream).iter_batches(ROWS), None)
        except pa.ArrowException as error:
            raise JobError([f"{path} is no Parquet file: {error}"]) from error
    return FirstRows([] if batch is None else batch.to_pylist())


def _tfrecord(path: str) -> FirstRows:
    # TensorFlow's own parser takes seconds to import; this one is what reads the records in a run.
    from tfx_bsl.cc.tfx_bsl_extension.coders import ExamplesToRecordBatchDecoder

    rows, bad = [], 0
    for record in itertools.islice(_framed(_head(path, _BYTES)[0]), ROWS):
        try:
            found = ExamplesToRecordBatchDecoder(None).DecodeBatch([record])
        except (RuntimeError, ValueError):
            bad += 1
            continue
        lists = {name: found.column(i)[0].as_py() for i, name in enumerate(found.schema.names)}
        rows.append({n: _unlisted([_decoded(x) for x in v]) for n, v in lists.items() if v is not None})
    if bad and not rows:
        raise JobError([f"{path}: no record of it is a tf.Example"])
    return FirstRows(rows, bad)


def _decoded(value: Any) -> Any:
    """Text where bytes are UTF-8: a tf.Example does not tell them apart."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _unlisted(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values or None


def _framed(data: bytes) -> Iterator[bytes]:
    """The payloads of TFRecord framing: length, its CRC, payload, its CRC."""
    at = 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 16 + size > len(data):
            return
        yield data[at + 12 : at + 12 + size]
        at += 16 + size


_FORMATS = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet, "tfrecord": _tfrecord}
