"""The model's outputs in the contract: their settings, their columns in the predictions, and checks against the
signature. All mismatches are reported at once, each with its remedy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from beam_score.transforms.common.arguments import check_mapping, check_type
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.model.signature import MOST_VALUES, SUPPORTED, Signature, Tensor, output_type

if TYPE_CHECKING:  # `inspect` does not wait for Arrow
    import pyarrow as pa

_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Output(Strict):
    """Meaning and format of one model output.

    Attributes:
      meaning: `raw`; `probability` (of the positive class); `probabilities` of classes; or `logits` (softmax, or
        sigmoid of a single one).
      labels: names of the classes, in order; two for a single probability, the negative class first.
      top: number of best classes to write; above 1, class, label and score are lists.
      threshold: of a single probability: class 1 from this value on (0.5 unless set); of several: class
        and label are null if the score is lower.
      finite: whether to reject rows with a value that is not finite.
      as_ (in a job file: `as`): name of the column, instead of the output's name.
      shape: of one row of the predictions. None: the signature's, without trailing fixed dimensions of 1. The
        model may return further trailing dimensions of 1.
      dtype: of a string output: `string` (text, in UTF-8) or `bytes`. None: bytes.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    meaning: Literal["raw", "probability", "probabilities", "logits"] = "raw"
    labels: tuple[str, ...] | None = None
    top: int = pydantic.Field(default=1, ge=1)
    threshold: float | None = pydantic.Field(default=None, ge=0, le=1)
    finite: bool = False
    as_: str | None = pydantic.Field(default=None, validation_alias="as", serialization_alias="as", min_length=1)
    shape: tuple[pydantic.PositiveInt | None, ...] | None = None
    dtype: Literal["string", "bytes"] | None = None

    @pydantic.model_validator(mode="after")
    def _meant(self) -> Output:
        if self.meaning == "raw" and (self.labels or self.top != 1 or self.threshold is not None):
            raise ValueError("labels, top and threshold need a meaning: probability, probabilities or logits")
        if self.meaning == "probability" and self.top != 1:
            raise ValueError("top is for several classes, but the meaning is probability: leave one out")
        return self


def wanted_outputs(outputs: Mapping[str, Output], signature: Signature) -> dict[str, Output]:
    """Return the requested outputs; all outputs of the signature if none is named."""
    return dict(outputs) or {name: Output() for name in signature.outputs}


def as_written(tensor: Tensor, how: Output) -> Tensor:
    """Return an output with the shape of its predictions: as declared in `how`, else without trailing fixed dimensions
    of 1. `[rows, 1]` is one number per row. An undeclared unknown rank remains unknown."""
    if how.shape is not None:
        return dataclasses.replace(tensor, shape=(None, *how.shape))
    shape = tensor.shape
    while shape is not None and len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return dataclasses.replace(tensor, shape=shape)


def signature_as_written(outputs: Mapping[str, Output], signature: Signature) -> Signature:
    """Return the signature with its outputs in the shape of the predictions (see `as_written`).

    Args:
      outputs: see `wanted_outputs`.
    """
    check_mapping("signature_as_written: outputs", outputs, Output, "pass {name of the output: Output(...)}, or {}")
    check_type("signature_as_written: signature", signature, Signature, "pass one of read_signatures(path).values()")
    tensors = {name: as_written(tensor, outputs.get(name, Output())) for name, tensor in signature.outputs.items()}
    return dataclasses.replace(signature, outputs=tensors)


def reshaped(outputs: Mapping[str, Output], signature: Signature) -> list[str]:
    """Return the names of the outputs that are written in another shape than the signature's.

    Args:
      outputs: see `wanted_outputs`.
    """
    return [n for n, how in outputs.items() if as_written(signature.outputs[n], how) != signature.outputs[n]]


def classes(tensor: Tensor) -> int | None:
    """Return the number of classes that an output distinguishes; None if it is not a vector of a known size."""
    tail = tensor.row_shape
    if not tail:
        return 2
    return None if len(tail) != 1 or tail[0] is None else max(2, tail[0])


def output_fields(name: str, tensor: Tensor, how: Output) -> list[pa.Field]:
    """Return the columns of one output in the predictions.

    Args:
      tensor: the output, as written.
    """
    import pyarrow as pa

    column = how.as_ or name
    fields = [pa.field(column, output_type(tensor, text=how.dtype == "string"))]
    if how.meaning == "raw":
        return fields

    def wrap(type_: pa.DataType) -> pa.DataType:
        return pa.list_(type_, how.top) if how.top > 1 else type_

    fields.append(pa.field(f"{column}_class", wrap(pa.int64())))
    if how.labels:
        fields.append(pa.field(f"{column}_label", wrap(pa.string())))
    if how.meaning != "probability":  # the score of a probability is the output itself
        score = output_type(dataclasses.replace(tensor, shape=(None,)))
        fields.append(pa.field(f"{column}_score", wrap(score)))
    return fields


def bind_outputs(outputs: Mapping[str, Output], signature: Signature, taken: Mapping[str, str]) -> list[str]:
    """Return the problems of the requested outputs, a sentence each.

    Args:
      outputs: see `wanted_outputs`.
      signature: the model's.
      taken: names of the other columns of the predictions, with a description of each.
    """
    problems = []
    names = dict(taken)
    rows = next((t.shape[0] for t in signature.inputs.values() if t.shape and t.shape[0]), None)
    for name, how in outputs.items():
        tensor = signature.outputs.get(name)
        if tensor is None:
            near = near_miss(name, signature.outputs)
            listed = ", ".join(f"{n} {t.describe()}" for n, t in signature.outputs.items())
            problems.append(f"outputs.{name}: the model has no such output{near}; it has {listed}")
        elif found := unusable_output(tensor, how, rows):
            problems.append(found)
        else:
            problems += _bind_settings(tensor, how)
            for field in output_fields(name, as_written(tensor, how), how):
                if field.name in names:
                    problems.append(
                        f"outputs.{name}: its column {field.name!r} has the name of {names[field.name]}: "
                        "rename it with as: NAME"
                    )
                names[field.name] = f"a column of output {name!r}"
    return problems


_LEAVE_OUT = "list the outputs you want under outputs, without it"


def unusable_output(tensor: Tensor, how: Output, rows: int | None = None) -> str | None:
    """Return why an output cannot become a column, regardless of its meaning; None if it can.

    Args:
      rows: fixed number of rows of the signature's inputs; None for any number.
    """
    name = tensor.name
    if tensor.kind != "dense":
        return f"output {name!r} is {tensor.kind}: only dense tensors can be written; {_LEAVE_OUT}"
    if tensor.dtype not in SUPPORTED:
        return (
            f"output {name!r} is {tensor.dtype}: only numbers, bool and string can be written; {_LEAVE_OUT}, "
            "or export a signature that casts it"
        )
    if tensor.shape is None:
        if how.shape is None:
            return (
                f"output {name!r} is of unknown rank: set the shape of one row, as in "
                f"outputs: {{{name}: {{shape: []}}}} for a single value; or {_LEAVE_OUT}"
            )
        return None
    if not tensor.shape:
        return f"output {name!r} has no row dimension ({tensor.describe()}): {_LEAVE_OUT}"
    if tensor.shape[0] not in (None, rows):
        return f"output {name!r} always has {tensor.shape[0]} rows ({tensor.describe()}): {_LEAVE_OUT}"
    if math.prod(d for d in tensor.shape[1:] if d) > MOST_VALUES:
        return f"output {name!r} has more than {MOST_VALUES:,} values a row ({tensor.describe()}): {_LEAVE_OUT}"
    if 0 in tensor.row_shape:
        return f"output {name!r} never has a value ({tensor.describe()}): {_LEAVE_OUT}"
    if how.shape is not None and not _may_be(tensor.row_shape, how.shape):
        return (
            f"outputs.{name}: shape {_listed(how.shape)}, but the output is {tensor.describe()}: "
            f"expected {_listed(as_written(tensor, Output()).row_shape)}, or leave shape out"
        )
    return None


def _may_be(tail: tuple[int | None, ...], declared: tuple[int | None, ...]) -> bool:
    """Return whether rows of a signature's shape may have a declared shape, ignoring further dimensions of 1."""
    extra = len(tail) - len(declared)
    wanted = (*declared, *[1] * extra)
    return extra >= 0 and all(known in (None, size) for known, size in zip(tail, wanted, strict=True))


def _listed(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("null" if size is None else str(size) for size in shape) + "]"


def _bind_settings(tensor: Tensor, how: Output) -> Iterator[str]:
    name, written = tensor.name, as_written(tensor, how)
    is_float = tensor.dtype in _FLOATS
    if how.dtype is not None and tensor.dtype != "string":
        yield f"outputs.{name}: dtype is for string outputs, but the output is {tensor.dtype}: leave it out"
    if how.finite and not is_float:
        yield f"outputs.{name}: finite is for floats, but the output is {tensor.dtype}: leave it out"
    if how.meaning == "raw":
        return
    count = classes(written)
    if not is_float or count is None:
        yield (
            f"outputs.{name}: meaning {how.meaning} needs floats of shape [rows] or [rows, classes], "
            f"but the output is {tensor.describe()}"
        )
        return
    single = written.row_shape in ((), (1,))
    if how.meaning == "probability" and not single:
        yield (
            f"outputs.{name}: meaning probability is for a single number per row, but the output is "
            f"{tensor.describe()}: use probabilities"
        )
        return
    if how.labels is not None and len(how.labels) != count:
        yield f"outputs.{name}: {len(how.labels)} labels for {count} classes ({tensor.describe()})"
    if how.top > 1 and how.threshold is not None and single:
        yield (
            f"outputs.{name}: threshold chooses one of the two classes of a single probability, "
            "but top requests both: leave one out"
        )
    if how.top > count:
        yield f"outputs.{name}: top {how.top} of {count} classes"


@dataclasses.dataclass(frozen=True)
class OutputPlan:
    """The columns of the predictions.

    Attributes:
      keep: names and types of the kept input columns.
      position: whether to add `source` and `row`.
      outputs: output name to its settings, in the order of the columns.
      tensors: the signature's outputs, as written (see `transforms.contract.outputs.signature_as_written`).
    """

    keep: tuple[pa.Field, ...]
    position: bool
    outputs: Mapping[str, Output]
    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        import pyarrow as pa

        for field in self.keep:
            check_type("OutputPlan: an item of keep", field, pa.Field, "pass (pa.field('id', pa.string()),)")
        check_mapping("OutputPlan: outputs", self.outputs, Output, "pass {name of the output: Output(...)}")
        check_mapping("OutputPlan: tensors", self.tensors, Tensor, "pass signature.outputs")
        for name in self.outputs:
            if name not in self.tensors:
                near, listed = near_miss(name, self.tensors), ", ".join(self.tensors)
                raise ValueError(f"OutputPlan: the signature has no output {name!r}{near}; it has {listed}")

    @property
    def schema(self) -> pa.Schema:
        """Schema of the predictions: kept columns, position, outputs."""
        import pyarrow as pa

        fields = list(self.keep)
        if self.position:
            fields += [pa.field("source", pa.string()), pa.field("row", pa.int64())]
        for name, how in self.outputs.items():
            fields += output_fields(name, self.tensors[name], how)
        return pa.schema(fields)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy or a dict view cannot be pickled.
        return OutputPlan, (self.keep, self.position, dict(self.outputs), dict(self.tensors))
