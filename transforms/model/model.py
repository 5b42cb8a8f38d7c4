"""The interface of a model to a scorer, wherever the model runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from beam_score.transforms.model.signature import Signature

if TYPE_CHECKING:  # `inspect` does not wait for it
    import numpy as np

Feeds: TypeAlias = "dict[str, np.ndarray]"
"""An array [rows, ...] for every input of a model, by its name; of its outputs likewise."""

_RESOURCE_EXHAUSTED = 8
"""The status code of gRPC, which is also that of TensorFlow's exceptions (`tf.errors.RESOURCE_EXHAUSTED`)."""


C_API, PYTHON = "c_api", "python"
"""Ways to load and call a SavedModel: TensorFlow's C API, and Python's TensorFlow."""


class Model(Protocol):
    """One signature of a model that any number of threads may call, such as `NativeModel` and `Servable`.

    Attributes:
      signature: the inputs it takes and the outputs it gives.
      runtime: `C_API` or `PYTHON`.
      why: the reason for it, if it is not the usual one.
      takes_texts: whether `call` takes `Texts` in place of an array of bytes objects, which saves making them.
    """

    signature: Signature
    runtime: str = PYTHON
    why: str = ""
    takes_texts: bool = False

    def call(self, feeds: Mapping[str, np.ndarray], deadline_s: float | None = None) -> Feeds:
        """Call the model.

        Args:
          feeds: an array for every input, by its name, in the input's dtype; float32 for a bfloat16
            input, an object array of bytes for a string input.
          deadline_s: seconds to wait for the answer; None to wait for ever.

        Returns:
          an array for every output that can be written, by its name.

        Raises:
          ModelHangs: there was no answer in time.
          Exception: the model refuses the rows.
        """

    def call_compiled(self, feeds: Mapping[str, np.ndarray], deadline_s: float | None = None) -> Feeds:
        """Call a program that is compiled for the shapes of `feeds`, if the model has one; else as `call`."""
        return self.call(feeds, deadline_s)

    def nodes(self) -> Mapping[str, str]:
        """The nodes of the model's graph, by name, with their ops: none where the graph is not known."""
        return {}


def is_exhausted(error: Exception) -> bool:
    """Return whether an exception of a model says that there is not enough memory for so many rows."""
    return getattr(error, "error_code", None) == _RESOURCE_EXHAUSTED
