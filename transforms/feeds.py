"""Blocks' input columns as the dense arrays that a model is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.block import Block, whole
from transforms.model import Tensor
from transforms.preprocess import INPUT
from transforms.tensors import dimensions, padded, row_shapes, to_numpy

Feeds = dict[str, np.ndarray]
"""An array [rows, ...] for every input of a model, by its name."""


def groups(
    blocks: Sequence[Block], tensors: Mapping[str, Tensor], pads: Mapping[str, Any]
) -> Iterator[tuple[np.ndarray, Feeds]]:
    """The rows of some blocks, those together that fit in one tensor: all of them, except where
    inner dimensions are open, rows differ in them, and no pad is given.

    Args:
      blocks: after Preprocess; each with rows.
      tensors: the signature's inputs.
      pads: input name to the value that rows of different lengths are filled with.

    Yields:
      positions among all rows, int64 ascending; and the feeds of these rows.
    """
    columns = {}
    for name in tensors:
        parts = [b.rows[INPUT + name] for b in blocks]
        columns[name] = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
    count = sum(b.rows.num_rows for b in blocks)
    every = np.arange(count)
    shapes = {name: dimensions(column.type)[0] for name, column in columns.items()}
    differing = {n: row_shapes(columns[n])[0] for n, shape in shapes.items() if None in shape and n not in pads}

    def feeds(index: np.ndarray) -> Feeds:
        made = {}
        for name, column in columns.items():
            picked = column if len(index) == count else whole(column).take(pa.array(index))
            if None not in shapes[name]:
                made[name] = to_numpy(picked, shapes[name])
            elif name in pads:
                made[name] = padded(picked, pads[name])
            else:
                made[name] = to_numpy(picked, differing[name][index[0]])
        return made

    if not differing:
        yield every, feeds(every)
        return
    keys = np.concatenate(list(differing.values()), axis=1)
    distinct, which = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    for index in np.split(order, np.cumsum(np.bincount(which.reshape(-1), minlength=len(distinct)))[:-1]):
        yield index, feeds(index)
