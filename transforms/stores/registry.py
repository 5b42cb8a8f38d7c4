"""The available stores, by URL scheme, and checks of whether a store can be used."""

from __future__ import annotations

import contextlib
import importlib
import secrets
from collections.abc import Iterator

from beam_score.transforms.stores.objects import (
    ABSENT,
    SCHEMES,
    ObjectInfo,
    ObjectPath,
    ObjectStore,
    VersionMismatch,
    failed,
)


def store_of(path: ObjectPath | str) -> ObjectStore:
    """Return the store of a path or a scheme. Its library is imported here, so that jobs on local files do not need it.

    Raises:
      OSError: the library is not installed.
    """
    scheme = path if isinstance(path, str) else path.scheme
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme}: expected {' or '.join(SCHEMES)}")
    module = importlib.import_module(f"beam_score.transforms.stores.{SCHEMES[scheme]}")
    store: ObjectStore = module.STORE
    return store


def objects_in(folder: ObjectPath, recursive: bool = True) -> Iterator[ObjectInfo]:
    """Yield the objects directly in a folder and, if recursive, those in the folders below it, in order of key."""
    return (found for found in store_of(folder).list(folder, recursive=recursive) if isinstance(found, ObjectInfo))


def check_bucket(path: ObjectPath) -> None:
    """Raise OSError if a path's bucket does not exist or may not be listed."""
    next(iter(store_of(path).list(path, recursive=False)), None)


def check_store(folder: ObjectPath) -> None:
    """Try the operations that the commit protocol needs in a folder, with a small object that is removed in the end.

    Raises:
      OSError: the bucket does not exist, or objects may not be listed, written, read or removed; or the store
        overwrites an object despite a condition.
    """
    store, probe = store_of(folder), folder / f".{secrets.token_hex(6)}.probe"
    check_bucket(folder)
    with contextlib.suppress(VersionMismatch):  # a response was lost, and the write retried
        store.write(probe, [b"one"], only_over=ABSENT)
    try:
        store.write(probe, [b"two"], only_over=ABSENT)
    except VersionMismatch:
        pass
    else:
        raise failed(probe, "this store ignores conditions on writes, so no run would be safe: use another store")
    finally:
        store.remove(probe)
