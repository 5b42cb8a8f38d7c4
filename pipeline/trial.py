"""The job tried on its first real rows: does the model take them, what comes out, how fast."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.mistakes import JobError
from pipeline.padded import padded_columns
from pipeline.preflight import Prepared
from transforms.block import REJECTED_SCHEMA, ROW, Block, concat
from transforms.compression import Damaged
from transforms.feeds import groups
from transforms.halving import EveryRowFails
from transforms.infer import ModelCall, ServableHandler
from transforms.loading import load_once
from transforms.local_files import is_of_the_system
from transforms.model import Servable, import_tensorflow
from transforms.postprocess import postprocess
from transforms.preprocess import Preparation, PreprocessError
from transforms.read import ReadSettings, UnusableFile, format_module, read_range
from transforms.splits import FileRange
from transforms.validate import validate

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
DEFAULT_BATCH_ROWS = 8192
WORTH_A_SWEEP_S = 1.0
WORTH_COMPILING_S = 4.0
"""Seconds of model time, estimated, below which it would cost more than it brings."""

_ROUNDS = 5
_SWEEP_S = 2.0
_LONGEST_CALL_S = 1.0
_COMPILED_GAIN = 1.05
_SAME = 0.98


@dataclasses.dataclass(frozen=True)
class Trial:
    """Attributes:
    predictions: of the sample's good rows.
    rejected: its dead letters.
    rows: how many rows were tried.
    row_bytes: input bytes a row in the sample, of the file as it is stored; None where it had no rows.
    feeds: of a sample of good rows, for sweeps.
    """

    predictions: pa.RecordBatch
    rejected: pa.RecordBatch
    rows: int
    row_bytes: float | None
    feeds: Mapping[str, np.ndarray]
    padded: Sequence[str] = ()


def try_rows(prepared: Prepared, servable: Servable, rows: int = 1024) -> Trial:
    """Puts the first rows of the input through every step.

    Raises:
      JobError: the model, or the preprocessing function, fails on every row of the sample.
    """
    steps = prepared.steps
    blocks, row_bytes, left = [], None, rows
    texts: dict[str, list[str | None]] = {}
    preparation = Preparation(steps.inputs, steps.call.signature.inputs, steps.read.columns, steps.function)
    for block in _first_blocks(prepared):
        if row_bytes is None and block.count and block.origin is not None and isinstance(block.origin.data, pa.Buffer):
            row_bytes = block.origin.data.size / block.count
        block = _first_rows(block, left)
        for name in _unstripped(steps.read, block.rows):
            texts.setdefault(name, []).extend(block.rows[name].to_pylist())
        block = validate(block, steps.read.columns, steps.read.payload)
        try:
            blocks.append(preparation(block))
        except (PreprocessError, EveryRowFails) as error:
            raise JobError([str(error)]) from None
        left -= blocks[-1].rows.num_rows
        if left <= 0 or len(blocks) >= 20:
            break
    if row_bytes is None and blocks and (count := sum(b.count for b in blocks)):
        row_bytes = prepared.files[0].size / max(count, 1)
    try:
        call = dataclasses.replace(steps.call, batch_rows=min(rows, DEFAULT_BATCH_ROWS))
        handler = ServableHandler(call)
        if call.deadline_s is not None:
            handler.warm_up(servable)
        scored = handler.run_inference(blocks, servable)
    except EveryRowFails as error:
        raise JobError([f"the model fails on every row that it was tried on: {error}"]) from None
    refused = [r for b in scored for r in b.rejected.filter(pc.equal(b.rejected["stage"], "infer")).to_pylist()]
    if refused and not steps.call.proven and not any(b.rows.num_rows for b in scored):
        first = refused[0]["message"]
        raise JobError([f"the model fails on all {len(refused)} rows that it was tried on; first: {first}"])
    done = [postprocess(b, steps.outputs) for b in scored]
    predictions = pa.RecordBatch.from_pylist([], steps.outputs.schema) if not done else concat([b.rows for b in done])
    rejected = concat([b.rejected for b in done]) if done else pa.RecordBatch.from_pylist([], REJECTED_SCHEMA)
    filled = [b for b in scored if b.rows.num_rows]
    by_shape = list(groups(filled, steps.call.signature.inputs, steps.call.pads)) if filled else []
    largest = max(by_shape, key=len, default=None)
    feeds = {} if largest is None else largest.feeds(0, len(largest))
    return Trial(predictions, rejected, sum(b.count for b in blocks), row_bytes, feeds, padded_columns(texts))


def _unstripped(read: ReadSettings, rows: pa.RecordBatch) -> list[str]:
    """The columns of text from which spaces are not dropped."""
    columns = read.columns.columns
    names = [n for n in rows.schema.names if pa.types.is_string(rows.schema.field(n).type)]
    return [
        n for n in names if (columns[n].dtype == "string" and not columns[n].strip if n in columns else not read.strip)
    ]


def _first_rows(block: Block, most: int) -> Block:
    """The first rows of a block, and the dead letters up to the last of them."""
    if block.rows.num_rows <= most:
        return block
    rows = block.rows.slice(0, most)
    before = pc.less_equal(block.rejected["row"], rows[ROW][-1])
    return dataclasses.replace(block, rows=rows, rejected=block.rejected.filter(before))


def _first_blocks(prepared: Prepared) -> Iterator[Block]:
    settings = prepared.steps.read
    module = format_module(settings.format)
    for file in prepared.files:
        try:
            for chunk in read_range(module, FileRange(file.path, file.size, version=file.version), settings):
                yield Block(0, "trial", 0, file.path, chunk.rows, chunk.rejected, chunk.origin)
        except (UnusableFile, OSError, Damaged) as error:
            if is_of_the_system(error):
                raise


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


def choose_batch(prepared: Prepared, servable: Servable, trial: Trial, always: bool = False) -> Choice:
    """`batch_rows` and XLA, by the job file, or by a sweep over the trial's rows that times the call
    alone.

    Args:
      always: whether to sweep even where it would cost more than it brings.
    """
    job, call = prepared.job, prepared.steps.call
    fixed = call.fixed_rows
    xla = job.engine.xla
    if not trial.feeds:
        rows = fixed or (job.model.batch_rows if isinstance(job.model.batch_rows, int) else DEFAULT_BATCH_ROWS)
        return Choice(rows, xla == "on", "no rows to time it on")
    if xla == "on" and (why_not := _why_not_compiled(servable, _tile(trial.feeds, fixed or 1024), call.outputs)):
        raise JobError([f"engine.xla is on, and {why_not}: use auto or off"])
    sizes = [fixed] if fixed else [job.model.batch_rows] if isinstance(job.model.batch_rows, int) else list(SIZES)
    ragged = any(t.shape is None or None in t.shape[1:] for t in call.signature.inputs.values())
    if not always:
        if ragged:
            return Choice(sizes[0] if len(sizes) == 1 else DEFAULT_BATCH_ROWS, False, "rows differ in shape: not swept")
        if len(sizes) == 1 and xla != "auto":
            return Choice(sizes[0], xla == "on", "set in the job file")
        seconds = _estimated_seconds(prepared, servable, trial)
        if xla == "auto" and seconds < WORTH_COMPILING_S:
            xla = "off"
        if seconds < WORTH_A_SWEEP_S:
            size = sizes[0] if len(sizes) == 1 else DEFAULT_BATCH_ROWS
            return Choice(size, xla == "on", f"about {seconds:.1f} s of model time: not worth a sweep")
    plain = _time_sizes(servable, trial.feeds, sizes, False)
    if not plain:
        return Choice(sizes[0], False, "too large for memory as it is: it will be halved on the way")
    best = _best(plain)
    if xla == "off" or ragged:
        return Choice(best.batch_rows, False, "the fastest without XLA", plain)
    why_not = _why_not_compiled(servable, _tile(trial.feeds, best.batch_rows), call.outputs)
    if why_not:
        return Choice(best.batch_rows, False, f"XLA is not used: {why_not}", plain)
    compiled = _time_sizes(servable, trial.feeds, _around(best.batch_rows, sizes), True)
    best_compiled = _best(compiled)
    if xla == "on" or best_compiled.rows_per_s > best.rows_per_s * _COMPILED_GAIN:
        gain = best_compiled.rows_per_s / best.rows_per_s
        why = f"XLA is {gain:.2f} times as fast, and agrees"
        return Choice(best_compiled.batch_rows, True, why, [*plain, *compiled])
    return Choice(best.batch_rows, False, "XLA is no faster", [*plain, *compiled])


def _estimated_seconds(prepared: Prepared, servable: Servable, trial: Trial) -> float:
    """Model time of the whole job, from one call and the size of the input."""
    rows = prepared.bytes / trial.row_bytes if trial.row_bytes else 0
    feeds = _tile(trial.feeds, prepared.steps.call.fixed_rows or 1024)
    size = len(next(iter(feeds.values())))
    try:
        servable.call(feeds)
        began = time.perf_counter()
        servable.call(feeds)
    except import_tensorflow().errors.ResourceExhaustedError:
        return 0.0  # the batch will be halved on the way, and the size that fits remembered
    return rows * (time.perf_counter() - began) / size / prepared.job.engine.layout.workers


def _tile(feeds: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {n: np.resize(f, (rows, *f.shape[1:])) for n, f in feeds.items()}


def _time_sizes(
    servable: Servable, feeds: Mapping[str, np.ndarray], sizes: Sequence[int], compiled: bool
) -> list[Timing]:
    """Times each size, interleaved, so that a noisy moment does not fall on one; the best of each."""
    call = servable.call_compiled if compiled else servable.call
    tiled, best = {}, {}
    for size in sizes:
        tiled[size] = _tile(feeds, size)
        try:
            call(tiled[size])  # traces, compiles, warms
            best[size] = _clock(call, tiled[size])
        except import_tensorflow().errors.ResourceExhaustedError:
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


def _clock(call: Any, feeds: Mapping[str, np.ndarray]) -> float:
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
)
"""Ops that raise on some values in TensorFlow, where XLA clamps, drops the check or goes on with what
it has (seen with Assert, and Gather beyond the end): rows would be predicted that are to be refused."""


def _why_not_compiled(servable: Servable, sample: Mapping[str, np.ndarray], outputs: Sequence[str]) -> str | None:
    """Why XLA cannot stand in for TensorFlow's own execution; None where it can."""
    judging = sorted(op for op in servable.ops() if _JUDGING_OPS.fullmatch(op))
    if judging:
        return f"it never raises on a bad row, as {', '.join(judging)} in the model may"
    tensors = [*servable.signature.inputs.values(), *servable.signature.outputs.values()]
    if any(t.dtype == "string" for t in tensors):
        return "it has no strings"
    try:
        compiled = servable.call_compiled(sample)
    except Exception as error:  # what XLA cannot compile it says in many ways
        # The text may hold values of the rows that it was tried on; names of ops do not.
        named = servable.ops() & set(re.findall(r"\w+", str(error)))
        return f"it does not compile the model ({': '.join([type(error).__name__, *sorted(named)[:3]])})"
    plain = servable.call(sample)
    for name in outputs:
        a, b = plain[name], compiled[name]
        if a.shape != b.shape or a.dtype != b.dtype or not np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True):
            return f"output {name!r} differs by more than rtol 1e-5 when compiled"
    return None


def load(prepared: Prepared) -> Servable:
    """The model on this machine, one copy a process."""
    call = prepared.steps.call
    return load_once(call.path, call.signature.name, call.intra_op_threads, call.sha256)
