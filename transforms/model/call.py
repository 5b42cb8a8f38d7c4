"""Settings of model calls, the same for all workers of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.bounds import DEFAULT_BOUNDS, Bounds
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.model.signature import Signature, fixed_bytes

DEFAULT_BATCH_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class ModelCall:
    """Settings of model calls; pinned in the plan, so that all workers use the same.

    Attributes:
      path: the SavedModel folder, local or in a store.
      signature: the signature to call.
      outputs: names of the requested outputs.
      batch_rows: rows per call.
      compiled: whether to compile with XLA.
      pads: input name to the value that fills rows of different lengths.
      intra_op_threads: threads that one op may use; None for TensorFlow's default.
      sha256: the `hash_model` of the folder; a worker that finds another model there fails. None accepts any model.
      proven: whether the model is known to work: then rows on which it fails are at fault, however many.
      deadline_s: seconds that a call may take; None for no limit.
      bounds: memory bounds of a worker thread.
      runtime: how the model is loaded and called; see `transforms.model.loading.load_once`.
    """

    path: str
    signature: Signature
    outputs: tuple[str, ...]
    batch_rows: int = DEFAULT_BATCH_ROWS
    compiled: bool = False
    pads: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    intra_op_threads: int | None = 1
    sha256: str | None = None
    proven: bool = False
    deadline_s: float | None = None
    full_messages: bool = False
    bounds: Bounds = DEFAULT_BOUNDS
    runtime: str | None = None

    def __post_init__(self) -> None:
        check_type("ModelCall: path", self.path, str, "pass the path of the SavedModel folder as text")
        check_type("ModelCall: signature", self.signature, Signature, "pass one of read_signatures(path).values()")
        if isinstance(self.outputs, str):
            raise TypeError(
                f"ModelCall: outputs is the text {self.outputs!r}, expected names: pass ({self.outputs!r},)"
            )
        for name in self.outputs:
            if name not in self.signature.outputs:
                near, listed = near_miss(str(name), self.signature.outputs), ", ".join(self.signature.outputs)
                raise ValueError(f"ModelCall: the signature has no output {name!r}{near}; it has {listed}")
        if self.batch_rows < 1:
            raise ValueError(f"ModelCall: batch_rows is {self.batch_rows}, expected at least 1")

    @property
    def fixed_rows(self) -> int | None:
        """The first dimension that the signature requires; None if it is open."""
        sizes = {t.shape[0] for t in self.signature.inputs.values() if t.shape}
        return next((s for s in sizes if s is not None), None)

    @property
    def most_rows(self) -> int:
        """Rows per call: `batch_rows`, or fewer if their inputs and outputs, as far as the signature shows their size,
        exceed the bound of a call."""
        tensors = [*self.signature.inputs.values(), *self.signature.outputs.values()]
        row_bytes = sum(fixed_bytes(tensor) or 0 for tensor in tensors)
        return self.fixed_rows or max(1, min(self.batch_rows, self.bounds.call_bytes // max(1, row_bytes)))
