"""The faults of refused rows as `google.rpc.Status` with a `google.rpc.BadRequest`, which gRPC's clients can read."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from beam_score.transforms.model.proto_fields import message_classes

METADATA = "grpc-status-details-bin"
"""The key of trailing metadata with the status."""

_MOST_BYTES = 4096  # clients refuse more than 8 KiB of metadata

_FIELDS = {
    "Status": [("code", 1, "int32"), ("message", 2, "string"), ("details", 3, "*Any")],
    "Any": [("type_url", 1, "string"), ("value", 2, "bytes")],
    "BadRequest": [("field_violations", 1, "*FieldViolation")],
    "FieldViolation": [("field", 1, "string"), ("description", 2, "string"), ("reason", 3, "string")],
}


def status_of(code: int, message: str, faults: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a serialized Status, with as many of the faults as clients accept.

    Args:
      code: of gRPC.
      faults: with `index`, `column`, `reason` and `message`, as in the answers of HTTP.
    """
    classes = _classes()
    request, size = classes["BadRequest"](), len(message.encode())
    for fault in faults:
        column = "" if fault["column"] is None else f".{fault['column']}"
        field = f"instances[{fault['index']}]{column}"
        one = classes["FieldViolation"](field=field, description=fault["message"], reason=fault["reason"])
        size += one.ByteSize() + 3
        if size > _MOST_BYTES:
            break
        request.field_violations.append(one)
    status = classes["Status"](code=code, message=message)
    status.details.add(type_url="type.googleapis.com/google.rpc.BadRequest", value=request.SerializeToString())
    return bytes(status.SerializeToString())


@functools.cache
def _classes() -> Mapping[str, Any]:
    return message_classes(_FIELDS, "beam_score.status")
