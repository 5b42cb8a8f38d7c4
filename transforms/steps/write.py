"""The step that writes blocks to part files, and a receipt for each completely written split."""

from __future__ import annotations

from collections.abc import Mapping

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.transforms.window import GlobalWindows

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.write_behind import AtOnce, Behind
from beam_score.transforms.ledger.attempt import Attempt, LostBlocks, WriteSettings
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.reject_count import AFTER, reason_counts


class WriteParts(beam.PTransform):
    """PCollection[Block] -> PCollection[int]: writes each split's predictions and dead letters, and returns the ids of
    the splits that have a receipt.

    Raises LostBlocks if a split does not arrive whole and in order.
    """

    def __init__(self, settings: WriteSettings):
        super().__init__()
        check_type("WriteParts: settings", settings, WriteSettings, "pass WriteSettings(RunFolder(...), schema)")
        self.settings = settings

    def writer(self) -> beam.DoFn:
        """Return the DoFn of this step."""
        return _WriteFn(self.settings)

    def expand(self, blocks):
        return blocks | beam.ParDo(self.writer()).with_output_types(int)


class _WriteFn(beam.DoFn):
    def __init__(self, settings: WriteSettings):
        self.settings = settings
        self._predicted = Metrics.counter("beam_score", "rows_predicted")

    def start_bundle(self):
        # An attempt left open in another bundle can never be finished here.
        self._open: dict[str, Attempt] = {}
        self._behind = AtOnce() if storage.has_folders(self.settings.folder.path) else Behind()

    def process(self, block: Block):
        attempt = self._open.get(block.attempt)
        if attempt is None:
            attempt = self._open[block.attempt] = Attempt(block, self.settings, self._behind.write)
        rejected, stretches = reason_counts(block.rejected)
        attempt.add(block, rejected, stretches)
        self._count(block, rejected)
        if block.void:
            del self._open[block.attempt]
            attempt.drop()
            self.settings.rejects.take_back(attempt.rejected)
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
        self.settings.rejects.add(block, AFTER)
