"""The id of a request, and its refusal before it reaches a model, for all protocols."""

from __future__ import annotations

import random
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Refusal(Exception):
    """A request that is refused before it reaches a model.

    Attributes:
      status: of HTTP.
      headers: of HTTP, further ones.
      faults: of its rows, as in the answers of HTTP.
      counted: whether it is in the account of a version.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        faults: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__(message)
        self.status, self.headers, self.faults = status, headers, faults
        self.counted = False


def version_number(text: str | None) -> str | None:
    """Return the version of a path or a message; None if there is none, or it is empty. Raises Refusal."""
    if not text:
        return None
    if not text.isdecimal() or int(text[:20]) >= 1 << 63:
        raise Refusal(400, f"Failed to convert version: {text[:20]} to numeric.")
    return text


def named(found: re.Match[str]) -> dict[str, Any]:
    """Return the parts of a path that name a model: its name, and the version. Raises Refusal."""
    parts = {key: part and urllib.parse.unquote(part) for key, part in found.groupdict().items() if key != "method"}
    return {**parts, "version": version_number(parts["version"])}


def request_id(given: str) -> str:
    """Return the id that a client gives, if it can be shown as it is; else a new one."""
    return given if given and _ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
