"""A SavedModel loaded and called by Python's TensorFlow.

Importing this module does not import TensorFlow; loading a model does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from beam_score.transforms.model.damage import damage
from beam_score.transforms.model.deadline import WARM_UP_S, within
from beam_score.transforms.model.model import Feeds, Model
from beam_score.transforms.model.native.errors import first_line
from beam_score.transforms.model.native.quiet import quiet
from beam_score.transforms.model.signature import (
    SERVE,
    SUPPORTED,
    ModelError,
    Signature,
    choose_signature,
    read_signatures,
    unsupported,
)

if TYPE_CHECKING:  # `inspect` does not wait for it
    import numpy as np

IMPORTING = threading.Lock()
"""Held while TensorFlow is set up, or Beam imported: two imports at once that share packages can see them half made."""


class Servable(Model):
    """One signature of a loaded SavedModel. Thread-safe.

    Attributes:
      signature: its inputs and outputs.
      intra_op_threads: the threads that one op may use in this process; 0 if TensorFlow decides.
    """

    takes_texts = True

    def __init__(self, model: Any, signature: Signature, intra_op_threads: int = 0):
        # A signature does not keep the variables of its model alive: keep a reference to both.
        self._model = model
        self._function = model.signatures[signature.name]
        self._compiled: Any = None
        self._nodes: dict[str, str] | None = None
        self._compiling = threading.Lock()
        self.signature = signature
        self.intra_op_threads = intra_op_threads
        # Kinds of calls that have been made: "plain", or the shapes of a compiled one.
        self._warm: set[Any] = set()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        signature_name: str | None = None,
        *,
        intra_op_threads: int | None = 1,
        inter_op_threads: int | None = None,
    ) -> Servable:
        """Load a SavedModel folder.

        Args:
          path: a local SavedModel folder (see `find_version`).
          signature_name: see `choose_signature`.
          intra_op_threads: threads that one op may use. One is best if workers run in parallel.
            A process has one setting for all models, which only the first load can set; the attribute
            of the same name has the effective value. None: TensorFlow's default, all cores.
          inter_op_threads: ops of one call that may run concurrently; as above.

        Raises:
          ModelError: the signature does not exist or cannot be fed, or the model does not load.
        """
        signature = choose_signature(read_signatures(path), signature_name)
        if problems := unsupported(signature):
            raise ModelError("\n".join(problems))
        tf = import_tensorflow()
        with IMPORTING:
            _set_threads(tf, intra_op_threads, inter_op_threads)
            with quiet():  # the first use of a device searches for GPUs, and logs their absence
                tf.config.list_logical_devices()
            try:
                model = tf.saved_model.load(os.fspath(path), tags=[SERVE])
            except MemoryError:
                raise
            except Exception as error:  # a damaged file may raise any type
                fault = damage(path)
                remedy = (
                    f"{fault}: copy or export the model again"
                    if fault
                    else "a model with custom ops needs the library that registers them"
                )
                raise ModelError(
                    f"{path} does not load in TensorFlow {tf.__version__}: {first_line(error)}; {remedy}"
                ) from error
        return cls(model, signature, tf.config.threading.get_intra_op_parallelism_threads())

    def beside(self, signature: Signature) -> Servable:
        """Return another signature of the model, which is not loaded again."""
        return Servable(self._model, signature, self.intra_op_threads)

    def call(self, feeds: Mapping[str, np.ndarray], deadline_s: float | None = None) -> Feeds:
        """Call the signature.

        Args:
          feeds: an array for every input, by its name, in the input's dtype; float32 for a bfloat16
            input, an object array of bytes for a string input.
          deadline_s: seconds to wait for the answer; None to wait for ever. A first call, which has to trace or to
            compile, gets `WARM_UP_S` more.

        Returns:
          an array for every output that can be written (see `SUPPORTED`), by its name. It may be read-only and share
          the model's memory. bfloat16 is returned as float32, string as an object array of bytes.

        Raises:
          KeyError: an input is missing.
          tf.errors.OpError: raised by the model.
          ModelHangs: there was no answer in time.
        """

        def answer() -> Feeds:
            return self._to_arrays(self._function(**self._to_tensors(feeds)))

        return within(self._time_for("plain", deadline_s), answer)

    def call_compiled(self, feeds: Mapping[str, np.ndarray], deadline_s: float | None = None) -> Feeds:
        """Call the signature compiled by XLA, which compiles for every new shape of `feeds`, for up to seconds
        each. Raises tf.errors.InvalidArgumentError for a model with ops that XLA does not support.
        """

        def answer() -> Feeds:
            if self._compiled is None:
                with self._compiling:
                    if self._compiled is None:
                        self._compiled = self._compile()
            return self._to_arrays(self._compiled(*self._to_tensors(feeds).values()))

        return within(self._time_for(tuple(feed.shape for feed in feeds.values()), deadline_s), answer)

    def _time_for(self, kind: Any, deadline_s: float | None) -> float | None:
        """Seconds that a call may take: more if it is the first of its kind."""
        if deadline_s is None or kind in self._warm:
            return deadline_s
        self._warm.add(kind)
        return deadline_s + WARM_UP_S

    def nodes(self) -> dict[str, str]:
        """Return the nodes that a call may run, including functions: name to op."""
        if self._nodes is None:
            graph = self._function.graph.as_graph_def()
            self._nodes = {node.name: node.op for f in graph.library.function for node in f.node_def}
            self._nodes |= {node.name: node.op for node in graph.node}
        return self._nodes

    def _compile(self) -> Any:
        tf = import_tensorflow()
        names, function = list(self.signature.inputs), self._function

        # Positional, since an input's name need not be a Python identifier. The row dimension is
        # open, so that there is one trace, and XLA caches its programs by shape.
        def compiled(*tensors: Any) -> Any:
            return function(**dict(zip(names, tensors, strict=True)))

        specs = [tf.TensorSpec(t.shape, t.dtype) for t in self.signature.inputs.values()]
        return tf.function(compiled, jit_compile=True, autograph=False).get_concrete_function(*specs)

    def _to_tensors(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        # tf.constant copies: 12 microseconds for [8192, 3] float32, of 750 for a small dense model.
        # DLPack would not copy, but an op may then reuse the shared memory for its output.
        import numpy as np

        tf = import_tensorflow()
        tensors = {}
        for name, tensor in self.signature.inputs.items():
            if tensor.dtype == "string":
                tensors[name] = tf.constant(np.asarray(feeds[name]), tf.string)
            elif tensor.dtype == "bfloat16":
                tensors[name] = tf.cast(tf.constant(feeds[name]), tf.bfloat16)
            else:
                tensors[name] = tf.constant(feeds[name])
        return tensors

    def _to_arrays(self, outputs: Mapping[str, Any]) -> Feeds:
        import numpy as np

        arrays = {}
        for name, tensor in self.signature.outputs.items():
            if tensor.kind != "dense" or tensor.dtype not in SUPPORTED:
                continue
            # A view if the tensor is in main memory (1 microsecond), while .numpy() copies.
            array = np.asarray(outputs[name])
            arrays[name] = array.astype(np.float32) if tensor.dtype == "bfloat16" else array
        return arrays


def import_tensorflow() -> ModuleType:
    """Import TensorFlow without its log messages about CPU features and missing GPUs."""
    if "tensorflow" not in sys.modules:
        with IMPORTING, quiet():
            import tensorflow
    import tensorflow

    return tensorflow


def _set_threads(tf: ModuleType, intra_op: int | None, inter_op: int | None) -> None:
    with contextlib.suppress(RuntimeError):  # TensorFlow is initialized already, and its threads are fixed
        if intra_op is not None:
            tf.config.threading.set_intra_op_parallelism_threads(intra_op)
        if inter_op is not None:
            tf.config.threading.set_inter_op_parallelism_threads(inter_op)
