"""The contract against a model's signature, before anything runs: all mismatches at once, each with
its remedy. TensorFlow itself does not check shapes at the call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from transforms.contract import Column, Contract
from transforms.model import Signature, Tensor
from transforms.names import near_miss
from transforms.postprocess import Output, classes, output_fields
from transforms.preprocess import Input


def bind_inputs(contract: Contract, inputs: Mapping[str, Input], signature: Signature, free_columns: bool = False) -> list[str]:
    """What keeps the contract's columns from feeding the signature: a sentence each.

    Args:
      free_columns: whether a function of the user's adds columns that nobody knows yet.
    """
    problems = []
    for name in inputs:
        if name not in signature.inputs:
            problems.append(f"inputs.{name}: the model has no such input{near_miss(name, signature.inputs)}; it has {_listed(signature.inputs)}")
    if len({t.shape[0] for t in signature.inputs.values() if t.shape and t.shape[0]}) > 1:
        problems.append(f"signature {signature.name!r} fixes different numbers of rows for its inputs: it cannot be fed batches")
    for name, tensor in signature.inputs.items():
        how = inputs.get(name, Input())
        problems += _bind(name, tensor, how, contract, free_columns)
    fed = {s for n in signature.inputs for s in inputs.get(n, Input()).sources(n)}
    for name, column in contract.columns.items():
        if name in fed and not column.required and column.default is None:
            problems.append(f"columns.{name}: it feeds the model and is required: false, so it needs a default")
    return problems


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{n} {t.describe()}" for n, t in tensors.items())


def _bind(name: str, tensor: Tensor, how: Input, contract: Contract, free: bool) -> Iterator[str]:
    if how.record or how.serialize:
        if tensor.dtype != "string":
            yield f"inputs.{name}: the model takes {tensor.describe()}, and serialized tf.Examples are strings"
        yield from _unknown(name, how.serialize or (), contract, free)
        return
    if tensor.shape == ():
        yield f"input {name!r} has no row dimension ({tensor.describe()}): export a signature that takes batches"
        return
    sources = how.sources(name)
    missing = list(_unknown(name, sources, contract, free))
    if missing:
        yield from missing
        return
    columns = {s: contract.columns[s] for s in sources if s in contract.columns}
    if len(columns) < len(sources):
        return  # what the user's function makes is seen when it runs
    for source, column in columns.items():
        yield from _bind_dtype(name, tensor, how, source, column)
    yield from _bind_shape(name, tensor, how, columns)


def _unknown(name: str, sources: tuple[str, ...], contract: Contract, free: bool) -> Iterator[str]:
    for source in sources:
        if source not in contract.columns and not free:
            if source == name:
                yield (
                    f"input {name!r} is not fed: declare a column {name!r}{near_miss(name, contract.columns)}, or say in "
                    f"inputs.{name} what it is made of (column: or pack:)"
                )
            else:
                yield f"inputs.{name}: column {source!r} is not declared in columns{near_miss(source, contract.columns)}"


def _bind_dtype(name: str, tensor: Tensor, how: Input, source: str, column: Column) -> Iterator[str]:
    found = how.cast or ("float32" if how.standardize and not column.is_float else column.dtype)
    wanted = tensor.dtype
    if wanted == "string":
        if not column.is_text:
            yield f"input {name!r} is string, and column {source!r} is {column.dtype}: declare it as string or bytes"
    elif column.is_text:
        yield f"input {name!r} is {wanted}, and column {source!r} is {column.dtype}: declare it as {wanted}"
    elif how.cast is not None and how.cast != wanted and not _safe(how.cast, wanted):
        yield f"inputs.{name}: cast {how.cast} is not the {wanted} that the model takes: use cast: {wanted}"
    elif how.pack:
        if not _numeric_fits(found, wanted):
            yield f"input {name!r} is {wanted}, and column {source!r} is {found}: declare it as {wanted}, or use cast: {wanted}"
    elif not _safe(found, wanted):
        yield f"input {name!r} is {wanted}, and column {source!r} is {found}: declare it as {wanted}, or use cast: {wanted}"


def _safe(found: str, wanted: str) -> bool:
    return np.can_cast(found, "float32" if wanted == "bfloat16" else wanted, "safe")


def _numeric_fits(found: str, wanted: str) -> bool:
    """Packing into floats takes any number; into integers only integers of no greater width."""
    return wanted.startswith(("float", "bfloat")) or _safe(found, wanted)


def _bind_shape(name: str, tensor: Tensor, how: Input, columns: Mapping[str, Column]) -> Iterator[str]:
    if tensor.shape is None:
        return
    wanted = tensor.shape[1:]
    if how.reshape is not None:
        made = how.reshape
    elif how.pack:
        if any(c.size is None for c in columns.values()):
            yield f"inputs.{name}: a column of open shape cannot be packed"
            return
        made = (sum(c.size for c in columns.values()),)
    else:
        made = next(iter(columns.values())).shape
    sizes = [c.size for c in columns.values()]
    if how.reshape is not None and None not in sizes and sum(sizes) != int(np.prod(how.reshape)):
        yield f"inputs.{name}: reshape {list(how.reshape)} has {int(np.prod(how.reshape))} values, and the columns have {sum(sizes)} a row"
        return
    if None in made and how.pad is None and len(made) == len(wanted):
        if not all(w is None for m, w in zip(made, wanted, strict=True) if m is None):
            yield f"input {name!r} is {tensor.describe()}, and its column has open dimensions {_dims(made)}: give the column that shape"
        return
    if len(made) != len(wanted) or any(w is not None and w != m for m, w in zip(made, wanted, strict=True)):
        text = f"input {name!r} is {tensor.describe()}, and is given rows of shape {_dims(made)}"
        if None not in wanted and int(np.prod(wanted)) == (None if None in sizes else sum(sizes)):
            text += f": use reshape: {list(wanted)}"
        elif how.pack:
            text += f": pack {int(np.prod([w for w in wanted if w]))} values, {', '.join(columns)} give {made[0]}"
        else:
            text += f": declare the column with shape {_dims(wanted)}, or pack columns"
        yield text


def _dims(shape) -> str:
    return "[" + ", ".join("null" if d is None else str(d) for d in shape) + "]"


def bind_outputs(outputs: Mapping[str, Output], signature: Signature, taken: Mapping[str, str]) -> list[str]:
    """What is wrong with the outputs that are asked for: a sentence each.

    Args:
      outputs: see `wanted_outputs`.
      taken: names of columns that the predictions have already, and what each is.
    """
    problems = []
    names = dict(taken)
    for name, how in outputs.items():
        tensor = signature.outputs.get(name)
        if tensor is None:
            problems.append(f"outputs.{name}: the model has no such output{near_miss(name, signature.outputs)}; it has {_listed(signature.outputs)}")
            continue
        if tensor.shape is None:
            problems.append(f"output {name!r} is of unknown rank: export a signature that declares it, or leave it out of outputs")
            continue
        if not tensor.shape:
            problems.append(f"output {name!r} has no row dimension ({tensor.describe()}): list the outputs you want under outputs, without it")
            continue
        problems += _bind_meaning(name, tensor, how)
        for field in output_fields(name, tensor, how):
            if field.name in names:
                problems.append(f"outputs.{name}: its column {field.name!r} meets {names[field.name]}: rename it with as: NAME")
            names[field.name] = f"a column of output {name!r}"
    return problems


def _bind_meaning(name: str, tensor: Tensor, how: Output) -> Iterator[str]:
    is_float = tensor.dtype in ("float16", "bfloat16", "float32", "float64")
    if how.finite and not is_float:
        yield f"outputs.{name}: finite is for floats, and the output is {tensor.dtype}"
    if how.meaning == "raw":
        return
    count = classes(tensor)
    if not is_float or count is None:
        yield f"outputs.{name}: meaning {how.meaning} needs floats of shape [rows] or [rows, classes], and the output is {tensor.describe()}"
        return
    if how.labels is not None and len(how.labels) != count:
        yield f"outputs.{name}: {len(how.labels)} labels for {count} classes ({tensor.describe()})"
    if how.top > count:
        yield f"outputs.{name}: top {how.top} of {count} classes"


def wanted_outputs(outputs: Mapping[str, Output], signature: Signature) -> dict[str, Output]:
    """The outputs asked for; all of the signature's where none is named."""
    return dict(outputs) or {name: Output() for name in signature.outputs}
