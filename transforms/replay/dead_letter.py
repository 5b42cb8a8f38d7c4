"""Parsing of dead letters for a replay, and rejecting them again."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from beam_score.transforms.formats.base import Chunk, ReadSettings, empty_rows, format_named
from beam_score.transforms.rows.faults import REJECTED_SCHEMA, stretch

DAMAGE_REASONS = frozenset({"unreadable", "corrupt_record"})
"""Reasons that concern the file: the remedy is to replace it with an undamaged one."""


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    """One dead letter; see docs/dead-letters.md. `payload` is the record's own bytes, `kind` is as in
    `transforms.rows.faults.REJECTED_SCHEMA`."""

    source: str
    row: int
    rows: int | None
    stage: str
    reason: str
    column: str | None
    payload: bytes | None
    payload_cut: bool
    kind: str

    @property
    def is_of_damage(self) -> bool:
        """Return whether the file was at fault, not the row: content read from it then cannot be trusted."""
        return self.rows != 1 or self.reason in DAMAGE_REASONS


def parse_dead_letters(lines: bytes, format: str) -> list[DeadLetter]:
    """Return the dead letters in some whole lines.

    Args:
      format: of the files that they describe.

    Raises:
      ValueError: a line is not a dead letter.
    """
    return [_dead_letter(orjson.loads(line), format) for line in lines.split(b"\n") if line]


def _dead_letter(fields: dict[str, Any], format: str) -> DeadLetter:
    payload, encoding = fields["payload"], fields["payload_encoding"]
    if payload is not None:
        payload = base64.b64decode(payload) if encoding == "base64" else payload.encode()
    binary = format_named(format).payload_kind == "binary"
    kind = "json" if encoding == "json" else "binary" if binary else "text"
    names = ("source", "row", "rows", "stage", "reason", "column")
    return DeadLetter(
        **{name: fields[name] for name in names}, payload=payload, payload_cut=fields["payload_cut"], kind=kind
    )


def refused_again(dead_letters: Sequence[DeadLetter], why: str, settings: ReadSettings, **changed: str | None) -> Chunk:
    """Return a chunk that rejects the rows of some dead letters of one file again.

    Args:
      why: the reason why the row is unavailable, without a value of it.
      changed: `reason` and `column`, if they have changed.
    """
    made = []
    for letter in dead_letters:
        reason, column = changed.get("reason", letter.reason), changed.get("column", letter.column)
        made.append(
            {
                "row": letter.row,
                "rows": letter.rows,
                "stage": "read" if changed else letter.stage,
                "reason": reason,
                "column": column,
                "message": why,
                "errors": [{"column": column, "reason": reason, "message": why}],
                "payload": letter.payload if settings.payload else None,
                "payload_cut": letter.payload_cut and settings.payload,
                "payload_kind": letter.kind,
            }
        )
    rejected = pa.RecordBatch.from_pylist(made, schema=REJECTED_SCHEMA)
    return Chunk(empty_rows(settings), rejected, source=dead_letters[0].source)


def missing_again(
    dead_letters: Sequence[DeadLetter], missing: np.ndarray, why: str, settings: ReadSettings
) -> list[Chunk]:
    """Return chunks that reject some rows again: single rows with their payload, and for dead letters that stand for
    several rows, the missing stretches.

    Args:
      missing: int64 row numbers, ascending.
    """
    gone = set(missing.tolist())
    single = [letter for letter in dead_letters if letter.rows == 1 and letter.row in gone]
    chunks = [refused_again(single, why, settings)] if single else []
    for letter in dead_letters:
        if letter.rows in (None, 1):
            continue
        own = missing[(missing >= letter.row) & (missing < letter.row + letter.rows)]
        for run in np.split(own, np.flatnonzero(np.diff(own) != 1) + 1):
            if len(run):
                again = stretch(int(run[0]), len(run), letter.reason, why, letter.column)
                chunks.append(Chunk(empty_rows(settings), again, source=letter.source))
    return chunks
