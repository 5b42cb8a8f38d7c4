"""A SavedModel as a session of TensorFlow's C API."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Mapping, Sequence
from ctypes import Array, c_char_p, c_void_p
from pathlib import Path

import numpy as np
from google.protobuf import message

from beam_score.transforms.arrays.texts import Texts
from beam_score.transforms.model.deadline import WARM_UP_S, within
from beam_score.transforms.model.model import C_API, Feeds, Model
from beam_score.transforms.model.native.errors import NotNative, OpError, first_line
from beam_score.transforms.model.native.library import Library, Output, load_library
from beam_score.transforms.model.native.quiet import quiet
from beam_score.transforms.model.native.tensors import Feed, to_array
from beam_score.transforms.model.ops import nodes_of, ops_of
from beam_score.transforms.model.proto_fields import message_class
from beam_score.transforms.model.signature import SERVE, SUPPORTED, ModelError, Signature, serving_graph

_CALLERS_THREAD = -1
_VARIABLES = frozenset(("VarHandleOp", "Variable", "VariableV2"))


class NativeModel(Model):
    """One signature of a SavedModel, called through TensorFlow's C API. Thread-safe.

    Attributes:
      signature: its inputs and outputs.
    """

    runtime = C_API
    takes_texts = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        signature: Signature,
        intra_op_threads: int | None = 1,
        beside: NativeModel | None = None,
    ):
        """Load a SavedModel folder.

        Args:
          path: a local folder.
          signature: of the model, with inputs that can be fed; see `transforms.model.signature.unsupported`.
          intra_op_threads: threads that one op may use; None for TensorFlow's default, all cores. A process has one
            setting for all models, which the first load sets. With 1, a call runs in the thread of its caller.
          beside: another signature of the same folder, whose session is shared; None loads the folder.

        Raises:
          NotNative: only Python's TensorFlow may be able to load or call the model.
          ModelError: its file is damaged.
        """
        self.signature, self._path, self._warm = signature, path, False
        ops = ops_of(path, signature.name)
        effects = ops.effects()
        if python := effects.get("python"):
            raise NotNative(f"it calls Python ({', '.join(python)})")
        if ops.called & _VARIABLES and not Path(path, "variables", "variables.index").exists():
            raise NotNative("variables/variables.index is missing")  # which the C API takes for no variables
        # A model with state may keep the memory of a tensor that it is fed.
        self._keeps_feeds = "state" in effects
        library = self._library = load_library()
        loaded = _Loaded(library, path, intra_op_threads) if beside is None else beside._loaded
        self._loaded: _Loaded = loaded
        found = serving_graph(path).signature_def[signature.name]
        self._inputs = list(signature.inputs.values())
        self._outputs = [t for t in signature.outputs.values() if t.kind == "dense" and t.dtype in SUPPORTED]
        fed = [found.inputs[t.name].name for t in self._inputs]
        fetched = [found.outputs[t.name].name for t in self._outputs]
        if len({*fed}) < len(fed) or {*fed} & {*fetched}:
            raise NotNative("an input is an output, or another input")
        self._fed, self._fetched = _places(library, loaded.graph, fed), _places(library, loaded.graph, fetched)

    def call(self, feeds: Mapping[str, np.ndarray | Texts], deadline_s: float | None = None) -> Feeds:
        """Call the signature; arguments and result as in `Model.call`. Arrays of the result are read-only views of
        TensorFlow's memory, except for strings and bfloat16.

        Raises:
          KeyError: an input is missing.
          TypeError: an array has another dtype than its input.
          OpError: raised by the model.
          ModelHangs: there was no answer in time; a first call gets `WARM_UP_S` more.
        """
        if deadline_s is not None and not self._warm:
            deadline_s += WARM_UP_S
        self._warm = True
        return within(deadline_s, functools.partial(self._run, feeds))

    def beside(self, signature: Signature) -> NativeModel:
        """Return another signature of the model, over the same session. Raises NotNative."""
        return NativeModel(self._path, signature, beside=self)

    def nodes(self) -> Mapping[str, str]:
        """Return the nodes of the model's file, by name, with their ops; none if it is gone."""
        try:
            return nodes_of(self._path)
        except ModelError:
            return {}

    def _run(self, feeds: Mapping[str, np.ndarray | Texts]) -> Feeds:
        if not self._outputs:  # which a session does not run
            return {}
        library, given = self._library, list[Feed]()
        results = (c_void_p * len(self._outputs))()
        try:
            for tensor in self._inputs:
                given.append(Feed(library, tensor, feeds[tensor.name], copies=self._keeps_feeds))
            library.checked(
                *(library.TF_SessionRun, self._loaded.session, None),
                *(self._fed, (c_void_p * len(given))(*(f.tensor for f in given)), len(given)),
                *(self._fetched, results, len(results)),
                *(None, 0, None),
            )
        finally:
            for feed in given:
                library.TF_DeleteTensor(feed.tensor)
        arrays = {t.name: to_array(library, result) for t, result in zip(self._outputs, results, strict=True)}
        if any(feed.is_shared for feed in given):  # an output is an input, whose memory belongs to the caller
            arrays = {name: array.copy() for name, array in arrays.items()}
        return arrays


class _Loaded:
    """A SavedModel in a session, which the signatures that refer to it share.

    Attributes:
      session, graph: handles of the C API.
    """

    def __init__(self, library: Library, path: str | os.PathLike[str], intra_op_threads: int | None):
        """Load a SavedModel folder. Raises NotNative."""
        self.graph = library.TF_NewGraph()
        try:
            self.session = _load(library, self.graph, path, intra_op_threads)
        except OpError as error:
            library.TF_DeleteGraph(self.graph)
            raise NotNative(first_line(error)) from None
        # While a call runs it refers to the model. At exit, a call that is late may still be running: never then.
        weakref.finalize(self, _delete, library, self.session, self.graph).atexit = False


def _load(library: Library, graph: int, path: str | os.PathLike[str], intra_op_threads: int | None) -> int:
    """Load a SavedModel into an empty graph; return its session. Raises OpError."""
    config = _config_class()(allow_soft_placement=True)
    if intra_op_threads is not None:
        config.intra_op_parallelism_threads = intra_op_threads
    if intra_op_threads == 1:
        config.inter_op_parallelism_threads = _CALLERS_THREAD
    encoded, tags = config.SerializeToString(), (c_char_p * 1)(SERVE.encode())
    options = library.TF_NewSessionOptions()
    try:
        library.checked(library.TF_SetConfig, options, encoded, len(encoded))
        with quiet():
            return library.checked(
                *(library.TF_LoadSessionFromSavedModel, options, None, os.fsencode(path), tags, len(tags)),
                *(graph, None),
            )
    finally:
        library.TF_DeleteSessionOptions(options)


def _delete(library: Library, session: int, graph: int) -> None:
    library.checked(library.TF_CloseSession, session)
    library.checked(library.TF_DeleteSession, session)
    library.TF_DeleteGraph(graph)


def _places(library: Library, graph: int, names: Sequence[str]) -> Array[Output]:
    """Return the `TF_Output`s of tensors, such as `StatefulPartitionedCall:1`. Raises NotNative."""
    places = (Output * len(names))()
    for place, name in zip(places, names, strict=True):
        node, _, index = name.partition(":")
        place.operation, place.index = library.TF_GraphOperationByName(graph, node.encode()), int(index or 0)
        if not place.operation:
            raise NotNative(f"its graph has no node {node!r}")
    return places


@functools.cache
def _config_class() -> type[message.Message]:
    """Return `ConfigProto` of `tensorflow/core/protobuf/config.proto`, with the fields that are set here."""
    fields = [
        ("intra_op_parallelism_threads", 2, "int32"),
        ("inter_op_parallelism_threads", 5, "int32"),
        ("allow_soft_placement", 7, "bool"),
    ]
    return message_class("ConfigProto", {"ConfigProto": fields}, "beam_score.session_config")
