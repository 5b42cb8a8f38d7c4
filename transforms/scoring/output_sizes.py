"""Sizes of the outputs of rows: from the signature if it fixes them, otherwise learned from the calls of this
process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import fixed_bytes
from beam_score.transforms.rows.block import INPUT, Block

_LEARNED: dict[tuple[object, ...], tuple[float, float]] = {}
"""By model, signature and outputs: the maximum output bytes per row, and per byte of its inputs, over all groups of
rows."""


Numbers = TypeVar("Numbers", float, np.ndarray)


class OutputSizes:
    """Sizes of some outputs of a model. Each step has its own object; learned sizes are shared in the process.

    Args:
      names: of the outputs; None for those that a job requests.
    """

    def __init__(self, call: ModelCall, names: Sequence[str] | None = None):
        names = call.outputs if names is None else tuple(names)
        self._key = (call.path, call.sha256, call.signature.name, names)
        sizes = [size for name in names if (size := fixed_bytes(call.signature.outputs[name])) is not None]
        self._fixed = sum(sizes) if len(sizes) == len(names) else None

    @property
    def are_fixed(self) -> bool:
        """True if the signature fixes all sizes."""
        return self._fixed is not None

    def of(self, rows: Numbers, input_bytes: Numbers) -> Numbers | None:
        """Return about how many bytes the outputs of some rows take; None if nothing is known yet.

        Args:
          rows: number of rows; or an array of such numbers.
          input_bytes: of the model's inputs: outputs with open dimensions often grow with the inputs.
        """
        if self._fixed is not None:
            return rows * self._fixed
        if self._key not in _LEARNED:
            return None
        a_row, a_byte = _LEARNED[self._key]
        return np.maximum(rows * a_row, input_bytes * a_byte)

    def of_block(self, block: Block, inputs: Iterable[str]) -> float | None:
        """Return about how many bytes the outputs of a block take, after Preprocess; None if nothing is known yet.

        Args:
          inputs: names of the model's inputs.
        """
        rows = block.rows.num_rows
        return self.of(rows, 0 if self._fixed is not None else input_bytes(block, inputs)) if rows else 0

    def learn(self, rows: int, input_bytes: float, output_bytes: float) -> None:
        """Record the bytes that the outputs of some rows took."""
        if self._fixed is not None or not rows:
            return
        a_row, a_byte = _LEARNED.get(self._key, (0.0, 0.0))
        _LEARNED[self._key] = max(a_row, output_bytes / rows), max(a_byte, output_bytes / max(1, input_bytes))


def input_bytes(block: Block, names: Iterable[str]) -> int:
    """Return the bytes of a block's columns for the model."""
    return sum(block.rows[INPUT + name].nbytes for name in names)
