"""Contract columns to model inputs: small pure functions over arrays of shape [rows, ...].

To add a step: write a function of an array and its setting, give `Input` a field for the setting,
and name both in `STEPS`, at the place in the order where it belongs.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pydantic

from transforms.block import ROW, Block, Fault, reject_rows
from transforms.contract import Contract, Dtype, Strict
from transforms.halving import Attempts, halve
from transforms.model import Tensor
from transforms.tensors import to_arrow, to_numpy

INPUT = "input/"
"""Prefix of the columns of `Block.rows` that hold the model's inputs."""


class Standardize(Strict):
    """(x - mean) / std, elementwise over the last dimension; one number serves all."""

    mean: tuple[float, ...] | float
    std: tuple[float, ...] | float

    @pydantic.model_validator(mode="after")
    def _positive(self) -> Standardize:
        if not np.all(np.asarray(self.std) > 0):
            raise ValueError("std must be positive")
        return self


class Input(Strict):
    """How one model input is made. At most one of the first four; none: the column of its name.

    Attributes:
      column: the one column that it is.
      pack: columns laid side by side into a vector.
      serialize: columns encoded as one serialized tf.Example a row.
      record: the record itself, as TFRecord holds it.
      standardize, cast, reshape: steps, applied in this order.
      pad: value that fills rows of different lengths up to the longest of a batch.
    """

    column: str | None = None
    pack: tuple[str, ...] | None = None
    serialize: tuple[str, ...] | None = None
    record: bool = False
    standardize: Standardize | None = None
    cast: Dtype | None = None
    reshape: tuple[int, ...] | None = None
    pad: float | int | str | None = None

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Input:
        given = [n for n in ("column", "pack", "serialize", "record") if getattr(self, n)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: an input is made in one way, choose one")
        return self

    def sources(self, name: str) -> tuple[str, ...]:
        """The contract columns that it is made of; none for `record`."""
        if self.record:
            return ()
        return self.pack or self.serialize or (self.column or name,)


def standardize(values: np.ndarray, setting: Standardize) -> np.ndarray:
    """(values - mean) / std, in the values' own float dtype (float32 for integers)."""
    dtype = values.dtype if values.dtype.kind == "f" else np.float32
    out = values.astype(dtype)
    out -= np.asarray(setting.mean, dtype)
    out /= np.asarray(setting.std, dtype)
    return out


def cast(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    """The values as another dtype."""
    return values if dtype in ("string", "bytes") else values.astype(dtype)


def reshape(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """[rows, ...] to [rows, *shape]."""
    return values.reshape(len(values), *shape)


STEPS: Mapping[str, Callable[[np.ndarray, Any], np.ndarray]] = {
    "standardize": standardize,
    "cast": cast,
    "reshape": reshape,
}
"""The steps, in the order in which they are applied."""


def pack(rows: pa.RecordBatch, names: Sequence[str], contract: Contract, dtype: np.dtype) -> np.ndarray:
    """Columns side by side: [rows, values in all of them]."""
    widths = [contract.columns[n].size or 1 if n in contract.columns else 1 for n in names]
    out = np.empty((rows.num_rows, sum(widths)), dtype)
    at = 0
    for name, width in zip(names, widths, strict=True):
        out[:, at : at + width] = to_numpy(rows[name], (width,))
        at += width
    return out


def prepare(rows: pa.RecordBatch, name: str, how: Input, tensor: Tensor, contract: Contract) -> pa.Array:
    """One model input as a column.

    Args:
      name: of the input.
      tensor: what the signature says of it; the column has its dtype.
    """
    if how.record:
        from transforms.serialize import RECORD

        return rows[RECORD]
    if how.serialize:
        from transforms.serialize import serialize

        return serialize(rows, how.serialize)
    steps = [(step, setting) for step in STEPS if (setting := getattr(how, step)) is not None]
    target = np.dtype("float32" if tensor.dtype == "bfloat16" else object if tensor.dtype == "string" else tensor.dtype)
    if how.pack:
        values = pack(rows, how.pack, contract, target if target != object else np.dtype(object))
    else:
        source = how.column or name
        column = contract.columns.get(source)
        if column is not None and None in column.shape:
            return rows[source]  # open dimensions: rows of one length are brought together by the handler
        if not steps and (column is None or column.dtype == tensor.dtype or column.is_text):
            return rows[source]
        values = to_numpy(rows[source], column.shape if column is not None else _tail(rows[source]))
    for step, setting in steps:
        values = STEPS[step](values, setting)
    return to_arrow(values if values.dtype == object else values.astype(target, copy=False))


def _tail(values: pa.Array) -> tuple[int, ...]:
    """The shape of one value of a column of fixed-size lists."""
    shape, type_ = [], values.type
    while pa.types.is_fixed_size_list(type_):
        shape.append(type_.list_size)
        type_ = type_.value_type
    return tuple(shape)


class PreprocessError(Exception):
    """The user's function breaks its promise: it cannot be a row's fault."""


def load_function(name: str) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """The function that `package.module:function` names. Raises PreprocessError."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise PreprocessError(f"preprocess {name!r}: expected package.module:function")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise PreprocessError(f"preprocess {name!r} cannot be imported: {error}; is it installed, or on PYTHONPATH?") from None
    if not callable(found):
        raise PreprocessError(f"preprocess {name!r} is not a function")
    return found


def apply_function(
    block: Block, name: str, function: Callable[[pa.RecordBatch], pa.RecordBatch], attempts: Attempts
) -> Block:
    """The block with the user's function applied to its columns; rows that it raises on rejected.

    Raises PreprocessError where it does not give back a row for a row, and EveryRowFails.
    """
    data = block.rows.drop_columns([ROW])
    if not data.num_rows:
        # Never called without rows; what it adds is not there on a block that has none.
        return block

    def call(start: int, stop: int) -> pa.RecordBatch:
        out = function(data.slice(start, stop - start))
        if not isinstance(out, pa.RecordBatch):
            raise PreprocessError(f"preprocess {name!r} returned {type(out).__name__}, expected a pyarrow.RecordBatch")
        if out.num_rows != stop - start:
            raise PreprocessError(f"preprocess {name!r} was given {stop - start} rows and returned {out.num_rows}: it must return a row for a row")
        return out

    good, bad = halve(data.num_rows, call, attempts, fatal=(PreprocessError,))
    faults = [
        Fault(np.array([row]), None, "preprocess_error", f"{name} raised {type(error).__name__} on this row")
        for row, error in bad
    ]
    block = reject_rows(block, faults, "preprocess")
    if good:
        made = good[0][2] if len(good) == 1 else pa.concat_batches([out for *_, out in good])
        columns = {ROW: block.rows[ROW]} | {n: made[n] for n in made.schema.names}
        block = dataclasses.replace(block, rows=pa.RecordBatch.from_pydict(columns))
    return block


def preprocess(block: Block, inputs: Mapping[str, Input], tensors: Mapping[str, Tensor], contract: Contract) -> Block:
    """The block with a column `input/NAME` for each model input, and the rows rejected whose inputs
    became not finite."""
    rows, faults = block.rows, []
    for name, tensor in tensors.items():
        how = inputs.get(name, Input())
        values = prepare(rows, name, how, tensor, contract) if rows.num_rows else pa.nulls(0, pa.null())
        may_be_endless = any(s in contract.columns and not contract.columns[s].finite for s in how.sources(name))
        if not may_be_endless and (bad := _not_finite(values)).any():
            message = f"input {name!r} is not finite after preprocessing: look at its steps"
            faults.append(Fault(np.flatnonzero(bad), name, "not_finite", message))
        rows = rows.append_column(INPUT + name, values)
    return reject_rows(dataclasses.replace(block, rows=rows), faults, "preprocess")


def _not_finite(values: pa.Array) -> np.ndarray:
    flat = values
    while pa.types.is_nested(flat.type):
        flat = flat.flatten()
    if not pa.types.is_floating(flat.type) or not len(flat):
        return np.zeros(len(values), bool)
    numbers = flat.to_numpy(zero_copy_only=False)
    if np.isfinite(numbers.min()) and np.isfinite(numbers.max()):
        return np.zeros(len(values), bool)
    if len(flat) % len(values):
        bad = [not np.isfinite(np.asarray(v, dtype=object).astype(float)).all() for v in values.to_pylist()]
        return np.array(bad)
    return ~np.isfinite(numbers.reshape(len(values), -1)).all(axis=1)


class Preprocess(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: adds the model's inputs as columns.

    Args:
      inputs: how each is made; one not named is the column of its own name.
      tensors: the signature's inputs.
      contract: of the columns.
      function: `package.module:function` applied first, to a RecordBatch of the columns; or None.
    """

    def __init__(self, inputs, tensors, contract, function: str | None = None):
        super().__init__()
        self._fn = _PreprocessFn(dict(inputs), dict(tensors), contract, function)

    def expand(self, blocks):
        return blocks | beam.ParDo(self._fn).with_output_types(Block)


class _PreprocessFn(beam.DoFn):
    def __init__(self, inputs, tensors, contract, function):
        self.inputs, self.tensors, self.contract, self.function = inputs, tensors, contract, function

    def setup(self):
        self.loaded = load_function(self.function) if self.function else None
        self.attempts = Attempts()

    def process(self, block: Block):
        began = time.perf_counter()
        if self.loaded is not None:
            block = apply_function(block, self.function, self.loaded, self.attempts)
        block = preprocess(block, self.inputs, self.tensors, self.contract)
        yield block.with_tally(preprocess_s=time.perf_counter() - began)
