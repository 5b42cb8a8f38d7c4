"""Measurement of the processor time per row, on the first rows of a job."""

from __future__ import annotations

import time

from beam_score.pipeline.prepare.batch_choice import default_choice
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.prepare.trial import Trial, score_first
from beam_score.runners.engine import Measured
from beam_score.transforms.model.call import DEFAULT_BATCH_ROWS
from beam_score.transforms.model.servable import Servable

_ROWS = 4 * DEFAULT_BATCH_ROWS
_ENOUGH_S, _MOST_ROUNDS = 0.5, 20


def measure(prepared: Prepared, servable: Servable, trial: Trial) -> Measured:
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
