"""Files of the protocol that contain their own checksum, so that damage is always noticed."""

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


class CorruptFile(ValueError):
    """The content of a protocol file does not match its checksum."""


def checksum(content: bytes) -> str:
    """Return the CRC-32C of some bytes, in hexadecimal."""
    return f"{google_crc32c.value(content):08x}"


def to_json(fields: Mapping[str, Any], indent: bool = False) -> bytes:
    """Return fields as JSON, which may contain numpy numbers."""
    try:
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0))
    except TypeError:  # orjson only takes 64-bit integers; a range of the contract may have larger ones
        plain = json.loads(json.dumps(fields, default=lambda number: number.item()), parse_constant=lambda _: None)
        return json.dumps(plain, indent=2 if indent else None).encode()  # NaN and infinities as null, as orjson does


def seal(fields: Mapping[str, Any]) -> bytes:
    """Return fields, at least one, as JSON whose first field is the checksum of the rest."""
    rest = to_json(fields)[1:]
    return _SEAL % checksum(rest).encode() + rest


def unseal(content: bytes, name: str = "") -> dict[str, Any]:
    """Return the fields of a sealed content.

    Args:
      name: of the file, for the error.

    Raises:
      CorruptFile: the checksum does not match.
    """
    rest = content[_SEAL_BYTES:]
    if content[:_SEAL_BYTES] == _SEAL % checksum(rest).encode():
        with contextlib.suppress(ValueError):  # text that no launch writes, such as a lone surrogate
            fields = orjson.loads(content)
            del fields["crc32c"]
            return fields
    raise CorruptFile(f"{name}: damaged: the content does not match its checksum")


def read_sealed(path: storage.Place) -> dict[str, Any] | None:
    """Return the fields of a sealed file; None if it does not exist. Raises CorruptFile."""
    content = storage.read(path)
    return None if content is None else unseal(content, str(path))
