"""Checks of the contract against a model's signature at launch. All mismatches are reported at once, each with its
remedy. TensorFlow does not check shapes when a model is called."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import get_args

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.nested import dimensions, fixed
from beam_score.transforms.common.arguments import check_mapping, check_type
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.contract.columns import Column, Contract, Dtype
from beam_score.transforms.contract.inputs import Form, Input, common_dtype, dims
from beam_score.transforms.model.signature import SUPPORTED, Signature, Tensor


def bind_inputs(
    contract: Contract, inputs: Mapping[str, Input], signature: Signature, free_columns: bool = False
) -> list[str]:
    """Return the mismatches between the contract's columns and the signature, a sentence each.

    Args:
      inputs: settings of model inputs; an input that is not named is the column of its name.
      free_columns: whether a user function makes the columns: then they are unknown before it runs, and
        `bind_made` checks them afterwards.
    """
    check_type("bind_inputs: contract", contract, Contract, "pass Contract(columns={name: Column(dtype=...)})")
    check_mapping("bind_inputs: inputs", inputs, Input, "pass {name of the input: Input(...)}, or {}")
    check_type("bind_inputs: signature", signature, Signature, "pass one of read_signatures(path).values()")
    problems = []
    for name in inputs:
        if name not in signature.inputs:
            near = near_miss(name, signature.inputs)
            problems.append(f"inputs.{name}: the model has no such input{near}; it has {_listed(signature.inputs)}")
    if len({t.shape[0] for t in signature.inputs.values() if t.shape and t.shape[0]}) > 1:
        problems.append(
            f"signature {signature.name!r} fixes different numbers of rows for its inputs: it cannot be fed batches"
        )
    for name, tensor in signature.inputs.items():
        if tensor.dtype not in SUPPORTED:
            continue  # `transforms.model.servable.unsupported` reports it
        problems += _bind(name, tensor, inputs.get(name, Input()), None if free_columns else contract)
    fed = {s for n in signature.inputs for s in inputs.get(n, Input()).sources(n)}
    for name, column in contract.columns.items():
        if name in fed and not column.required and column.default is None and not free_columns:
            problems.append(f"columns.{name}: it feeds the model and is required: false, so it needs a default")
    return problems


def bind_made(schema: pa.Schema, inputs: Mapping[str, Input], tensors: Mapping[str, Tensor]) -> list[str]:
    """Do the checks of `bind_inputs` for columns that a user function made, in the types of `plain_types`."""
    used = {s for n in tensors for s in inputs.get(n, Input()).sources(n)}
    problems, columns = [], {}
    for field in schema:
        if field.name in used:
            shape, single = dimensions(field.type)
            if single in _DTYPES:
                columns[field.name] = Column(dtype=_DTYPES[single], shape=shape)
            else:
                problems.append(f"column {field.name!r} is {field.type}: return numbers, bool or text")
    contract, there = Contract(columns=columns), set(schema.names)
    for name, tensor in tensors.items():
        how = inputs.get(name, Input())
        if missing := [s for s in how.sources(name) if s not in there]:
            for source in missing:
                near = near_miss(source, schema.names)
                problems.append(f"it does not return column {source!r}, which input {name!r} is made from{near}")
        elif all(s in columns for s in how.sources(name)):
            problems += [p.replace("declare", "return") for p in _bind(name, tensor, how, contract)]
    return problems


_DTYPES = {Column(dtype=d).scalar_type: d for d in get_args(Dtype)}


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{n} {t.describe()}" for n, t in tensors.items())


def _bind(name: str, tensor: Tensor, how: Input, contract: Contract | None) -> Iterator[str]:
    """Yield the problems of one input. `contract` is None if the columns are unknown."""
    if tensor.shape == ():
        yield f"input {name!r} has no row dimension ({tensor.describe()}): export a signature that takes batches"
        return
    of_examples = tensor.dtype == "string" and (tensor.shape is None or len(tensor.shape) == 1)
    if (how.record or how.serialize) and not of_examples:
        yield f"inputs.{name}: the model takes {tensor.describe()}, but serialized tf.Examples are string[?]"
        return
    if contract is None:
        return
    sources = how.sources(name)
    if missing := [s for s in sources if s not in contract.columns]:
        for source in missing:
            yield _unknown(name, source, contract)
        return
    columns = {s: contract.columns[s] for s in sources}
    if how.serialize:
        for source, column in columns.items():
            if column.dtype == "uint64":
                yield f"inputs.{name}: column {source!r} is uint64, but a tf.Example has int64: declare it as int64"
    elif not how.record:
        problems = list(_bind_text(name, tensor, columns))
        yield from problems or _bind_form(name, tensor, how, columns)


def _unknown(name: str, source: str, contract: Contract) -> str:
    if source == name:
        return (
            f"input {name!r} has no column: declare a column {name!r}{near_miss(name, contract.columns)}, or set in "
            f"inputs.{name} what it is made from (column: or pack:)"
        )
    return f"inputs.{name}: column {source!r} is not declared in columns{near_miss(source, contract.columns)}"


def _bind_text(name: str, tensor: Tensor, columns: Mapping[str, Column]) -> Iterator[str]:
    for source, column in columns.items():
        if (tensor.dtype == "string") != column.is_text:
            wanted = "string or bytes" if tensor.dtype == "string" else _dtype(tensor)
            yield f"input {name!r} is {tensor.dtype}, but column {source!r} is {column.dtype}: declare it as {wanted}"


def _bind_form(name: str, tensor: Tensor, how: Input, columns: Mapping[str, Column]) -> Iterator[str]:
    """Yield the problems of dtype and shape, after the steps."""
    wanted = _dtype(tensor)
    if how.pack:
        sizes = [size for source in how.pack if (size := columns[source].size) is not None]
        if len(sizes) < len(how.pack):
            yield f"inputs.{name}: a column of open shape cannot be packed"
            return
        form = Form(_packed(columns), (sum(sizes),))
    else:
        (column,) = columns.values()
        form = Form(column.dtype, column.shape)
    try:
        for _, step, setting in how.steps:
            form = step.bind(form, setting)
    except ValueError as error:
        yield f"inputs.{name}: {error}"
        return
    # Packing into floats accepts any number by design. The result of a cast must be safe to convert.
    fits = _into_floats if how.pack and how.cast is None else _safe
    cast = "" if wanted in ("bool", "string") else f"use cast: {wanted}"
    if not any(True for _ in how.steps):
        for source, column in columns.items():
            if not fits(column.dtype, wanted):
                remedy = f"declare it as {wanted}" + (cast and f", or {cast}")
                yield f"input {name!r} is {tensor.dtype}, but column {source!r} is {column.dtype}: {remedy}"
    elif not fits(form.dtype, wanted):
        remedy = cast or f"declare the column as {wanted}"
        yield f"inputs.{name}: its steps return {form.dtype}, but the model takes {tensor.dtype}: {remedy}"
    yield from _bind_shape(name, tensor, how, form)
    yield from _bind_pad(name, tensor, how, form)


def _dtype(tensor: Tensor) -> str:
    return "float32" if tensor.dtype == "bfloat16" else tensor.dtype


def _packed(columns: Mapping[str, Column]) -> str:
    if any(c.is_text for c in columns.values()):
        return "string"
    return str(common_dtype([np.dtype(c.dtype) for c in columns.values()]))


def _safe(found: str, wanted: str) -> bool:
    return "string" in (wanted, found) or found == "bytes" or np.can_cast(found, wanted, "safe")


def _into_floats(found: str, wanted: str) -> bool:
    return wanted.startswith("float") or _safe(found, wanted)


def _bind_shape(name: str, tensor: Tensor, how: Input, form: Form) -> Iterator[str]:
    if tensor.shape is None:
        return
    wanted = tensor.shape[1:]
    if len(form.shape) == len(wanted) and all(w in (None, m) for m, w in zip(form.shape, wanted, strict=True)):
        return
    text = f"input {name!r} is {tensor.describe()}, but its rows have shape {dims(form.shape)}"
    if None not in wanted and form.size == math.prod(fixed(wanted)):
        remedy = f"use reshape: {dims(wanted)}"
    elif how.pack and len(wanted) == 1:
        remedy = f"pack {wanted[0]} values, {', '.join(how.pack)} have {form.size}"
    else:
        remedy = f"declare the column with shape {dims(wanted)}, or pack columns"
    yield f"{text}: {remedy}"


def _bind_pad(name: str, tensor: Tensor, how: Input, form: Form) -> Iterator[str]:
    if how.pad is None:
        return
    if None not in form.shape:
        yield (
            f"inputs.{name}: pad is for rows of different lengths, but all rows have shape {dims(form.shape)}: "
            "leave it out, or declare a shape with null"
        )
    elif isinstance(how.pad, str) != (tensor.dtype == "string") or ("int" in tensor.dtype and how.pad != int(how.pad)):
        yield f"inputs.{name}: pad {how.pad!r} is not of dtype {tensor.dtype}"
