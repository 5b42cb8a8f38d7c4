"""Model inputs: the columns that an input is made from, and the steps that transform them.

To add a step: write what it does to an array (`apply`) and to dtype and shape (`bind`), add both to `STEPS`
at the right position, and add a field of that name to `Input` for its setting. Everything else (launch checks,
rejected rows, rows of open shape) follows.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic

from beam_score.transforms.arrays.nested import (
    dimensions,
    fixed,
    leaves,
    not_finite,
    owners,
    to_arrow,
    to_numpy,
    with_leaves,
)
from beam_score.transforms.arrays.plain import numpy_type
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.contract.columns import Dtype
from beam_score.transforms.contract.serialize import RECORD, serialize
from beam_score.transforms.model.signature import Tensor, numpy_dtype

TEXT = ("string", "bytes")

_NARROW = 16


class Standardize(Strict):
    """Settings of (x - mean) / std, elementwise over the last dimension; a single number applies to all elements."""

    mean: tuple[float, ...] | float
    std: tuple[float, ...] | float

    @pydantic.model_validator(mode="after")
    def _positive(self) -> Standardize:
        if not np.all(np.isfinite(self.mean)):
            raise ValueError("mean must be finite")
        if not np.all((np.asarray(self.std) > 0) & np.isfinite(self.std)):
            raise ValueError("std must be positive")
        return self


class Input(Strict):
    """Source and steps of one model input. At most one of the first four is set; by default, the column of its name.

    Attributes:
      column: a single column.
      pack: columns to concatenate into a vector.
      serialize: columns to encode as one serialized tf.Example per row.
      record: the original record of a TFRecord file.
      standardize, cast, reshape: steps, applied in this order; see `STEPS`.
      pad: value to pad rows of different lengths with, up to the longest of a batch.
    """

    column: str | None = None
    pack: tuple[str, ...] | None = pydantic.Field(default=None, min_length=1)
    serialize: tuple[str, ...] | None = pydantic.Field(default=None, min_length=1)
    record: bool = False
    standardize: Standardize | None = None
    cast: Dtype | None = None
    reshape: tuple[pydantic.PositiveInt, ...] | None = None
    pad: float | int | str | None = None

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Input:
        given = [n for n in ("column", "pack", "serialize", "record") if getattr(self, n)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: an input has only one source, choose one")
        idle = [n for n in (*STEPS, "pad") if getattr(self, n) is not None]
        if (self.record or self.serialize) and idle:
            raise ValueError(f"{' and '.join(idle)}: serialized tf.Examples are passed unchanged, leave it out")
        return self

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the columns that the input is made from; none for `record`.

        Args:
          name: of the input.
        """
        if self.record:
            return ()
        return self.pack or self.serialize or (self.column or name,)

    @property
    def steps(self) -> Iterator[tuple[str, Step, Any]]:
        """Yield (name, step, setting) of the steps that are set, in order."""
        for name, step in STEPS.items():
            if (setting := getattr(self, name)) is not None:
                yield name, step, setting


@dataclasses.dataclass(frozen=True)
class Form:
    """The form of rows of values: a dtype of the contract, and the shape of one row, None for a
    dimension in which rows differ."""

    dtype: str
    shape: tuple[int | None, ...]

    @property
    def size(self) -> int | None:
        """Number of values per row; None if rows differ."""
        return None if None in self.shape else math.prod(fixed(self.shape))

    def describe(self) -> str:
        """Return `float32[3]`; `float32` for a scalar."""
        return self.dtype + (dims(self.shape) if self.shape else "")


def dims(shape: Sequence[int | None]) -> str:
    """Return `[null, 3]`, the notation of a job file."""
    return "[" + ", ".join("null" if d is None else str(d) for d in shape) + "]"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step in the transformation of columns to an input.

    Attributes:
      apply: (values [rows, ...], setting) to values [rows, ...]. May work in place if the array is
        writeable. For rows of open shape, the argument has all their single values as [n], or as
        [n, last] if the last dimension is fixed.
      bind: (form, setting) to the form of the result of `apply`. Raises ValueError, with a remedy,
        if the step cannot be applied.
      misfits: (values, setting) to a mask of the values that the step cannot process; None if it
        can process all.
      reason: code of `transforms.rows.faults.REASONS` for a row with a misfit.
    """

    apply: Callable[[np.ndarray, Any], np.ndarray]
    bind: Callable[[Form, Any], Form]
    misfits: Callable[[np.ndarray, Any], np.ndarray] | None = None
    reason: str = "preprocess_error"


def standardize(values: np.ndarray, setting: Standardize) -> np.ndarray:
    """Return (values - mean) / std: floats in their own dtype, float32 for integers. The mean of wide integers is
    subtracted in float64, since float32 would lose the last digits of a timestamp."""
    dtype = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
    work = np.result_type(values.dtype, np.float32)
    out = values if values.flags.writeable and values.dtype == dtype else np.empty(values.shape, dtype)
    is_single = not isinstance(setting.mean, tuple) and not isinstance(setting.std, tuple)
    if is_single or values.shape[-1] > _NARROW:
        shifted = values.astype(work, copy=False) - np.asarray(setting.mean, work)
        out[...] = shifted / np.asarray(setting.std, work)
        return out
    # A column at a time: otherwise, numpy's inner loop would only run over the few values of one row.
    for i, (mean, std) in enumerate(_of_each_column(setting, values.shape[-1], work)):
        column = np.subtract(values[..., i], mean, dtype=work)
        column /= std
        out[..., i] = column
    return out


@functools.lru_cache(64)
def _of_each_column(setting: Standardize, columns: int, dtype: np.dtype) -> list[tuple[np.generic, np.generic]]:
    """Return mean and std of each column."""
    mean, std = (np.broadcast_to(np.asarray(a, dtype), columns) for a in (setting.mean, setting.std))
    return list(zip(mean, std, strict=True))


def _bind_standardize(form: Form, setting: Standardize) -> Form:
    if form.dtype in (*TEXT, "bool"):
        raise ValueError(f"standardize is for numbers, found {form.describe()}: leave it out")
    for name, value in (("mean", setting.mean), ("std", setting.std)):
        if isinstance(value, tuple) and (not form.shape or form.shape[-1] != len(value)):
            raise ValueError(
                f"standardize: {name} has {len(value)} values, but the rows are {form.describe()}: "
                "give one number, or one for each value of the last dimension"
            )
    return form if form.dtype.startswith("float") else Form("float32", form.shape)


def cast(values: np.ndarray, dtype: Dtype | np.dtype) -> np.ndarray:
    """Convert the values to another dtype: to the nearest float, or to an integer of the same value."""
    return values if values.dtype == object else values.astype(dtype, copy=False)


def _bind_cast(form: Form, dtype: Dtype) -> Form:
    if (form.dtype in TEXT) != (dtype in TEXT):
        raise ValueError(
            f"cast: {dtype} of {form.describe()}: numbers and text cannot be converted to each other, "
            f"declare the column as {dtype}"
        )
    if dtype == "bool" and form.dtype != "bool":
        raise ValueError(f"cast: bool of {form.describe()}: declare the column as bool")
    return Form(dtype, form.shape)


def _miscast(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Return which values cannot be represented in an integer dtype: fractions, too large, not a number."""
    if "int" not in dtype or np.can_cast(values.dtype, dtype):
        return np.zeros(values.shape, bool)
    info = np.iinfo(dtype)
    if values.dtype.kind == "f":
        # Powers of two as limits, which floats represent exactly: float(info.max) would round up by one.
        return ~((values == np.floor(values)) & (values >= float(info.min)) & (values < float(info.max + 1)))
    return (values < info.min) | (values > info.max)


def reshape(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Reshape [rows, ...] to [rows, *shape]."""
    return values.reshape(len(values), *shape)


def _bind_reshape(form: Form, shape: Sequence[int]) -> Form:
    if form.size is None:
        raise ValueError(f"reshape: rows of open shape {dims(form.shape)} cannot be reshaped")
    if math.prod(shape) != form.size:
        raise ValueError(
            f"reshape {dims(shape)} has {math.prod(shape)} values, but the columns have {form.size} per row"
        )
    return Form(form.dtype, tuple(shape))


STEPS: Mapping[str, Step] = {
    "standardize": Step(standardize, _bind_standardize),
    "cast": Step(cast, _bind_cast, _miscast, "out_of_range"),
    "reshape": Step(reshape, _bind_reshape),
}
"""The steps by the name of their setting, in the order in which they are applied."""


def pack(columns: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Concatenate columns, [rows, ...] each: [rows, values of all columns]. One alone is copied only for its dtype."""
    sizes = [math.prod(column.shape[1:]) for column in columns]
    if len(columns) == 1:
        return columns[0].reshape(len(columns[0]), *sizes).astype(dtype, copy=False)
    out = np.empty((len(columns[0]), sum(sizes)), dtype)
    at = 0
    for column, size in zip(columns, sizes, strict=True):
        out[:, at : at + size] = column.reshape(-1, size)
        at += size
    return out


def common_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """Return the dtype that can represent the values of all dtypes: objects for text."""
    return np.dtype(object) if any(d.hasobject for d in dtypes) else np.result_type(*dtypes)


@dataclasses.dataclass(frozen=True)
class Made:
    """One input, made from columns.

    Attributes:
      values: the input as a column, in the dtype of the model.
      misfits: (step, rows) with the rows, bool [rows], that a step could not process.
    """

    values: pa.Array
    misfits: Sequence[tuple[str, np.ndarray]] = ()


def make(rows: pa.RecordBatch, name: str, how: Input, tensor: Tensor, packed: np.ndarray | None = None) -> Made:
    """Make one model input.

    Args:
      rows: columns that have passed `transforms.contract.binding`, without nulls.
      name: of the input.
      tensor: the input in the signature.
      packed: its columns side by side, if they are known as one array, which may be overwritten.
    """
    if how.record:
        return Made(rows[RECORD])
    if packed is not None:
        values, wrong = make_array([packed], how, numpy_dtype(tensor))
        return Made(to_arrow(values), [(step, np.any(mask.reshape(len(packed), -1), axis=1)) for step, mask in wrong])
    names = how.sources(name)
    columns = [rows[n] for n in names]
    if how.serialize:
        too_large = [w for c in columns if (w := _overflows(c)) is not None]
        return Made(serialize(columns, names), [("serialize", w) for w in too_large])
    dtype = numpy_dtype(tensor)
    shape, single = dimensions(columns[0].type)
    if not how.pack and next(how.steps, None) is None and _numpy(single) == dtype:
        return Made(columns[0])
    is_open = not how.pack and None in shape
    if is_open:  # steps get the single values, with the last dimension if it is fixed
        arrays = [to_numpy(leaves(columns[0]), ()).reshape(-1, *[d for d in shape[-1:] if d is not None])]
    else:
        arrays = [to_numpy(column, fixed(dimensions(column.type)[0])) for column in columns]
    values, wrong = make_array(arrays, how, dtype)
    misfits = [(step, _rows_of(mask, columns[0], is_open)) for step, mask in wrong]
    if is_open:
        return Made(with_leaves(columns[0], to_arrow(values.reshape(-1))), misfits)
    return Made(to_arrow(values), misfits)


@np.errstate(all="ignore")  # overflows are detected, and their rows rejected
def make_array(
    columns: Sequence[np.ndarray], how: Input, dtype: np.dtype
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Make one model input of arrays [rows, ...].

    Args:
      columns: its sources; a writeable one may be overwritten.
      dtype: of the model.

    Returns:
      the input; and (step, mask of the values) for each step that cannot process some of them.
    """
    steps = list(how.steps)
    # Directly into the dtype of the model, unless a step needs the values at full precision.
    values = pack(columns, common_dtype([c.dtype for c in columns]) if steps else dtype) if how.pack else columns[0]
    misfits = []
    for name, step, setting in steps:
        if step.misfits is not None and (wrong := step.misfits(values, setting)).any():
            misfits.append((name, wrong))
        values = step.apply(values, setting)
    return cast(values, dtype), misfits


def _rows_of(wrong: np.ndarray, column: pa.Array, open_shape: bool) -> np.ndarray:
    if not open_shape:
        return np.any(wrong.reshape(len(column), -1), axis=1)
    rows = np.zeros(len(column), bool)
    rows[owners(column)[wrong.reshape(-1)]] = True
    return rows


def _overflows(column: pa.Array) -> np.ndarray | None:
    """Return which float64 rows overflow float32, the only float type of a tf.Example; None if none does."""
    values = leaves(column)
    if not pa.types.is_float64(values.type):
        return None
    after, before = not_finite(with_leaves(column, values.cast(pa.float32()))), not_finite(column)
    return after if before is None or after is None else after & ~before


def _numpy(type_: pa.DataType) -> np.dtype:
    text = pa.types.is_string(type_) or pa.types.is_binary(type_)
    return np.dtype(object) if text else numpy_type(type_)
