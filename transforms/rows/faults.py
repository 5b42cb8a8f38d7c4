"""Faults of rows: reason codes, faults by column, and dead letters as Arrow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from beam_score.transforms.rows.origin import Origin, clip

FAULTS = "#faults"
"""Name of the optional column of `Block.rows` with the faults of single values in rows that the reader could otherwise
read; `Validate` evaluates and drops it."""


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
        ("row", pa.int64()),  # 0-based number of the first record that it covers
        ("rows", pa.int64()),  # number of records that it covers; null: a section of unknown length
        ("stage", pa.string()),  # read, validate, preprocess, infer, postprocess
        ("reason", pa.string()),  # one of REASONS: the first fault in contract order
        ("column", pa.string()),
        ("message", pa.string()),
        ("errors", FAULTS_TYPE),  # all faults of the row
        ("payload", pa.binary()),  # the record as it was read, cut at 64 KiB; null if not kept
        ("payload_cut", pa.bool_()),
        ("payload_kind", pa.string()),  # text, binary, or json: made from columns, not the record itself
    ]
)


NO_REJECTED = pa.RecordBatch.from_pylist([], schema=REJECTED_SCHEMA)


def known_rows(rejected: pa.RecordBatch) -> int:
    """Return the number of rows that the dead letters cover, without those of unknown length."""
    if rejected.num_rows == 0:
        return 0
    return int(np.nansum(rejected["rows"].to_numpy(zero_copy_only=False)))


@dataclasses.dataclass(frozen=True)
class Fault:
    """One kind of error in one column, of some rows of a batch.

    Attributes:
      index: int64 positions in the batch, ascending.
      column: name of the column at fault; None for the whole row.
      reason: one of `REASONS`.
      message: found, expected, remedy: one string for all rows or one per row.
    """

    index: np.ndarray
    column: str | None
    reason: str
    message: pa.Array | str

    def __post_init__(self) -> None:
        index = np.asarray(self.index)
        if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
            raise TypeError(
                f"Fault: index has dtype {index.dtype} and shape {list(index.shape)}, expected the positions of "
                "rows as integers: of a mask, pass np.flatnonzero(mask)"
            )
        if not isinstance(self.message, str) and len(self.message) != len(index):
            raise ValueError(
                f"Fault: {len(self.message)} messages for {len(index)} rows: pass one text, or one per row as an array"
            )

    def messages(self) -> pa.Array:
        if isinstance(self.message, str):
            return pa.repeat(pa.scalar(self.message, pa.string()), len(self.index))
        return self.message.cast(pa.string())


def fault_lists(faults: Sequence[Fault], order: Mapping[str, int]) -> tuple[np.ndarray, pa.Array]:
    """Group faults by row.

    Args:
      faults: any number of faults of one batch; a row may be in several.
      order: rank of each column. Faults of a row are sorted by it, then as given: those of the whole row first, those
        of columns without a rank last.

    Returns:
      the positions of the rows at fault, ascending; and a `FAULTS_TYPE` array, one list per position.
    """
    index = np.concatenate([np.asarray(f.index, np.int64) for f in faults])
    ranks = [-1 if f.column is None else order.get(f.column, len(order)) for f in faults]
    rank = np.concatenate([np.full(len(f.index), r) for f, r in zip(faults, ranks, strict=True)])
    sort = np.lexsort((rank, index))  # stable: faults of equal rank keep their order
    index = index[sort]
    kind = pa.array(np.repeat(np.arange(len(faults)), [len(f.index) for f in faults])[sort])
    column, reason = (pa.array([getattr(f, n) for f in faults], pa.string()).take(kind) for n in ("column", "reason"))
    message = pa.concat_arrays([f.messages() for f in faults]).take(pa.array(sort))
    errors = pa.StructArray.from_arrays([column, reason, message], fields=list(ERROR_TYPE))
    positions, first = np.unique(index, return_index=True)
    offsets = pa.array(np.append(first, len(index)), pa.int32())
    return positions, pa.ListArray.from_arrays(offsets, errors, type=FAULTS_TYPE)


def faults_of(found: Iterable[tuple[int, str | None, str, str]]) -> list[Fault]:
    """Return faults that were found one by one, as (position, column, reason, message), by column and reason.

    Args:
      found: in order of the positions.
    """
    kinds: dict[tuple[str | None, str], tuple[list[int], list[str]]] = {}
    for position, column, reason, message in found:
        index, messages = kinds.setdefault((column, reason), ([], []))
        index.append(position)
        messages.append(message)
    return [
        Fault(np.array(index, np.int64), column, reason, pa.array(messages, pa.string()))
        for (column, reason), (index, messages) in kinds.items()
    ]


def dead_letters(numbers: np.ndarray, errors: pa.Array, stage: str, origin: Origin | None) -> pa.RecordBatch:
    """Return dead letters for single rows, in `REJECTED_SCHEMA`.

    Args:
      numbers: int64 row numbers in the file.
      errors: `FAULTS_TYPE`, one non-empty list per row; the first error is the row's reason.
      origin: the source of the payloads; None for no payload.
    """
    count = len(numbers)
    first = errors.flatten()
    if len(first) > count:
        first = first.take(errors.offsets.slice(0, count))
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
    """Return one dead letter, of stage `read`, for a whole file, a section of it, or one record.

    Args:
      row: number of the first record that it covers.
      rows: number of records that it covers; None if unknown.
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


def faults_column(count: int, faults: Sequence[Fault], order: Mapping[str, int]) -> pa.Array:
    """Return the `FAULTS` column of a batch of `count` rows: an empty list for rows without faults."""
    positions, errors = fault_lists(faults, order)
    ends = np.zeros(count + 1, np.int32)
    ends[positions + 1] = np.diff(errors.offsets.to_numpy())
    return pa.ListArray.from_arrays(pa.array(ends.cumsum(dtype=np.int32)), errors.values, type=FAULTS_TYPE)
