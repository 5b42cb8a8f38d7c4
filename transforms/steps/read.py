"""From units of work to blocks: the reading step, and what each format's reader provides.

A format is one module `read_FORMAT.py` with three functions:

    check(path, settings, version=None) -> str | None
                                        raises UnusableFile where a header or footer shows that the
                                        whole file cannot be used; cheap; also used by preflight.
                                        Gives the text of the header, for the record, where there is one
    cut(path, size, split_bytes, settings, version=None) -> list[FileRange]
                                        the ranges that can be read independently of each other,
                                        each with the number of its first row
    read(range, settings) -> Iterator[Chunk]
                                        the rows of one range, in order, in bounded chunks; the same chunks
                                        when it is called again (see `read_range`)

A version is that of `transforms.stores.versions`; of an object it is the one that is read.
"""

from __future__ import annotations

import apache_beam as beam

from beam_score.transforms.common.splits import Split
from beam_score.transforms.common.stopping import DRAIN, STOP, Stopped
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading import new_attempt, read_split
from beam_score.transforms.rows.block import Block


class Read(beam.PTransform):
    """PCollection[Split] -> PCollection[Block]: reads each split to its end, in order.

    Args:
      settings: what to read and how.
      done: told a split's id, says whether a receipt for it stands already; such a split is
        skipped. A picklable callable; None reads everything.
    """

    def __init__(self, settings: ReadSettings, done=None):
        super().__init__()
        self.settings, self.done = settings, done

    def expand(self, splits):
        return splits | beam.ParDo(_ReadFn(self.settings, self.done)).with_output_types(Block)


class _ReadFn(beam.DoFn):
    def __init__(self, settings, done):
        self.settings, self.done = settings, done
        self.rows_read = beam.metrics.Metrics.counter("beam_score", "rows_read")

    def process(self, split: Split):
        if STOP.is_set():
            raise Stopped("the run is stopping")
        if not (DRAIN.is_set() or (self.done is not None and self.done(split.id))):
            for block in read_split(split, self.settings, new_attempt()):
                self.rows_read.inc(block.count)
                yield block
