"""Conversion of contract columns to model inputs: the user's function first, then `inputs`."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.matrix import matrix
from beam_score.transforms.arrays.nested import dimensions, not_finite, nulls, row_shapes
from beam_score.transforms.arrays.plain import filter_rows
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.inputs import STEPS, Input, make
from beam_score.transforms.model.signature import Tensor
from beam_score.transforms.rows.block import INPUT, Block, reject_rows
from beam_score.transforms.rows.faults import Fault
from beam_score.transforms.rows.redact import raised_at
from beam_score.transforms.scoring.halving import Attempts, halve


class PreprocessError(Exception):
    """The user's function breaks its contract: this cannot be the fault of a row."""


Function = Callable[[pa.RecordBatch], pa.RecordBatch]
"""The user's function: takes the columns of some rows, at least one; returns the columns that `inputs` is made of,
one row for each row. It may be called again with fewer of the same rows."""


def load_function(name: str) -> Function:
    """Return the function that `package.module:function` names: from the current folder, otherwise from an installed
    package.

    Raises PreprocessError.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise PreprocessError(f"preprocess {name!r}: expected package.module:function")
    package = module.partition(".")[0]
    if package in _OURS:
        raise PreprocessError(
            f"preprocess {name!r}: {package!r} is the name of a package of beam-score itself: rename your module"
        )
    try:
        _import_from_here(package)
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # a module may raise anything while it is imported
        raise PreprocessError(
            f"preprocess {name!r} cannot be imported: {type(error).__name__}: {error}; "
            "is it installed, or on PYTHONPATH?"
        ) from None
    if not callable(found):
        raise PreprocessError(f"preprocess {name!r} is not a function")
    return found


_OURS = ("beam_score",)
_IMPORTING = threading.Lock()


def _import_from_here(package: str) -> None:
    """Import a module from the current folder, which comes last on the path, even if one of that name is installed."""
    with _IMPORTING:
        if package in sys.modules:
            return
        spec = importlib.machinery.PathFinder.find_spec(package, [os.getcwd()])
        if spec is None or spec.loader is None:
            return
        sys.modules[package] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(package, None)
            raise


def hash_code(name: str) -> str | None:
    """Return the SHA-256 of the source file of a function's module; None if it has no source file. Modules that it
    imports are not included.

    Raises:
      PreprocessError: as `load_function`.
    """
    load_function(name)
    file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def apply_function(block: Block, name: str, function: Function, attempts: Attempts) -> tuple[Block, pa.RecordBatch]:
    """Apply the user's function to a block's columns.

    Returns:
      the block without the rows that the function raises on; and the result for the other rows, in their order.

    Raises:
      PreprocessError: the function does not return one row for each row.
      EveryRowFails: it raises on every row.
    """
    data = block.rows.select([n for n in block.rows.schema.names if not n.startswith("#")])
    if not data.num_rows:
        return block, data

    def call(start: int, stop: int) -> pa.RecordBatch:
        out = function(data.slice(start, stop - start))
        if not isinstance(out, pa.RecordBatch):
            raise PreprocessError(f"preprocess {name!r} returned {type(out).__name__}, expected a pyarrow.RecordBatch")
        if out.num_rows != stop - start:
            raise PreprocessError(
                f"preprocess {name!r} was given {stop - start} rows and returned {out.num_rows}: "
                "it must return one row for each row"
            )
        return out

    def describe(row: int, error: Exception) -> str:
        # Report the location, not the message: its messages quote values, or values derived from them.
        at = raised_at(error, name.partition(":")[0])
        where = "" if at is None else f" at {at}"
        return f"preprocess {name!r} raised {type(error).__name__} on this row{where}"

    good, bad = halve(data.num_rows, call, attempts, describe, fatal=(PreprocessError,))
    faults = [Fault(np.array([row]), None, "preprocess_error", text) for row, text in bad]
    block = reject_rows(block, faults, "preprocess")
    if not good:
        return block, data.slice(0, 0)
    try:
        return block, pa.concat_batches([made for *_, made in good])
    except pa.ArrowInvalid:
        raise PreprocessError(
            f"preprocess {name!r} returned columns whose names or types differ between rows: "
            "return names and types that do not depend on the values"
        ) from None


def preprocess(
    block: Block,
    inputs: Mapping[str, Input],
    tensors: Mapping[str, Tensor],
    contract: Contract,
    made: pa.RecordBatch | None = None,
) -> Block:
    """Return the block with a column `input/NAME` for each model input; rows that cannot be converted are rejected.

    The block's own columns stay unchanged for the remaining rows.

    Args:
      inputs: how each input is made; an input that is not named is the column of the same name.
      tensors: the signature's inputs; the columns fit them (see `transforms.contract.binding`).
      contract: of the columns.
      made: the result of the user's function; None if there is no function.
    """
    if not block.rows.num_rows:
        return _nothing(block, tensors)
    hows = {name: inputs.get(name, Input()) for name in tensors}
    source = block.rows if made is None else _with_internal(made, block.rows)
    packed = _packed(source, hows)
    unfit = [fault for name, how in hows.items() if name not in packed for fault in _unfit(source, name, how)]
    if unfit:
        source, block = _without(source, unfit), reject_rows(block, unfit, "preprocess")
        packed = _packed(source, hows)

    if not block.rows.num_rows:
        return _nothing(block, tensors)
    rows, faults = block.rows, []
    for name, tensor in tensors.items():
        how = hows[name]
        result = make(source, name, how, tensor, packed.get(name))
        rows = rows.append_column(INPUT + name, result.values)
        for step, wrong in result.misfits:
            reason = STEPS[step].reason if step in STEPS else "out_of_range"
            message = f"input {name!r}: {step} cannot be applied to the value of this row"
            faults.append(Fault(np.flatnonzero(wrong), name, reason, message))
        if all(s not in contract.columns or contract.columns[s].finite for s in how.sources(name)):
            endless = not_finite(result.values)
            if endless is not None:
                message = f"input {name!r} is not finite after preprocessing: check its steps"
                faults.append(Fault(np.flatnonzero(endless), name, "not_finite", message))
    return reject_rows(dataclasses.replace(block, rows=rows), faults, "preprocess")


def _nothing(block: Block, names: Iterable[str]) -> Block:
    """Return a block without rows and inputs of null type: the types that a function would return are not known."""
    rows = block.rows
    for name in names:
        rows = rows.append_column(INPUT + name, pa.nulls(0))
    return dataclasses.replace(block, rows=rows)


def _with_internal(made: pa.RecordBatch, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return a function's result with the columns that are not passed to it (the record itself)."""
    columns = {n: rows[n] for n in rows.schema.names if n.startswith("#")}
    return pa.RecordBatch.from_pydict(columns | {n: made[n] for n in made.schema.names})


def _packed(rows: pa.RecordBatch, hows: Mapping[str, Input]) -> dict[str, np.ndarray]:
    """Return the inputs that pack numbers of one type, without nulls, as arrays [rows, columns]."""
    found = {name: matrix(rows, how.pack) for name, how in hows.items() if how.pack and not how.serialize}
    return {name: array for name, array in found.items() if array is not None}


def _unfit(rows: pa.RecordBatch, name: str, how: Input) -> list[Fault]:
    """Return the rows that cannot become a tensor: rows with nulls, or with inner lists of different lengths."""
    faults = []
    for source in how.sources(name):
        column = rows[source]
        if (wrong := nulls(column)).any():
            message = f"column {source!r} is null after preprocessing, and input {name!r} needs its value"
            faults.append(Fault(np.flatnonzero(wrong), source, "missing_value", message))
        elif None in dimensions(column.type)[0][1:] and how.pad is None and not how.serialize:
            wrong = row_shapes(column)[1]
            message = (
                f"column {source!r} has inner lists of different lengths, and input {name!r} is a tensor: "
                f"set inputs.{name}.pad"
            )
            faults.append(Fault(np.flatnonzero(wrong), source, "wrong_shape", message))
    return faults


def _without(rows: pa.RecordBatch, faults: list[Fault]) -> pa.RecordBatch:
    keep = np.ones(rows.num_rows, bool)
    keep[np.concatenate([f.index for f in faults])] = False
    return filter_rows(rows, keep)


@dataclasses.dataclass
class Preparation:
    """The preprocessing of one worker: it remembers whether the function has ever succeeded.

    Attributes: see `Preprocess`.
    """

    inputs: Mapping[str, Input]
    tensors: Mapping[str, Tensor]
    contract: Contract
    function: str | None = None
    attempts: Attempts = dataclasses.field(default_factory=Attempts)
    _bound: pa.Schema | None = None

    def __call__(self, block: Block) -> Block:
        """See `preprocess`. Raises PreprocessError, EveryRowFails."""
        made = None
        if self.function is not None:
            block, made = apply_function(block, self.function, load_function(self.function), self.attempts)
            made = self._bind(made) if made.num_rows else None
        return preprocess(block, self.inputs, self.tensors, self.contract, made)

    def _bind(self, made: pa.RecordBatch) -> pa.RecordBatch:
        """Return the function's result in plain types, once it is checked to fit the model's inputs."""
        from beam_score.transforms.arrays.plain import plain_types
        from beam_score.transforms.contract.binding import bind_made

        made = plain_types(made)
        if made.schema != self._bound:
            if problems := bind_made(made.schema, self.inputs, self.tensors):
                raise PreprocessError("; ".join(f"preprocess {self.function!r}: {p}" for p in problems))
            self._bound = made.schema
        return made
