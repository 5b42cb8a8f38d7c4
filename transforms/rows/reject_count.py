"""Running count of the rejected rows of a run in this process, for `rejects.stop_after`."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.common.sums import add_tally
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.redact import without_values
from beam_score.transforms.rows.sources import place

_EXAMPLES = 3


class TooManyRejects(RuntimeError):
    """`rejects.stop_after` was reached."""


class _RejectCount:
    """Number of rejected rows by reason, with the first row of each as an example."""

    def __init__(self):
        self._lock, self._reasons, self._examples = threading.Lock(), {}, {}

    def reset(self, reasons: Mapping[str, int]) -> None:
        """Restart the count from the rows that were rejected before, by reason."""
        self._reasons, self._examples = dict(reasons), {}

    def take_back(self, rejected: Mapping[str, int], stop_after: int | None) -> None:
        """Subtract the rows, by reason, that a discarded attempt rejected."""
        if stop_after is not None:
            with self._lock:
                self._reasons = {r: n - rejected.get(r, 0) for r, n in self._reasons.items()}

    def add(self, block: Block, stop_after: int | None, stages: tuple[str, ...]) -> None:
        """Count the rows of a block that were rejected in some stages.

        The stages before the model are counted before it is called, so that a run that cannot succeed ends before its
        rows wait for the model.

        Args:
          stop_after: maximum number of rejected rows; None for any number, then nothing is counted.

        Raises:
          TooManyRejects: more rows than that are rejected.
        """
        if stop_after is None or not block.rejected.num_rows:
            return
        letters = block.rejected.filter(pc.is_in(block.rejected["stage"], pa.array(stages)))
        rejected, _ = reason_counts(letters)
        if not rejected:
            return
        with self._lock:
            self._reasons = add_tally(self._reasons, rejected)
            for reason in rejected.keys() - self._examples.keys():
                self._examples[reason] = _example(block, letters, reason)
            reasons = sorted(self._reasons.items(), key=lambda r: -r[1])
        if (rows := sum(n for _, n in reasons)) > stop_after:
            shown = ", ".join(f"{reason} {n:,}" for reason, n in reasons)
            known = [self._examples[reason] for reason, _ in reasons if reason in self._examples]
            examples = "; ".join(known[:_EXAMPLES])
            raise TooManyRejects(
                f"{rows:,} rows have been rejected ({shown}), but rejects.stop_after is {stop_after:,}; for example "
                f"{examples}; fix the input or the contract (beam-score check shows more), or raise "
                "rejects.stop_after; finished splits are kept"
            )


def _example(block: Block, letters: pa.RecordBatch, reason: str) -> str:
    """Describe the first dead letter with a reason, without values of its row."""
    number = pc.index(letters["reason"], reason).as_py()
    letter = letters.select(["row", "column", "message"]).slice(number, 1).to_pylist()[0]
    column = "" if letter["column"] is None else f", column {letter['column']!r}"
    file, row = place(block.source, letter["row"])
    return f"{reason}: {file} row {row}{column}: {without_values(letter['message'])}"


def reason_counts(rejected: pa.RecordBatch) -> tuple[dict[str, int], dict[str, int]]:
    """Return (rows by reason, sections of unknown length by reason)."""
    if not rejected.num_rows:
        return {}, {}
    codes = rejected["reason"].dictionary_encode()
    names, index = codes.dictionary.to_pylist(), codes.indices.to_numpy()
    rows = rejected["rows"]
    known = np.bincount(index, pc.fill_null(rows, 0).to_numpy(), len(names)).astype(int).tolist()
    unknown = np.bincount(index[rows.is_null().to_numpy(zero_copy_only=False)], minlength=len(names)).tolist()
    return {n: c for n, c in zip(names, known, strict=True) if c}, {
        n: c for n, c in zip(names, unknown, strict=True) if c
    }


BEFORE_THE_MODEL = ("read", "validate", "preprocess")
AFTER = ("infer", "postprocess")

_REJECTS = _RejectCount()
count_rejects = _REJECTS.add
take_back_rejects = _REJECTS.take_back
reset_reject_count = _REJECTS.reset
