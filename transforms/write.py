"""Blocks to part files, and a receipt for each split when all of it is written."""

from __future__ import annotations

import base64
import contextlib
import dataclasses

import threading
import time
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import google_crc32c
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics

from transforms import storage
from transforms.block import Block, add_tally, known_rows
from transforms.json_lines import to_json_lines
from transforms.plan import RunFolder
from transforms.receipt import Part, Receipt

MAX_GROUP_ROWS = 1 << 20
MAX_GROUP_BYTES = 64 << 20
MAX_PART_BYTES = 128 << 20
"""A split's predictions go on in a further part from there on, so that memory stays bounded."""

_DISTINCT_SAMPLE = 10_000


class LostBlocks(RuntimeError):
    """A split's blocks did not come to one writer, in order, to the end: the chain between Read and
    WriteParts was cut. Nothing of the split is committed."""


class TooManyRejects(RuntimeError):
    """`rejects.stop_after` was reached."""


@dataclasses.dataclass(frozen=True)
class WriteSettings:
    """Attributes:
    folder: of the run.
    schema: of the predictions.
    format: `parquet` or `jsonl`.
    not_finite: of JSON Lines: `null` (with a column NAME_not_finite beside) or `string`.
    stop_after: rejected rows in this process after which it stops; None for never.
    """

    folder: RunFolder
    schema: pa.Schema
    format: str = "parquet"
    not_finite: str = "null"
    stop_after: int | None = None


class WriteParts(beam.PTransform):
    """PCollection[Block] -> PCollection[int]: writes each split's predictions and dead letters, and
    gives the ids of the splits that have a receipt.

    Raises LostBlocks where a split does not come whole and in order.
    """

    def __init__(self, settings: WriteSettings):
        super().__init__()
        self.settings = settings

    def expand(self, blocks):
        return blocks | beam.ParDo(_WriteFn(self.settings)).with_output_types(int)


class _WriteFn(beam.DoFn):
    def __init__(self, settings: WriteSettings):
        self.settings = settings
        self._predicted = Metrics.counter("beam_score", "rows_predicted")

    def start_bundle(self):
        # What an attempt left open in another bundle can never be finished here.
        self._open: dict[str, _Attempt] = {}

    def process(self, block: Block):
        attempt = self._open.get(block.attempt)
        if attempt is None:
            attempt = self._open[block.attempt] = _Attempt(block, self.settings)
        attempt.add(block)
        self._count(block)
        if block.total is not None:
            del self._open[block.attempt]
            attempt.finish(block.total)
            yield block.split

    def finish_bundle(self):
        if self._open:
            raise LostBlocks(
                f"splits {sorted(a.split for a in self._open.values())} are not complete at the end of the bundle: "
                "their blocks went to several workers; the steps from Read to WriteParts must be fused "
                "(no resource hints, no Reshuffle between them)"
            )

    def _count(self, block: Block) -> None:
        self._predicted.inc(block.rows.num_rows)
        for reason, rows in reason_counts(block.rejected).items():
            Metrics.counter("beam_score", f"rows_rejected.{reason}").inc(rows)
        if used := block.tally.get("defaults_used"):
            Metrics.counter("beam_score", "defaults_used").inc(int(used))
        _REJECTS.add(known_rows(block.rejected), self.settings.stop_after)


class _RejectCount:
    """Rejected rows by run of this process."""

    def __init__(self):
        self._lock, self._rows = threading.Lock(), 0

    def reset(self) -> None:
        self._rows = 0

    def add(self, rows: int, stop_after: int | None) -> None:
        if not rows or stop_after is None:
            return
        with self._lock:
            self._rows += rows
        if self._rows > stop_after:
            raise TooManyRejects(f"{self._rows} rows are rejected already, and rejects.stop_after is {stop_after}")


_REJECTS = _RejectCount()
reset_reject_count = _REJECTS.reset


def reason_counts(rejected: pa.RecordBatch) -> dict[str, int]:
    """Rows of known number, by reason."""
    if not rejected.num_rows:
        return {}
    sums = pa.table({"reason": rejected["reason"], "rows": rejected["rows"]}).group_by("reason").aggregate([("rows", "sum")])
    return {r["reason"]: r["rows_sum"] for r in sums.to_pylist() if r["rows_sum"]}


class _Attempt:
    """One attempt at one split, being written."""

    def __init__(self, first: Block, settings: WriteSettings):
        self.split, self.attempt = first.split, first.attempt
        self._settings = settings
        self._began = first.began
        self._next = 0
        self._rows = 0
        self._tally: Mapping[str, float] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._parts: list[Part] = []
        self._write_s = 0.0
        make = _ParquetPart if settings.format == "parquet" else _JsonLinesPart
        self._predictions = make(settings, self._name("predictions"))
        self._rejected = _RejectedPart(settings, self._name("rejected"))

    def _name(self, kind: str):
        def name(number: int) -> str:
            return f"{kind}-{self.split:06d}-{self.attempt}-{number}"

        return name

    def add(self, block: Block) -> None:
        if block.seq != self._next:
            raise LostBlocks(
                f"split {self.split}: block {block.seq} came where block {self._next} was due: the chain between "
                "Read and WriteParts was cut; those steps must be fused"
            )
        began = time.perf_counter()
        self._next += 1
        self._rows += block.count
        self._tally = add_tally(self._tally, block.tally)
        self._count(block)
        if block.rows.num_rows:
            self._predictions.add(block.rows)
        if block.rejected.num_rows:
            self._rejected.add(block)
        self._write_s += time.perf_counter() - began

    def _count(self, block: Block) -> None:
        if not block.rows.num_rows and not block.rejected.num_rows:
            return
        file = self._files.setdefault(block.source, {"read": 0, "predicted": 0, "rejected": {}, "stretches": {}})
        file["read"] += block.count
        file["predicted"] += block.rows.num_rows
        file["rejected"] = add_tally(file["rejected"], reason_counts(block.rejected))
        unknown = block.rejected.filter(pc.is_null(block.rejected["rows"]))
        for reason in unknown["reason"].to_pylist():
            file["stretches"][reason] = file["stretches"].get(reason, 0) + 1

    def finish(self, total: int) -> None:
        """Closes the parts and gives the receipt; where another attempt was first, drops its own."""
        if self._rows != total:
            raise LostBlocks(f"split {self.split}: {total} rows were read and {self._rows} came to the writer")
        began = time.perf_counter()
        parts = self._predictions.close() + self._rejected.close()
        folder = self._settings.folder
        if parts:
            storage.sync_folder(folder.parts)
        self._write_s += time.perf_counter() - began
        receipt = Receipt(
            split=self.split,
            attempt=self.attempt,
            parts=tuple(parts),
            files=self._files,
            tally=add_tally(self._tally, {"write_s": self._write_s}),
            began=self._began,
            ended=time.time(),
        )
        if not storage.create_if_absent(folder.receipt(self.split), receipt.to_json()):
            for part in parts:
                storage.remove(folder.parts / part.name)


class _PartWriter:
    """Bytes of one kind of a split, into one part file or several."""

    kind, suffix = "", ""

    def __init__(self, settings: WriteSettings, name):
        self._settings, self._name = settings, name
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        self._parts: list[Part] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= MAX_GROUP_ROWS or self._held_bytes >= MAX_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held)
            self._held, self._rows = [], self._rows + self._held_rows
            self._held_rows = self._held_bytes = 0
            if self._encode(table) >= MAX_PART_BYTES:
                self._end_part()

    def close(self) -> list[Part]:
        """Writes what is left, durably. Returns the parts, none for no rows."""
        self._flush()
        if self._rows:
            self._end_part()
        return self._parts

    def _end_part(self) -> None:
        content = self._content()
        name = self._name(len(self._parts)) + self.suffix
        storage.write_new(self._settings.folder.parts / name, content)
        checksum = f"{google_crc32c.value(bytes(content)):08x}"
        self._parts.append(Part(name, self.kind, self._rows, len(content), checksum))
        self._rows = 0

    def _encode(self, table: pa.Table) -> int:
        """Encodes rows; returns the bytes of the part so far."""
        raise NotImplementedError

    def _content(self) -> memoryview:
        """The whole part; the next rows begin another."""
        raise NotImplementedError


class _ParquetPart(_PartWriter):
    kind, suffix = "predictions", ".parquet"

    def __init__(self, settings, name):
        super().__init__(settings, name)
        self._writer: pq.ParquetWriter | None = None
        self._sink: pa.BufferOutputStream | None = None

    def _encode(self, table: pa.Table) -> int:
        if self._writer is None:
            self._sink = pa.BufferOutputStream()
            self._writer = parquet_writer(self._sink, table.schema, table)
        self._writer.write_table(table, row_group_size=len(table))
        return self._sink.tell()

    def _content(self) -> memoryview:
        self._writer.close()
        content = self._sink.getvalue()
        self._writer = self._sink = None
        return memoryview(content)


def parquet_writer(sink, schema: pa.Schema, sample: pa.Table) -> pq.ParquetWriter:
    """A writer with dictionaries only where values repeat: over floats and ids they cost a third of
    the time of a whole run, and save nothing (docs/benchmarks.md)."""
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[f.name for f in schema if _repeats(sample, f)],
        write_page_checksum=True,
        store_schema=True,
    )


def _repeats(table: pa.Table, field: pa.Field) -> bool:
    if pa.types.is_floating(field.type) or pa.types.is_nested(field.type) or not len(table):
        return False
    sample = table[field.name].slice(0, _DISTINCT_SAMPLE)
    return pc.count_distinct(sample).as_py() < len(sample) // 2


class _JsonLinesPart(_PartWriter):
    kind, suffix = "predictions", ".jsonl"

    def __init__(self, settings, name):
        super().__init__(settings, name)
        self._buffer = bytearray()

    def _encode(self, table: pa.Table) -> int:
        self._buffer += to_json_lines(table, self._settings.not_finite)
        return len(self._buffer)

    def _content(self) -> memoryview:
        content, self._buffer = memoryview(bytes(self._buffer)), bytearray()
        return content


class _RejectedPart(_JsonLinesPart):
    kind = "rejected"

    def add(self, block: Block) -> None:
        super().add(dead_letter_rows(block.rejected, block.source, self._settings.folder.run))

    def _encode(self, table: pa.Table) -> int:
        self._buffer += pl.from_arrow(table).write_ndjson().encode()
        return len(self._buffer)


def dead_letter_rows(rejected: pa.RecordBatch, source: str, run: str) -> pa.RecordBatch:
    """Dead letters as they are published (docs/dead-letters.md): the payload as text where it is
    UTF-8, else base64, with the encoding named."""
    count = rejected.num_rows
    payload, kind = rejected["payload"], rejected["payload_kind"]
    encoding = pc.if_else(payload.is_valid(), pc.if_else(pc.equal(kind, "json"), "json", "utf-8"), pa.scalar(None, pa.string()))
    text = None
    if not pc.any(pc.equal(kind, "binary")).as_py():
        with contextlib.suppress(pa.ArrowInvalid):
            text = payload.cast(pa.string())
    if text is None:
        pairs = [_as_text(*p) for p in zip(payload.to_pylist(), kind.to_pylist(), encoding.to_pylist(), strict=True)]
        text, encoding = (pa.array(column, pa.string()) for column in zip(*pairs, strict=True))
    columns = {
        "run": pa.repeat(pa.scalar(run), count),
        "source": pa.repeat(pa.scalar(source), count),
        "row": rejected["row"],
        "rows": rejected["rows"],
        "stage": rejected["stage"],
        "reason": rejected["reason"],
        "column": rejected["column"],
        "message": rejected["message"],
        "errors": rejected["errors"],
        "payload": text,
        "payload_encoding": encoding,
        "payload_cut": rejected["payload_cut"],
    }
    return pa.RecordBatch.from_pydict(columns)


def _as_text(payload: bytes | None, kind: str, encoding: str | None) -> tuple[str | None, str | None]:
    """A payload that may be no text, and its encoding."""
    if payload is None:
        return None, None
    if kind != "binary":
        with contextlib.suppress(UnicodeDecodeError):
            return payload.decode(), encoding
    return base64.b64encode(payload).decode(), "base64"
