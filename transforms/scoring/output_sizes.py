"""How many bytes the outputs of rows take: by the signature where it tells, else as the calls of this process show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import fixed_bytes
from beam_score.transforms.rows.block import INPUT, Block

_LEARNED: dict[tuple, tuple[float, float]] = {}
"""By model, signature and outputs: the most bytes of outputs a row, and a byte of its inputs, of any group of rows."""


class OutputSizes:
    """Sizes of some outputs of a model. Steps have an object each; what is learned is shared in the process.

    Args:
      names: of the outputs; None for those that a job asks for.
    """

    def __init__(self, call: ModelCall, names: Sequence[str] | None = None):
        names = call.outputs if names is None else tuple(names)
        self._key = (call.path, call.sha256, call.signature.name, names)
        sizes = [fixed_bytes(call.signature.outputs[name]) for name in names]
        self._fixed = None if None in sizes else sum(sizes)

    @property
    def are_fixed(self) -> bool:
        """Whether the signature tells them all."""
        return self._fixed is not None

    def of(self, rows: int | np.ndarray, input_bytes: float | np.ndarray) -> float | np.ndarray | None:
        """About how many bytes the outputs of some rows take; None where nothing is known yet.

        Args:
          rows: how many; or several such numbers.
          input_bytes: of the model's inputs: where outputs have open dimensions they often grow with the inputs.
        """
        if self._fixed is not None:
            return rows * self._fixed
        if self._key not in _LEARNED:
            return None
        a_row, a_byte = _LEARNED[self._key]
        return np.maximum(rows * a_row, input_bytes * a_byte)

    def of_block(self, block: Block, inputs: Iterable[str]) -> float | None:
        """The same for a block, after Preprocess.

        Args:
          inputs: names of the model's inputs.
        """
        rows = block.rows.num_rows
        return self.of(rows, 0 if self._fixed is not None else input_bytes(block, inputs)) if rows else 0

    def learn(self, rows: int, input_bytes: int, output_bytes: int) -> None:
        """Notes what the outputs of some rows took."""
        if self._fixed is not None or not rows:
            return
        a_row, a_byte = _LEARNED.get(self._key, (0.0, 0.0))
        _LEARNED[self._key] = max(a_row, output_bytes / rows), max(a_byte, output_bytes / max(1, input_bytes))


def input_bytes(block: Block, names: Iterable[str]) -> int:
    """Bytes of a block's columns for the model."""
    return sum(block.rows[INPUT + name].nbytes for name in names)
