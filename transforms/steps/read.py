"""The step that reads splits; see `transforms.formats.base` for what a format provides."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.splits import Split
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import new_attempt, read_split
from beam_score.transforms.rows.block import Block


class Read(beam.PTransform):
    """PCollection[Split] -> PCollection[Block]: reads each split to its end, in order.

    Args:
      settings: what to read and how.
      done: takes a split's id and returns whether the split already has a receipt; such a split is skipped. A picklable
        callable; None reads everything.
      stopping: checked before each split and block: whether the work is to end.
    """

    def __init__(self, settings: ReadSettings, done=None, stopping: Stopping | None = None):
        super().__init__()
        check_type("Read: settings", settings, ReadSettings, "pass ReadSettings(format, columns)")
        if done is not None and not callable(done):
            found = type(done).__name__
            raise TypeError(
                f"Read: done is of type {found}, expected Callable: pass a function from a split's id to bool"
            )
        self.settings, self.done = settings, done
        self.stopping = Stopping() if stopping is None else stopping

    def expand(self, splits):
        return splits | beam.ParDo(_ReadFn(self.settings, self.done, self.stopping)).with_output_types(Block)


class _ReadFn(beam.DoFn):
    def __init__(self, settings: ReadSettings, done, stopping: Stopping):
        self.settings, self.done, self.stopping = settings, done, stopping
        self.rows_read = Metrics.counter("beam_score", "rows_read")

    def process(self, split: Split):
        self.stopping.check()
        if not (self.stopping.after_splits.is_set() or (self.done is not None and self.done(split.id))):
            for block in read_split(split, self.settings, new_attempt(), self.stopping):
                self.rows_read.inc(block.count)
                yield block
