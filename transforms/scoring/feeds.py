"""Conversion of the input columns of blocks to the dense arrays that are fed to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.nested import dimensions, fixed, leaves, padded, row_shapes, to_numpy
from beam_score.transforms.arrays.plain import whole
from beam_score.transforms.arrays.texts import Texts
from beam_score.transforms.model.model import Feeds
from beam_score.transforms.model.signature import Tensor
from beam_score.transforms.rows.block import INPUT, Block


class Group:
    """Rows that fit in one tensor, if necessary after padding; shorter rows first.

    Attributes:
      index: int64, their positions among all rows.
      shapes: for each padded input, the shapes of the rows, int64 [rows, dimensions].
    """

    def __init__(self, columns: Mapping[str, pa.Array], index: np.ndarray, pads: Mapping[str, Any]):
        every = len(index) == len(next(iter(columns.values())))
        in_order = every and bool((np.diff(index) == 1).all())
        picked = columns if in_order else {n: whole(c).take(pa.array(index)) for n, c in columns.items()}
        self.index = index
        self.shapes = {n: row_shapes(c)[0] for n, c in picked.items() if n in pads}
        self._pads = {name: pads[name] for name in self.shapes}
        self._padded = {name: picked[name] for name in self.shapes}
        self._dense: dict[str, Any] = {n: dense_array(c) for n, c in picked.items() if n not in self.shapes}
        size = sum(c.nbytes for n, c in picked.items() if n not in self.shapes)
        self._row_bytes = size / max(1, len(index))
        self._value_bytes = {n: _value_bytes(c) for n, c in self._padded.items()}

    def __len__(self) -> int:
        return len(self.index)

    def feeds(self, start: int, stop: int) -> Feeds:
        """Return the feeds of some of the rows, padded to the longest of them: views, and `Texts` for text, if nothing
        is padded."""
        made = {name: array[start:stop] for name, array in self._dense.items()}
        for name, column in self._padded.items():
            made[name] = padded(column.slice(start, stop - start), self._pads[name], self.shapes[name][start:stop])
        return made

    def bytes(self, start: int, stop: int) -> float:
        """Return the size of the feeds of some of the rows."""
        size = self._row_bytes
        for name, shapes in self.shapes.items():
            size += shapes[start:stop].max(axis=0).prod(dtype=np.float64) * self._value_bytes[name]
        return (stop - start) * size

    def own_bytes(self, start: int, stop: int) -> np.ndarray:
        """Return the bytes of each of some rows without padding: float64."""
        size = np.full(stop - start, self._row_bytes)
        for name, shapes in self.shapes.items():
            size += np.maximum(1, shapes[start:stop].prod(axis=1, dtype=np.float64)) * self._value_bytes[name]
        return size

    def growing_bytes(self, start: int, stop: int) -> np.ndarray:
        """Return the size of the feeds of the rows from `start` up to each row before `stop`: float64, ascending."""
        count = np.arange(1, stop - start + 1)
        size = count * self._row_bytes
        for name, shapes in self.shapes.items():
            longest = np.maximum.accumulate(shapes[start:stop], axis=0)
            size += count * (longest.prod(axis=1, dtype=np.float64) * self._value_bytes[name])
        return size


def groups(blocks: Sequence[Block], tensors: Mapping[str, Tensor], pads: Mapping[str, Any]) -> Iterator[Group]:
    """Yield the rows of some blocks, grouped by what fits in one tensor: one group, unless inner dimensions are open,
    rows differ in them, and no pad is given.

    Args:
      blocks: after Preprocess; each with rows.
      tensors: the signature's inputs.
      pads: input name to the value that rows of different lengths are filled with.
    """
    columns = {}
    for name in tensors:
        parts = [b.rows[INPUT + name] for b in blocks]
        columns[name] = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
    every = np.arange(sum(b.rows.num_rows for b in blocks))
    open_ = [name for name, column in columns.items() if None in dimensions(column.type)[0]]
    pads = {name: pads[name] for name in open_ if name in pads}
    differing = {name: row_shapes(columns[name])[0] for name in open_}
    if not differing:
        yield Group(columns, every, pads)
        return
    # Sort by the shapes that are not padded first, then by the padded ones, so that a batch has rows of similar length.
    keys = np.concatenate([differing[n] for n in sorted(open_, key=lambda name: name in pads)], axis=1)
    apart = sum(differing[n].shape[1] for n in open_ if n not in pads)
    order = np.lexsort(keys.T[::-1])
    borders = np.flatnonzero((np.diff(keys[order, :apart], axis=0) != 0).any(axis=1)) + 1
    for index in np.split(order, borders):
        yield Group(columns, index, pads)


def dense_array(column: pa.Array) -> np.ndarray | Texts:
    """Return a column whose rows have one shape as an array [rows, ...]; of text, in Arrow's memory."""
    values, tail = leaves(column), _shape_of_first(column)
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return Texts(values.cast(pa.binary()), (len(column), *tail))
    return to_numpy(column, tail)


def _shape_of_first(column: pa.Array) -> tuple[int, ...]:
    shape, _ = dimensions(column.type)
    return tuple(row_shapes(column.slice(0, 1))[0][0].tolist()) if None in shape else fixed(shape)


def _value_bytes(column: pa.Array) -> float:
    """Return the bytes of one value in an array: for text, of a pointer and a short object."""
    type_ = dimensions(column.type)[1]
    return 64.0 if pa.types.is_binary(type_) or pa.types.is_string(type_) else max(1, type_.bit_width / 8)
