"""The rows of several requests through contract and model in one batch, with the functions of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.job.steps import Steps
from beam_score.pipeline.serve.answering.bodies import Body, joined
from beam_score.pipeline.serve.answering.certain import CertainRows
from beam_score.pipeline.serve.answering.direct import Direct, Field
from beam_score.pipeline.serve.answering.tabular import from_csv
from beam_score.pipeline.serve.tensors.columns import columns_of
from beam_score.pipeline.serve.tensors.read_json import check_rows
from beam_score.transforms.arrays.plain import filter_rows
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.formats.base import Chunk
from beam_score.transforms.formats.csv.options import CsvOptions
from beam_score.transforms.formats.jsonl.rows import LineParser
from beam_score.transforms.formats.typed.columns import chunk_of
from beam_score.transforms.model.model import Model
from beam_score.transforms.rows.block import ROW, Block
from beam_score.transforms.scoring.postprocess import postprocess
from beam_score.transforms.scoring.preprocess import Preparation
from beam_score.transforms.scoring.score import Scorer
from beam_score.transforms.scoring.validate import validate

FEW_ROWS = 48
"""Up to so many rows the exact parser is faster than those that parse a whole block at once."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """The verdicts on a batch of rows.

    Attributes:
      predictions: of the rows that were predicted, in their order.
      rows: int64, the numbers of these rows in the batch.
      rejected: the dead letters of the others, by number in the batch; without those that were left out.
    """

    predictions: pa.RecordBatch
    rows: np.ndarray
    rejected: pa.RecordBatch


class Verdicts:
    """Judges and scores the rows of requests. Not thread-safe.

    Args:
      steps: of the job, for rows as JSON Lines.
      model: the loaded model.
      csv: how rows in CSV are read.

    Attributes:
      certain: reads and validates most rows without Arrow; None if the job has steps that only Arrow takes.
    """

    def __init__(self, steps: Steps, model: Model, csv: CsvOptions | None = None):
        self._steps, self._csv = steps, csv or CsvOptions()
        self._exact, self._many = LineParser(steps.read, ()), LineParser(steps.read)
        self._typed = dataclasses.replace(steps.read, format="parquet", options=None)
        self._prepare = Preparation(steps.inputs, steps.call.signature.inputs, steps.read.columns, steps.function)
        self._scorer = Scorer(steps.call, model)
        able = CertainRows.is_able(steps.read) and Direct.is_able(steps)
        self.certain = CertainRows(steps.read) if able else None
        self._direct = Direct(steps, self._scorer)

    def judge(self, bodies: Sequence[Body]) -> tuple[Block, np.ndarray]:
        """Judge the rows of some requests together.

        Returns:
          the rows ready for the model, and those that are refused, by number in the batch; and the number of the first
          row of each request, followed by that of all rows: int64.
        """
        data, starts, ends, first = joined(bodies)
        parser = self._exact if len(starts) <= FEW_ROWS else self._many
        return self._judged(parser.parse(data, starts, ends, 0, None)), first

    def predict(self, columns: Mapping[str, np.ndarray], rows: int) -> list[Field] | None:
        """Return the predictions of rows that are certainly valid, without Arrow; see `Direct.predict`."""
        return self._direct.predict(columns, rows)

    @property
    def columns(self) -> Mapping[str, Column]:
        """The columns of the contract."""
        return self._steps.read.columns.columns

    def columns_of(self, feeds: Mapping[str, np.ndarray], most_rows: int) -> pa.RecordBatch:
        """Return the tensors of a request as columns of the contract. Raises Refused."""
        return columns_of(feeds, self.columns, most_rows)

    def judge_columns(self, batches: Sequence[pa.RecordBatch]) -> tuple[Block, np.ndarray]:
        """Judge the rows of requests with columns of the same names and types; see `judge`."""
        batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        return self._judged(chunk_of(batch, 0, self._typed)), np.cumsum([0, *(one.num_rows for one in batches)])

    def judge_table(self, text: bytes, options: Sequence[str], most_rows: int) -> tuple[Block, int]:
        """Judge the rows of a text in CSV; see `judge` and `tabular.from_csv`. Returns their number, too."""
        chunk = from_csv(text, self._steps.read, options, self._csv)
        rows = chunk.rows.num_rows + chunk.rejected.num_rows
        check_rows(rows, most_rows)
        return self._judged(chunk), rows

    def _judged(self, chunk: Chunk) -> Block:
        block = Block(0, "", 0, "request", chunk.rows, chunk.rejected)
        return self._prepare(validate(block, self._steps.read.columns, show_values=False))

    @property
    def schema(self) -> pa.Schema:
        """The columns of a prediction."""
        return self._steps.outputs.schema

    def score(self, block: Block, skip: np.ndarray) -> Scored:
        """Score judged rows.

        Args:
          skip: int64, the numbers of rows that are not wanted, since their request is refused.

        Raises: see `Scorer.score`.
        """
        numbers = block.rows[ROW].to_numpy()
        if len(skip):
            wanted = ~np.isin(numbers, skip)
            block = dataclasses.replace(block, rows=filter_rows(block.rows, wanted))
            numbers = numbers[wanted]
        if len(numbers):
            (block,) = self._scorer.score([block])
            block = postprocess(block, self._steps.outputs)
            predictions = block.rows
        else:
            predictions = pa.RecordBatch.from_pylist([], self.schema)
        rejected = in_order(block.rejected)
        if rejected.num_rows:
            numbers = np.setdiff1d(numbers, rejected["row"].to_numpy(), assume_unique=True)
        return Scored(predictions, numbers, rejected)


def in_order(rejected: pa.RecordBatch) -> pa.RecordBatch:
    """Return dead letters by their rows, ascending."""
    return rejected if rejected.num_rows < 2 else rejected.take(pc.sort_indices(rejected["row"]))
