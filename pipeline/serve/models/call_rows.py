"""The maximum rows of a call, where `serve.batching.rows` is `auto`."""

from __future__ import annotations

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.prepare.timings import fastest, time_sizes
from beam_score.transforms.common.bounds import DEFAULT_BOUNDS
from beam_score.transforms.model.model import Model
from beam_score.transforms.scoring.score import zeros

USUAL_ROWS = 1024

_SIZES = tuple(2**n for n in range(5, 15))
_LONGEST_CALL_S, _SWEEP_S = 0.1, 0.3
"""A version is not available before the sweep is over, and a request may wait for two calls."""


def asked_rows(job: Job | ModelFolder) -> int | None:
    """Return the maximum rows of a call that a job sets, by `model.batch_rows` if `serve.batching.rows` is `auto`; None
    if both are `auto`."""
    return next((rows for rows in (job.serve.batching.rows, job.model.batch_rows) if isinstance(rows, int)), None)


def swept_rows(model: Model) -> tuple[int, str]:
    """Return the fewest rows with which a model is as fast as with any number, by timing calls with zeros.

    Returns:
      the rows of a call, and a phrase on them. `USUAL_ROWS` if rows differ in shape, the signature fixes their number,
      or the model refuses zeros.
    """
    inputs = model.signature.inputs
    shapes = [tensor.shape for tensor in inputs.values()]
    if any(shape is None or shape[:1] != (None,) or None in shape[1:] for shape in shapes):
        return USUAL_ROWS, f"{USUAL_ROWS:,} rows a call, since its inputs are not open in their rows alone"
    row = {name: zeros(tensor, 1) for name, tensor in inputs.items()}
    timings = time_sizes(
        model.call, row, _SIZES, DEFAULT_BOUNDS.model_bytes, longest_call_s=_LONGEST_CALL_S, sweep_s=_SWEEP_S
    )
    if not timings:
        return USUAL_ROWS, f"{USUAL_ROWS:,} rows a call, since it refuses zeros"
    rows = fastest(timings).batch_rows
    return rows, f"{rows:,} rows a call, the fastest of {timings[0].batch_rows:,} to {timings[-1].batch_rows:,}"
