"""The conserved block: the one element of every PCollection between reader and writer.

A step takes a block and gives back a new one (`dataclasses.replace`). It may add columns to `rows`
and may move rows from `rows` to `rejected`, and nothing else; so `Block.count` never changes, and
the writer checks that it did not.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms.batch_sizes import batch_bytes
from transforms.payload import Origin, clip
from transforms.sources import Files, Source
from transforms.tally import add_tally

ROW = "#row"
"""Name of the int64 column of `Block.rows` that holds each row's number in its file; where a block is of several
files, `transforms.sources.places` tells file and number of each."""

FAULTS = "#faults"
"""Name of the optional column of `Block.rows` in which a reader leaves what is wrong with single
values of rows that it could otherwise read; `Validate` judges and drops it."""

REASONS = (
    "malformed",
    "ragged_row",
    "unterminated_quote",
    "bad_encoding",
    "too_large",
    "duplicate_key",
    "corrupt_record",
    "unreadable",
    "missing_column",
    "missing_value",
    "wrong_type",
    "wrong_shape",
    "out_of_range",
    "not_allowed",
    "not_finite",
    "preprocess_error",
    "model_error",
    "not_finite_output",
)
"""The stable reason codes of a dead letter. Dashboards depend on them: add, never rename."""

ERROR_TYPE = pa.struct([("column", pa.string()), ("reason", pa.string()), ("message", pa.string())])
FAULTS_TYPE = pa.list_(ERROR_TYPE)

REJECTED_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # 0-based number of the first record it stands for
        ("rows", pa.int64()),  # how many records it stands for; null: a stretch of unknown length
        ("stage", pa.string()),  # read, validate, preprocess, infer, postprocess
        ("reason", pa.string()),  # one of REASONS: the first fault in contract order
        ("column", pa.string()),
        ("message", pa.string()),
        ("errors", FAULTS_TYPE),  # all the faults of the row
        ("payload", pa.binary()),  # the record as it was read, cut at 64 KiB; null where not kept
        ("payload_cut", pa.bool_()),
        ("payload_kind", pa.string()),  # text, binary, or json: made of columns, not the record itself
    ]
)

NO_REJECTED = pa.RecordBatch.from_pylist([], schema=REJECTED_SCHEMA)


@dataclasses.dataclass(frozen=True)
class Block:
    """Some consecutive rows of one file, or all of several small ones, the good and the refused ones together.

    Attributes:
      split: id of the unit of work (see `transforms.splits.Split`) that the rows came from.
      attempt: made anew each time a split is read; tells retries and zombies apart.
      seq: 0, 1, 2 ... within the attempt.
      source: path of the one file that the rows are from; or several whole files (`transforms.sources`).
      rows: the rows still good: `ROW`, the data columns by name, then `input/NAME` (after
        Preprocess) and `output/NAME` (after RunInference).
      rejected: the rows refused so far, in `REJECTED_SCHEMA`.
      origin: the bytes that the rows were parsed from, for payloads; None where not kept.
      total: on the last block of its split, how many rows the split held; else None.
      piece: 0, 1, 2 ... of a block that was cut before the model; dead letters so far are with the first.
      more: whether another piece of the same block follows.
      void: on the last block of an attempt of which nothing counts: a checksum refused what was read.
      tally: additive measurements of the work done on this block (seconds by stage, counts of
        defaults and the like). The writer sums them into the split's receipt.
      began: when the attempt began, in seconds since the epoch.
    """

    split: int
    attempt: str
    seq: int
    source: Source
    rows: pa.RecordBatch
    rejected: pa.RecordBatch = dataclasses.field(default_factory=lambda: NO_REJECTED)
    origin: Origin | None = None
    total: int | None = None
    piece: int = 0
    more: bool = False
    void: bool = False
    tally: Mapping[str, float] = dataclasses.field(default_factory=dict)
    began: float = 0.0

    @property
    def count(self) -> int:
        """Rows good + rows rejected; a stretch of unknown length counts nothing here."""
        return self.rows.num_rows + known_rows(self.rejected)

    @property
    def bytes(self) -> int:
        """What the block holds: rows, dead letters, and what both were parsed from."""
        data = None if self.origin is None else self.origin.data
        read = 0 if data is None else data.size if isinstance(data, pa.Buffer) else batch_bytes(data)
        return batch_bytes(self.rows) + batch_bytes(self.rejected) + read

    def __reduce__(self):
        # Else pickle writes the whole parent of a slice.
        return _decode, (BlockCoder().encode(self),)

    def with_tally(self, **amounts: float) -> Block:
        """The same block with `amounts` added to its tally."""
        return dataclasses.replace(self, tally=add_tally(self.tally, amounts))


def known_rows(rejected: pa.RecordBatch) -> int:
    """How many rows the dead letters stand for, those of unknown length left out."""
    if rejected.num_rows == 0:
        return 0
    return int(np.nansum(rejected["rows"].to_numpy(zero_copy_only=False)))


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong, in one column, with some rows of a batch.

    Attributes:
      index: int64 positions in the batch, ascending.
      column: name of the column at fault; None where the whole row is.
      reason: one of `REASONS`.
      message: what was found, what was expected, what to do: one string for all or one a row.
    """

    index: np.ndarray
    column: str | None
    reason: str
    message: pa.Array | str

    def messages(self) -> pa.Array:
        if isinstance(self.message, str):
            return pa.repeat(pa.scalar(self.message, pa.string()), len(self.index))
        return self.message.cast(pa.string())


def fault_lists(faults: Sequence[Fault], order: Mapping[str, int]) -> tuple[np.ndarray, pa.Array]:
    """Gathers faults by row.

    Args:
      faults: any number of faults of one batch; a row may be in several.
      order: rank of each column; faults of a row are listed by it, then as given: those of the row
        as a whole first, those of columns without a rank last.

    Returns:
      the positions of the rows at fault, ascending; and a `FAULTS_TYPE` array, one list a position.
    """
    index = np.concatenate([np.asarray(f.index, np.int64) for f in faults])
    ranks = [-1 if f.column is None else order.get(f.column, len(order)) for f in faults]
    rank = np.concatenate([np.full(len(f.index), r) for f, r in zip(faults, ranks, strict=True)])
    sort = np.lexsort((rank, index))  # stable: faults of one rank stay as given
    index = index[sort]
    take = pa.array(sort)
    column = pa.chunked_array([pa.repeat(pa.scalar(f.column, pa.string()), len(f.index)) for f in faults])
    reason = pa.chunked_array([pa.repeat(pa.scalar(f.reason, pa.string()), len(f.index)) for f in faults])
    message = pa.chunked_array([f.messages() for f in faults])
    errors = pa.StructArray.from_arrays(
        [c.take(take).combine_chunks() for c in (column, reason, message)], fields=list(ERROR_TYPE)
    )
    positions, first = np.unique(index, return_index=True)
    offsets = pa.array(np.append(first, len(index)), pa.int32())
    return positions, pa.ListArray.from_arrays(offsets, errors, type=FAULTS_TYPE)


def reject_rows(block: Block, faults: Sequence[Fault], stage: str, order: Mapping[str, int] | None = None) -> Block:
    """Moves the rows that have a fault from `rows` to `rejected`.

    Args:
      faults: positions are those of `block.rows`.
      stage: the step that refuses them.
      order: contract rank of the columns; see `fault_lists`.
    """
    faults = [f for f in faults if len(f.index)]
    if not faults:
        return block
    positions, errors = fault_lists(faults, order or {})
    numbers = block.rows[ROW].to_numpy()[positions]
    keep = np.ones(block.rows.num_rows, bool)
    keep[positions] = False
    rejected = dead_letters(numbers, errors, stage, block.origin)
    return dataclasses.replace(
        block,
        rows=filter_rows(block.rows, keep),
        rejected=concat([block.rejected, rejected]),
    )


def filter_rows(rows: pa.RecordBatch, keep: np.ndarray) -> pa.RecordBatch:
    """The rows where a mask is true."""
    columns = [whole(column) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema).filter(pa.array(keep))


def whole(column: pa.Array) -> pa.Array:
    """The column, safe to filter and to take from: from slices of fixed-size lists in fixed-size
    lists pyarrow 25 picks wrong values, without an error."""
    level = column
    while pa.types.is_fixed_size_list(level.type):
        if level.offset and pa.types.is_nested(column.type.value_type):
            return pa.concat_arrays([column, column.slice(0, 0)])
        level = level.values
    return column


def dead_letters(numbers: np.ndarray, errors: pa.Array, stage: str, origin: Origin | None) -> pa.RecordBatch:
    """Dead letters for single rows, in `REJECTED_SCHEMA`.

    Args:
      numbers: int64 row numbers in the file.
      errors: `FAULTS_TYPE`, one list a row, none empty; the first is the row's reason.
      origin: where the payloads are cut from; None for no payload.
    """
    count = len(numbers)
    first = errors.flatten().take(errors.offsets.slice(0, count))
    payload = pa.nulls(count, pa.binary()) if origin is None else origin.payloads(numbers)
    payload, cut = clip(payload)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(numbers, pa.int64()),
            pa.array(np.ones(count, np.int64)),
            pa.repeat(pa.scalar(stage, pa.string()), count),
            first.field(1),
            first.field(0),
            first.field(2),
            errors,
            payload,
            cut,
            pa.repeat(pa.scalar("text" if origin is None else origin.kind), count),
        ],
        schema=REJECTED_SCHEMA,
    )


def stretch(
    row: int,
    rows: int | None,
    reason: str,
    message: str,
    column: str | None = None,
    payload: bytes | None = None,
    kind: str = "text",
) -> pa.RecordBatch:
    """One dead letter, of stage `read`, for a whole file, a stretch of it, or one record.

    Args:
      row: number of the first record it stands for.
      rows: how many records it stands for; None where nobody can know.
      payload: the record's own bytes, for a single record; cut at 64 KiB here.
      kind: of the payload: `text` or `binary`.
    """
    kept, cut = clip(pa.array([payload], pa.binary()))
    return pa.RecordBatch.from_pylist(
        [
            {
                "row": row,
                "rows": rows,
                "stage": "read",
                "reason": reason,
                "column": column,
                "message": message,
                "errors": [{"column": column, "reason": reason, "message": message}],
                "payload": kept[0].as_py(),
                "payload_cut": cut[0].as_py(),
                "payload_kind": kind,
            }
        ],
        schema=REJECTED_SCHEMA,
    )


def concat(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of several that share a schema; a single non-empty one is returned as it is."""
    filled = [b for b in batches if b.num_rows] or list(batches[:1])
    return filled[0] if len(filled) == 1 else pa.concat_batches(filled)


class BlockCoder(beam.coders.Coder):
    """Arrow IPC. Pickle would write the whole parent of a sliced batch (15 MB for 100 rows), and
    Beam samples elements for their size even between fused steps, so that must be cheap too."""

    def encode(self, block: Block) -> bytes:
        meta = {
            "split": block.split,
            "attempt": block.attempt,
            "seq": block.seq,
            "source": block.source if isinstance(block.source, str) else [block.source.paths, block.source.rows],
            "total": block.total,
            "piece": block.piece,
            "more": block.more,
            "void": block.void,
            "tally": dict(block.tally),
            "began": block.began,
            "origin": None if block.origin is None else block.origin.meta(),
        }
        parts = [json.dumps(meta).encode(), _to_ipc(block.rows), _to_ipc(block.rejected)]
        if block.origin is not None:
            data = block.origin.data
            parts.append(data.to_pybytes() if isinstance(data, pa.Buffer) else _to_ipc(data))
        return b"".join(struct.pack("<Q", len(p)) + p for p in parts)

    def decode(self, encoded: bytes) -> Block:
        parts, at = [], 0
        while at < len(encoded):
            (size,) = struct.unpack_from("<Q", encoded, at)
            parts.append(encoded[at + 8 : at + 8 + size])
            at += 8 + size
        meta = json.loads(parts[0])
        if meta["origin"] is not None:
            is_batch = meta["origin"].pop("batch")
            data = _from_ipc(parts[3]) if is_batch else pa.py_buffer(parts[3])
            meta["origin"] = Origin(data=data, **meta["origin"])
        if not isinstance(meta["source"], str):
            meta["source"] = Files(*map(tuple, meta["source"]))
        return Block(rows=_from_ipc(parts[1]), rejected=_from_ipc(parts[2]), **meta)

    def estimate_size(self, block: Block) -> int:
        return 256 + block.rows.nbytes + block.rejected.nbytes

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type:
        return Block


def _decode(encoded: bytes) -> Block:
    return BlockCoder().decode(encoded)


def _to_ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _from_ipc(data: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_next_batch()


beam.coders.registry.register_coder(Block, BlockCoder)


INPUT = "input/"
"""Prefix of the columns of `Block.rows` that hold the model's inputs."""


OUTPUT = "output/"
"""Prefix of the columns of `Block.rows` that hold the model's outputs."""
