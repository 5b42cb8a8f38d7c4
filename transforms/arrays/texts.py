"""Texts in Arrow's memory, for code that needs no Python object per text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa


class Texts:
    """Texts of a shape, in place of an array of bytes objects; numpy's functions convert it to one.

    Attributes:
      values: binary or large_binary, without nulls, in row-major order.
      shape: [rows, ...].
    """

    dtype = np.dtype(object)

    def __init__(self, values: pa.Array, shape: tuple[int, ...]):
        self.values, self.shape = values, shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Texts:
        """Return some rows, which share the memory."""
        start, stop, _ = rows.indices(len(self))
        count, each = max(0, stop - start), math.prod(self.shape[1:])
        return Texts(self.values.slice(start * each, count * each), (count, *self.shape[1:]))

    def take(self, rows: np.ndarray, axis: int) -> Texts:
        """Return the rows at these positions, int64, as `numpy.ndarray.take` with axis 0."""
        each = math.prod(self.shape[1:])
        places = (rows[:, None] * each + np.arange(each)).reshape(-1)
        return Texts(self.values.take(pa.array(places)), (len(rows), *self.shape[1:]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values.to_numpy(zero_copy_only=False).reshape(self.shape)

    def buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where each text begins and the last ends, int64 [texts + 1], and their bytes, uint8."""
        _, offsets, data = self.values.buffers()
        count = len(self.values)
        if not count:
            return np.zeros(1, np.int64), np.zeros(0, np.uint8)
        width = np.dtype(np.int64 if pa.types.is_large_binary(self.values.type) else np.int32)
        places = np.frombuffer(offsets, width, count + 1, width.itemsize * self.values.offset).astype(np.int64)
        start, total = int(places[0]), int(places[-1] - places[0])
        return places - start, np.frombuffer(data, np.uint8, total, start) if total else np.zeros(0, np.uint8)


def has_text(data: np.ndarray, positions: np.ndarray, text: bytes) -> np.ndarray:
    """Return at which positions of `data` a text occurs; compares eight bytes at a time.

    Args:
      data: uint8.
      positions: int64, ascending; a text does not occur at one outside of the data.
    """
    fits = np.ones(len(positions), bool)
    if len(data) < 8:
        return np.array([_at(data, p, text) for p in positions.tolist()], bool)
    windows = np.ndarray((len(data) - 7,), "<u8", buffer=data, strides=(1,))
    for at in range(0, len(text), 8):
        part, where = text[at : at + 8], positions + at
        outside = (slice(0, np.searchsorted(where, 0)), slice(np.searchsorted(where, len(windows)), None))
        inside = slice(outside[0].stop, outside[1].start)
        same = np.empty(len(where), bool)
        found = windows[where[inside]]
        if len(part) < 8:
            found &= np.uint64((1 << 8 * len(part)) - 1)
        np.equal(found, np.uint64(int.from_bytes(part, "little")), out=same[inside])
        for few in outside:
            same[few] = [_at(data, p, part) for p in where[few].tolist()]
        fits &= same
    return fits


def _at(data: np.ndarray, position: int, text: bytes) -> bool:
    return position >= 0 and data[position : position + len(text)].tobytes() == text
