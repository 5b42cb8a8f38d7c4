"""The block, the element of every PCollection between reader and writer.

A step takes a block and returns a new one (`dataclasses.replace`). It may only add columns to `rows`
and move rows from `rows` to `rejected`; so `Block.count` never changes, and the writer checks this.
"""

from __future__ import annotations

import builtins
import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import concat, filter_rows
from beam_score.transforms.arrays.sizes import batch_bytes
from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.sums import add_tally
from beam_score.transforms.rows.faults import NO_REJECTED, Fault, dead_letters, fault_lists, known_rows
from beam_score.transforms.rows.origin import Origin
from beam_score.transforms.rows.sources import Files, Source

ROW = "#row"
"""Name of the int64 column of `Block.rows` with each row's number in its file; for a block of several files,
`transforms.rows.sources.places` returns file and number of each row."""

INPUT = "input/"
"""Prefix of the columns of `Block.rows` that contain the model's inputs."""

OUTPUT = "output/"
"""Prefix of the columns of `Block.rows` that contain the model's outputs."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive rows of one file, or all rows of several small files, good and rejected ones together.

    Attributes:
      split: id of the unit of work (see `transforms.common.splits.Split`) that the rows came from.
      attempt: unique for each read of a split; distinguishes retries and zombies.
      seq: 0, 1, 2 ... within the attempt.
      source: path of the file that the rows are from; or several whole files (`transforms.rows.sources`).
      rows: the good rows so far: `ROW`, the data columns by name, then `input/NAME` (after
        Preprocess) and `output/NAME` (after RunInference).
      rejected: the rows rejected so far, in `REJECTED_SCHEMA`.
      origin: the bytes that the rows were parsed from, for payloads; None if not kept.
      total: on the last block of its split, the number of rows of the split; else None.
      piece: 0, 1, 2 ... of a block that was cut before the model; dead letters so far are with the first.
      more: whether another piece of the same block follows.
      void: set on the last block of an attempt that must be discarded, because a checksum did not match.
      tally: additive measurements of the work done on this block (seconds by stage, counts of
        defaults and the like). The writer sums them into the split's receipt.
      began: start of the attempt, in seconds since the epoch.
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

    def __post_init__(self) -> None:
        for name, batch in (("rows", self.rows), ("rejected", self.rejected)):
            check_type(f"Block: {name}", batch, pa.RecordBatch, "pass a record batch, not a table or a mapping")

    @property
    def count(self) -> int:
        """Number of good and rejected rows; a section of unknown length counts as 0."""
        return self.rows.num_rows + known_rows(self.rejected)

    @property
    def bytes(self) -> int:
        """Bytes of the block: rows, dead letters, and the data that both were parsed from."""
        data = None if self.origin is None else self.origin.data
        read = 0 if data is None else data.size if isinstance(data, pa.Buffer) else batch_bytes(data)
        return batch_bytes(self.rows) + batch_bytes(self.rejected) + read

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, pickle writes the whole parent of a slice.
        return Block.from_bytes, (self.to_bytes(),)

    def to_bytes(self) -> builtins.bytes:  # `bytes` is the property here
        """Serialize the block as Arrow IPC, of a slice only its own rows; see `from_bytes`."""
        meta = {
            "split": self.split,
            "attempt": self.attempt,
            "seq": self.seq,
            "source": self.source if isinstance(self.source, str) else [self.source.paths, self.source.rows],
            "total": self.total,
            "piece": self.piece,
            "more": self.more,
            "void": self.void,
            "tally": dict(self.tally),
            "began": self.began,
            "origin": None if self.origin is None else self.origin.meta(),
        }
        parts = [json.dumps(meta).encode(), _to_ipc(self.rows), _to_ipc(self.rejected)]
        if self.origin is not None:
            data = self.origin.data
            parts.append(data.to_pybytes() if isinstance(data, pa.Buffer) else _to_ipc(data))
        return b"".join(struct.pack("<Q", len(p)) + p for p in parts)

    @classmethod
    def from_bytes(cls, encoded: builtins.bytes) -> Block:
        """Deserialize a block from the bytes of `to_bytes`."""
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
        return cls(rows=_from_ipc(parts[1]), rejected=_from_ipc(parts[2]), **meta)

    def with_tally(self, **amounts: float) -> Block:
        """Return the same block with `amounts` added to its tally."""
        return dataclasses.replace(self, tally=add_tally(self.tally, amounts))


def reject_rows(block: Block, faults: Sequence[Fault], stage: str, order: Mapping[str, int] | None = None) -> Block:
    """Move the rows that have a fault from `rows` to `rejected`.

    Args:
      faults: positions are those of `block.rows`.
      stage: the step that rejects them.
      order: contract rank of the columns; see `fault_lists`.
    """
    check_type("reject_rows: faults", faults, Sequence, "pass a list of Fault")
    check_type("reject_rows: stage", stage, str, "pass the name of the step that rejects the rows")
    faults = [f for f in faults if len(f.index)]
    if not faults:
        return block
    positions, errors = fault_lists(faults, order or {})
    if positions[0] < 0 or positions[-1] >= block.rows.num_rows:
        raise ValueError(
            f"reject_rows: positions {positions[0]}..{positions[-1]} are outside a block of {block.rows.num_rows} "
            "good rows: pass positions in block.rows, not the numbers of rows in the file"
        )
    numbers = block.rows[ROW].to_numpy()[positions]
    keep = np.ones(block.rows.num_rows, bool)
    keep[positions] = False
    rejected = dead_letters(numbers, errors, stage, block.origin)
    return dataclasses.replace(
        block,
        rows=filter_rows(block.rows, keep),
        rejected=concat([block.rejected, rejected]),
    )


def _to_ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _from_ipc(data: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_next_batch()
