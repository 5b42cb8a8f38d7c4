"""The stores there are, by the scheme of their addresses, and whether one of them answers."""

from __future__ import annotations

import contextlib
import secrets

from beam_score.transforms.stores.objects import ABSENT, SCHEMES, ObjectPath, ObjectStore, VersionMismatch, failed


def store_of(path: ObjectPath | str) -> ObjectStore:
    """The store that a path, or a scheme, is of. Its library is imported here, so that a job on local files needs
    none.

    Raises:
      OSError: the library is not installed.
    """
    scheme = path if isinstance(path, str) else path.scheme
    if scheme == "gs":
        from beam_score.transforms.stores.gcs import STORE
    elif scheme == "s3":
        from beam_score.transforms.stores.s3 import STORE
    else:
        raise ValueError(f"{scheme}: expected {' or '.join(SCHEMES)}")
    return STORE


def check_bucket(path: ObjectPath) -> None:
    """Raises OSError where a path's bucket is not there, or may not be listed."""
    next(iter(store_of(path).list(path, recursive=False)), None)


def check_store(folder: ObjectPath) -> None:
    """Tries in a folder what the protocol asks of a store, on one small object that is gone in the end.

    Raises:
      OSError: the bucket is not there, or objects may not be listed, written, read or removed; or the store writes
        over an object that it was told not to.
    """
    store, probe = store_of(folder), folder / f".{secrets.token_hex(6)}.probe"
    check_bucket(folder)
    with contextlib.suppress(VersionMismatch):  # an answer was lost
        store.write(probe, [b"one"], only_over=ABSENT)
    try:
        store.write(probe, [b"two"], only_over=ABSENT)
    except VersionMismatch:
        pass
    else:
        raise failed(probe, "this store does not keep conditions on writes, and no run would be safe: use another")
    finally:
        store.remove(probe)
