"""Loads the model of a process once, and only if it is the model of the plan."""

from __future__ import annotations

import os
import threading
import weakref

from beam_score.transforms.model import in_flight
from beam_score.transforms.model.copies import discard_damaged, local_model, named
from beam_score.transforms.model.servable import Servable
from beam_score.transforms.model.signature import ModelError
from beam_score.transforms.model.versions import hash_model, model_files

_loaded: weakref.WeakValueDictionary[tuple[object, ...], Servable] = weakref.WeakValueDictionary()
_loading = threading.Lock()


class ModelChanged(RuntimeError):
    """The model's folder does not contain the model of the plan."""


def load_once(path: str, signature: str, intra_op_threads: int | None, sha256: str | None = None) -> Servable:
    """Return the model, loaded once per process while it is referenced: the launcher, which tries it
    on real rows, and the workers in the same process share one copy.

    Args:
      sha256: its expected `hash_model`; None accepts any model. Hashing reads the model once more, in
        about a second per GB.

    Raises:
      ModelChanged: the folder contains another model, or was changed while the model was loaded.
      ModelError: see `Servable.load`.
    """
    key = (path, signature, intra_op_threads, sha256)
    with _loading:
        servable = _loaded.get(key)
        if servable is None:
            servable = _loaded[key] = _load_verified(path, signature, intra_op_threads, sha256)
        return servable


def _load_verified(path: str, signature: str, intra_op_threads: int | None, sha256: str | None) -> Servable:
    if sha256 is None:
        return _load(path, local_model(path), signature, intra_op_threads)
    local, found, before = _at_hand(path, sha256)
    if discard_damaged(path, local, found):
        local, found, before = _at_hand(path, sha256)
    if found != sha256:
        raise ModelChanged(_changed(path, f"SHA-256 {found}", sha256))
    try:
        servable = _load(path, local, signature, intra_op_threads)
    except ModelError:
        if _stamps(local) == before:
            raise
    else:
        if _stamps(local) == before:
            return servable
    raise ModelChanged(_changed(path, "files that changed while they were loaded", sha256))


def _load(path: str, local: str, signature: str, intra_op_threads: int | None) -> Servable:
    in_flight.note_model(path)  # a damaged model may end the process
    with named(path, local):
        return Servable.load(local, signature, intra_op_threads=intra_op_threads)


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
