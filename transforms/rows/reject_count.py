"""Running count of the rejected rows of a run in this process, for `rejects.stop_after`."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.common.shared import Shared
from beam_score.transforms.common.sums import add_tally
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.redact import without_values
from beam_score.transforms.rows.sources import place

_EXAMPLES = 3


class TooManyRejects(RuntimeError):
    """`rejects.stop_after` was reached."""


class RejectCount(Shared):
    """Rejected rows of a launch in this process, by reason, with the first of each; one for all its workers that are
    threads of the same process.

    Args:
      stop_after: rows allowed; None for any number, then nothing is counted.
      before: rows that earlier launches of the run have rejected, by reason.
    """

    def __init__(self, stop_after: int | None = None, before: Mapping[str, int] | None = None):
        self.stop_after = stop_after
        self._lock, self._reasons = threading.Lock(), dict(before or {})
        self._examples: dict[str, str] = {}

    def take_back(self, rejected: Mapping[str, int]) -> None:
        """Count rows no longer, by reason, that were rejected by an attempt that is void."""
        with self._lock:
            self._reasons = {r: n - rejected.get(r, 0) for r, n in self._reasons.items()}

    def add(self, block: Block, stages: tuple[str, ...]) -> None:
        """Count the rows of a block that were rejected in some stages.

        Those before the model are counted before their block waits for it: a run that cannot succeed ends sooner.

        Raises:
          TooManyRejects: more rows than `stop_after` are rejected.
        """
        if self.stop_after is None or not block.rejected.num_rows:
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
        if (rows := sum(n for _, n in reasons)) > self.stop_after:
            shown = ", ".join(f"{reason} {n:,}" for reason, n in reasons)
            known = [self._examples[reason] for reason, _ in reasons if reason in self._examples]
            examples = "; ".join(known[:_EXAMPLES])
            raise TooManyRejects(
                f"{rows:,} rows have been rejected ({shown}), but rejects.stop_after is {self.stop_after:,}; for "
                f"example {examples}; fix the input or the contract (beam-score check shows more), or raise "
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
    if not rows.null_count:
        return dict(zip(names, known, strict=True)), {}
    unknown = np.bincount(index[rows.is_null().to_numpy(zero_copy_only=False)], minlength=len(names)).tolist()
    return {n: c for n, c in zip(names, known, strict=True) if c}, {
        n: c for n, c in zip(names, unknown, strict=True) if c
    }


BEFORE_THE_MODEL = ("read", "validate", "preprocess")
AFTER = ("infer", "postprocess")
