"""How the model will be called: rows a call, and whether through XLA; by the job file, or by timing the call alone."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.peak_memory import resident_bytes, with_peak
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.prepare.trial import Trial
from beam_score.transforms.model.call import DEFAULT_BATCH_ROWS, ModelCall
from beam_score.transforms.model.copies import local_model
from beam_score.transforms.model.ops import ops_of
from beam_score.transforms.model.servable import Servable

WORTH_A_SWEEP_S = 1.0
"""Seconds of model time, estimated, below which a sweep would cost more than it brings."""

_LEAST_ROWS, _MOST_ROWS = 256, 65536
_SIZES_BELOW = 16
"""Where memory allows few rows a call, sizes from this part of them on are tried."""

_USUAL = "the usual size"
_ROUNDS = 5
_SWEEP_S = 2.0
_LONGEST_CALL_S = 1.0
_SAME = 0.98


@dataclasses.dataclass(frozen=True)
class Timing:
    """Attributes:
    batch_rows: rows a call.
    compiled: whether through XLA.
    ms: of a call, the best of several.
    """

    batch_rows: int
    compiled: bool
    ms: float

    @property
    def rows_per_s(self) -> float:
        return self.batch_rows / self.ms * 1e3


@dataclasses.dataclass(frozen=True)
class Choice:
    """How the model will be called, why, and what was measured."""

    batch_rows: int
    compiled: bool
    why: str
    timings: Sequence[Timing] = ()

    def apply(self, call: ModelCall) -> ModelCall:
        return dataclasses.replace(call, batch_rows=self.batch_rows, compiled=self.compiled)


def default_choice(prepared: Prepared, trial: Trial) -> Choice:
    """What is done without a sweep: as set, or the usual size, or what memory and the model allow."""
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


def choose_batch(prepared: Prepared, servable: Servable, trial: Trial, always: bool = False) -> Choice:
    """`batch_rows`, by the job file, or by a sweep over the trial's rows that times the call alone.

    Args:
      always: whether to sweep even where it would cost more than it brings.

    Raises:
      JobError: XLA is asked for, and cannot stand in for TensorFlow's own execution.
    """
    call, default = prepared.steps.call, default_choice(prepared, trial)
    if not trial.feeds:
        return dataclasses.replace(default, why="no rows to time it on")
    most = min(trial.most_rows(call), _MOST_ROWS)
    if default.compiled:
        sample = _tile(trial.feeds, call.fixed_rows or min(1024, most))
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
    timings = _time_sizes(servable.call, trial.feeds, [default.batch_rows] if fixed else _sizes(most), may)
    if not timings:
        return dataclasses.replace(default, why="too large for memory as it is: it will be halved on the way")
    best = _best(timings)
    if not default.compiled:
        return Choice(best.batch_rows, False, "the fastest", timings)
    sizes = [t.batch_rows for t in timings]
    compiled = _time_sizes(servable.call_compiled, trial.feeds, _around(best.batch_rows, sizes), may, compiled=True)
    best = _best(compiled) if compiled else best
    return Choice(best.batch_rows, True, "XLA is on; the fastest", [*timings, *compiled])


def _sizes(most: int) -> list[int]:
    """Powers of two to try."""
    least = min(_LEAST_ROWS, max(1, most // _SIZES_BELOW))
    return [2**n for n in range(_MOST_ROWS.bit_length()) if least <= 2**n <= most]


def _estimated_seconds(prepared: Prepared, servable: Servable, trial: Trial) -> float:
    """Model time of the whole job, from one call and the size of the input."""
    rows = prepared.bytes / trial.row_bytes if trial.row_bytes else 0
    size = min(1024, trial.most_rows(prepared.steps.call))
    feeds = _tile(trial.feeds, size)
    try:
        servable.call(feeds)
        began = time.perf_counter()
        servable.call(feeds)
    except Exception:  # the run halves what the model refuses, and remembers the size that goes through
        return 0.0
    return rows * (time.perf_counter() - began) / size / prepared.job.engine.layout.workers


def _tile(feeds: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {n: np.resize(f, (rows, *f.shape[1:])) for n, f in feeds.items()}


def _time_sizes(
    call: Callable[[Mapping[str, np.ndarray]], object],
    feeds: Mapping[str, np.ndarray],
    sizes: Sequence[int],
    may_bytes: int,
    compiled: bool = False,
) -> list[Timing]:
    """Times each size, interleaved, so that a noisy moment does not fall on one; the best of each. A size that
    the model refuses, that takes too long or too much memory, ends the list."""
    tiled, best = {}, {}
    before = resident_bytes()
    for size in sizes:
        tiled[size] = _tile(feeds, size)
        try:
            _, peak = with_peak(lambda size=size: call(tiled[size]))  # traces, compiles, warms
            if best and peak - before > may_bytes:
                break
            best[size] = _clock(call, tiled[size])
        except Exception:  # out of memory, or a limit of the model's own
            break
        if best[size] > _LONGEST_CALL_S:
            break
    began = time.perf_counter()
    for _ in range(_ROUNDS):
        for size in best:
            best[size] = min(best[size], _clock(call, tiled[size]))
        if time.perf_counter() - began > _SWEEP_S:
            break
    return [Timing(size, compiled, 1e3 * seconds) for size, seconds in best.items()]


def _clock(call: Callable[[Mapping[str, np.ndarray]], object], feeds: Mapping[str, np.ndarray]) -> float:
    began = time.perf_counter()
    call(feeds)
    return time.perf_counter() - began


def _best(timings: Sequence[Timing]) -> Timing:
    """The smallest size that is as fast as the fastest, noise apart: it takes less memory."""
    fastest = max(t.rows_per_s for t in timings)
    return next(t for t in timings if t.rows_per_s >= fastest * _SAME)


def _around(size: int, sizes: Sequence[int]) -> list[int]:
    """The sizes next to one, since each that is compiled takes about a second."""
    at = list(sizes).index(size)
    return list(sizes[max(0, at - 1) : at + 3])


_JUDGING_OPS = re.compile(
    "Assert|CheckNumerics.*|(Resource)?Gather(V2|Nd)?|(Resource|Tensor)?Scatter.*|.*Segment.*|InTopK.*|Bincount|DenseBincount"
    "|(Floor|Truncate)?(Div|Mod)|Cholesky|Matrix(Inverse|Solve|TriangularSolve)|SparseSoftmaxCrossEntropyWithLogits"
    "|ReverseSequence"
)
"""Ops that raise on some values in TensorFlow, where XLA clamps, drops the check or goes on with what
it has (seen with Assert, and Gather beyond the end): rows would be predicted that are to be refused."""


def _why_not_compiled(servable: Servable, prepared: Prepared, sample: Mapping[str, np.ndarray]) -> str | None:
    """Why XLA cannot stand in for TensorFlow's own execution; None where nothing tells against it."""
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
    except Exception as error:  # what XLA cannot compile it says in many ways
        # The text may hold values of the rows that it was tried on; names of ops do not.
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
