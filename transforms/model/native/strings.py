"""Texts as tensors of `TF_TString`, 24 bytes each (`tsl/platform/ctstring_internal.h`).

The lowest two bits of a string are its type, and the bits above them its size. SMALL contains up to 22 bytes, from
its second byte on; LARGE and VIEW have a pointer; OFFSET has the distance of its bytes from itself.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pyarrow as pa

SIZE = 24
_SMALL, _LARGE, _OFFSET, _VIEW = range(4)
_SMALL_BYTES = 22
_ALIGNMENT = 64
_MOST_BYTES = (1 << 32) - 1
_MOST_LENGTH = (1 << 30) - 1
"""An OFFSET string has 30 bits for its size, and 32 for the distance."""


def encode(texts: np.ndarray) -> tuple[np.ndarray, object]:
    """Return the memory of a tensor of strings.

    OFFSET strings, with their bytes behind them: an op that keeps a string copies its bytes, while it would keep the
    pointer of a VIEW. Only tensors too large for it are made of VIEWs.

    Args:
      texts: array of bytes objects.

    Returns:
      uint8 [24 * size, ...], aligned; and the owner of memory that it points to, if any.

    Raises:
      TypeError: a value is not bytes.
    """
    try:
        column = pa.array(texts.reshape(-1), pa.large_binary())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TypeError(f"expected bytes for a string input: {type(error).__name__}") from None
    if column.null_count:
        raise TypeError("expected bytes for a string input, found None")
    count, (_, offsets, data) = len(column), column.buffers()
    starts = np.frombuffer(offsets, np.int64, count + 1, 8 * column.offset) if count else np.zeros(1, np.int64)
    lengths, total = np.diff(starts), int(starts[-1] - starts[0])
    given = np.frombuffer(data, np.uint8, total, int(starts[0])) if total else np.zeros(0, np.uint8)
    if total + SIZE * count > _MOST_BYTES or (count and lengths.max() > _MOST_LENGTH):
        memory = _aligned(SIZE * count)
        words = memory.view(np.uint64).reshape(count, 3)
        words[:, 0] = lengths << 2 | _VIEW
        words[:, 1] = given.ctypes.data + (starts[:-1] - starts[0])
        words[:, 2] = 0  # nobody counts its references
        return memory, given
    memory = _aligned(SIZE * count + total)
    head = memory[: SIZE * count].view(np.uint32).reshape(count, 6)
    head[:, 0] = lengths << 2 | _OFFSET
    head[:, 1] = SIZE * np.arange(count, 0, -1) + (starts[:-1] - starts[0])
    head[:, 2:] = 0
    memory[SIZE * count :] = given
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
