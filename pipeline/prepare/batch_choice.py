"""The choice of rows per call and of XLA, from the job file or by timing the model call alone."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence

import numpy as np

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.prepare.timings import Timing, around, fastest, tile, time_sizes
from beam_score.pipeline.prepare.trial import Trial
from beam_score.transforms.model.call import DEFAULT_BATCH_ROWS, ModelCall
from beam_score.transforms.model.copies import local_model
from beam_score.transforms.model.model import Model
from beam_score.transforms.model.ops import ops_of

WORTH_A_SWEEP_S = 1.0
"""Estimated model time, in seconds, below which a sweep would cost more than it saves."""

_LEAST_ROWS, _MOST_ROWS = 256, 65536
_SIZES_BELOW = 16
"""If memory allows few rows per call, sizes from this fraction of them upwards are tried."""

_USUAL = "the usual size"


@dataclasses.dataclass(frozen=True)
class Choice:
    """How the model is called, the reason, and the timings."""

    batch_rows: int
    compiled: bool
    why: str
    timings: Sequence[Timing] = ()

    def apply(self, call: ModelCall) -> ModelCall:
        return dataclasses.replace(call, batch_rows=self.batch_rows, compiled=self.compiled)


def default_choice(prepared: Prepared, trial: Trial) -> Choice:
    """Return the choice without a sweep: the job file's setting, or the default size, or the size that memory and the
    model allow."""
    call, asked = prepared.steps.call, prepared.job.model.batch_rows
    compiled = prepared.job.engine.xla == "on"
    if call.fixed_rows:
        return Choice(call.fixed_rows, compiled, "the signature takes no other number of rows")
    if isinstance(asked, int):
        if trial.limit is not None and trial.limit < asked:
            return Choice(trial.limit, compiled, f"the model fails on more rows than that at once, {asked:,} are set")
        return Choice(asked, compiled, "set in the job file")
    most = trial.most_rows(call)
    if trial.limit is not None and most == trial.limit < DEFAULT_BATCH_ROWS:
        return Choice(most, compiled, "the model fails on more rows than that at once")
    if most < DEFAULT_BATCH_ROWS:
        why = f"a row takes {trial.call_row_bytes / 1e6:,.1f} MB in a call"
        return Choice(most, compiled, why)
    return Choice(DEFAULT_BATCH_ROWS, compiled, _USUAL)


def choose_batch(prepared: Prepared, servable: Model, trial: Trial, always: bool = False) -> Choice:
    """Choose `batch_rows` from the job file, or by a sweep over the trial's rows that times the call alone.

    Args:
      always: sweep even if it costs more than it saves.

    Raises:
      JobError: the job asks for XLA, and XLA cannot replace TensorFlow's own execution of this model.
    """
    call, default = prepared.steps.call, default_choice(prepared, trial)
    if not trial.feeds:
        return dataclasses.replace(default, why="no rows to time it on")
    most = min(trial.most_rows(call), _MOST_ROWS)
    if default.compiled:
        sample = tile(trial.feeds, call.fixed_rows or min(1024, most))
        if why_not := _why_not_compiled(servable, prepared, sample):
            raise JobError([f"engine.xla is on, and {why_not}: set it to off"])
    fixed = call.fixed_rows is not None or isinstance(prepared.job.model.batch_rows, int)
    ragged = any(t.shape is None or None in t.shape[1:] for t in call.signature.inputs.values())
    if not always:
        if fixed:
            return default
        if ragged:
            return dataclasses.replace(default, compiled=False, why="rows differ in shape: not swept")
        seconds = _estimated_seconds(prepared, servable, trial)
        if seconds < WORTH_A_SWEEP_S:
            why = f"about {seconds:.1f} s of model time: not worth a sweep"
            return dataclasses.replace(default, why=why if default.why == _USUAL else f"{default.why}; {why}")
    may = call.bounds.model_bytes
    timings = time_sizes(servable.call, trial.feeds, [default.batch_rows] if fixed else _sizes(most), may)
    if not timings:
        return dataclasses.replace(default, why="too large for memory as it is: it will be halved on the way")
    best = fastest(timings)
    if not default.compiled:
        return Choice(best.batch_rows, False, "the fastest", timings)
    sizes = [t.batch_rows for t in timings]
    compiled = time_sizes(servable.call_compiled, trial.feeds, around(best.batch_rows, sizes), may, compiled=True)
    best = fastest(compiled) if compiled else best
    return Choice(best.batch_rows, True, "XLA is on; the fastest", [*timings, *compiled])


def _sizes(most: int) -> list[int]:
    """Return the powers of two to try."""
    least = min(_LEAST_ROWS, max(1, most // _SIZES_BELOW))
    return [2**n for n in range(_MOST_ROWS.bit_length()) if least <= 2**n <= most]


def _estimated_seconds(prepared: Prepared, servable: Model, trial: Trial) -> float:
    """Estimate the model time of the whole job from one call and the size of the input."""
    rows = prepared.bytes / trial.row_bytes if trial.row_bytes else 0
    size = min(1024, trial.most_rows(prepared.steps.call))
    feeds = tile(trial.feeds, size)
    try:
        servable.call(feeds)
        began = time.perf_counter()
        servable.call(feeds)
    except Exception:  # the run halves batches that the model refuses, and remembers the size that passes
        return 0.0
    return rows * (time.perf_counter() - began) / size / prepared.job.engine.layout.workers


_JUDGING_OPS = re.compile(
    "Assert|CheckNumerics.*|(Resource)?Gather(V2|Nd)?|(Resource|Tensor)?Scatter.*|.*Segment.*|InTopK.*|Bincount|DenseBincount"
    "|(Floor|Truncate)?(Div|Mod)|Cholesky|Matrix(Inverse|Solve|TriangularSolve)|SparseSoftmaxCrossEntropyWithLogits"
    "|ReverseSequence"
)
"""Ops that raise on some values in TensorFlow, but not in XLA, which clamps, drops the check or continues with the
values it has (seen with Assert, and with Gather beyond the end): rows that must be refused would be predicted."""


def _why_not_compiled(servable: Model, prepared: Prepared, sample: Mapping[str, np.ndarray]) -> str | None:
    """Return the reason why XLA cannot replace TensorFlow's own execution; None if there is none."""
    call = prepared.steps.call
    ops = ops_of(local_model(call.path, call.sha256), call.signature.name).called
    judging = sorted(op for op in ops if _JUDGING_OPS.fullmatch(op))
    if judging:
        return f"it never raises on a bad row, as {', '.join(judging)} in the model may"
    tensors = [*call.signature.inputs.values(), *call.signature.outputs.values()]
    if any(t.dtype == "string" for t in tensors):
        return "it has no strings"
    try:
        compiled = servable.call_compiled(sample)
    except Exception as error:  # XLA reports compile failures with many exception types
        # The text may contain values of the rows used; names of ops do not.
        named = ops & set(re.findall(r"\w+", str(error)))
        return f"it does not compile the model ({': '.join([type(error).__name__, *sorted(named)[:3]])})"
    try:
        plain = servable.call(sample)
    except Exception as error:
        return f"TensorFlow itself raises {type(error).__name__} on {len(next(iter(sample.values())))} rows at once"
    for name in call.outputs:
        a, b = plain[name], compiled[name]
        if a.shape != b.shape or a.dtype != b.dtype or not np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True):
            return f"output {name!r} differs by more than rtol 1e-5 when compiled"
    return None
