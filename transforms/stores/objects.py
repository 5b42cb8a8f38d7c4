"""Objects in a store: where one is, and what a store must be able to do for the rest of the project.

`gs://bucket/key` and `s3://bucket/key`. A store knows no folders and renames nothing; what it has instead is a
version of every object, and writing or removing one only if it is still (or not yet) at a version.
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

SCHEMES = ("gs", "s3")

ABSENT = ""
"""The version of what is not there."""

AT_ONCE = 64
"""How many connections to a store a process keeps."""

_RETRY_S = 60.0


@dataclasses.dataclass(frozen=True, order=True)
class ObjectPath:
    """Where an object is, or a "folder" of them. Reads like a `pathlib.PurePosixPath`, as far as this project
    needs it.

    Attributes:
      scheme: `gs` or `s3`.
      bucket: its bucket.
      key: its name in the bucket, without a slash at either end; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> ObjectPath:
        """From `gs://bucket/key`. Raises NoSuchPlace, with what is wrong, for anything else."""
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if not separator or scheme not in SCHEMES:
            raise NoSuchPlace(f"{text}: expected a local path, gs://BUCKET/... or s3://BUCKET/...")
        if not bucket:
            raise NoSuchPlace(f"{text}: names no bucket, expected {scheme}://BUCKET/...")
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
    """Whether a text names something in a store, rather than a local file."""
    return "://" in path


@dataclasses.dataclass(frozen=True)
class ObjectInfo:
    """What a store says of an object.

    Attributes:
      path: where it is.
      size: in bytes.
      version: tells whether it is still the same: a generation (GCS), an ETag (S3).
      crc32c: of its content, in hexadecimal; None where the store does not tell.
      updated: seconds since the epoch, by the store's clock.
    """

    path: ObjectPath
    size: int
    version: str
    crc32c: str | None
    updated: float


class NoSuchPlace(ValueError):
    """A text that says neither where a local file is nor where an object is."""


class VersionMismatch(OSError):
    """An object is not at the version that the call was for: someone else was first."""


class ObjectStore(Protocol):
    """What is asked of a store. Safe to call from many threads, and after a fork; see `store_of`.

    Calls are tried again where that may help (connection lost, 408, 429, 5xx), for `retry_s` seconds. All raise
    OSError with the object's name in `filename` and a sentence in `strerror`; PermissionError where access is
    denied or there are no credentials; FileNotFoundError where the bucket, or an object that must be there, is not.
    A store may not tell a missing bucket from a missing object, but in `list`: `check_bucket` asks that way.
    """

    def info(self, path: ObjectPath) -> ObjectInfo | None:
        """What is known of an object; None where there is none."""

    def list(self, folder: ObjectPath, recursive: bool = True) -> Iterator[ObjectInfo | ObjectPath]:
        """The objects under a folder, in order of key; not recursive: those right in it, and the folders
        (`ObjectPath`) in it."""

    def read(self, path: ObjectPath, start: int = 0, end: int | None = None, version: str | None = None) -> bytes:
        """Bytes of an object; fewer where it ends before.

        Args:
          start, end: bytes from `start` up to, and without, `end`; None for the object's end.
          version: that must be read; VersionMismatch if there is another now. None: any.

        Raises:
          FileNotFoundError: there is no such object.
        """

    def write(self, path: ObjectPath, pieces: Sequence[bytes | memoryview], only_over: str | None = None) -> ObjectInfo:
        """Writes an object, whole or not at all; the store checks a checksum of what arrived.

        Args:
          only_over: the version that it takes the place of, `ABSENT` for none. None: whatever is there.

        Raises:
          VersionMismatch: another is there. Where a call had to be tried again, it may be this very content
            that an earlier try has written: the caller looks.
        """

    def copy(self, source: ObjectPath, target: ObjectPath) -> None:
        """Copies within the store, no byte coming by here; over what may be there. Raises FileNotFoundError where
        the source is not there."""

    def copy_all(self, copies: Sequence[tuple[ObjectPath, ObjectPath]]) -> None:
        """Copies each source to its target, as `copy` does, in as few requests as the store allows.

        Raises:
          OSError: one could not be copied; others may have been.
        """

    def remove(self, path: ObjectPath, only: str | None = None) -> bool:
        """Removes an object, if it is there (at version `only`).

        Returns:
          False where it was to be of a version that is not there; where the call had to be tried again, an earlier
          try may have removed it.
        """

    def remove_all(self, paths: Sequence[ObjectPath]) -> None:
        """Removes objects, those that are there, in as few requests as the store allows.

        Raises:
          OSError: one could not be removed; others may have been.
        """

    def clock(self) -> float:
        """What the store's clock says: seconds since the epoch, by its answers so far."""


def retry_s() -> float:
    """For how long a call to a store is tried again: seconds, `BEAM_SCORE_STORE_RETRY_S` or 60."""
    return float(os.environ.get("BEAM_SCORE_STORE_RETRY_S") or _RETRY_S)


def anonymous() -> bool:
    """Whether stores are to be used without credentials: `BEAM_SCORE_STORE_ANONYMOUS` is set."""
    return bool(os.environ.get("BEAM_SCORE_STORE_ANONYMOUS"))


class StoreClock:
    """What a store's clock says, by the dates of its answers."""

    def __init__(self):
        self._heard: tuple[float, float] | None = None

    def heard(self, date: str | None) -> None:
        """Takes the Date of an answer that has just come."""
        with contextlib.suppress(TypeError, ValueError):
            self._heard = email.utils.parsedate_to_datetime(date).timestamp(), time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch; by the clock here where nothing was heard."""
        if self._heard is None:
            return time.time()
        then, since = self._heard
        return then + time.monotonic() - since


def missing(path: ObjectPath | str, what: str = "there is no such object") -> FileNotFoundError:
    """To be raised."""
    return FileNotFoundError(errno.ENOENT, what, str(path))


def denied(path: ObjectPath | str, why: str) -> PermissionError:
    """To be raised."""
    return PermissionError(errno.EACCES, why, str(path))


def mismatch(path: ObjectPath | str) -> VersionMismatch:
    """To be raised."""
    return VersionMismatch(errno.ESTALE, "another version is there", str(path))


def failed(path: ObjectPath | str, why: str) -> OSError:
    """To be raised."""
    return OSError(errno.EIO, why, str(path))
