"""Reading of rows from the payloads of their dead letters, by the reader of the original format.

Payloads are combined into a small file of that format, such that none can swallow or break up its neighbour: a file
contains several payloads only if each is found again as one record.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.formats.base import Chunk, ReadSettings, UnusableFile, format_named
from beam_score.transforms.replay.dead_letter import DeadLetter, refused_again
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import REJECTED_SCHEMA, known_rows
from beam_score.transforms.rows.origin import Origin, clip

_OF_JSON = "jsonl"  # the format that reads payloads of columns: each is a JSON object
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def from_payloads(dead_letters: Sequence[DeadLetter], header: str | None, settings: ReadSettings) -> Iterator[Chunk]:
    """Yield the rows of the dead letters of one file, each of one record with a whole payload; one row for each.

    Args:
      dead_letters: in order of their rows.
      header: of CSV: that of the file; None if it has none.
      settings: of the format that the rows were first read in.
    """
    if format_named(settings.format).payload_kind == "json":
        dead_letters, records, refused = _as_json(dead_letters, settings)
        for why, again in refused.items():
            yield refused_again(again, f"not replayed: {why}: restore the file", settings)
    else:
        records = [_payload_of(letter) for letter in dead_letters]
    if dead_letters:
        with tempfile.TemporaryDirectory() as folder:
            yield from _Payloads(Path(folder, "payloads"), dead_letters, records, header, settings).chunks()


class _Payloads:
    """Payloads of one file, and the path at which they are combined."""

    def __init__(
        self,
        path: Path,
        dead_letters: Sequence[DeadLetter],
        records: list[bytes],
        header: str | None,
        settings: ReadSettings,
    ):
        self._path, self._letters, self._records, self._settings = path, dead_letters, records, settings
        self._header = header
        self._is_json = format_named(settings.format).payload_kind == "json"
        if self._is_json:  # of the used columns only
            settings = dataclasses.replace(settings, format=_OF_JSON, options=None, extra="ignore")
        self._format, self._as_read = format_named(settings.format), settings
        self._numbers = np.array([letter.row for letter in dead_letters], np.int64)

    def chunks(self) -> Iterator[Chunk]:
        index = np.arange(len(self._records))
        if self._format.payload_kind == "binary":
            yield from self._read(index)
            return
        # Most records contain no quotes and line ends: these are combined without further checks.
        odd = [quote for quote in (self._as_read.options.quote.encode(), b"\r", b"\n") if quote]
        plain = np.array([bool(r) and not any(o in r for o in odd) for r in self._records], bool)
        for part in (index[plain], index[~plain]):
            for group in self._apart(part):
                yield from self._read(group)

    def _apart(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the records in groups in which each is found again as one."""
        if len(index) > 1 and not self._are_found(index):
            middle = len(index) // 2
            yield from self._apart(index[:middle])
            yield from self._apart(index[middle:])
        elif len(index):
            yield index

    def _are_found(self, index: np.ndarray) -> bool:
        data = b"\n".join(self._records[i] for i in index)
        sizes = np.array([len(self._records[i]) for i in index])
        starts, ends = self._format.record_spans(data, self._as_read)
        begins = np.append(0, np.cumsum(sizes[:-1] + 1))
        return np.array_equal(starts, begins) and np.array_equal(ends, begins + sizes)

    def _read(self, index: np.ndarray) -> Iterator[Chunk]:
        own = [self._letters[i] for i in index]
        self._path.write_bytes(self._format.file_of([self._records[i] for i in index], self._header))
        range_ = FileRange(str(self._path), self._path.stat().st_size)
        try:
            found = list(self._format.read(range_, self._as_read))
        except UnusableFile as error:  # the header, which the payload itself does not have
            again = {"reason": error.reason, "column": error.column}
            yield refused_again(own, error.message, self._settings, **again)
            return
        count = sum(c.rows.num_rows + known_rows(c.rejected) for c in found)
        if count != len(index) or any(c.rejected["rows"].null_count for c in found):
            if len(index) > 1:
                for i in index:
                    yield from self._read(np.array([i]))
                return
            why = f"the payload contains {count} records now, expected one: see input.csv and input.format"
            yield refused_again(own, why, self._settings, reason="malformed", column=None)
            return
        for chunk in found:
            yield self._as_first_read(chunk, index)

    def _as_first_read(self, chunk: Chunk, index: np.ndarray) -> Chunk:
        """Return the chunk with the original row numbers, types and payloads of its rows."""
        at = index[chunk.rows[ROW].to_numpy()]
        rows = _with(chunk.rows, ROW, pa.array(self._numbers[at]))
        origin = None
        if self._settings.payload:
            payloads = pa.array([self._letters[i].payload for i in index], pa.binary())
            kind = {"binary": "records"}.get(self._letters[0].kind, self._letters[0].kind)
            numbers = tuple(self._numbers[index].tolist())
            origin = Origin(kind, 0, pa.RecordBatch.from_arrays([payloads], ["record"]), numbers=numbers)
        if self._is_json:
            for name in self._settings.kept_undeclared:
                values = [orjson.loads(self._records[i]).get(name) for i in at]
                rows = _with(rows, name, _typed(values, self._settings.kept_types.get(name, pa.string())))
        rejected = chunk.rejected
        if rejected.num_rows:
            refused = self._numbers[index[rejected["row"].to_numpy()]]
            columns = {n: rejected[n] for n in REJECTED_SCHEMA.names} | {"row": pa.array(refused)}
            if origin is not None:
                columns["payload"], columns["payload_cut"] = clip(origin.payloads(refused))
                columns["payload_kind"] = pa.array([origin.kind] * len(refused))
            rejected = pa.RecordBatch.from_pydict(columns, schema=REJECTED_SCHEMA)
        return Chunk(rows, rejected, origin, self._letters[0].source)


def _with(rows: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    return rows.set_column(rows.schema.get_field_index(name), name, values)


def _payload_of(letter: DeadLetter) -> bytes:
    assert letter.payload is not None  # such dead letters are read from their source, or rejected again
    return letter.payload


def _as_json(
    dead_letters: Sequence[DeadLetter], settings: ReadSettings
) -> tuple[list[DeadLetter], list[bytes], dict[str, list[DeadLetter]]]:
    """Return rows of typed columns as JSON Lines; and the dead letters whose payload is not sufficient, by reason."""
    good: list[DeadLetter] = []
    lines: list[bytes] = []
    refused: dict[str, list[DeadLetter]] = {}
    contract = settings.contract_columns
    kept = {name: settings.kept_types.get(name, pa.string()) for name in settings.kept_undeclared}
    for letter in dead_letters:
        row = orjson.loads(_payload_of(letter))
        # The parent did not record the columns it did not use, and a missing column is not the same as a null.
        unknown = [n for n in (*contract, *settings.kept_undeclared) if n not in row]
        if unknown:
            why = f"the payload has no column {unknown[0]!r}, so only the file has its value"
            refused.setdefault(why, []).append(letter)
        elif any(row[n] in _NOT_FINITE for n, c in contract.items() if c.is_float and not c.shape):
            refused.setdefault("the payload is JSON, which has no NaN and no infinity", []).append(letter)
        elif inexact := [n for n, t in kept.items() if not _is_typed(row[n], t)]:
            why = f"the payload does not have the exact value of column {inexact[0]!r}, so only the file has it"
            refused.setdefault(why, []).append(letter)
        else:
            good.append(letter)
            lines.append(orjson.dumps({n: _as_value(v, contract[n]) if n in contract else v for n, v in row.items()}))
    return good, lines, refused


def _as_value(value: Any, column: Column) -> Any:
    if not isinstance(value, str):
        return value
    if column.dtype == "bytes":
        return {"b64": base64.b64encode(value.encode()).decode()}
    if column.is_float:  # a decimal
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value


def _is_typed(value: Any, type_: pa.DataType) -> bool:
    """Return whether a JSON value can be converted to the type of a kept column."""
    try:
        _typed([value], type_)
    except (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError):
        return False
    return True


def _typed(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Convert JSON values to a column, with the type that kept columns have."""
    if pa.types.is_time(type_):  # Arrow does not cast text to it
        return pa.array([None if v is None else datetime.time.fromisoformat(v) for v in values], type_)
    if pa.types.is_temporal(type_) or pa.types.is_decimal(type_):
        return pa.array(values, pa.string()).cast(type_)
    if pa.types.is_floating(type_):
        return pa.array([None if v is None else float(v) for v in values], type_)
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        decoded = [base64.b64decode(v["b64"]) if isinstance(v, dict) else v and v.encode() for v in values]
        return pa.array(decoded, type_)
    return pa.array(values, type_)
