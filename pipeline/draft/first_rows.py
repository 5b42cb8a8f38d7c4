"""The first rows of a file, in any format, as Python values."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from beam_score.pipeline.draft.csv_dialect import (
    CERTAIN,
    Header,
    guess_delimiter,
    guess_escape,
    guess_header,
    odd_first_line,
    records,
)
from beam_score.pipeline.draft.yaml_text import quoted
from beam_score.pipeline.job.mistakes import JobError
from beam_score.transforms.formats.foreign import foreign
from beam_score.transforms.formats.registry import format_of
from beam_score.transforms.listing.files import InputFile
from beam_score.transforms.stores.compression import Damaged, RawStream

ROWS = 1000
"""Number of rows to inspect, from the first files."""

_BYTES = 8 << 20  # largest number of decompressed bytes to read from one file


@dataclass(frozen=True)
class Known:
    """Properties of the files that are known before they are read; None for properties to guess.

    Attributes:
      format: one of `FORMATS`.
      delimiter, header: of CSV.
      names: column names of CSV without a header, in order.
      expected: likely column names: the names of the model's inputs.
    """

    format: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    names: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()


UNKNOWN = Known()


@dataclass(frozen=True)
class FirstRows:
    """Up to `ROWS` rows of a file.

    Attributes:
      rows: dicts by column; for JSON Lines, any value.
      names: of the columns, if the file has them apart from its rows.
      unreadable: number of further rows that could not be parsed.
      delimiter, header, escape: of CSV.
    """

    rows: list[Any]
    names: tuple[str, ...] = ()
    unreadable: int = 0
    delimiter: str = ","
    header: Header = CERTAIN
    escape: str = ""


def first_rows(path: str, format: str, known: Known = UNKNOWN) -> FirstRows:
    """Read the first rows of a file.

    Raises:
      JobError: if the file cannot be read as this format.
    """
    try:
        return _csv(path, known) if format == "csv" else _OTHERS[format](path)
    except JobError:
        raise
    except (OSError, Damaged, ValueError, csv.Error) as error:
        raise JobError([f"{path} cannot be read as {format}: {error}"]) from error


def tell_format(files: Sequence[InputFile]) -> str:
    """Detect `csv`, `jsonl`, `parquet` or `tfrecord` from file suffixes, or from the first bytes of the first file.

    Raises:
      JobError: if neither identifies the format.
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
    """Return the first bytes of a file's content, and whether they are the whole content."""
    parts: list[bytes] = []
    left = size
    with RawStream(path) as stream:
        while left > 0:
            try:
                part = stream.read(left)
            except Damaged:  # the data before the damage is enough for a sample
                return b"".join(parts), False
            if not part:
                return b"".join(parts), True
            parts.append(part)
            left -= len(part)
    return b"".join(parts), False


def _text(path: str) -> tuple[str, bool]:
    data, whole = _head(path, _BYTES)
    if (kind := foreign(data)) is not None:
        raise JobError([f"{path} is {kind.what}"])
    return data.decode("utf-8-sig", errors="replace"), whole


def _csv(path: str, known: Known) -> FirstRows:
    text, whole = _text(path)
    csv.field_size_limit(_BYTES)
    delimiter = known.delimiter or guess_delimiter(text, whole, path)
    escape = guess_escape(text, delimiter)
    found = records(text, whole, delimiter, ROWS + 2, escape)
    header = guess_header(found, known.expected)
    if known.header is not None:
        header = Header(known.header, True, "")
    if not found:
        return FirstRows([], delimiter=delimiter, header=header, escape=escape)
    if (size := odd_first_line(found)) and not known.names:
        raise JobError([_odd_first_line(path, found[0], size, delimiter)])
    names = found[0] if header.is_there else known.names or [f"column_{i}" for i in range(1, len(found[0]) + 1)]
    body = found[1:] if header.is_there else found
    rows = [{n: f or None for n, f in zip(names, r, strict=True)} for r in body if len(r) == len(names)]
    return FirstRows(rows, tuple(names), len(body) - len(rows), delimiter, header, escape)


def _odd_first_line(path: str, first: list[str], size: int, delimiter: str) -> str:
    shown = quoted(delimiter.join(first)[:60])
    if first[0].startswith("#"):
        what = "is a comment, and CSV has no comments: remove it, for example with: grep -v '^#'"
    elif first[0].startswith("sep="):
        what = "is an instruction for Excel, not a header: remove it, for example with: tail -n +2"
    else:
        what = "is neither a header nor a row: remove or correct it"
    return f"{path}: the first line, {shown}, has {len(first)} fields and the next lines have {size}; it {what}"


def _jsonl(path: str) -> FirstRows:
    text, whole = _text(path)
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip(" \t")]
    rows, bad = [], 0
    for line in itertools.islice(lines if whole or len(lines) == 1 else lines[:-1], ROWS):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            bad += 1
    if len(rows) == 1 and not bad and isinstance(rows[0], list) and any(isinstance(r, dict) for r in rows[0]):
        raise JobError(
            [
                f"{path} is a JSON array, expected JSON Lines, one object per line: "
                f"jq -c '.[]' {shlex.quote(path)} > rows.jsonl"
            ]
        )
    # A line that is only an array may be a row; a line that is only a bracket is not.
    if bad and (not rows or lines[0].strip() in ("[", "{", "[{")):
        how = "'.[]'" if lines[0].lstrip().startswith("[") else "."
        hint = f": jq -c {how} {shlex.quote(path)} > rows.jsonl" if lines[0].lstrip().startswith(("[", "{")) else ""
        raise JobError([f"{path} is not JSON Lines: expected one object per line{hint}"])
    return FirstRows(rows, unreadable=bad)


def _parquet(path: str) -> FirstRows:
    from beam_score.transforms.formats.base import UnusableFile
    from beam_score.transforms.formats.parquet.reader import first_rows as read_first

    try:
        names, batches = read_first(path, ROWS)
    except UnusableFile as error:
        raise JobError([f"{path} cannot be read as Parquet: {error.message}"]) from error
    rows = [row for batch in batches for row in batch.to_pylist()][:ROWS]
    return FirstRows(rows, tuple(names))


def _tfrecord(path: str) -> FirstRows:
    # TensorFlow's own parser takes seconds to import; this decoder also reads the records of a run.
    from tfx_bsl.cc.tfx_bsl_extension.coders import ExamplesToRecordBatchDecoder

    rows, bad = [], 0
    for record in itertools.islice(_framed(_head(path, _BYTES)[0]), ROWS):
        try:
            found = ExamplesToRecordBatchDecoder(None).DecodeBatch([record])
        except (RuntimeError, ValueError):
            bad += 1
            continue
        features = {name: found.column(i)[0].as_py() for i, name in enumerate(found.schema.names)}
        rows.append({n: v for n, v in features.items() if v})
    if bad and not rows:
        raise JobError([f"{path}: none of its records is a tf.Example"])
    lists: set[str] = set()
    binary: set[str] = set()
    for row in rows:
        lists.update(n for n, values in row.items() if len(values) != 1)
        binary.update(n for n, values in row.items() if n not in binary and not _is_text(values))
    return FirstRows(
        [{n: _example_value(v, n in lists, n in binary) for n, v in row.items()} for row in rows], unreadable=bad
    )


def _is_text(values: list[Any]) -> bool:
    """Return whether all bytes values are UTF-8, because a tf.Example does not distinguish text from bytes."""
    try:
        return all(not isinstance(v, bytes) or v.decode() is not None for v in values)
    except UnicodeDecodeError:
        return False


def _example_value(values: list[Any], is_list: bool, is_binary: bool) -> Any:
    """Return the value of a feature: a list if any row has several values, text if the bytes of all rows are text."""
    values = [v.decode() if isinstance(v, bytes) and not is_binary else v for v in values]
    return values if is_list else values[0]


def _framed(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of TFRecord framing: length, CRC of the length, payload, CRC of the payload."""
    at = 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 16 + size > len(data):
            return
        yield data[at + 12 : at + 12 + size]
        at += 16 + size


_OTHERS = {"jsonl": _jsonl, "parquet": _parquet, "tfrecord": _tfrecord}
FORMATS = ("csv", *_OTHERS)
