"""A trial of the job on its first rows: does the model accept them, what are the outputs, what does a call cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.first_blocks import first_blocks, row_bytes_of
from beam_score.pipeline.prepare.independence import dependence
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.prepare.ramp import Ramp
from beam_score.transforms.arrays.plain import concat
from beam_score.transforms.common.sums import add_tally
from beam_score.transforms.model.call import DEFAULT_BATCH_ROWS, ModelCall
from beam_score.transforms.model.loading import load_for
from beam_score.transforms.model.model import Model
from beam_score.transforms.model.signature import numpy_dtype
from beam_score.transforms.rows.faults import REJECTED_SCHEMA
from beam_score.transforms.scoring.feeds import groups
from beam_score.transforms.scoring.halving import EveryRowFails
from beam_score.transforms.scoring.postprocess import NOT_PROBABILITIES, postprocess
from beam_score.transforms.scoring.score import Scorer

TRIAL_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Trial:
    """The results of a trial.

    Attributes:
      predictions: of the sample's good rows.
      rejected: dead letters of the sample.
      rows: number of rows tried.
      row_bytes: input bytes per row in the sample; see `FirstBlocks`.
      feeds: inputs of a sample of good rows, for sweeps.
      call_rows: rows of the largest call.
      call_bytes: growth of the process's memory in that call.
      call_row_bytes: memory that each row adds to a call: inputs, outputs, and the model's intermediate values.
      fed_row_bytes: the part of it for inputs and outputs.
      limit: rows per call above which the model raises; None if it accepted every size tried.
      padded: names of text columns with values that begin with a space; see `pipeline.draft.padded`.
      tally: counts of the predictions.
    """

    predictions: pa.RecordBatch
    rejected: pa.RecordBatch
    rows: int
    row_bytes: float | None
    feeds: Mapping[str, np.ndarray]
    padded: Sequence[str] = ()
    call_rows: int = 0
    call_bytes: int = 0
    call_row_bytes: float = 0.0
    fed_row_bytes: float = 0.0
    limit: int | None = None
    tally: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def most_rows(self, call: ModelCall) -> int:
        """Return the number of rows that a call may have within its memory limit."""
        most = max(1, int(call.bounds.model_bytes // max(self.call_row_bytes, 1)))
        return min(most, self.limit or most)

    @property
    def remarks(self) -> list[str]:
        """Return suspicious properties of the predictions, one sentence each."""
        of = f"of {self.predictions.num_rows:,} predictions"
        return [
            f"outputs.{name.removeprefix(NOT_PROBABILITIES)}: {int(rows):,} {of} have values outside of 0 to 1, which "
            "are not probabilities: if they are logits, say meaning: logits"
            for name, rows in self.tally.items()
            if name.startswith(NOT_PROBABILITIES)
        ]


def try_rows(prepared: Prepared, servable: Model, rows: int = TRIAL_ROWS) -> Trial:
    """Run the first rows of the input through every step.

    The model is called on one row, then on more and more, within the memory limit as measured.

    Args:
      rows: maximum number; fewer if they are large.

    Raises:
      JobError: the model or the preprocessing function fails on every row of the sample, or the outcome of a row
        depends on more than the row.
    """
    steps = prepared.steps
    _check_fixed_rows(prepared)
    first = first_blocks(prepared, rows)
    blocks = first.blocks
    ramp = Ramp(steps.call, servable, _asked_rows(prepared), blocks)
    try:
        scored = ramp.climb()
    except EveryRowFails as error:
        raise JobError([f"the model fails on every row that it was tried on: {error}"]) from None
    refused = [r for b in scored for r in b.rejected.filter(pc.equal(b.rejected["stage"], "infer")).to_pylist()]
    if refused and not steps.call.proven and not any(b.rows.num_rows for b in scored):
        message = refused[0]["message"]
        raise JobError([f"the model fails on all {len(refused)} rows that it was tried on; first: {message}"])
    if prepared.job.model.independent and (found := dependence(steps.call, servable, scored, ramp.call_rows)):
        raise JobError([f"model: {problem}" for problem in found])
    done = [postprocess(b, steps.outputs) for b in scored]
    predictions = pa.RecordBatch.from_pylist([], steps.outputs.schema) if not done else concat([b.rows for b in done])
    rejected = concat([b.rejected for b in done]) if done else pa.RecordBatch.from_pylist([], REJECTED_SCHEMA)
    filled = [b for b in scored if b.rows.num_rows]
    if refused and filled:  # next to a faulty row, a refusal does not show that the batch is too large
        ramp.find_limit(filled)
    by_shape = list(groups(filled, steps.call.signature.inputs, steps.call.pads)) if filled else []
    largest = max(by_shape, key=len, default=None)
    tally: dict[str, float] = {}
    for block in done:
        tally = add_tally(tally, block.tally)
    fed = row_bytes_of(filled)
    return Trial(
        predictions=predictions,
        rejected=rejected,
        rows=sum(b.count for b in blocks),
        row_bytes=first.row_bytes,
        feeds={} if largest is None else largest.feeds(0, len(largest)),
        call_rows=ramp.call_rows,
        call_bytes=ramp.call_bytes,
        call_row_bytes=max(ramp.row_bytes, fed),
        fed_row_bytes=fed,
        limit=ramp.limit,
        padded=first.padded,
        tally=tally,
    )


def score_first(prepared: Prepared, servable: Model, rows: int, batch_rows: int) -> int:
    """Run the first rows through every step but writing. Returns their number."""
    blocks = first_blocks(prepared, rows).blocks
    scorer = Scorer(dataclasses.replace(prepared.steps.call, batch_rows=batch_rows), servable)
    for block in scorer.score(blocks):
        postprocess(block, prepared.steps.outputs)
    return sum(b.count for b in blocks)


def _check_fixed_rows(prepared: Prepared) -> None:
    """Raise JobError if the fixed number of rows of the signature does not fit into memory."""
    rows = prepared.steps.call.fixed_rows or 0
    sizes = {
        name: rows * math.prod(d or 1 for d in tensor.shape[1:]) * numpy_dtype(tensor).itemsize
        for name, tensor in prepared.steps.call.signature.inputs.items()
        if tensor.shape
    }
    if sum(sizes.values()) > prepared.job.engine.memory_bytes:
        raise JobError(
            [
                f"model: the signature takes {rows:,} rows a call, no fewer, and they take "
                f"{sum(sizes.values()) / 1e9:,.1f} GB, more than engine.memory: export it for any number of rows"
            ]
        )


def _asked_rows(prepared: Prepared) -> int:
    asked = prepared.job.model.batch_rows
    return asked if isinstance(asked, int) else DEFAULT_BATCH_ROWS


def load(prepared: Prepared) -> Model:
    """Load the model on this machine, one copy per process; for XLA, by Python's TensorFlow."""
    return load_for(dataclasses.replace(prepared.steps.call, compiled=prepared.job.engine.xla == "on"))
