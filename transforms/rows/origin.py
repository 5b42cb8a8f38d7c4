"""The original records of rows, for dead letters: located only when a row is rejected."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import cut_out
from beam_score.transforms.framing.lines import MAX_PAYLOAD_BYTES, line_spans
from beam_score.transforms.framing.positions import Listed, Positions


@dataclasses.dataclass(frozen=True)
class Origin:
    """The data that a block's rows were parsed from.

    Attributes:
      framing: how `data` is cut into records: `csv`, `lines` (a Buffer of complete records), `records`
        (a RecordBatch with one binary column) or `columns` (a RecordBatch, shown as JSON). In a replay
        `text` or `json`: a RecordBatch with one binary column of such payloads.
      first_row: row number of the first record in `data`; the others follow without a gap.
      data: the bytes or the columns.
      dialect: of CSV: delimiter, quote and escape; the last two are empty for none.
      numbers: row number of each record, ascending, if there are gaps.
      known: `positions`, if they are known already.
    """

    framing: str
    first_row: int
    data: pa.Buffer | pa.RecordBatch
    dialect: tuple[str, ...] = ()
    numbers: tuple[int, ...] | None = None
    known: Positions | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def kind(self) -> str:
        """Kind of the payloads: `text`, `binary` for binary records, or `json` for columns."""
        return {"columns": "json", "json": "json", "records": "binary"}.get(self.framing, "text")

    def meta(self) -> dict[str, Any]:
        """Return the fields except the data and `known`, for JSON, and whether the data is a batch."""
        meta = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("data", "known")}
        return meta | {"batch": isinstance(self.data, pa.RecordBatch)}

    def payloads(self, rows: np.ndarray) -> pa.Array:
        """Return the records with these row numbers (int64), as a binary array in the same order."""
        index = np.asarray(rows, np.int64) - self.first_row
        if self.numbers is not None:
            index = np.searchsorted(np.asarray(self.numbers, np.int64), rows)
        if isinstance(self.data, pa.RecordBatch):
            picked = self.data.take(pa.array(index))
            if self.framing != "columns":
                return picked.column(0).cast(pa.binary())
            from beam_score.transforms.rows.as_json import columns_json

            return columns_json(picked)
        return cut_out(self.data, *self.positions.of(index))

    @functools.cached_property
    def positions(self) -> Positions:
        """The places of the records of a text, computed once for all steps that reject rows of this block."""
        return _FRAMINGS[self.framing](self.data, *self.dialect) if self.known is None else self.known


def join_origins(origins: Sequence[Origin | None]) -> Origin | None:
    """Join the origins of several whole files, all of one format or all None; records are numbered from 0."""
    first = origins[0]
    if first is None:
        return None
    data = [o.data for o in origins if o is not None]
    if isinstance(first.data, pa.RecordBatch):
        return dataclasses.replace(first, data=pa.concat_batches(data))
    # A file may lack its last line end, and a blank line is not a record.
    return dataclasses.replace(first, data=pa.py_buffer(b"\n".join(data)), known=None)


def clip(payload: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Cut payloads at `MAX_PAYLOAD_BYTES`; also return which were cut, as booleans."""
    if payload.nbytes <= MAX_PAYLOAD_BYTES:  # all of them together
        return payload, pa.array(np.zeros(len(payload), bool))
    import pyarrow.compute as pc

    cut = pc.fill_null(pc.greater(pc.binary_length(payload), MAX_PAYLOAD_BYTES), False)
    if pc.any(cut).as_py():
        payload = pa.array([p if p is None else p[:MAX_PAYLOAD_BYTES] for p in payload.to_pylist()], pa.binary())
    return payload, cut


def _csv(data: pa.Buffer, *dialect: str) -> Positions:
    from beam_score.transforms.framing.csv import positions

    return positions(data, *dialect)


def _lines(data: pa.Buffer) -> Positions:
    return Listed(*line_spans(data))


_FRAMINGS = {"lines": _lines, "csv": _csv}
