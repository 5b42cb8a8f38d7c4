"""The cost of a job: memory per worker process, compared with the memory of its machine, and processor time per row."""

from __future__ import annotations

import time

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.batch_choice import default_choice
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.prepare.trial import Trial, score_first
from beam_score.runners.engine import Engine, Measured
from beam_score.runners.settings.layout import PROCESS_BYTES
from beam_score.transforms.model.call import DEFAULT_BATCH_ROWS
from beam_score.transforms.model.copies import model_bytes
from beam_score.transforms.model.model import Model

_ROWS = 4 * DEFAULT_BATCH_ROWS
_ENOUGH_S, _MOST_ROUNDS = 0.5, 20


def process_bytes(job: Job, prepared: Prepared) -> int:
    """Estimate the memory of a worker process; see `runners.settings.layout.Layout.memory_bytes`."""
    return job.engine.layout.memory_bytes(_model_bytes(prepared), job.engine.block_bytes)


def call_bytes(prepared: Prepared, trial: Trial, batch_rows: int) -> int:
    """Return the memory that the concurrent calls of a worker process take, from the trial's measurement per row.

    Args:
      batch_rows: rows per call.
    """
    most = prepared.steps.call.bounds.call_bytes // max(trial.fed_row_bytes, 1)
    rows = max(1, min(batch_rows, most, prepared.bytes / trial.row_bytes if trial.row_bytes else batch_rows))
    return int(prepared.job.engine.layout.threads * rows * trial.call_row_bytes)


def check_call_fits(prepared: Prepared, trial: Trial, batch_rows: int) -> None:
    """Raise JobError if calls of this size take more memory than a worker process may."""
    engine = prepared.job.engine
    free = engine.memory_bytes - PROCESS_BYTES - _model_bytes(prepared)
    taken = call_bytes(prepared, trial, batch_rows)
    if taken <= free:
        return
    threads = engine.layout.threads
    fit = int(free / threads / max(trial.call_row_bytes, 1))
    remedy = f"set model.batch_rows to {fit:,}, or less" if fit >= 1 else "take fewer engine.workers"
    raise JobError(
        [
            f"model.batch_rows: a row takes {trial.call_row_bytes / 1e6:,.1f} MB in a call of the model (measured on "
            f"{trial.call_rows:,} rows), so calls of {batch_rows:,} rows by {threads} threads take "
            f"{taken / 1e9:,.1f} GB at once, and engine.memory leaves {max(0, free) / 1e9:,.1f} GB beside the "
            f"libraries and the model: {remedy}, or raise engine.memory"
        ]
    )


def _model_bytes(prepared: Prepared) -> int:
    return model_bytes(prepared.model.path, prepared.model_hash)


def check_fits(prepared: Prepared, engine: Engine) -> None:
    """Raise JobError if the requested machines have too little memory."""
    if problems := engine.memory_problems(_model_bytes(prepared)):
        raise JobError(problems)


def measure(prepared: Prepared, servable: Model, trial: Trial) -> Measured:
    """Run the first rows through every step but writing, repeatedly until the time is long enough to measure.

    Args:
      trial: of the same rows; gives the bytes per row.
    """
    batch_rows = default_choice(prepared, trial).batch_rows
    score_first(prepared, servable, _ROWS, batch_rows)  # traces, warms up
    spent, rows = 0.0, 0
    for _ in range(_MOST_ROUNDS):
        began = time.process_time()  # of all threads
        rows += score_first(prepared, servable, _ROWS, batch_rows)
        spent += time.process_time() - began
        if spent > _ENOUGH_S or not rows:
            break
    if not rows:
        return Measured(0.0, 0.0, 0)
    return Measured(prepared.bytes / trial.row_bytes if trial.row_bytes else 0.0, spent / rows, rows)
