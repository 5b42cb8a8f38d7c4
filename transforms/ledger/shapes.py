"""The valid shapes of the records of a run. Each record is compared with its shape when it is read, so values that
become a path, a number or a command later have a known form, even if another program wrote the file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from beam_score.transforms.ledger.names import PART, PUBLISHED_PATH, RUN, SHARD

_LONGEST_SHOWN = 60


class Misfit(ValueError):
    """A record does not have the shape of its kind; the text names the key."""


@dataclasses.dataclass(frozen=True)
class Maybe:
    """A value that may be null, or whose key may be missing."""

    shape: Any


@dataclasses.dataclass(frozen=True)
class Each:
    """A JSON object whose keys are any text: all values have one shape."""

    shape: Any


@dataclasses.dataclass(frozen=True)
class Natural:
    """A whole number, 0 or more."""


NATURAL = Natural()
NUMBER = (int, float)

COUNTS = {"read": NATURAL, "predicted": NATURAL, "rejected": Each(NATURAL), "stretches": Each(NATURAL)}

_KIND = re.compile("predictions|rejected")
_INPUT = {
    "path": str,
    "size": Maybe(NATURAL),
    "header": Maybe(NATURAL),
    "predicted_before": Maybe(NATURAL),
    "mtime_ns": Maybe(int),
    "inode": Maybe(int),
    "object_version": Maybe(str),
}
_MODEL = {"path": str, "version": Maybe(str), "sha256": str, "signature": Maybe(str)}
_ENGINE = {
    "workers": Maybe(NATURAL),
    "batch_rows": NATURAL,
    "xla": bool,
    "intra_op_threads": Maybe(NATURAL),
    "runtime": Maybe(re.compile("c_api|python")),
    "block_bytes": Maybe(NATURAL),
}
_PARENT = {"run": RUN, "output": str, "from": str}

_REJECTION = {
    "reason": str,
    "column": Maybe(str),
    "rows": NATURAL,
    "also": NATURAL,
    "stretches": NATURAL,
    "source": Maybe(str),
    "row": Maybe(NATURAL),
    "message": Maybe(str),
}

CURRENT = {"run": RUN, "fingerprint": Each(str)}

PLAN = {"run": RUN, "splits": NATURAL, "shards": [SHARD]}
"""The header of a plan, as far as needed to follow a run."""

WHOLE_PLAN = {
    **PLAN,
    "replaces": [RUN],
    "fingerprint": Each(str),
    "job": {"output": {"format": str, "not_finite": str}},
    "model": _MODEL,
    "engine": Maybe(_ENGINE),
    "versions": dict,
    "headers": [str],
    "inputs": [_INPUT],
    "start_up_s": dict,
    "parent": Maybe(_PARENT),
    "mark": Maybe(str),
}
"""The header of a plan, as needed to continue a run."""

MANIFEST = {
    "run": RUN,
    "verdict": str,
    "over_budget": [str],
    "counts": {
        "read": NATURAL,
        "predicted": NATURAL,
        "rejected": NATURAL,
        "stretches": NATURAL,
        "rejected_by_reason": Each(NATURAL),
        "stretches_by_reason": Each(NATURAL),
        "rejected_by_column": Maybe([_REJECTION]),
    },
    "defaults_used": Each(NATURAL),
    "not_finite_outputs": Each(NATURAL),
    "timings": {"rows_per_s": Maybe(NUMBER), "first_read_to_last_receipt_s": NUMBER},
    "model": _MODEL,
    "engine": Maybe(_ENGINE),
    "versions": dict,
    "fingerprint": Each(str),
    "job": dict,
    "files": [{"path": PUBLISHED_PATH, "kind": _KIND, "rows": NATURAL, "bytes": NATURAL, "crc32c": str}],
    "headers": [str],
    "inputs": [_INPUT | COUNTS],
    "replaces": [RUN],
    "parent": Maybe(_PARENT),
    "mark": Maybe(str),
}
"""`manifest.json` and `failed.json`."""

VERDICT = {"number": NATURAL, "decision": str, "parts": list, "manifest": MANIFEST}

RECEIPT = {
    "split": NATURAL,
    "attempt": str,
    "parts": [{"name": PART, "kind": _KIND, "rows": NATURAL, "bytes": NATURAL, "crc32c": str}],
    "files": Each(COUNTS),
    "tally": Each(NUMBER),
    "began": NUMBER,
    "ended": NUMBER,
    "rejections": Maybe([_REJECTION]),
}

NOTE = {"runner": str, "name": str, "place": Each(str)}
"""The note about a job on a remote engine."""


def fit(found: Any, shape: Any, key: str = "") -> None:
    """Compare a value, parsed from JSON, with a shape. Keys that a shape does not name are allowed.

    Args:
      shape: a type, types, a pattern of a text, `[shape]`, `{key: shape}`, or one of the classes above.
      key: of the value, for the error.

    Raises:
      Misfit: it has another shape.
    """
    if isinstance(shape, dict):
        if not isinstance(found, Mapping):
            raise _misfit(found, "an object", key)
        for name, inner in shape.items():
            if name in found:
                if not _fits_at_once(found[name], inner):
                    fit(found[name], inner, f"{key}.{name}")
            elif not isinstance(inner, Maybe):
                raise Misfit(f"{f'{key}.{name}'[1:]} is missing")
    elif isinstance(shape, list):
        if not isinstance(found, list):
            raise _misfit(found, "a list", key)
        for value in found:
            fit(value, shape[0], key)
    elif isinstance(shape, Each):
        if not isinstance(found, Mapping):
            raise _misfit(found, "an object", key)
        for name, value in found.items():
            if not _fits_at_once(value, shape.shape):
                fit(value, shape.shape, f"{key}.{name}")
    elif isinstance(shape, Maybe):
        if found is not None:
            fit(found, shape.shape, key)
    elif isinstance(shape, re.Pattern):
        if not isinstance(found, str) or shape.fullmatch(found) is None:
            raise _misfit(found, "a name in the form that runs use", key)
    elif shape is NATURAL:
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise _misfit(found, "a whole number, 0 or more", key)
    elif not isinstance(found, shape) or (isinstance(found, bool) and shape is not bool):
        raise _misfit(found, _KINDS.get(shape, "another kind of value"), key)


def _fits_at_once(value: Any, shape: Any) -> bool:
    """Return whether a value matches a plain shape: a fast path, as a hundred thousand receipts contain little else."""
    kind = type(value)
    return kind is shape or (shape is NATURAL and kind is int and value >= 0) or (shape is NUMBER and kind in NUMBER)


_KINDS = {
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    NUMBER: "a number",
}


def _misfit(found: Any, expected: str, key: str) -> Misfit:
    shown = repr(found)[:_LONGEST_SHOWN]
    return Misfit(f"{key[1:] or 'the record'} is {shown}, expected {expected}")
