"""The model on blocks: a `ModelHandler` for Beam's RunInference that no row can fall out of."""

from __future__ import annotations

import dataclasses

import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from transforms.block import Block, Fault, reject_rows
from transforms.halving import Attempts, halve
from transforms.model import Servable, Signature, Tensor, import_tensorflow
from transforms.preprocess import INPUT
from transforms.tensors import list_shapes, output_type, to_arrow, to_numpy

OUTPUT = "output/"
"""Prefix of the columns of `Block.rows` that hold the model's outputs."""

MIN_GROUP_ROWS = 32768
SMALL_PART = 8
"""A compiled model runs on two shapes only: whole batches, and this part of one for what is left."""

_MESSAGE_CHARS = 300

_loaded: weakref.WeakValueDictionary[tuple, Servable] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load_once(path: str, signature: str, intra_op_threads: int | None) -> Servable:
    """The model, loaded once a process for as long as anyone holds it: the launcher, which tries it
    on real rows, and the workers in the same process share one copy."""
    key = (path, signature, intra_op_threads)
    with _loading:
        servable = _loaded.get(key)
        if servable is None:
            servable = _loaded[key] = Servable.load(path, signature, intra_op_threads=intra_op_threads)
        return servable


@dataclasses.dataclass(frozen=True)
class ModelCall:
    """How the model is called; pinned in the plan, so that all workers do the same.

    Attributes:
      path: the local SavedModel folder.
      signature: of it.
      outputs: names of the outputs that are wanted.
      batch_rows: rows a call.
      compiled: whether through XLA.
      pads: input name to the value that fills rows of different lengths.
      intra_op_threads: threads that one op may use; None for TensorFlow's default.
    """

    path: str
    signature: Signature
    outputs: tuple[str, ...]
    batch_rows: int = 8192
    compiled: bool = False
    pads: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    intra_op_threads: int | None = 1

    @property
    def fixed_rows(self) -> int | None:
        """The first dimension that the signature demands; None for an open one."""
        sizes = {t.shape[0] for t in self.signature.inputs.values() if t.shape}
        return next((s for s in sizes if s is not None), None)


class WrongRows(Exception):
    """The model gave back another number of rows than it was given."""


class ServableHandler(ModelHandler[Block, Block, Servable]):
    """Blocks in, blocks with a column `output/NAME` an output out; rows that the model raises on are
    rejected there.

    Not the stock TensorFlow handlers: they load through Keras, which refuses SavedModel folders, and
    `zip` away the rows that a model did not answer (`apache_beam/ml/inference/base.py`, 2.77).
    """

    def __init__(self, call: ModelCall):
        group = max(MIN_GROUP_ROWS, 4 * call.batch_rows)
        # A constant: BatchElements never cuts a block, so it cannot set the batch; exact slices are ours.
        super().__init__(min_batch_size=group, max_batch_size=group, element_size_fn=_weight)
        self.call = call
        self._attempts = Attempts()
        self._limit = call.fixed_rows or call.batch_rows
        self._calls = Metrics.counter("beam_score", "model_calls")
        self._batch_rows = Metrics.distribution("beam_score", "batch_rows")
        self._model_ms = Metrics.distribution("beam_score", "model_ms")
        self._load_ms = Metrics.distribution("beam_score", "load_ms")

    def load_model(self) -> Servable:
        began = time.perf_counter()
        servable = load_once(self.call.path, self.call.signature.name, self.call.intra_op_threads)
        self._warm_up(servable)
        self._load_ms.update(round(1e3 * (time.perf_counter() - began)))
        return servable

    def _warm_up(self, servable: Servable) -> None:
        """Traces and compiles before the first row waits for it, on zeros; that zeros may be refused
        says nothing of the model."""
        tensors = self.call.signature.inputs.values()
        if any(t.shape is None or None in t.shape[1:] for t in tensors):
            return
        rows = [self.call.batch_rows, *([_small(self.call.batch_rows)] if self.call.compiled else [])]
        for count in [self.call.fixed_rows] if self.call.fixed_rows else rows:
            feeds = {t.name: _zeros(t, count) for t in tensors}
            try:
                (servable.call_compiled if self.call.compiled else servable.call)(feeds)
            except import_tensorflow().errors.OpError:
                return

    def run_inference(
        self, batch: Sequence[Block], model: Servable, inference_args: dict[str, Any] | None = None
    ) -> list[Block]:
        """Scores a group of blocks, which may be empty, in slices of `batch_rows`.

        Raises:
          EveryRowFails: nothing gets through the model.
        """
        if not batch:
            return []
        meter = _Meter()
        blocks = self._score(batch, model, meter)
        for rows, seconds in meter.calls:
            self._calls.inc()
            self._batch_rows.update(rows)
            self._model_ms.update(round(1e3 * seconds))
        blocks[0] = blocks[0].with_tally(**meter.tally())
        return blocks

    def get_num_bytes(self, batch: Sequence[Block]) -> int:
        """Arrow's own count: the inherited one pickles every batch."""
        return sum(b.rows.nbytes for b in batch)

    def get_metrics_namespace(self) -> str:
        return "beam_score"

    def _score(self, batch: Sequence[Block], model: Servable, meter: _Meter) -> list[Block]:
        counts = [b.rows.num_rows for b in batch]
        borders = np.cumsum([0, *counts])
        done, outputs, bad = [], {name: [] for name in self.call.outputs}, []
        filled = [b for b in batch if b.rows.num_rows]
        for index, feeds in groups(filled, self.call) if filled else ():
            size = len(next(iter(feeds.values())))
            for begin, end in self._slices(size):
                good, failed = halve(end - begin, self._caller(model, feeds, begin, end, meter), self._attempts)
                bad += [(int(index[begin + row]), error) for row, error in failed]
                for start, stop, columns in good:
                    done.append(index[begin + start : begin + stop])
                    for name, column in columns.items():
                        outputs[name].append(column)
        columns = {}
        for name, parts in outputs.items():
            type_ = output_type(self.call.signature.outputs[name])
            columns[name] = pa.concat_arrays(parts) if parts else pa.nulls(0, type_)
        order = np.concatenate(done) if done else np.array([], np.int64)
        if len(order) > 1 and (np.diff(order) < 0).any():
            back = pa.array(np.argsort(order))
            columns = {name: column.take(back) for name, column in columns.items()}
            order = np.sort(order)
        at = np.searchsorted(order, borders)
        blocks = []
        for number, block in enumerate(batch):
            own = sorted((row, e) for row, e in bad if borders[number] <= row < borders[number + 1])
            faults = [_fault(block, row - int(borders[number]), error) for row, error in own]
            block = reject_rows(block, faults, "infer")
            rows = block.rows
            for name, column in columns.items():
                rows = rows.append_column(OUTPUT + name, column.slice(at[number], at[number + 1] - at[number]))
            blocks.append(dataclasses.replace(block, rows=rows))
        return blocks

    def _slices(self, size: int) -> Iterator[tuple[int, int]]:
        """Exact batches; what is left over in small ones where the model is compiled by shape."""
        at = 0
        while size - at >= self._limit:
            yield at, at + self._limit
            at += self._limit
        step = _small(self._limit) if self.call.compiled and not self.call.fixed_rows else self._limit
        while at < size:
            yield at, min(at + step, size)
            at += step

    def _caller(self, model: Servable, feeds, begin: int, end: int, meter: _Meter) -> Callable:
        def call(start: int, stop: int) -> dict[str, pa.Array]:
            whole = stop - start == end - begin
            return self._call(model, {n: f[begin + start : begin + stop] for n, f in feeds.items()}, whole, meter)

        return call

    def _call(self, model: Servable, feeds: Mapping[str, np.ndarray], whole: bool, meter: _Meter) -> dict[str, pa.Array]:
        """One call. `whole` false: a part of a batch that failed, of a size that is not compiled."""
        rows = len(next(iter(feeds.values())))
        compiled = self.call.compiled and whole
        padded = self.call.fixed_rows or rows
        if compiled and not self.call.fixed_rows:
            padded = self._limit if rows > _small(self._limit) else _small(self._limit)
        if padded != rows:
            feeds = {n: np.concatenate([f, np.repeat(f[-1:], padded - rows, axis=0)]) for n, f in feeds.items()}
        began = time.perf_counter()
        try:
            outputs = (model.call_compiled if compiled else model.call)(feeds)
        except import_tensorflow().errors.ResourceExhaustedError:
            if rows == 1 or self.call.fixed_rows:
                raise
            self._limit = min(self._limit, max(1, rows // 2))
            half = rows // 2
            first = self._call(model, {n: f[:half] for n, f in feeds.items()}, False, meter)
            second = self._call(model, {n: f[half:rows] for n, f in feeds.items()}, False, meter)
            return {n: pa.concat_arrays([first[n], second[n]]) for n in first}
        meter.add(rows, time.perf_counter() - began)
        return {name: self._column(name, outputs[name], padded, rows) for name in self.call.outputs}

    def _column(self, name: str, output: np.ndarray, padded: int, rows: int) -> pa.Array:
        tensor = self.call.signature.outputs[name]
        if not output.ndim or len(output) != padded:
            raise WrongRows(f"output {name!r} has {len(output) if output.ndim else 'no'} rows for {padded} rows given")
        expected = tensor.shape[1:]
        if output.ndim != len(tensor.shape) or any(e not in (None, f) for e, f in zip(expected, output.shape[1:], strict=True)):
            raise WrongRows(f"output {name!r} has shape {list(output.shape)}, declared {tensor.describe()}")
        type_ = output_type(tensor)
        column = to_arrow(output[:rows])
        return column if column.type == type_ else column.cast(type_)


def _weight(block: Block) -> int:
    return max(1, block.rows.num_rows)  # BatchElements' estimator divides by it


def _small(batch_rows: int) -> int:
    return max(1, batch_rows // SMALL_PART)


def _zeros(tensor: Tensor, rows: int) -> np.ndarray:
    shape = (rows, *tensor.shape[1:])
    if tensor.dtype == "string":
        return np.full(shape, b"", object)
    return np.zeros(shape, "float32" if tensor.dtype == "bfloat16" else tensor.dtype)


class _Meter:
    """Rows and seconds of the calls of one group."""

    def __init__(self):
        self.calls: list[tuple[int, float]] = []

    def add(self, rows: int, seconds: float) -> None:
        self.calls.append((rows, seconds))

    def tally(self) -> dict[str, float]:
        return {"model_calls": len(self.calls), "model_s": sum(s for _, s in self.calls)}


def groups(blocks: Sequence[Block], call: ModelCall) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """(positions of rows, dense feeds) of rows that fit in one tensor: all of them, except where
    inner dimensions are open and rows differ in them."""
    columns = {}
    for name in call.signature.inputs:
        parts = [b.rows[INPUT + name] for b in blocks]
        columns[name] = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
    count = sum(b.rows.num_rows for b in blocks)
    every = np.arange(count)
    tails = {name: _fixed_tail(column, call.signature.inputs[name]) for name, column in columns.items()}
    if all(tail is not None for tail in tails.values()):
        yield every, {name: to_numpy(column, tails[name]) for name, column in columns.items()}
        return
    shapes = {n: list_shapes(c) for n, c in columns.items() if tails[n] is None and n not in call.pads}
    keys = np.concatenate([np.zeros((count, 1), np.int64), *shapes.values()], axis=1)
    distinct, which = np.unique(keys, axis=0, return_inverse=True)
    for number in range(len(distinct)):
        index = every[which.reshape(-1) == number]
        feeds = {}
        for name, column in columns.items():
            picked = column.take(pa.array(index))
            if tails[name] is not None:
                feeds[name] = to_numpy(picked, tails[name])
            elif name in call.pads:
                feeds[name] = _padded(picked, call.pads[name])
            else:
                feeds[name] = to_numpy(picked, shapes[name][index[0]])
        yield index, feeds


def _fixed_tail(column: pa.Array, tensor: Tensor) -> tuple[int, ...] | None:
    """The shape of one row, where the signature or the column's type tells it."""
    if tensor.shape is not None and None not in tensor.shape[1:]:
        return tensor.shape[1:]
    tail, type_ = [], column.type
    while pa.types.is_nested(type_):
        if not pa.types.is_fixed_size_list(type_):
            return None
        tail.append(type_.list_size)
        type_ = type_.value_type
    return tuple(tail)


def _padded(column: pa.Array, pad: Any) -> np.ndarray:
    """Lists of one level, filled up to the longest."""
    lengths = list_shapes(column)[:, 0]
    values = to_numpy(column.flatten(), ())
    pad = pad.encode() if isinstance(pad, str) else pad
    out = np.full((len(column), int(lengths.max(initial=0))), pad, values.dtype)
    out[np.arange(out.shape[1]) < lengths[:, None]] = values
    return out


def _fault(block: Block, row: int, error: Exception) -> Fault:
    return Fault(np.array([row]), None, "model_error", f"the model failed on this row: {_without_values(error, block, row)}")


def _without_values(error: Exception, block: Block, row: int) -> str:
    """The op's message with no value of the row in it: TensorFlow's assertions print what they saw."""
    text = str(getattr(error, "message", None) or error)
    for name in block.rows.schema.names:
        for value in _texts(block.rows[name][row].as_py()):
            text = text.replace(value, "...")
    text = re.sub(r"(?<![A-Za-z_])[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)\b", "#", text)
    text = " ".join(text.split())
    return f"{type(error).__name__}: {text[:_MESSAGE_CHARS]}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str | bytes) and value:
        yield value if isinstance(value, str) else value.decode("utf-8", "replace")


class Infer(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: Beam's RunInference with `ServableHandler`."""

    def __init__(self, call: ModelCall):
        super().__init__()
        self.call = call

    def expand(self, blocks):
        # RunInference says Any of what comes out; without the type the coder would be pickle. A
        # resource hint on the handler would cut the chain (see docs/design.md): none here.
        return blocks | RunInference(ServableHandler(self.call)).with_output_types(Block)



