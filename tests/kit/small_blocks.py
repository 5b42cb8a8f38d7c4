"""The blocks of a split as a reader and a model would produce them, without either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from beam_score.transforms.formats.reading.blocks import new_attempt
from beam_score.transforms.rows.block import ROW, Block
from beam_score.transforms.rows.faults import NO_REJECTED, REJECTED_SCHEMA


def blocks_of(split: int, source: str, ids: Sequence[str]) -> Iterator[Block]:
    """Yield a prediction for each id, one dead letter after them, then the empty block that contains the total."""
    attempt = new_attempt()
    rows = pa.RecordBatch.from_pydict({ROW: pa.array(range(len(ids)), pa.int64()), "id": ids}).select(["id"])
    letter = dict.fromkeys(REJECTED_SCHEMA.names) | {
        "row": len(ids), "rows": 1, "stage": "read", "reason": "malformed", "message": "m",
        "errors": [], "payload_cut": False, "payload_kind": "text",
    }  # fmt: skip
    refused = pa.RecordBatch.from_pylist([letter], schema=REJECTED_SCHEMA)
    yield Block(split, attempt, 0, source, rows, refused, began=1.0)
    yield Block(split, attempt, 1, source, rows.slice(0, 0), NO_REJECTED, total=len(ids) + 1, began=1.0)
