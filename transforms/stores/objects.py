"""Objects in a store: their paths, and the interface that the project requires of a store.

Paths are `gs://bucket/key` and `s3://bucket/key`. A store has neither folders nor renames. Instead, every object has a
version, and writes and removals can be conditional on the current version.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import errno
import os
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

SCHEMES = {"gs": "gcs", "s3": "s3"}
"""By scheme: the module beside this one that defines `STORE`; see `transforms.stores.registry`."""


ABSENT = ""
"""The version of an object that does not exist."""

AT_ONCE = 64
"""Maximum number of changes at the same time."""

HEADS_AT_ONCE = 128
"""Maximum number of requests at the same time for the heads of files, and of connections that a process keeps."""

_RETRY_S = 60.0


@dataclasses.dataclass(frozen=True, order=True)
class ObjectPath:
    """Path of an object, or of a "folder" of objects. Has the parts of `pathlib.PurePosixPath` that this project needs.

    Attributes:
      scheme: `gs` or `s3`.
      bucket: the bucket.
      key: the name in the bucket, without a slash at either end; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> ObjectPath:
        """Parse `gs://bucket/key` or `s3://bucket/key`. Raises NoSuchPlace, with the reason, for anything else."""
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if not separator or scheme not in SCHEMES:
            known = " or ".join(f"{scheme}://BUCKET/..." for scheme in SCHEMES)
            raise NoSuchPlace(f"{text}: expected a local path, {known}")
        if not bucket:
            raise NoSuchPlace(f"{text}: the bucket is missing, expected {scheme}://BUCKET/...")
        return cls(scheme, bucket, key.strip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, name: str) -> ObjectPath:
        return dataclasses.replace(self, key=f"{self.key}/{name}".strip("/"))

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return f".{self.name.rpartition('.')[2]}" if "." in self.name.lstrip(".") else ""

    @property
    def parent(self) -> ObjectPath:
        return dataclasses.replace(self, key=self.key.rpartition("/")[0])

    @property
    def parts(self) -> tuple[str, ...]:
        return (f"{self.scheme}://{self.bucket}", *filter(None, self.key.split("/")))


def is_object(path: str) -> bool:
    """Return whether a path is in a store, rather than local."""
    return "://" in path


@dataclasses.dataclass(frozen=True)
class ObjectInfo:
    """A store's metadata of an object.

    Attributes:
      path: its path.
      size: in bytes.
      version: changes with the object: a generation (GCS), an ETag (S3).
      crc32c: of its content, in hexadecimal; None if the store does not report it.
      updated: seconds since the epoch, by the store's clock.
    """

    path: ObjectPath
    size: int
    version: str
    crc32c: str | None
    updated: float


def path_of(listed: ObjectInfo | ObjectPath) -> ObjectPath:
    """Return the path of an object or a folder, as `ObjectStore.list` yields them."""
    return listed.path if isinstance(listed, ObjectInfo) else listed


class NoSuchPlace(ValueError):
    """A text that is neither a local path nor the path of an object."""


class VersionMismatch(OSError):
    """An object is not at the version that the call requires: it was changed concurrently."""


class ObjectStore(Protocol):
    """Interface of a store. Safe to call from many threads, and after a fork; see `store_of`.

    Calls are retried if that may help (connection lost, 408, 429, 5xx), for `retry_s` seconds. All raise
    OSError with the object's name in `filename` and a sentence in `strerror`; PermissionError if access is
    denied or credentials are missing; FileNotFoundError if the bucket, or an object that must exist, does not exist.
    Only `list` reliably distinguishes a missing bucket from a missing object, so `check_bucket` uses it.
    """

    def info(self, path: ObjectPath) -> ObjectInfo | None:
        """Return the metadata of an object; None if there is no such object."""

    def list(self, folder: ObjectPath, recursive: bool = True) -> Iterator[ObjectInfo | ObjectPath]:
        """Yield the objects under a folder, in order of key; if not recursive, the objects and folders (`ObjectPath`)
        directly in it."""

    def read(self, path: ObjectPath, start: int = 0, end: int | None = None, version: str | None = None) -> bytes:
        """Return bytes of an object; fewer if it ends earlier.

        Args:
          start, end: the range, without `end`; None for the object's end.
          version: the version to read, VersionMismatch if the object is at another; None for any.

        Raises:
          FileNotFoundError: there is no such object.
        """

    def write(self, path: ObjectPath, pieces: Sequence[bytes | memoryview], only_over: str | None = None) -> ObjectInfo:
        """Write an object atomically; the store verifies a checksum of the content.

        Args:
          only_over: the version to replace, `ABSENT` if the object must not exist; None replaces any.

        Raises:
          VersionMismatch: the object is at another version. If the call was retried, an earlier try may have written
            this very content: the caller has to check.
        """

    def copy(self, source: ObjectPath, target: ObjectPath) -> None:
        """Copy an object within the store, without a download, replacing any target. Raises FileNotFoundError if the
        source does not exist."""

    def copy_all(self, copies: Sequence[tuple[ObjectPath, ObjectPath]]) -> None:
        """Copy each source to its target, as `copy` does, in as few requests as the store allows.

        Raises:
          OSError: an object could not be copied; others may have been.
        """

    def remove(self, path: ObjectPath, only: str | None = None) -> bool:
        """Remove an object, if it exists (at version `only`).

        Returns:
          False if the object is not at version `only`; if the call was retried, an earlier try may have removed it.
        """

    def remove_all(self, paths: Sequence[ObjectPath]) -> None:
        """Remove the objects that exist, in as few requests as the store allows.

        Raises:
          OSError: an object could not be removed; others may have been.
        """

    def clock(self) -> float:
        """Return the time by the store's clock, in seconds since the epoch, as derived from its responses so far."""


def retry_s() -> float:
    """Return for how many seconds calls to a store are retried: `BEAM_SCORE_STORE_RETRY_S` or 60."""
    return float(os.environ.get("BEAM_SCORE_STORE_RETRY_S") or _RETRY_S)


def anonymous() -> bool:
    """Return whether to use stores without credentials: `BEAM_SCORE_STORE_ANONYMOUS` is set."""
    return bool(os.environ.get("BEAM_SCORE_STORE_ANONYMOUS"))


class StoreClock:
    """A store's clock, derived from the dates of its responses."""

    def __init__(self) -> None:
        self._heard: tuple[float, float] | None = None
        self._date: str | None = None

    def heard(self, date: str | None) -> None:
        """Record the Date of a response that has just arrived."""
        if date == self._date:  # of the same second: not parsed again
            return
        self._date = date
        with contextlib.suppress(TypeError, ValueError):
            self._heard = email.utils.parsedate_to_datetime(date or "").timestamp(), time.monotonic()

    def now(self) -> float:
        """Return seconds since the epoch; by the local clock if there was no response yet."""
        if self._heard is None:
            return time.time()
        then, since = self._heard
        return then + time.monotonic() - since


def missing(path: ObjectPath | str, what: str = "no such object") -> FileNotFoundError:
    """Return the error for a missing object or bucket."""
    return FileNotFoundError(errno.ENOENT, what, str(path))


def denied(path: ObjectPath | str, why: str) -> PermissionError:
    """Return the error for denied access."""
    return PermissionError(errno.EACCES, why, str(path))


def mismatch(path: ObjectPath | str) -> VersionMismatch:
    """Return the error for an object at an unexpected version."""
    return VersionMismatch(errno.ESTALE, "the object is at another version", str(path))


def failed(path: ObjectPath | str, why: str) -> OSError:
    """Return the error for any other failure."""
    return OSError(errno.EIO, why, str(path))


def refused(path: ObjectPath, store: str, error: Exception, status: int | None, no_bucket: bool) -> OSError:
    """Return the error for an error response of a store, by its HTTP status."""
    if no_bucket:
        return missing(path, f"no bucket named {path.bucket}")
    if status == 404:
        return missing(path, "no such object or bucket")
    if status == 412:
        return mismatch(path)
    if status in (401, 403):
        return denied(path, f"access is denied by {store}: {first_line(error)}")
    return failed(path, f"error from {store}: {first_line(error)}")


def gave_up(path: ObjectPath, error: Exception) -> OSError:
    """Return the error for a call that failed at each try, last with this error."""
    return failed(path, f"gave up after {retry_s():g} s of retries: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, cut to 300 characters; its type if it has none."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return text.splitlines()[0][:300]
