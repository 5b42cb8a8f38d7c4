"""One attempt at one split: from its blocks to its receipt."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.bounds import DEFAULT_BOUNDS, Bounds
from beam_score.transforms.common.sums import add_tally
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.write_behind import Write
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.receipt import Receipt, new_file_counts
from beam_score.transforms.ledger.receipts import put
from beam_score.transforms.output.dead_letters import dead_letter_rows
from beam_score.transforms.output.part import Part
from beam_score.transforms.output.parts import Parts, PredictionFormat, dead_letter_encoder
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.reject_count import RejectCount, reason_counts
from beam_score.transforms.rows.rejections import Rejections
from beam_score.transforms.rows.sources import Files


class LostBlocks(RuntimeError):
    """A split's blocks did not reach one writer completely and in order: the chain between Read and WriteParts was
    cut. Nothing of the split is committed."""


@dataclasses.dataclass(frozen=True)
class WriteSettings:
    """The settings of `Attempt`.

    Attributes:
      folder: of the run.
      schema: of the predictions.
      format: `parquet` or `jsonl`.
      not_finite: for JSON Lines: `null` (with an additional column NAME_not_finite) or `string`.
      rejects: counts the rows rejected so far, and ends a hopeless run.
      bounds: limits on the memory of a worker thread.
    """

    folder: RunFolder
    schema: pa.Schema
    format: str = "parquet"
    not_finite: str = "null"
    rejects: RejectCount = dataclasses.field(default_factory=RejectCount)
    bounds: Bounds = DEFAULT_BOUNDS

    def __post_init__(self) -> None:
        check_type("WriteSettings: folder", self.folder, RunFolder, "pass RunFolder(output, run)")
        check_type("WriteSettings: schema", self.schema, pa.Schema, "pass the schema of the OutputPlan")
        for name, known in (("format", ("parquet", "jsonl")), ("not_finite", ("null", "string"))):
            if (found := getattr(self, name)) not in known:
                raise ValueError(f"WriteSettings: {name} is {found!r}, expected {' or '.join(known)}")


def _name(seq: int, piece: int) -> str:
    return f"block {seq}" + (f" piece {piece}" if piece else "")


class Attempt:
    """One attempt at one split, being written."""

    def __init__(self, first: Block, settings: WriteSettings, write: Write):
        self.split, self.attempt = first.split, first.attempt
        self._folder = settings.folder
        self._began = first.began
        self._next = (0, 0)  # block, piece
        self._rows = 0
        self._tally: Mapping[str, float] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._rejections = Rejections()
        self._write_s = 0.0
        predictions = PredictionFormat(settings.format, settings.not_finite).encoder()
        self._predictions, self._rejected = (
            Parts(self._folder.parts, kind, f"{kind}-{self.split:06d}-{self.attempt}", encoder, write, settings.bounds)
            for kind, encoder in (("predictions", predictions), ("rejected", dead_letter_encoder()))
        )

    def add(self, block: Block, rejected: Mapping[str, int], stretches: Mapping[str, int]) -> None:
        """Add the next block, with its dead letters counted by reason."""
        if (block.seq, block.piece) != self._next:
            raise LostBlocks(
                f"split {self.split}: {_name(block.seq, block.piece)} arrived instead of {_name(*self._next)}: the "
                "chain between Read and WriteParts was cut; those steps must be fused"
            )
        began = time.perf_counter()
        predicted = block.rows.num_rows
        read = predicted + sum(rejected.values())
        self._next = (block.seq, block.piece + 1) if block.more else (block.seq + 1, 0)
        self._rows += read
        self._tally = add_tally(self._tally, block.tally)
        if isinstance(block.source, Files):
            self._count_files(block.source, block.rejected, block.piece == 0)
        elif predicted or block.rejected.num_rows:
            self._count_file(block.source, predicted, rejected, stretches)
        if predicted:
            self._predictions.add(block.rows)
        if block.rejected.num_rows:
            self._rejections.add_letters(block.rejected, block.source)
            self._rejected.add(dead_letter_rows(block.rejected, block.source, self._folder.run))
        self._write_s += time.perf_counter() - began

    def _count_file(self, path: str, predicted: int, rejected: Mapping[str, int], stretches: Mapping[str, int]) -> None:
        file = self._files.setdefault(path, new_file_counts())
        file["read"] += predicted + sum(rejected.values())
        file["predicted"] += predicted
        file["rejected"] = add_tally(file["rejected"], rejected)
        file["stretches"] = add_tally(file["stretches"], stretches)

    def _count_files(self, files: Files, letters: pa.RecordBatch, is_first: bool) -> None:
        """Count the rows of a block that contains whole files: rows that are not rejected are predicted; `close`
        compares the sums.

        Args:
          is_first: whether this is the first piece of the block, with which all its rows are counted.
        """
        refused, _ = files.of(letters["row"].to_numpy())
        by_file = {at: letters.filter(pa.array(refused == at)) for at in np.unique(refused).tolist()}
        for at, (path, rows) in enumerate(zip(files.paths, files.rows, strict=True)):
            rejected = reason_counts(by_file[at])[0] if at in by_file else {}
            self._count_file(path, (rows if is_first else 0) - sum(rejected.values()), rejected, {})

    def close(self, total: int) -> Callable[[], None]:
        """Close the parts; on return all of them are written or being written.

        Returns:
          a function that waits for the parts and writes the receipt; if another attempt was first, it drops these
            parts.
        """
        if self._rows != total:
            raise LostBlocks(f"split {self.split}: {total} rows were read and {self._rows} reached the writer")
        began = time.perf_counter()
        try:
            parts = self._predictions.close() + self._rejected.close()
        except OSError:
            self.drop()  # frees space if the disk is full
            raise
        self._write_s += time.perf_counter() - began
        return lambda: self._settle(parts)

    def _settle(self, parts: Sequence[Part]) -> None:
        began = time.perf_counter()
        try:
            self._predictions.wait()
            self._rejected.wait()
        except OSError:
            self.drop()
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
            rejections=self._rejections.all(),
        )
        try:
            counts = put(self._folder, receipt)
        except FileNotFoundError:
            self.drop()  # the run is gone
            raise
        if not counts:
            self.drop()

    @property
    def rejected(self) -> Mapping[str, int]:
        """The rows rejected so far, by reason."""
        counts: dict[str, int] = {}
        for file in self._files.values():
            counts = add_tally(counts, file["rejected"])
        return counts

    def drop(self) -> None:
        """Remove the written parts."""
        kinds = (self._predictions, self._rejected)
        for kind in kinds:
            with contextlib.suppress(OSError):
                kind.wait()  # a part written after its removal would stay
        storage.remove_all([self._folder.parts / part.name for kind in kinds for part in kind.written])
