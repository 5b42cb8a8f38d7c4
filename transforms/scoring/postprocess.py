"""Conversion of model outputs to prediction columns, as the contract interprets them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.nested import fixed, leaves, not_finite, owners, to_numpy, with_leaves
from beam_score.transforms.arrays.plain import broken_text
from beam_score.transforms.contract.outputs import Output, OutputPlan, output_fields
from beam_score.transforms.model.signature import Tensor, numpy_dtype
from beam_score.transforms.rows.block import OUTPUT, ROW, Block, reject_rows
from beam_score.transforms.rows.faults import Fault
from beam_score.transforms.rows.sources import places

NOT_PROBABILITIES = "not_probabilities."
"""Prefix of a tally, followed by the name of an output: rows with values outside of 0 to 1."""


def scores(values: np.ndarray, how: Output) -> np.ndarray:
    """Return probabilities, [rows, classes], from raw outputs of [rows], [rows, 1] or [rows, classes].

    In float32 at least: float16 loses the small probabilities of many classes.
    """
    values = values.reshape(len(values), math.prod(values.shape[1:]))
    values = values.astype(np.result_type(values.dtype, np.float32), copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        if values.shape[1] == 1:
            if how.meaning == "logits":
                values = 1 / (1 + np.exp(-values))
            return np.concatenate([1 - values, values], axis=1)
        if how.meaning == "logits":
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
    return values


def choose(values: np.ndarray, how: Output) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best classes of each row; of equal ones, the first.

    Args:
      values: raw outputs of [rows], [rows, 1] or [rows, classes].

    Returns:
      classes, int64 [rows, top]; their scores [rows, top], NaN in a row that contains a NaN; whether each class is
        chosen: not if it is below the threshold or NaN.
    """
    single = math.prod(values.shape[1:]) == 1
    probability = scores(values, how)
    threshold = how.threshold or 0
    if single and how.top == 1:
        least = 0.5 if how.threshold is None else how.threshold
        best, threshold = (probability[:, 1:] >= least).astype(np.int64), 0
    elif how.top == 1:
        best = probability.argmax(axis=1)[:, None]
    else:
        best = np.argsort(-probability, axis=1, kind="stable")[:, : how.top]
    if how.top == 1:  # faster than the general way, which counts for few rows
        score = probability.take(best + np.arange(0, probability.size, probability.shape[1])[:, None])
    else:
        score = np.take_along_axis(probability, best, axis=1)
    if (unknown := np.isnan(probability)).any():
        score[unknown.any(axis=1)] = np.nan
    return best, score, score >= threshold  # false for NaN


def interpret(name: str, column: pa.Array, tensor: Tensor, how: Output) -> dict[str, pa.Array]:
    """Return the columns of one output, by name."""
    fields = output_fields(name, tensor, how)
    made = {fields[0].name: with_leaves(column, leaves(column).cast(pa.string())) if how.dtype == "string" else column}
    if how.meaning != "raw":
        best, score, chosen = choose(to_numpy(column, fixed(tensor.row_shape)), how)
        values = [pa.array(best.reshape(-1), mask=~chosen.reshape(-1))]
        if how.labels:
            values.append(pa.array(how.labels, pa.string()).take(values[0]))
        if how.meaning != "probability":
            values.append(pa.array(score.reshape(-1).astype(numpy_dtype(tensor), copy=False)))
        for field, flat in zip(fields[1:], values, strict=True):
            made[field.name] = pa.FixedSizeListArray.from_arrays(flat, how.top) if how.top > 1 else flat
    return made


def postprocess(block: Block, plan: OutputPlan) -> Block:
    """Return the block with `rows` converted to predictions: only the columns of `plan.schema`.

    The tally counts, by output, rows that are not finite, and rows with probabilities outside of 0 to 1.
    """
    faults = [fault for name, how in plan.outputs.items() for fault in _faults(name, block.rows[OUTPUT + name], how)]
    block = reject_rows(block, faults, "postprocess", {n: i for i, n in enumerate(plan.outputs)})
    tally = {}
    for name, how in plan.outputs.items():
        column = block.rows[OUTPUT + name]
        if not how.finite and (bad := not_finite(column)) is not None:
            tally[f"not_finite_outputs.{name}"] = int(bad.sum())
        if how.meaning in ("probability", "probabilities") and (count := _not_probabilities(column)):
            tally[f"{NOT_PROBABILITIES}{name}"] = count
    rows = block.rows
    columns = {f.name: rows[f.name] for f in plan.keep}
    if plan.position:
        columns["source"], numbers = places(block.source, rows[ROW].to_numpy())
        columns["row"] = pa.array(numbers)
    for name, how in plan.outputs.items():
        columns |= interpret(name, rows[OUTPUT + name], plan.tensors[name], how)
    made = pa.RecordBatch.from_pydict({f.name: _as(columns[f.name], f.type) for f in plan.schema}, plan.schema)
    return dataclasses.replace(block, rows=made, origin=None).with_tally(**tally)


def _faults(name: str, column: pa.Array, how: Output) -> Iterator[Fault]:
    """Yield the rows that an output rejects: not finite, or not text, if the contract requires that."""
    if how.finite and (bad := not_finite(column)) is not None:
        message = f"output {name!r} is not finite, and the contract says finite: true"
        yield Fault(np.flatnonzero(bad), name, "not_finite_output", message)
    if how.dtype == "string":
        values = leaves(column)
        try:
            values.cast(pa.string())
        except pa.ArrowInvalid:
            at = np.unique(owners(column)[broken_text(values)])
            message = f"output {name!r} is not valid UTF-8, and the contract says dtype: string; bytes allows any value"
            yield Fault(at, name, "model_error", message)


_ROUNDING = 1e-3
"""A rounded probability may be this far outside of 0 to 1."""


def _not_probabilities(column: pa.Array) -> int:
    """Return the number of rows with a value outside of 0 to 1; NaN is not counted."""
    values = leaves(column).to_numpy()
    if not len(values) or (values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING):
        return 0
    return len(np.unique(owners(column)[(values < -_ROUNDING) | (values > 1 + _ROUNDING)]))


def _as(column: pa.Array, type_: pa.DataType) -> pa.Array:
    return column if column.type == type_ else column.cast(type_)
