"""The last step of the pipeline: collects the finished splits and publishes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import pyarrow as pa

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.durable import storage
from beam_score.transforms.formats.base import ReadSettings, UnusableFile, format_named
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder, read_plan
from beam_score.transforms.ledger.publication import roll_forward
from beam_score.transforms.ledger.receipts import collect
from beam_score.transforms.ledger.verdict import decide
from beam_score.transforms.listing.files import InputFile
from beam_score.transforms.stores.compression import CorruptStream
from beam_score.transforms.stores.versions import InputChanged


class Commit(beam.PTransform):
    """PCollection[int], the finished splits -> PCollection[str], the verdict. It publishes inside the graph, so it does
    not depend on a launcher that waits.

    Args:
      folder: of the run.
      budget: see `Budget`.
      schema: of the predictions.
      keep_replaced: see `transforms.ledger.publication.roll_forward`.
      stopping: says whether splits may be missing because the launch is to end early.
      read: how the input files are read, for the headers that were not read at launch; None if all were.
    """

    def __init__(
        self,
        folder: RunFolder,
        budget: Budget,
        schema: pa.Schema,
        keep_replaced: bool = False,
        stopping: Stopping | None = None,
        read: ReadSettings | None = None,
    ):
        super().__init__()
        check_type("Commit: folder", folder, RunFolder, "pass RunFolder(output, run)")
        check_type("Commit: budget", budget, Budget, "pass for example Budget(share=0.01)")
        check_type("Commit: schema", schema, pa.Schema, "pass the schema of the OutputPlan")
        stopping = Stopping() if stopping is None else stopping
        self._commit = _CommitFn(folder, budget, schema, keep_replaced, stopping, read)

    def expand(self, done):
        # One constant element, so that a plan without splits is committed too.
        begin = done.pipeline | "Always" >> beam.Create([-1])
        return (
            (done, begin)
            | beam.Flatten()
            | beam.Map(lambda split: (None, split))
            | "WaitForAll" >> beam.GroupByKey()
            # Declared: otherwise Beam inspects everything it calls to infer the type, for 0.2 s.
            | beam.ParDo(self._commit).with_output_types(str)
        )


class _CommitFn(beam.DoFn):
    def __init__(
        self,
        folder: RunFolder,
        budget: Budget,
        schema: pa.Schema,
        keep_replaced: bool,
        stopping: Stopping,
        read: ReadSettings | None,
    ):
        self.folder, self.budget, self.schema, self.keep_replaced = folder, budget, schema, keep_replaced
        self.stopping, self.read = stopping, read

    def process(self, everything):
        if self._is_complete():
            verdict = decide(self.folder, self.budget, self.schema, self._header_of)
            roll_forward(self.folder, verdict, self.keep_replaced)
            yield verdict["decision"]

    def _header_of(self, entry: Mapping[str, Any]) -> str | None:
        if self.read is None or not self.read.options.header:
            return None
        file = InputFile(**{field.name: entry[field.name] for field in dataclasses.fields(InputFile)})
        try:
            return format_named(self.read.format).header_of(file.path, self.read, file.version)
        except (UnusableFile, CorruptStream, InputChanged, OSError):  # as its dead letter says, or it is gone
            return None

    def _is_complete(self) -> bool:
        if not storage.exists(self.folder.plan):
            return False  # another launch of the same job has published and cleaned up
        # If the launcher drains its workers, the launcher reports the progress.
        if not self.stopping.after_splits.is_set():
            return True
        return None not in collect(self.folder, read_plan(self.folder)["splits"])
