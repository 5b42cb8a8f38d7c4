"""Model outputs to the columns of the predictions, by what the contract says they mean."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pydantic

from transforms.block import ROW, Block, Fault, reject_rows
from transforms.contract import Strict
from transforms.infer import OUTPUT
from transforms.model import Tensor
from transforms.sources import places
from transforms.tensors import not_finite, numpy_dtype, output_type, to_numpy


class Output(Strict):
    """What one model output means.

    Attributes:
      meaning: `raw`, `probabilities`, or `logits` (softmax, or sigmoid of a single one).
      labels: names of the classes, in order; two for a single probability.
      top: how many of the best classes to give; above 1, class, label and score are lists.
      threshold: of a single probability: class 1 from there on (0.5 unless set); of several: class
        and label are null where the score is below.
      finite: whether a value that is not finite costs the row.
      as_ (in a job file: `as`): the column's name, instead of the output's own.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    meaning: Literal["raw", "probabilities", "logits"] = "raw"
    labels: tuple[str, ...] | None = None
    top: int = pydantic.Field(1, ge=1)
    threshold: float | None = pydantic.Field(None, ge=0, le=1)
    finite: bool = False
    as_: str | None = pydantic.Field(None, alias="as", min_length=1)

    @pydantic.model_validator(mode="after")
    def _meant(self) -> Output:
        if self.meaning == "raw" and (self.labels or self.top != 1 or self.threshold is not None):
            raise ValueError("labels, top and threshold need a meaning: probabilities or logits")
        return self


def classes(tensor: Tensor) -> int | None:
    """How many classes an output tells apart; None where it is no vector of a known size."""
    tail = tensor.shape[1:]
    if not tail:
        return 2
    return None if len(tail) != 1 or tail[0] is None else max(2, tail[0])


def output_fields(name: str, tensor: Tensor, how: Output) -> list[pa.Field]:
    """The columns that one output gives."""
    column = how.as_ or name
    fields = [pa.field(column, output_type(tensor))]
    if how.meaning != "raw":
        wrap = (lambda t: pa.list_(t, how.top)) if how.top > 1 else (lambda t: t)
        fields.append(pa.field(f"{column}_class", wrap(pa.int64())))
        if how.labels:
            fields.append(pa.field(f"{column}_label", wrap(pa.string())))
        score = output_type(dataclasses.replace(tensor, shape=(None,)))
        fields.append(pa.field(f"{column}_score", wrap(score)))
    return fields


def scores(values: np.ndarray, how: Output) -> np.ndarray:
    """Probabilities, [rows, classes], from raw outputs of [rows], [rows, 1] or [rows, classes].

    In float32 at least: float16 loses the small ones of many classes.
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
    """The best classes of each row; of equal ones, the first.

    Args:
      values: raw outputs of [rows], [rows, 1] or [rows, classes].

    Returns:
      classes, int64 [rows, top]; their scores [rows, top], NaN in a row that holds a NaN; whether each
      is chosen, which it is not below the threshold, nor where it is NaN.
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
    score = np.take_along_axis(probability, best, axis=1)
    score[np.isnan(probability).any(axis=1)] = np.nan
    return best, score, score >= threshold  # false for NaN


def interpret(name: str, column: pa.Array, tensor: Tensor, how: Output) -> dict[str, pa.Array]:
    """The columns of one output, by name."""
    fields = output_fields(name, tensor, how)
    made = {fields[0].name: column}
    if how.meaning != "raw":
        best, score, chosen = choose(to_numpy(column, tensor.shape[1:]), how)
        values = [pa.array(best.reshape(-1), mask=~chosen.reshape(-1))]
        if how.labels:
            values.append(pa.array(how.labels, pa.string()).take(values[0]))
        values.append(pa.array(score.reshape(-1).astype(numpy_dtype(tensor), copy=False)))
        for field, flat in zip(fields[1:], values, strict=True):
            made[field.name] = pa.FixedSizeListArray.from_arrays(flat, how.top) if how.top > 1 else flat
    return made


@dataclasses.dataclass(frozen=True)
class OutputPlan:
    """What a prediction is made of.

    Attributes:
      keep: names and types of the input columns carried along.
      position: whether `source` and `row` come too.
      outputs: output name to what it means, in the order of the columns.
      tensors: the signature's outputs.
    """

    keep: tuple[pa.Field, ...]
    position: bool
    outputs: Mapping[str, Output]
    tensors: Mapping[str, Tensor]

    @property
    def schema(self) -> pa.Schema:
        """Of the predictions: kept columns, position, outputs."""
        fields = list(self.keep)
        if self.position:
            fields += [pa.field("source", pa.string()), pa.field("row", pa.int64())]
        for name, how in self.outputs.items():
            fields += output_fields(name, self.tensors[name], how)
        return pa.schema(fields)

    def __reduce__(self):
        # Arrow fields pickle; a mapping proxy or a dict view would not.
        return OutputPlan, (self.keep, self.position, dict(self.outputs), dict(self.tensors))


def postprocess(block: Block, plan: OutputPlan) -> Block:
    """The block with `rows` made into predictions: the columns of `plan.schema`, nothing else."""
    faults = []
    for name, how in plan.outputs.items():
        if how.finite and (bad := not_finite(block.rows[OUTPUT + name])) is not None:
            message = f"output {name!r} is not finite, and the contract says finite: true"
            faults.append(Fault(np.flatnonzero(bad), name, "not_finite_output", message))
    block = reject_rows(block, faults, "postprocess", {n: i for i, n in enumerate(plan.outputs)})
    tally = {}
    for name, how in plan.outputs.items():
        if not how.finite and (bad := not_finite(block.rows[OUTPUT + name])) is not None:
            tally[f"not_finite_outputs.{name}"] = int(bad.sum())
    rows = block.rows
    columns = {f.name: rows[f.name] for f in plan.keep}
    if plan.position:
        columns["source"], numbers = places(block.source, rows[ROW].to_numpy())
        columns["row"] = pa.array(numbers)
    for name, how in plan.outputs.items():
        columns |= interpret(name, rows[OUTPUT + name], plan.tensors[name], how)
    made = pa.RecordBatch.from_pydict({f.name: _as(columns[f.name], f.type) for f in plan.schema}, plan.schema)
    return dataclasses.replace(block, rows=made, origin=None).with_tally(**tally)


def _as(column: pa.Array, type_: pa.DataType) -> pa.Array:
    return column if column.type == type_ else column.cast(type_)


class Postprocess(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: rows become predictions, as they will be written."""

    def __init__(self, plan: OutputPlan):
        super().__init__()
        self.plan = plan

    def expand(self, blocks):
        return blocks | beam.Map(_timed, self.plan).with_output_types(Block)


def _timed(block: Block, plan: OutputPlan) -> Block:
    began = time.perf_counter()
    block = postprocess(block, plan)
    return block.with_tally(postprocess_s=time.perf_counter() - began)
