"""`gs://`: objects in Google Cloud Storage. A version is a generation."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
from collections.abc import Iterator, Sequence

import google.auth
import google_crc32c
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as gcs
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from transforms.objects import (
    ABSENT,
    AT_ONCE,
    ObjectInfo,
    ObjectPath,
    StoreClock,
    anonymous,
    denied,
    failed,
    mismatch,
    missing,
    retry_s,
)

_EMULATOR = "STORAGE_EMULATOR_HOST"
_TIMEOUT_S = (10, 60)  # to connect; without a byte
_FIELDS = "items(name,size,generation,crc32c,updated),prefixes,nextPageToken"
_NO_BUCKET = "bucket does not exist"

_CLOCK = StoreClock()

with contextlib.suppress(ImportError):  # where other versions have it
    from google.cloud.storage._media.requests import _request_helpers

    # The library takes in what it downloads 8 KiB at a time, and the interpreter's lock each time: 2.5 times the CPU.
    _request_helpers._SINGLE_GET_CHUNK_SIZE = 1 << 20


@functools.cache
def _client(process: int, endpoint: str | None, without: bool) -> gcs.Client:
    """One a process: sockets must not be shared over a fork."""
    if endpoint or without:
        # Asking for credentials that are not there takes some 20 s: the client looks for a machine of the cloud.
        client = gcs.Client(project="none", credentials=AnonymousCredentials())
    else:
        credentials, project = google.auth.default(scopes=gcs.Client.SCOPE)
        client = gcs.Client(project=project or "none", credentials=credentials)
    adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=AT_ONCE)
    client._http.mount("https://", adapter)
    client._http.mount("http://", adapter)
    client._http.hooks["response"].append(lambda answer, **_: _CLOCK.heard(answer.headers.get("Date")))
    # Else a thread asks for the bucket's own metadata, for traces: a right that few need to have.
    client._bucket_metadata_cache = None
    return client


class GoogleStore:
    """See `transforms.objects.ObjectStore`."""

    def info(self, path: ObjectPath) -> ObjectInfo | None:
        with _told(path):
            blob = self._blob(path)
            try:
                blob.reload(**_patience())
            except api.NotFound as error:
                if _NO_BUCKET in error.message:
                    raise
                return None
            return _info(path, blob)

    def list(self, folder: ObjectPath, recursive: bool = True) -> Iterator[ObjectInfo | ObjectPath]:
        with _told(folder):
            pages = (
                self._clients()
                .list_blobs(
                    folder.bucket,
                    prefix=f"{folder.key}/" if folder.key else None,
                    delimiter=None if recursive else "/",
                    fields=_FIELDS,
                    **_patience(),
                )
                .pages
            )
            for page in pages:
                found = [_info(ObjectPath(folder.scheme, folder.bucket, blob.name), blob) for blob in page]
                folders = [ObjectPath(folder.scheme, folder.bucket, name.rstrip("/")) for name in page.prefixes]
                yield from sorted([*found, *folders], key=lambda f: getattr(f, "path", f).key)

    def read(self, path: ObjectPath, start: int = 0, end: int | None = None, version: str | None = None) -> bytes:
        if end is not None and end <= start:
            return b""
        with _told(path):
            blob, whole = self._blob(path), start == 0 and end is None
            try:
                content = blob.download_as_bytes(
                    start=None if whole else start,
                    end=None if end is None else end - 1,
                    raw_download=True,
                    if_generation_match=None if version is None else int(version),
                    **_patience(),
                )
            except api.RequestRangeNotSatisfiable:
                return b""
            # Not every emulator knows the condition; what came says itself which one it is.
            if version is not None and blob.generation is not None and str(blob.generation) != version:
                raise mismatch(path)
            return content

    def write(self, path: ObjectPath, pieces: Sequence[bytes | memoryview], only_over: str | None = None) -> ObjectInfo:
        content = b"".join(pieces)
        crc = google_crc32c.value(content)
        with _told(path):
            blob = self._blob(path)
            # The checksum goes along, and the store refuses what does not fit it.
            blob.upload_from_file(
                io.BytesIO(content),
                size=len(content),
                content_type="application/octet-stream",
                checksum="crc32c",
                crc32c_checksum_value=base64.b64encode(crc.to_bytes(4, "big")).decode(),
                if_generation_match=None if only_over is None else int(only_over or 0),
                **_patience(),
            )
            return _info(path, blob)

    def copy(self, source: ObjectPath, target: ObjectPath) -> None:
        with _told(source):
            blob, token = self._blob(target), None
            while True:  # a large object, in several calls
                token, _, _ = blob.rewrite(self._blob(source), token=token, **_patience())
                if token is None:
                    return

    def remove(self, path: ObjectPath, only: str | None = None) -> bool:
        with _told(path):
            try:
                self._blob(path).delete(if_generation_match=None if only is None else int(only), **_patience())
            except (api.NotFound, api.PreconditionFailed) as error:
                if _NO_BUCKET in error.message:
                    raise
                return only is None
            return True

    def clock(self) -> float:
        return _CLOCK.now()

    def _clients(self) -> gcs.Client:
        return _client(os.getpid(), os.environ.get(_EMULATOR), anonymous())

    def _blob(self, path: ObjectPath) -> gcs.Blob:
        return self._clients().bucket(path.bucket).blob(path.key)


STORE = GoogleStore()


def _patience() -> dict:
    retry = Retry(predicate=_may_help, initial=0.1, maximum=10.0, multiplier=2.0, timeout=retry_s())
    return {"retry": retry, "timeout": _TIMEOUT_S}


def _may_help(error: Exception) -> bool:
    """Whether a call that failed so is worth trying again: what the library thinks, and an answer that was cut."""
    return DEFAULT_RETRY._predicate(error) or isinstance(error, DataCorruption)


def _info(path: ObjectPath, blob: gcs.Blob) -> ObjectInfo:
    crc = None if blob.crc32c is None else base64.b64decode(blob.crc32c).hex()
    updated = 0.0 if blob.updated is None else blob.updated.timestamp()
    return ObjectInfo(path, blob.size, str(blob.generation or ABSENT), crc, updated)


@contextlib.contextmanager
def _told(path: ObjectPath) -> Iterator[None]:
    """Turns what the library raises into what `ObjectStore` says."""
    try:
        yield
    except auth.DefaultCredentialsError:
        raise denied(
            path,
            "no Google Cloud credentials were found: run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS (BEAM_SCORE_STORE_ANONYMOUS=1 does without, for public buckets)",
        ) from None
    except (auth.RefreshError, auth.TransportError) as error:
        raise denied(path, f"the Google Cloud credentials do not work: {_first_line(error)}") from error
    except (api.GoogleAPIError, InvalidResponse, DataCorruption, requests.RequestException) as error:
        raise _of(path, error) from error


def _of(path: ObjectPath, error: Exception) -> OSError:
    cause = error.cause if isinstance(error, api.RetryError) and error.cause is not None else error
    status = cause.response.status_code if isinstance(cause, InvalidResponse) else getattr(cause, "code", None)
    if status == 404:
        return missing(
            path,
            f"there is no bucket {path.bucket}" if _NO_BUCKET in str(cause) else "there is no such object or bucket",
        )
    if status == 412:
        return mismatch(path)
    if status in (401, 403):
        return denied(path, f"access is denied by Google Cloud Storage: {_first_line(cause)}")
    if cause is not error:
        return failed(path, f"gave up after {retry_s():g} s of trying: {_first_line(cause)}")
    return failed(path, f"Google Cloud Storage says: {_first_line(cause)}")


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return text.splitlines()[0][:300]
