"""The plan of a run: its splits, frozen at launch. All later steps, including resume and commit, read the plan;
nothing splits again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import apache_beam as beam

from beam_score.transforms.common.splits import Split
from beam_score.transforms.ledger.folder import RunFolder, read_shard
from beam_score.transforms.ledger.manifest import published


class PlannedSplits(beam.PTransform):
    """Pipeline -> PCollection[Split]: the plan's splits, distributed over the workers, largest first.

    The graph contains only the names of the plan's shards, so that a launch does not grow with the number of files
    (Dataflow refuses requests of some 10 MB).

    Args:
      share: (i, n): only every n-th of the splits, starting at the i-th. All of them by default.
    """

    def __init__(self, folder: RunFolder, shards: Sequence[str], share: tuple[int, int] = (0, 1)):
        super().__init__()
        self.folder, self.shards, self.share = folder, shards, share

    def expand(self, begin):
        return (
            begin
            # Create's own reshuffle would lose the order.
            | "Shards" >> beam.Create(self.shards, reshuffle=False)
            | "Splits" >> beam.FlatMap(_splits_of, self.folder, self.share).with_output_types(Split)
            | beam.Reshuffle()
        )


def _splits_of(shard: str, folder: RunFolder, share: tuple[int, int]) -> Iterator[Split]:
    first, of = share
    try:
        yield from (split for split in read_shard(folder, shard) if split.id % of == first)
    except FileNotFoundError:
        # An engine that restarts a job because a step failed after it had published has nothing left to do.
        if not published(folder.output, folder.run):
            raise
