"""Texts as tensors of `TF_TString`, 24 bytes each (`tsl/platform/ctstring_internal.h`).

The lowest two bits of a string are its type, and the bits above them its size. SMALL contains up to 22 bytes, from
its second byte on; LARGE and VIEW have a pointer; OFFSET has the distance of its bytes from itself.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.texts import Texts

SIZE = 24
_SMALL, _LARGE, _OFFSET, _VIEW = range(4)
_SMALL_BYTES = 22
_ALIGNMENT = 64
_MOST_BYTES = (1 << 32) - 1
_MOST_LENGTH = (1 << 30) - 1
"""An OFFSET string has 30 bits for its size, and 32 for the distance."""


def texts_of(array: np.ndarray) -> Texts:
    """Return an array of bytes objects as texts in Arrow's memory. Raises TypeError if a value is not bytes."""
    try:
        values = pa.array(array.reshape(-1), pa.large_binary())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TypeError(f"expected bytes for a string input: {type(error).__name__}") from None
    if values.null_count:
        raise TypeError("expected bytes for a string input, found None")
    return Texts(values, array.shape)


def encode(texts: Texts) -> tuple[np.ndarray, object]:
    """Return the memory of a tensor of strings.

    It consists of OFFSET strings with their bytes behind them: an op that keeps such a string copies its bytes, while
    it would keep the pointer of a VIEW. Only tensors that are too large for OFFSET consist of VIEWs.

    Returns:
      uint8 [24 * texts + bytes], aligned; and the owner of the memory that it points to, if any.
    """
    places, data = texts.buffers()
    lengths = np.diff(places)
    count = len(lengths)
    if len(data) + SIZE * count > _MOST_BYTES or (count and lengths.max() > _MOST_LENGTH):
        memory = _aligned(SIZE * count)
        words = memory.view(np.uint64).reshape(count, 3)
        words[:, 0] = lengths << 2 | _VIEW
        words[:, 1] = data.ctypes.data + places[:-1]
        words[:, 2] = 0  # nobody counts its references
        return memory, texts.values
    memory = _aligned(SIZE * count + len(data))
    head = memory[: SIZE * count].view(np.uint32).reshape(count, 6)
    head[:, 0] = lengths << 2 | _OFFSET
    head[:, 1] = SIZE * np.arange(count, 0, -1) + places[:-1]
    head[:, 2:] = 0
    memory[SIZE * count :] = data
    return memory, None


def decode(strings: np.ndarray) -> np.ndarray:
    """Return the bytes objects of some strings.

    Args:
      strings: uint8 [strings, 24]: their own memory, not a copy.
    """
    words = strings.view(np.uint64)
    kinds, heads = strings[:, 0] & 3, words[:, 0]
    small = kinds == _SMALL
    if small.all():
        return _decode_small(strings, strings[:, 0] >> 2)
    own = strings.ctypes.data + SIZE * np.arange(len(strings), dtype=np.uint64)
    sizes = np.select([small, kinds == _OFFSET], [strings[:, 0] >> 2, (heads & 0xFFFFFFFF) >> 2], heads >> 2)
    pointers = np.select(
        [small, kinds == _OFFSET, kinds == _VIEW], [own + 1, own + (heads >> 32), words[:, 1]], words[:, 2]
    )
    texts = np.empty(len(strings), object)
    texts[:] = list(map(ctypes.string_at, pointers.tolist(), sizes.tolist()))
    return texts


def _decode_small(strings: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    chars = strings[:, 1 : 1 + _SMALL_BYTES][np.arange(_SMALL_BYTES) < sizes[:, None]]
    offsets = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    column = pa.Array.from_buffers(pa.large_binary(), len(strings), [None, pa.py_buffer(offsets), pa.py_buffer(chars)])
    return column.to_numpy(zero_copy_only=False)


def _aligned(size: int) -> np.ndarray:
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]
