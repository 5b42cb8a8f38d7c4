"""The id of a request, and its refusal before it reaches a model, for all protocols."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Refusal(Exception):
    """A request that is refused before it reaches a model.

    Attributes:
      status: of HTTP.
      headers: of HTTP, further ones.
    """

    def __init__(self, status: int, message: str, headers: Sequence[tuple[bytes, bytes]] = ()):
        super().__init__(message)
        self.status, self.headers = status, headers


def request_id(given: str) -> str:
    """Return the id that a client gives, if it can be shown as it is; else a new one."""
    return given if given and _ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
