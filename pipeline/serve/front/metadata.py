"""The description of a model, as TensorFlow Serving gives it: its versions and their states, its signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_score.pipeline.serve.tensors.v2.raw import DATATYPES
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.contract.outputs import OutputPlan
from beam_score.transforms.model.signature import Signature, Tensor

PREDICT = "tensorflow/serving/predict"


def status(version: int, state: str = "AVAILABLE", code: str = "OK", message: str = "") -> dict[str, Any]:
    """Return the status of a version, as an element of `model_version_status`."""
    return {"version": str(version), "state": state, "status": {"error_code": code, "error_message": message}}


def metadata(name: str, version: int, signatures: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of GET .../metadata: a GetModelMetadataResponse as JSON, with integers of 64 bits as text.

    Args:
      signatures: the one that is meant if a request names none comes first.
    """
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": dict(signatures)}},
    }


def v2_metadata(name: str, version: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of the Open Inference Protocol, from those of TensorFlow Serving: of the signature that
    is meant if a request names none."""
    signature = next(iter(metadata["metadata"]["signature_def"]["signature_def"].values()))
    sides = {
        side: [
            {
                "name": name,
                "datatype": _DATATYPES.get(info["dtype"], info["dtype"]),
                "shape": [int(dim["size"]) for dim in info["tensor_shape"]["dim"]],
            }
            for name, info in signature[side].items()
        ]
        for side in ("inputs", "outputs")
    }
    return {"name": name, "versions": [str(version)], "platform": "tensorflow_savedmodel", **sides}


def of_signature(signature: Signature) -> dict[str, Any]:
    """Return a signature as a SignatureDef."""
    return {
        "inputs": {name: _info(tensor) for name, tensor in signature.inputs.items()},
        "outputs": {name: _info(tensor) for name, tensor in signature.outputs.items()},
        "method_name": signature.method_name,
        "defaults": {},
    }


def of_contract(columns: Mapping[str, Column], outputs: OutputPlan) -> dict[str, Any]:
    """Return the contract as a SignatureDef: columns in, predictions out."""
    inputs = {}
    for name, column in columns.items():
        dtype = "string" if column.dtype == "bytes" else column.dtype
        inputs[name] = _info(Tensor(name, dtype, (None, *column.shape)))
    made = {field.name: _info(_tensor(field.name, field.type)) for field in outputs.schema}
    return {"inputs": inputs, "outputs": made, "method_name": PREDICT, "defaults": {}}


def _tensor(name: str, type_: Any) -> Tensor:
    from beam_score.transforms.arrays.nested import dimensions

    shape, value = dimensions(type_)
    names = {"float": "float32", "double": "float64", "halffloat": "float16", "binary": "string"}
    return Tensor(name, names.get(str(value), str(value)), (None, *shape))


def _info(tensor: Tensor) -> dict[str, Any]:
    sizes = [{"size": "-1" if size is None else str(size), "name": ""} for size in tensor.shape or ()]
    shape = {"dim": sizes, "unknown_rank": tensor.shape is None}
    return {"dtype": _name_of(tensor.dtype), "tensor_shape": shape, "name": tensor.name}


def _name_of(dtype: str) -> str:
    return _DTYPES.get(dtype, "DT_" + dtype.upper())


_DTYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "float16": "DT_HALF"}
_DATATYPES = {_name_of(dtype): datatype for dtype, datatype in DATATYPES.items()}
_DATATYPES["DT_BFLOAT16"] = "FP32"  # as which it is taken and given
