"""Numpy arrays as tensors of TensorFlow's C API, and back, without a copy where possible."""

from __future__ import annotations

import itertools
import math
from ctypes import c_int64
from typing import Any

import numpy as np

from beam_score.transforms.arrays.texts import Texts
from beam_score.transforms.model.native import strings
from beam_score.transforms.model.native.library import DEALLOCATOR, Library
from beam_score.transforms.model.signature import DTYPES, Tensor

_STRING, _BFLOAT16 = DTYPES.index("string"), DTYPES.index("bfloat16")
_NAN = 0x7FC0

_fed: dict[int, Any] = {}
"""The memory of the tensors that TensorFlow has not released yet."""

_numbers = itertools.count(1)


def _forget(_data: int, _size: int, number: int) -> None:
    _fed.pop(number, None)


_release = DEALLOCATOR(_forget)


class Feed:
    """An array, or texts, as a tensor: over the same memory if it is contiguous and aligned, else over a copy.

    Attributes:
      tensor: the `TF_Tensor`; the caller deletes it.
    """

    def __init__(self, library: Library, tensor: Tensor, given: np.ndarray | Texts, copies: bool):
        """Raises TypeError if the array has another dtype than the input.

        Args:
          copies: whether to copy the array in any case.
        """
        self._number, code = next(_numbers), DTYPES.index(tensor.dtype)
        owner: object = None
        if code == _STRING:
            memory, owner = strings.encode(given if isinstance(given, Texts) else strings.texts_of(np.asarray(given)))
        else:
            array = np.asarray(given, order="C")
            array = array.copy() if copies else array
            if array.dtype != _FED.get(tensor.dtype, tensor.dtype):
                raise TypeError(f"input {tensor.name!r}: the array is {array.dtype}, expected {tensor.describe()}")
            memory = _to_bfloat16(array) if code == _BFLOAT16 else array
        _fed[self._number] = (memory, owner)
        dims = (c_int64 * len(given.shape))(*given.shape)
        # TensorFlow itself copies what is not aligned.
        self.tensor = library.TF_NewTensor(
            code, dims, len(dims), memory.ctypes.data, memory.nbytes, _release, self._number
        )
        if self.tensor is None:
            raise MemoryError(f"input {tensor.name!r}")

    @property
    def is_shared(self) -> bool:
        """True while TensorFlow uses the memory: after the tensor is deleted, because an output is the input."""
        return self._number in _fed


_FED = {"bfloat16": "float32"}


class _Memory:
    """Owner of a tensor; numpy reads its memory through `__array_interface__`."""

    def __init__(self, library: Library, tensor: int, shape: tuple[int, ...], dtype: str):
        self._delete, self._tensor = library.TF_DeleteTensor, tensor
        # Read-only: it may be a constant of the model.
        data = (library.TF_TensorData(tensor), True)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": np.dtype(dtype).str, "data": data}

    def __del__(self) -> None:
        self._delete(self._tensor)


def to_array(library: Library, tensor: int) -> np.ndarray:
    """Return a tensor as an array that owns the tensor: a read-only view, except for strings (bytes objects) and
    bfloat16 (float32)."""
    dtype = DTYPES[library.TF_TensorType(tensor)]
    shape = tuple(library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor)))
    if 0 in shape:
        library.TF_DeleteTensor(tensor)
        return np.empty(shape, {"bfloat16": "float32", "string": "object"}.get(dtype, dtype))
    if dtype == "string":
        memory = np.asarray(_Memory(library, tensor, (math.prod(shape), strings.SIZE), "uint8"))
        return strings.decode(memory).reshape(shape)
    if dtype == "bfloat16":
        bits = np.asarray(_Memory(library, tensor, shape, "uint16"))
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(_Memory(library, tensor, shape, dtype))


def _to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16, to even if in the middle, as TensorFlow does: uint16."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), (bits >> 16 & 0x8000 | _NAN).astype(np.uint16), rounded)
