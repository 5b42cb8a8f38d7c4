"""Recognizes runs that this user has launched by a mark in their records, made with a key that only this user can read.

A replay runs the model and the preprocess function that a record names. A record that someone else has written or
changed does not have a valid mark.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from beam_score.transforms.durable.sealed import to_json

_KEY_BYTES = 32
_MARKED = ("job", "model", "fingerprint")
"""Fields of a record that determine what its replay runs."""


def mark(record: Mapping[str, Any]) -> str | None:
    """Return the mark of a record; None if this user has no folder for a key.

    Args:
      record: of a run, or the header of its plan.
    """
    key = _key()
    if key is None:
        return None
    fields = orjson.loads(to_json({name: record[name] for name in _MARKED}))  # the values as read back from the record
    return hmac.new(key, json.dumps(fields, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def is_own(record: Mapping[str, Any]) -> bool:
    """Return whether this user has launched the run of a record, and the marked fields are unchanged since."""
    found, expected = record.get("mark"), mark(record)
    return isinstance(found, str) and expected is not None and hmac.compare_digest(found.encode(), expected.encode())


def _key() -> bytes | None:
    """Return this user's key, created at the first call."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "beam-score"
        path = folder / "key"
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = folder / f".key.{secrets.token_hex(6)}"
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(_KEY_BYTES))
            with contextlib.suppress(FileExistsError):  # another launch created it first
                os.link(new, path)
            new.unlink()
        key = bytes.fromhex(path.read_text())
        return key if len(key) == _KEY_BYTES else None
    return None
