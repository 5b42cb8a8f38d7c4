"""`s3://`: objects in Amazon S3, or in an S3-compatible store (`AWS_ENDPOINT_URL`). A version is an ETag.

An ETag identifies content, not a write: the same content written again has the same ETag. That is sufficient, because
every decision here that depends on a version depends only on the content.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import google_crc32c
from google.api_core.exceptions import RetryError
from google.api_core.retry import Retry

from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.stores.objects import (
    AT_ONCE,
    HEADS_AT_ONCE,
    ObjectInfo,
    ObjectPath,
    StoreClock,
    anonymous,
    denied,
    failed,
    first_line,
    gave_up,
    mismatch,
    path_of,
    refused,
    retry_s,
)

try:
    import boto3.session
    from botocore import UNSIGNED
    from botocore import exceptions as boto
    from botocore.config import Config
except ImportError as error:
    raise OSError(f"s3:// needs boto3, which is not installed: pip install 'beam-score[s3]' ({error})") from None

_CONNECT_S, _READ_S = 10, 60
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")
_TRY_AGAIN = (408, 409, 429)  # 409: another conditional write of the object is under way
_BATCH, _BATCHES_AT_ONCE = 1000, 4
_KNOWS_NO_BATCH = (400, 405, 411, 501)
"""Responses of S3-compatible stores that do not support DeleteObjects, or its checksum."""

_GONE = ("NoSuchKey",)
_ITEMS_TRIED_AGAIN = ("InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown")
_LOST = (boto.HTTPClientError, boto.IncompleteReadError, boto.ResponseStreamingError)


_CLOCK = StoreClock()


class _CorruptObject(Exception):
    """The content that was read does not match the store's checksum."""


class _SomeFailed(Exception):
    """Some of the objects in one request have to be retried."""


@functools.cache
def _client(process: int, settings: tuple[str | None, ...], without: bool) -> Any:
    """Return the client of a process: sockets must not be shared across a fork."""
    config = Config(
        max_pool_connections=HEADS_AT_ONCE,
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"total_max_attempts": 1},  # `_call` retries, for a time rather than a number of times
        signature_version=UNSIGNED if without else None,
        # Checksums are computed and compared here, with CRC32C, which all stores support and receipts contain.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client("s3", config=config)


class AmazonStore:
    """See `transforms.stores.objects.ObjectStore`."""

    def info(self, path: ObjectPath) -> ObjectInfo | None:
        with _told(path):
            try:
                found = _call("head_object", path, ChecksumMode="ENABLED")
            except boto.ClientError as error:
                if _status(error) == 404:
                    return None
                raise
            return _info(path, found["ContentLength"], found)

    def list(self, folder: ObjectPath, recursive: bool = True) -> Iterator[ObjectInfo | ObjectPath]:
        further: dict[str, Any] | None = {} if recursive else {"Delimiter": "/"}
        prefix = f"{folder.key}/" if folder.key else ""
        with _told(folder):
            while further is not None:
                page = _call("list_objects_v2", folder, key=False, Prefix=prefix, **further)
                found = [
                    _info(ObjectPath(folder.scheme, folder.bucket, item["Key"]), item["Size"], item)
                    for item in page.get("Contents", ())
                ]
                folders = [
                    ObjectPath(folder.scheme, folder.bucket, item["Prefix"].rstrip("/"))
                    for item in page.get("CommonPrefixes", ())
                ]
                listed: list[ObjectInfo | ObjectPath] = [*found, *folders]
                yield from sorted(listed, key=lambda one: path_of(one).key)
                token = page.get("NextContinuationToken")
                further = further | {"ContinuationToken": token} if token else None

    def read(self, path: ObjectPath, start: int = 0, end: int | None = None, version: str | None = None) -> bytes:
        if end is not None and end <= start:
            return b""
        whole = start == 0 and end is None
        wanted: dict[str, Any] = {} if version is None else {"IfMatch": f'"{version}"'}
        if whole:
            wanted["ChecksumMode"] = "ENABLED"
        else:
            wanted["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        with _told(path):
            try:
                return _call("get_object", path, then=_whole if whole else _content, **wanted)
            except boto.ClientError as error:
                if _status(error) == 416:  # the range begins at or after the end
                    return b""
                raise

    def write(self, path: ObjectPath, pieces: Sequence[bytes | memoryview], only_over: str | None = None) -> ObjectInfo:
        content = b"".join(pieces)
        crc = google_crc32c.value(content).to_bytes(4, "big")
        condition: dict[str, Any] = {}
        if only_over is not None:
            condition = {"IfMatch": f'"{only_over}"'} if only_over else {"IfNoneMatch": "*"}
        with _told(path):
            try:
                # The checksum is sent along, and the store refuses content that does not match it.
                written = _call(
                    "put_object",
                    path,
                    Body=content,
                    ChecksumAlgorithm="CRC32C",
                    ChecksumCRC32C=base64.b64encode(crc).decode(),
                    **condition,
                )
            except boto.ClientError as error:
                if only_over and _status(error) == 404 and _code(error) != "NoSuchBucket":
                    raise mismatch(path) from error  # the object to replace is gone
                raise
            return ObjectInfo(path, len(content), _version(written), crc.hex(), 0.0)

    def copy(self, source: ObjectPath, target: ObjectPath) -> None:
        with _told(source):
            _call("copy_object", target, CopySource={"Bucket": source.bucket, "Key": source.key})

    def copy_all(self, copies: Sequence[tuple[ObjectPath, ObjectPath]]) -> None:
        parallel_map(lambda copy: self.copy(*copy), copies, AT_ONCE)

    def remove(self, path: ObjectPath, only: str | None = None) -> bool:
        condition: dict[str, Any] = {} if only is None else {"IfMatch": f'"{only}"'}
        with _told(path):
            try:
                _call("delete_object", path, **condition)
            except boto.ClientError as error:
                if _status(error) in (404, 412) and _code(error) != "NoSuchBucket":
                    return only is None
                raise
            return True

    def remove_all(self, paths: Sequence[ObjectPath]) -> None:
        batches = [paths[at : at + _BATCH] for at in range(0, len(paths), _BATCH)]
        parallel_map(_remove_batch, batches, _BATCHES_AT_ONCE)

    def clock(self) -> float:
        return _CLOCK.now()


STORE = AmazonStore()


def _remove_batch(paths: Sequence[ObjectPath]) -> None:
    """Remove objects of one bucket in one request. Only objects whose error may pass are retried."""
    left = [{"Key": path.key} for path in paths]
    wrong: list[tuple[str, boto.ClientError]] = []

    def judge(answer: dict[str, Any]) -> None:
        told = [(e["Key"], e) for e in answer.get("Errors", ()) if e["Code"] not in _GONE]
        left[:] = [{"Key": key} for key, error in told if error["Code"] in _ITEMS_TRIED_AGAIN]
        wrong.extend((key, _item_error(error)) for key, error in told if error["Code"] not in _ITEMS_TRIED_AGAIN)
        if left:
            raise _SomeFailed(f"{len(left)} objects were not removed: {next(e['Code'] for _, e in told)}")

    try:
        _call("delete_objects", paths[0], then=judge, key=False, Delete={"Objects": left, "Quiet": True})
    except Exception as error:
        if isinstance(error, boto.ClientError) and _status(error) in _KNOWS_NO_BATCH:
            parallel_map(STORE.remove, [dataclasses.replace(paths[0], key=one["Key"]) for one in left], AT_ONCE)
            return
        with _told(dataclasses.replace(paths[0], key=left[0]["Key"])):
            raise
    for key, refusal in wrong[:1]:
        raise _of(dataclasses.replace(paths[0], key=key), refusal)


def _item_error(told: dict[str, Any]) -> boto.ClientError:
    """Return the error of one object as if it had its own request."""
    status = 403 if told["Code"] == "AccessDenied" else 400
    return boto.ClientError({"Error": told, "ResponseMetadata": {"HTTPStatusCode": status}}, "DeleteObjects")


def _call(
    name: str,
    path: ObjectPath,
    then: Callable[[dict[str, Any]], Any] | None = None,
    key: bool = True,
    **arguments: Any,
) -> Any:
    """Make a call, retried while that may help.

    Args:
      then: processes the response, and is retried with the call.
      key: whether the call is about an object, rather than a bucket.
    """
    settings = tuple(os.environ.get(name) for name in _ENDPOINTS)
    method = getattr(_client(os.getpid(), settings, anonymous()), name)
    about = {"Bucket": path.bucket} | ({"Key": path.key} if key else {})

    def once() -> Any:
        answer = method(**about, **arguments)
        _CLOCK.heard(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
        return answer if then is None else then(answer)

    return Retry(predicate=_may_help, initial=0.1, maximum=10.0, multiplier=2.0, timeout=retry_s())(once)()


def _may_help(error: Exception) -> bool:
    if isinstance(error, boto.ClientError):
        return _status(error) in _TRY_AGAIN or (_status(error) >= 500 and _status(error) != 501)
    return isinstance(error, (*_LOST, _CorruptObject, _SomeFailed))


def _content(answer: dict[str, Any]) -> bytes:
    with contextlib.closing(answer["Body"]) as body:
        return body.read()


def _whole(answer: dict[str, Any]) -> bytes:
    content, expected = _content(answer), _crc(answer)
    if expected is not None and google_crc32c.value(content) != int(expected, 16):
        raise _CorruptObject("the content does not match its checksum")
    return content


def _info(path: ObjectPath, size: int, found: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(path, size, _version(found), _crc(found), found["LastModified"].timestamp())


def _version(found: dict[str, Any]) -> str:
    return found["ETag"].strip('"')


def _crc(found: dict[str, Any]) -> str | None:
    """Return the checksum of the whole object. An object uploaded in parts only has a checksum of checksums."""
    crc = found.get("ChecksumCRC32C")
    return base64.b64decode(crc).hex() if crc and "-" not in crc else None


def _status(error: boto.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _code(error: boto.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


@contextlib.contextmanager
def _told(path: ObjectPath) -> Iterator[None]:
    """Convert the library's errors into those of `ObjectStore`."""
    try:
        yield
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        raise denied(
            path,
            f"AWS credentials are missing or incomplete ({error}): run `aws configure`, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (or BEAM_SCORE_STORE_ANONYMOUS=1 for public buckets)",
        ) from None
    except RetryError as error:
        raise gave_up(path, error.cause or error) from error
    except boto.ClientError as error:
        raise _of(path, error) from error
    except (boto.BotoCoreError, _CorruptObject) as error:
        raise failed(path, f"S3 cannot be used: {first_line(error)}") from error


def _of(path: ObjectPath, error: boto.ClientError) -> OSError:
    return refused(path, "S3", error, _status(error), _code(error) == "NoSuchBucket")
