"""Outputs as long as the padded inputs, cut back to each row's own length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.nested import dimensions, to_arrow
from beam_score.transforms.model.deadline import ModelHangs
from beam_score.transforms.model.model import Feeds
from beam_score.transforms.model.signature import Tensor

Axis = tuple[str, int]
"""Name of a tensor, and one of its dimensions, the first being 0."""


def open_axes(tensors: Mapping[str, Tensor], names: Sequence[str]) -> list[Axis]:
    """Return the open dimensions of some tensors, without the row dimension."""
    return [(n, k) for n in names for k, size in enumerate(tensors[n].shape or ()) if k and size is None]


def followed(
    call: Callable[[Feeds], Feeds],
    feeds: Mapping[str, np.ndarray],
    inputs: Sequence[Axis],
    outputs: Sequence[Axis],
    pads: Mapping[str, Any],
) -> dict[Axis, Axis] | None:
    """Find the output dimensions that follow padded inputs, by padding one row by one more.

    A dimension that happens to be as large as the padded one in some batch stays as it is.

    Args:
      call: the model.
      feeds: of one row that the model accepts.
      inputs: the padded dimensions.
      outputs: the open dimensions.

    Returns:
      for each output dimension that follows an input dimension, the latter: determined by size alone if the model
        accepts no longer row. None if the model does not accept the row.

    Raises:
      ModelHangs: see `transforms.model.deadline`.
    """

    def answer(longer: Sequence[Axis]) -> Feeds | None:
        try:
            return call({n: _longer(f, [k for m, k in longer if m == n], pads.get(n)) for n, f in feeds.items()})
        except ModelHangs:
            raise
        except Exception:  # a model may require, for example, that two inputs have the same length
            return None

    before = answer([])
    if before is None:
        return None
    found: dict[Axis, Axis] = {}
    any_answer = False
    for longer in [*([axis] for axis in inputs), list(inputs)]:
        after = answer(longer)
        any_answer |= after is not None
        for output, k in outputs:
            size = before[output].shape[k]
            same = [(n, at) for n, at in longer if feeds[n].shape[at] == size]
            if same and (output, k) not in found and after is not None and after[output].shape[k] == size + 1:
                found[output, k] = same[0]
    if any_answer:
        return found
    sizes = {feeds[n].shape[at]: (n, at) for n, at in reversed(inputs)}
    return {(o, k): sizes[before[o].shape[k]] for o, k in outputs if before[o].shape[k] in sizes}


def _longer(feed: np.ndarray, axes: Sequence[int], pad: Any) -> np.ndarray:
    if not axes:
        return feed
    value = pad.encode() if isinstance(pad, str) else pad
    return np.pad(feed, [(0, int(k in axes)) for k in range(feed.ndim)], constant_values=value)


def cut_back(output: np.ndarray, own: Mapping[int, np.ndarray], type_: pa.DataType) -> pa.Array:
    """Convert an output to a column, with some of its dimensions cut to each row's own length.

    Args:
      output: [rows, ...].
      own: dimension of the output to lengths, int64 [rows].
      type_: of the column; lists of any length if dimensions are cut.
    """
    if not own or all((lengths == output.shape[k]).all() for k, lengths in own.items()):
        return to_arrow(output, type_)
    rows, last = len(output), max(own)
    lengths = [own.get(k, np.full(rows, output.shape[k])) for k in range(1, last + 1)]
    kept = np.ones((rows, *output.shape[1 : last + 1]), bool)
    for k, own_lengths in enumerate(lengths, 1):
        inside = np.arange(output.shape[k]) < own_lengths[:, None]
        kept &= inside.reshape(rows, *([1] * (k - 1)), output.shape[k], *([1] * (last - k)))
    level = type_
    for _ in range(last):
        level = level.value_type
    column = to_arrow(output[kept], level)
    fixed = [size is not None for size in dimensions(type_)[0]]
    for k in range(last, 0, -1):
        parents = np.prod(lengths[: k - 1], axis=0, dtype=np.int64) if k > 1 else np.ones(rows, np.int64)
        if fixed[k - 1]:
            column = pa.FixedSizeListArray.from_arrays(column, output.shape[k])
            continue
        offsets = np.concatenate([[0], np.cumsum(np.repeat(lengths[k - 1], parents))])
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column)
    return column
