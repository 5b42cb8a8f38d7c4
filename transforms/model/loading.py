"""Loads the model of a process once, and only if it is the model of the plan."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable

from beam_score.transforms.model import in_flight
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.copies import discard_damaged, local_model, named
from beam_score.transforms.model.model import C_API, PYTHON, Model
from beam_score.transforms.model.native.errors import NotNative
from beam_score.transforms.model.native.session import NativeModel
from beam_score.transforms.model.servable import Servable
from beam_score.transforms.model.signature import ModelError, Signature, choose_signature, read_signatures, unsupported
from beam_score.transforms.model.versions import hash_model, model_files

log = logging.getLogger(__name__)

_loaded: weakref.WeakValueDictionary[tuple[object, ...], Model] = weakref.WeakValueDictionary()
_loading = threading.Lock()


class ModelChanged(RuntimeError):
    """The model's folder does not contain the model of the plan."""


def load_for(call: ModelCall) -> Model:
    """Return the model of a call's settings; see `load_once`."""
    return load_once(
        call.path, call.signature.name, call.intra_op_threads, call.sha256, PYTHON if call.compiled else call.runtime
    )


def load_once(
    path: str, signature: str, intra_op_threads: int | None, sha256: str | None = None, runtime: str | None = None
) -> Model:
    """Return the model, loaded once per process while it is referenced: the launcher, which tries it
    on real rows, and the workers in the same process share one copy.

    Args:
      sha256: its expected `hash_model`; None accepts any model. Hashing reads the model once more, in
        about a second per GB.
      runtime: `C_API` or `PYTHON`; None for the C API, or for Python's TensorFlow if that is not possible.

    Raises:
      ModelChanged: the folder contains another model, or was changed while the model was loaded.
      ModelError: the signature does not exist or cannot be fed, or the model does not load in this way.
    """
    key = (path, signature, intra_op_threads, sha256)
    with _loading:
        model = _loaded.get((*key, runtime))
        if model is None:
            model = _load_verified(path, signature, intra_op_threads, sha256, runtime)
            _loaded[*key, runtime] = _loaded[*key, model.runtime] = model
        return model


def load_beside(
    first: Model, path: str, signatures: Iterable[Signature], intra_op_threads: int | None, sha256: str | None = None
) -> dict[str, Model]:
    """Return further signatures of a model that `load_once` has returned. They share what it has loaded; those that
    only Python's TensorFlow can call share one more copy.

    Args:
      signatures: with inputs that can be fed.

    Raises: see `load_once`.
    """
    made: dict[str, Model] = {}
    python = first if isinstance(first, Servable) else None
    for signature in signatures:
        if isinstance(first, NativeModel):
            try:
                made[signature.name] = first.beside(signature)
                continue
            except NotNative as error:
                log.info("signature %s is called by Python's TensorFlow: %s", signature.name, error)
        if python is None:
            loaded = load_once(path, signature.name, intra_op_threads, sha256, PYTHON)
            assert isinstance(loaded, Servable)
            python = loaded
        made[signature.name] = python.beside(signature)
    return made


def _load_verified(
    path: str, signature: str, intra_op_threads: int | None, sha256: str | None, runtime: str | None
) -> Model:
    if sha256 is None:
        return _load(path, local_model(path), signature, intra_op_threads, runtime)
    local, found, before = _at_hand(path, sha256)
    if discard_damaged(path, local, found):
        local, found, before = _at_hand(path, sha256)
    if found != sha256:
        raise ModelChanged(_changed(path, f"SHA-256 {found}", sha256))
    try:
        model = _load(path, local, signature, intra_op_threads, runtime)
    except ModelError:
        if _stamps(local) == before:
            raise
    else:
        if _stamps(local) == before:
            return model
    raise ModelChanged(_changed(path, "files that changed while they were loaded", sha256))


def _load(path: str, local: str, signature: str, intra_op_threads: int | None, runtime: str | None) -> Model:
    in_flight.note_model(path)  # a damaged model may end the process
    why = ""
    with named(path, local):
        if runtime != PYTHON:
            chosen = choose_signature(read_signatures(local), signature)
            if problems := unsupported(chosen):
                raise ModelError("\n".join(problems))
            try:
                return NativeModel(local, chosen, intra_op_threads)
            except NotNative as error:
                why = str(error)
            if runtime == C_API:
                raise ModelError(
                    f"{path} does not load through TensorFlow's C API, by which this run calls it: {why}; run on "
                    "machines with the same TensorFlow, or add --restart"
                )
            log.info("the model is loaded by Python's TensorFlow, which takes seconds longer: %s", why)
        model = Servable.load(local, signature, intra_op_threads=intra_op_threads)
        model.why = why
        return model


def _at_hand(path: str, sha256: str) -> tuple[str, str, dict[str, tuple[int, int, int]] | None]:
    """Return the model's folder on this machine, its hash, and the stamps of its files before it was hashed.

    Raises:
      ModelChanged: the model no longer exists.
      OSError, ReadFails: its files cannot be read, so it is unknown whether they changed.
    """
    try:
        local = local_model(path, sha256)
    except ModelError as error:
        raise ModelChanged(_changed(path, f"no such model ({error})", sha256)) from None
    # Taken first, to detect a file that changes after it was hashed, and before or while it is loaded.
    before = _stamps(local)
    try:
        return local, hash_model(local), before
    except FileNotFoundError as error:
        raise ModelChanged(_changed(path, f"a file that is gone ({error.filename})", sha256)) from None


def _stamps(path: str) -> dict[str, tuple[int, int, int]] | None:
    """Return size, time of modification and inode of each file of a model; None if a file is missing."""
    try:
        stats = {str(file): os.stat(file) for file in model_files(path)}
    except FileNotFoundError:
        return None
    return {name: (s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats.items()}


def _changed(path: str, found: str, expected: str) -> str:
    return (
        f"the model in {path} has changed since this run was planned: found {found}, expected SHA-256 {expected}: "
        "put the planned model back and run the same command again, or write elsewhere, or add --replace; write "
        "a new model to a new version folder, never over one in use"
    )
