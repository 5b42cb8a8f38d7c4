"""Reads the signatures of a SavedModel folder, and the TensorFlow version that wrote it, without TensorFlow.

`saved_model.pb` is parsed with a description of only the required fields: this takes milliseconds, while `import
tensorflow` alone takes seconds. TensorFlow's definitions:
`tensorflow/core/protobuf/saved_model.proto` and `meta_graph.proto`.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import message

from beam_score.transforms.common.names import near_miss
from beam_score.transforms.model.proto_fields import message_class
from beam_score.transforms.stores.local_file import LocalFile

if TYPE_CHECKING:  # `inspect` does not wait for them
    import numpy as np
    import pyarrow as pa

DEFAULT_SIGNATURE = "serving_default"
SERVE = "serve"

SUPPORTED = frozenset(
    "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool string".split()  # noqa: SIM905
)
"""Dtypes that a column can feed, and that can be written."""

MOST_VALUES = 2**31 - 1
"""Maximum number of values of a tensor in one row: Arrow counts the values of a list with 32 bits."""


class ModelError(ValueError):
    """A model that cannot be used as requested. The text is for the author of the job file: found, expected, remedy."""


@dataclass(frozen=True)
class Tensor:
    """One input or output of a signature, as declared.

    Attributes:
      name: the key in the signature.
      dtype: as named by numpy (`float32`, `int64`, `bool`), or `bfloat16`, `string`.
      shape: including the first dimension; an open dimension is None; the whole shape is None for unknown rank.
      kind: `dense`, `sparse` (SparseTensor), or the name of another composite (`ragged`).
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    kind: str = "dense"

    @property
    def row_shape(self) -> tuple[int | None, ...]:
        """Shape of one row of a tensor whose rank is known."""
        assert self.shape is not None, f"{self.name} has an unknown rank"
        return self.shape[1:]

    def describe(self) -> str:
        """Return `float32[?, 3]`; `float32[...]` for unknown rank; `float32` for a scalar."""
        if self.shape is None:
            text = f"{self.dtype}[...]"
        elif not self.shape:
            text = self.dtype
        else:
            text = f"{self.dtype}[{', '.join('?' if d is None else str(d) for d in self.shape)}]"
        return text if self.kind == "dense" else f"{self.kind} {text}"


@dataclass(frozen=True)
class Signature:
    """A way to call a model: named inputs, named outputs, both sorted by name."""

    name: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    method_name: str = ""

    def describe(self) -> str:
        """Return `serving_default(x: float32[?, 3]) -> y: float32[?, 1]`."""
        inputs, outputs = (
            ", ".join(f"{t.name}: {t.describe()}" for t in side.values()) for side in (self.inputs, self.outputs)
        )
        return f"{self.name}({inputs}) -> {outputs}"


def read_signatures(path: str | os.PathLike[str]) -> dict[str, Signature]:
    """Return the signatures of a SavedModel folder, by name, sorted, without loading the model.

    Raises:
      ModelError: the file is damaged, or has no graph for serving.
    """
    signatures = {
        name: Signature(name, _tensors(found.inputs), _tensors(found.outputs), found.method_name)
        for name, found in serving_graph(path).signature_def.items()
        if name != "__saved_model_init_op"
    }
    return dict(sorted(signatures.items()))


def choose_signature(signatures: Mapping[str, Signature], name: str | None = None) -> Signature:
    """Return the named signature; without a name, `serving_default`, or the only one.

    Raises:
      ModelError: the signature does not exist, there are none, or the choice is ambiguous.
    """
    listed = ", ".join(signatures)
    if not signatures:
        raise ModelError(
            "the model has no signatures: export it with model.export(path), "
            "or tf.saved_model.save(model, path, signatures=...)"
        )
    if name is not None:
        if name not in signatures:
            raise ModelError(f"the model has no signature {name!r}; it has {listed}{near_miss(name, signatures)}")
        return signatures[name]
    if DEFAULT_SIGNATURE in signatures:
        return signatures[DEFAULT_SIGNATURE]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    raise ModelError(
        f"the model has several signatures, none called {DEFAULT_SIGNATURE}: name one of {listed} as model.signature"
    )


def unsupported(signature: Signature) -> list[str]:
    """Return the problems of a signature's inputs, a sentence each. Outputs only matter if they are requested (see
    `transforms.contract.outputs`)."""
    problems = []
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        if not tensors:
            problems.append(f"signature {signature.name!r} has no {side}s: name another as model.signature")
    for tensor in signature.inputs.values():
        found = None
        if tensor.kind != "dense":
            found = f"is {tensor.kind}"
        elif tensor.dtype not in SUPPORTED:
            found = f"has dtype {tensor.dtype}"
        elif tensor.shape and tensor.shape[0] == 0:
            found = f"takes no rows ({tensor.describe()})"
        elif tensor.shape and math.prod(d for d in tensor.shape if d) > MOST_VALUES:
            found = f"has more than {MOST_VALUES:,} values ({tensor.describe()})"
        if found:
            problems.append(
                f"input {tensor.name!r} of signature {signature.name!r} {found}: not supported; "
                "export a signature whose inputs are dense tensors of numbers, bool or string"
            )
    return problems


def tensorflow_version(path: str | os.PathLike[str]) -> str:
    """Return the TensorFlow version that wrote the model; empty if it is not recorded."""
    return serving_graph(path).meta_info_def.tensorflow_version


def serving_graph(path: str | os.PathLike[str]) -> message.Message:
    """Return the MetaGraph tagged `serve` of a SavedModel folder, with the fields of `_FIELDS`.

    Raises:
      ModelError: the file is damaged, or has no such graph.
    """
    file = Path(path, "saved_model.pb")
    try:
        with LocalFile(str(file)) as stream:
            model = _message_class().FromString(stream.read())
    except message.DecodeError as error:
        raise ModelError(f"{file} is damaged, or not a SavedModel: export or copy the model again") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from error
    tags = [sorted(g.meta_info_def.tags) for g in model.meta_graphs]
    for graph, tagged in zip(model.meta_graphs, tags, strict=True):
        if tagged == [SERVE]:
            return graph
    found = "; ".join("{" + ", ".join(t) + "}" for t in tags) or "no graph at all"
    raise ModelError(f"{file} has no graph tagged {{{SERVE}}}, only {found}: export the model for serving")


DTYPES = tuple(
    "unknown float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 "  # noqa: SIM905
    "qint16 quint16 uint16 complex128 float16 resource variant uint32 uint64 float8_e5m2 float8_e4m3fn".split()
)
"""The names of numpy, by the numbers of `DataType` in `tensorflow/core/framework/types.proto`."""

# RAGGED_TENSOR_SPEC and the rest of TypeSpecProto.TypeSpecClass, tensorflow/core/protobuf/struct.proto.
_KINDS = {1: "sparse", 2: "indexed slices", 3: "ragged"}


def _tensors(infos: Mapping[str, message.Message]) -> dict[str, Tensor]:
    return {name: _tensor(name, infos[name]) for name in sorted(infos)}


def _tensor(name: str, info: message.Message) -> Tensor:
    encoding, declared = info.WhichOneof("kind"), info
    kind = "dense"
    if encoding == "coo_sparse":
        kind = "sparse"
    elif encoding == "composite_tensor":
        kind = _KINDS.get(info.composite_tensor.type_spec.type_spec_class, "composite")
        declared = next(iter(info.composite_tensor.components), info)  # the values: their dtype is the most useful
    shape = None
    if kind in ("dense", "sparse") and not info.tensor_shape.unknown_rank:
        shape = tuple(None if d.size < 0 else d.size for d in info.tensor_shape.dim)
    number = declared.dtype
    return Tensor(name, DTYPES[number] if 0 <= number < len(DTYPES) else f"dtype {number}", shape, kind)


_FIELDS = {
    "SavedModel": [("meta_graphs", 2, "*MetaGraphDef")],
    "MetaGraphDef": [
        ("meta_info_def", 1, "MetaInfoDef"),
        ("graph_def", 2, "bytes"),  # parsed only by `transforms.model.ops`
        ("collection_def", 4, "%CollectionDef"),
        ("signature_def", 5, "%SignatureDef"),
        ("asset_file_def", 6, "*AssetFileDef"),
        ("object_graph_def", 7, "bytes"),
    ],
    "MetaInfoDef": [("stripped_op_list", 2, "bytes"), ("tags", 4, "*string"), ("tensorflow_version", 5, "string")],
    "AssetFileDef": [("filename", 2, "string")],
    "CollectionDef": [("node_list", 1, "NodeList")],
    "NodeList": [("value", 1, "*string")],
    "SignatureDef": [("inputs", 1, "%TensorInfo"), ("outputs", 2, "%TensorInfo"), ("method_name", 3, "string")],
    "TensorInfo": [
        ("name", 1, "|string"),
        ("dtype", 2, "int32"),
        ("tensor_shape", 3, "TensorShapeProto"),
        ("coo_sparse", 4, "|CooSparse"),
        ("composite_tensor", 5, "|CompositeTensor"),
    ],
    "CooSparse": [
        ("values_tensor_name", 1, "string"),
        ("indices_tensor_name", 2, "string"),
        ("dense_shape_tensor_name", 3, "string"),
    ],
    "CompositeTensor": [("type_spec", 1, "TypeSpecProto"), ("components", 2, "*TensorInfo")],
    "TypeSpecProto": [("type_spec_class", 1, "int32")],
    "TensorShapeProto": [("dim", 2, "*Dim"), ("unknown_rank", 3, "bool")],
    "Dim": [("size", 1, "int64")],
}


@functools.cache
def _message_class() -> type[message.Message]:
    return message_class("SavedModel", _FIELDS, "beam_score.saved_model")


@functools.lru_cache(256)  # called with each batch
def output_type(tensor: Tensor, text: bool = False) -> pa.DataType:
    """Return the Arrow type of a model's output: float32 for bfloat16; one level of lists per dimension after the
    first, fixed-size for fixed dimensions.

    Args:
      text: whether string outputs are text (`string`), not bytes (`binary`).
    """
    import pyarrow as pa

    names = {"bfloat16": "float32", "float16": "float16", "string": "string" if text else "binary", "bool": "bool"}
    type_ = pa.type_for_alias(names.get(tensor.dtype, tensor.dtype))
    for size in reversed(tensor.row_shape):
        type_ = pa.list_(type_) if size is None else pa.list_(type_, size)
    return type_


def fixed_bytes(tensor: Tensor) -> int | None:
    """Return the bytes of one row of a tensor; None for text, open dimensions, and tensors that cannot be written."""
    from beam_score.transforms.arrays.nested import fixed

    if tensor.dtype == "string" or tensor.dtype not in SUPPORTED or tensor.kind != "dense":
        return None
    if tensor.shape is None or None in tensor.shape[1:]:
        return None
    return math.prod(fixed(tensor.row_shape)) * numpy_dtype(tensor).itemsize


@functools.lru_cache(256)
def numpy_dtype(tensor: Tensor) -> np.dtype:
    """Return the dtype of the arrays that feed an input: float32 for bfloat16, objects (bytes) for string."""
    import numpy as np

    return np.dtype({"bfloat16": "float32", "string": "object"}.get(tensor.dtype, tensor.dtype))
