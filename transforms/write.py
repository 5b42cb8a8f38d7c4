"""Blocks to part files, and a receipt for each split when all of it is written."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from transforms import storage
from transforms.block import Block
from transforms.bounds import DEFAULT_BOUNDS, Bounds
from transforms.dead_letters import dead_letter_rows
from transforms.parts import Parts, PredictionFormat, Write, dead_letter_encoder
from transforms.receipt import Part, Receipt, new_file_counts
from transforms.receipts import put
from transforms.redact import without_values
from transforms.run_folder import RunFolder
from transforms.sources import Files, place
from transforms.tally import add_tally
from transforms.write_behind import AtOnce, Behind

_EXAMPLES = 3


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
    stop_after: rejected rows, those of earlier launches and of this process, after which it stops; None for never.
    bounds: of what a worker thread holds at once.
    """

    folder: RunFolder
    schema: pa.Schema
    format: str = "parquet"
    not_finite: str = "null"
    stop_after: int | None = None
    bounds: Bounds = DEFAULT_BOUNDS


class WriteParts(beam.PTransform):
    """PCollection[Block] -> PCollection[int]: writes each split's predictions and dead letters, and
    gives the ids of the splits that have a receipt.

    Raises LostBlocks where a split does not come whole and in order.
    """

    def __init__(self, settings: WriteSettings):
        super().__init__()
        self.settings = settings

    def writer(self) -> beam.DoFn:
        """The step by itself."""
        return _WriteFn(self.settings)

    def expand(self, blocks):
        return blocks | beam.ParDo(self.writer()).with_output_types(int)


class _WriteFn(beam.DoFn):
    def __init__(self, settings: WriteSettings):
        self.settings = settings
        self._predicted = Metrics.counter("beam_score", "rows_predicted")

    def start_bundle(self):
        # What an attempt left open in another bundle can never be finished here.
        self._open: dict[str, _Attempt] = {}
        self._behind = AtOnce() if storage.has_folders(self.settings.folder.path) else Behind()

    def process(self, block: Block):
        attempt = self._open.get(block.attempt)
        if attempt is None:
            attempt = self._open[block.attempt] = _Attempt(block, self.settings, self._behind.write)
        rejected, stretches = reason_counts(block.rejected)
        attempt.add(block, rejected, stretches)
        self._count(block, rejected)
        if block.total is not None:
            del self._open[block.attempt]
            yield from self._behind.settle(block.split, attempt.close(block.total))

    def finish_bundle(self):
        if self._open:
            raise LostBlocks(
                f"splits {sorted(a.split for a in self._open.values())} are not complete at the end of the bundle: "
                "their blocks went to several workers; the steps from Read to WriteParts must be fused "
                "(no resource hints, no Reshuffle between them)"
            )
        return [GlobalWindows.windowed_value(split) for split in self._behind.close()]

    def _count(self, block: Block, rejected: Mapping[str, int]) -> None:
        self._predicted.inc(block.rows.num_rows)
        for reason, rows in rejected.items():
            Metrics.counter("beam_score", f"rows_rejected.{reason}").inc(rows)
        if used := block.tally.get("defaults_used"):
            Metrics.counter("beam_score", "defaults_used").inc(int(used))
        if rejected and self.settings.stop_after is not None:
            _REJECTS.add(rejected, block, self.settings.stop_after)


class _RejectCount:
    """Rejected rows by reason, with the first of each, of one run in this process."""

    def __init__(self):
        self._lock, self._reasons, self._examples = threading.Lock(), {}, {}

    def reset(self, reasons: Mapping[str, int]) -> None:
        """Begins anew with what was rejected before, by reason."""
        self._reasons, self._examples = dict(reasons), {}

    def add(self, rejected: Mapping[str, int], block: Block, stop_after: int) -> None:
        """Counts the rejected rows of a block, by reason. Raises TooManyRejects."""
        with self._lock:
            self._reasons = add_tally(self._reasons, rejected)
            for reason in rejected.keys() - self._examples.keys():
                self._examples[reason] = _example(block, reason)
            reasons = sorted(self._reasons.items(), key=lambda r: -r[1])
        if (rows := sum(n for _, n in reasons)) > stop_after:
            shown = ", ".join(f"{reason} {n:,}" for reason, n in reasons)
            known = [self._examples[reason] for reason, _ in reasons if reason in self._examples]
            examples = "; ".join(known[:_EXAMPLES])
            raise TooManyRejects(
                f"{rows:,} rows are rejected already ({shown}), and rejects.stop_after is {stop_after:,}; for example "
                f"{examples}; mend the input or the contract (beam-score check shows more), or allow more; what is "
                "done stays done"
            )


def _example(block: Block, reason: str) -> str:
    """The first dead letter of a block with a reason, without a value of its row."""
    number = pc.index(block.rejected["reason"], reason).as_py()
    letter = block.rejected.select(["row", "column", "message"]).slice(number, 1).to_pylist()[0]
    column = "" if letter["column"] is None else f", column {letter['column']!r}"
    file, row = place(block.source, letter["row"])
    return f"{reason}: {file} row {row}{column}: {without_values(letter['message'])}"


_REJECTS = _RejectCount()
reset_reject_count = _REJECTS.reset


def reason_counts(rejected: pa.RecordBatch) -> tuple[dict[str, int], dict[str, int]]:
    """(rows by reason, stretches of unknown length by reason)."""
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


class _Attempt:
    """One attempt at one split, being written."""

    def __init__(self, first: Block, settings: WriteSettings, write: Write):
        self.split, self.attempt = first.split, first.attempt
        self._folder = settings.folder
        self._began = first.began
        self._next = 0
        self._rows = 0
        self._tally: Mapping[str, float] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._write_s = 0.0
        predictions = PredictionFormat(settings.format, settings.not_finite).encoder()
        self._predictions, self._rejected = (
            Parts(self._folder.parts, kind, f"{kind}-{self.split:06d}-{self.attempt}", encoder, write, settings.bounds)
            for kind, encoder in (("predictions", predictions), ("rejected", dead_letter_encoder()))
        )

    def add(self, block: Block, rejected: Mapping[str, int], stretches: Mapping[str, int]) -> None:
        """Takes the next block; its dead letters counted by reason."""
        if block.seq != self._next:
            raise LostBlocks(
                f"split {self.split}: block {block.seq} came where block {self._next} was due: the chain between "
                "Read and WriteParts was cut; those steps must be fused"
            )
        began = time.perf_counter()
        predicted = block.rows.num_rows
        read = predicted + sum(rejected.values())
        self._next += 1
        self._rows += read
        self._tally = add_tally(self._tally, block.tally)
        if isinstance(block.source, Files):
            self._count_files(block.source, block.rejected)
        elif predicted or block.rejected.num_rows:
            self._count_file(block.source, predicted, rejected, stretches)
        if predicted:
            self._predictions.add(block.rows)
        if block.rejected.num_rows:
            self._rejected.add(dead_letter_rows(block.rejected, block.source, self._folder.run))
        self._write_s += time.perf_counter() - began

    def _count_file(self, path: str, predicted: int, rejected: Mapping[str, int], stretches: Mapping[str, int]) -> None:
        file = self._files.setdefault(path, new_file_counts())
        file["read"] += predicted + sum(rejected.values())
        file["predicted"] += predicted
        file["rejected"] = add_tally(file["rejected"], rejected)
        file["stretches"] = add_tally(file["stretches"], stretches)

    def _count_files(self, files: Files, letters: pa.RecordBatch) -> None:
        """Of a block that holds whole files: what is not refused is predicted; `close` compares the sums."""
        refused, _ = files.of(letters["row"].to_numpy())
        by_file = {at: letters.filter(pa.array(refused == at)) for at in np.unique(refused).tolist()}
        for at, (path, rows) in enumerate(zip(files.paths, files.rows, strict=True)):
            rejected = reason_counts(by_file[at])[0] if at in by_file else {}
            self._count_file(path, rows - sum(rejected.values()), rejected, {})

    def close(self, total: int) -> Callable[[], None]:
        """Closes the parts, all of them written or under way.

        Returns:
          what waits for them and gives the receipt; where another attempt was first, drops its own.
        """
        if self._rows != total:
            raise LostBlocks(f"split {self.split}: {total} rows were read and {self._rows} came to the writer")
        began = time.perf_counter()
        try:
            parts = self._predictions.close() + self._rejected.close()
        except OSError:
            self._drop()  # on a full disk they are in the way
            raise
        self._write_s += time.perf_counter() - began
        return lambda: self._settle(parts)

    def _settle(self, parts: Sequence[Part]) -> None:
        began = time.perf_counter()
        try:
            self._predictions.wait()
            self._rejected.wait()
        except OSError:
            self._drop()
            raise
        if parts:
            storage.sync_folder(self._folder.parts)
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
        try:
            counts = put(self._folder, receipt)
        except FileNotFoundError:
            self._drop()  # the run is gone
            raise
        if not counts:
            self._drop()

    def _drop(self) -> None:
        kinds = (self._predictions, self._rejected)
        for kind in kinds:
            with contextlib.suppress(OSError):
                kind.wait()  # what is written later than it is removed would stay
        storage.remove_all([self._folder.parts / part.name for kind in kinds for part in kind.written])
