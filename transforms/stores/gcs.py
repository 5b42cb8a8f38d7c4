"""`gs://`: objects in Google Cloud Storage. A version is a generation."""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import google.auth
import google.cloud.storage as gcs
import google_crc32c
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.stores.gcs_requests import BATCH, LOST, Requests, object_path
from beam_score.transforms.stores.objects import (
    ABSENT,
    AT_ONCE,
    ObjectInfo,
    ObjectPath,
    StoreClock,
    anonymous,
    denied,
    first_line,
    gave_up,
    path_of,
    refused,
    retry_s,
)

_EMULATOR = "STORAGE_EMULATOR_HOST"
_TIMEOUT_S = (10, 60)  # to connect; to wait for a byte
_FIELDS = "items(name,size,generation,crc32c,updated),prefixes,nextPageToken"
_NO_BUCKET = "bucket does not exist"
_BATCHES_AT_ONCE = 8
_PAGE: int | None = None  # objects in one page of a list; None: the store decides

_CLOCK = StoreClock()

Item = TypeVar("Item", ObjectPath, tuple[ObjectPath, ObjectPath])
"""An object, or the source and target of a copy."""

Result = TypeVar("Result")


@functools.cache
def _credentials(endpoint: str | None, without: bool) -> tuple[Credentials, str | None]:
    """Return the credentials found, and their project."""
    if endpoint or without:
        # Looking for credentials that do not exist takes some 20 s: the client looks for a cloud metadata server.
        return AnonymousCredentials(), None
    return google.auth.default(scopes=gcs.Client.SCOPE)


@functools.cache
def _client(process: int, endpoint: str | None, without: bool) -> gcs.Client:
    """Return the client of a process: sockets must not be shared across a fork."""
    credentials, project = _credentials(endpoint, without)
    client = gcs.Client(project=project or "none", credentials=credentials)
    adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=AT_ONCE)
    client._http.mount("https://", adapter)
    client._http.mount("http://", adapter)
    client._http.hooks["response"].append(lambda answer, **_: _CLOCK.heard(answer.headers.get("Date")))
    # Otherwise a thread requests the bucket's metadata, for traces: a permission that few users need.
    client._bucket_metadata_cache = None
    return client


@functools.cache
def _requests(process: int, endpoint: str | None, without: bool) -> Requests:
    """Return the connections for requests for which the client is too slow."""
    base = _client(process, endpoint, without).api_endpoint
    return Requests(base, _credentials(endpoint, without)[0], _CLOCK)


class GoogleStore:
    """See `transforms.stores.objects.ObjectStore`."""

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
                    page_size=_PAGE,
                    **_patience(),
                )
                .pages
            )
            for page in pages:
                found = [_info(ObjectPath(folder.scheme, folder.bucket, blob.name), blob) for blob in page]
                folders = [ObjectPath(folder.scheme, folder.bucket, name.rstrip("/")) for name in page.prefixes]
                listed: list[ObjectInfo | ObjectPath] = [*found, *folders]
                yield from sorted(listed, key=lambda one: path_of(one).key)

    def read(self, path: ObjectPath, start: int = 0, end: int | None = None, version: str | None = None) -> bytes:
        if end is not None and end <= start:
            return b""
        with _told(path):
            try:
                return _trying(lambda: self._requests().read(path.bucket, path.key, start, end, version))
            except api.RequestRangeNotSatisfiable:
                return b""

    def write(self, path: ObjectPath, pieces: Sequence[bytes | memoryview], only_over: str | None = None) -> ObjectInfo:
        content = b"".join(pieces)
        crc = google_crc32c.value(content)
        with _told(path):
            blob = self._blob(path)
            # The checksum is sent along, and the store refuses content that does not match it.
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
            while True:  # a large object takes several calls
                token, _, _ = blob.rewrite(self._blob(source), token=token, **_patience())
                if token is None:
                    return

    def copy_all(self, copies: Sequence[tuple[ObjectPath, ObjectPath]]) -> None:
        def call(copy: tuple[ObjectPath, ObjectPath]) -> tuple[str, str]:
            source, target = (object_path(path.bucket, path.key) for path in copy)
            return "POST", f"{source}/rewriteTo{target.removeprefix('/storage/v1')}"

        def judge(copy: tuple[ObjectPath, ObjectPath], status: int, content: str) -> None:
            if status >= 300:
                raise api.from_http_status(status, content)
            if not json.loads(content)["done"]:
                self.copy(*copy)

        self._all(copies, call, judge)

    def remove(self, path: ObjectPath, only: str | None = None) -> bool:
        with _told(path):
            try:
                self._blob(path).delete(if_generation_match=None if only is None else int(only), **_patience())
            except (api.NotFound, api.PreconditionFailed) as error:
                if _NO_BUCKET in error.message:
                    raise
                return only is None
            return True

    def remove_all(self, paths: Sequence[ObjectPath]) -> None:
        def call(path: ObjectPath) -> tuple[str, str]:
            return "DELETE", object_path(path.bucket, path.key)

        def judge(path: ObjectPath, status: int, content: str) -> None:
            if status >= 300 and (status != 404 or _NO_BUCKET in content):
                raise api.from_http_status(status, content)

        self._all(paths, call, judge)

    def _all(
        self,
        items: Sequence[Item],
        call: Callable[[Item], tuple[str, str]],
        judge: Callable[[Item, int, str], None],
    ) -> None:
        """Make a call for each item, many in one request. Only calls whose error may pass are retried.

        Args:
          call: returns (method, path) of an item.
          judge: called with an item and the status and content of its response; raises the error, if any.
        """

        def batch(at: int) -> None:
            left, wrong = list(items[at : at + BATCH]), []

            def once() -> None:
                answers = self._requests().many([call(item) for item in left])
                asked, left[:], again = left[:], [], None
                for item, (status, content) in zip(asked, answers, strict=True):
                    try:
                        judge(item, status, content)
                    except api.GoogleAPICallError as error:
                        if _may_help(error):
                            left.append(item)
                            again = error
                        else:
                            wrong.append((item, error))
                if again is not None:
                    raise again

            try:
                _trying(once)
            except Exception:
                # No item is left if the request failed as a whole after its items were taken.
                with _told(_first(left[0] if left else items[at])):
                    raise
            if wrong:
                with _told(_first(wrong[0][0])):
                    raise wrong[0][1]

        parallel_map(batch, range(0, len(items), BATCH), _BATCHES_AT_ONCE)

    def clock(self) -> float:
        return _CLOCK.now()

    def _clients(self) -> gcs.Client:
        return _client(os.getpid(), os.environ.get(_EMULATOR), anonymous())

    def _requests(self) -> Requests:
        return _requests(os.getpid(), os.environ.get(_EMULATOR), anonymous())

    def _blob(self, path: ObjectPath) -> gcs.Blob:
        return self._clients().bucket(path.bucket).blob(path.key)


STORE = GoogleStore()


def _first(item: ObjectPath | tuple[ObjectPath, ObjectPath]) -> ObjectPath:
    """Return the path that errors name for an item: for a copy, its source."""
    return item[0] if isinstance(item, tuple) else item


def _patience() -> dict[str, Any]:
    return {"retry": _retry(), "timeout": _TIMEOUT_S}


def _retry() -> Retry:
    return Retry(predicate=_may_help, initial=0.1, maximum=10.0, multiplier=2.0, timeout=retry_s())


def _trying(call: Callable[[], Result]) -> Result:
    """Return the result of a call, retried while that may help."""
    try:
        return call()
    except Exception as error:
        if not _may_help(error):
            raise
    return _retry()(call)()


def _may_help(error: Exception) -> bool:
    """Return whether a retry may help: if the library says so, or if the response was cut off."""
    return DEFAULT_RETRY._predicate(error) or isinstance(error, (DataCorruption, LOST))


def _info(path: ObjectPath, blob: gcs.Blob) -> ObjectInfo:
    crc = None if blob.crc32c is None else base64.b64decode(blob.crc32c).hex()
    # `blob.updated` takes ten times as long, which matters for a list of very many.
    changed = blob._properties.get("updated")
    updated = 0.0 if changed is None else datetime.datetime.fromisoformat(changed).timestamp()
    return ObjectInfo(path, blob.size, str(blob.generation or ABSENT), crc, updated)


@contextlib.contextmanager
def _told(path: ObjectPath) -> Iterator[None]:
    """Convert the library's errors into those of `ObjectStore`."""
    try:
        yield
    except auth.DefaultCredentialsError:
        raise denied(
            path,
            "no Google Cloud credentials were found: run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS (or BEAM_SCORE_STORE_ANONYMOUS=1 for public buckets)",
        ) from None
    except (auth.RefreshError, auth.TransportError) as error:
        raise denied(path, f"the Google Cloud credentials do not work: {first_line(error)}") from error
    except api.RetryError as error:
        raise gave_up(path, error.cause or error) from error
    except (api.GoogleAPIError, InvalidResponse, DataCorruption, requests.RequestException, LOST) as error:
        status = error.response.status_code if isinstance(error, InvalidResponse) else getattr(error, "code", None)
        raise refused(path, "Google Cloud Storage", error, status, _NO_BUCKET in str(error)) from error
