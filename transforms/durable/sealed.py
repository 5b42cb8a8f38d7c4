"""Files of the protocol that carry their own checksum: what was written, or nothing, is believed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import google_crc32c
import orjson

from beam_score.transforms.durable import storage

_SEAL = b'{"crc32c":"%s",'
_SEAL_BYTES = len(_SEAL % bytes(8))


class Damaged(ValueError):
    """A file of the protocol is not what was written."""


def checksum(content: bytes) -> str:
    """The CRC-32C of some bytes, in hexadecimal."""
    return f"{google_crc32c.value(content):08x}"


def to_json(fields: Mapping[str, Any], indent: bool = False) -> bytes:
    """JSON, of numpy's numbers too, for people where it is indented."""
    try:
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0))
    except TypeError:  # it takes whole numbers of 64 bits at most; a range of the contract may have larger ones
        plain = json.loads(json.dumps(fields, default=lambda number: number.item()), parse_constant=lambda _: None)
        return json.dumps(plain, indent=2 if indent else None).encode()  # NaN and infinities as null, as orjson does


def seal(fields: Mapping[str, Any]) -> bytes:
    """Fields, at least one, as JSON, the first being the checksum of all that follows it."""
    rest = to_json(fields)[1:]
    return _SEAL % checksum(rest).encode() + rest


def unseal(content: bytes, name: str = "") -> dict[str, Any]:
    """What was sealed.

    Args:
      name: of the file, for the error.

    Raises:
      Damaged: not a byte of it is to be believed.
    """
    rest = content[_SEAL_BYTES:]
    if content[:_SEAL_BYTES] == _SEAL % checksum(rest).encode():
        with contextlib.suppress(ValueError):  # text that no launch writes, as a lone surrogate
            fields = orjson.loads(content)
            del fields["crc32c"]
            return fields
    raise Damaged(f"{name}: damaged: its content does not fit its checksum")


def read_sealed(path: storage.Place) -> dict[str, Any] | None:
    """What a sealed file says; None where there is none. Raises Damaged."""
    content = storage.read(path)
    return None if content is None else unseal(content, str(path))
