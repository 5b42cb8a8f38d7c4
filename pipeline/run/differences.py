"""Differences between two jobs, by key of the job file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from beam_score.pipeline.job.mistakes import brief

_MOST = 10
_NOT_OF_RESULTS = ("engine", "output.path", "rejects.budget", "rejects.files", "rejects.stop_after")
"""Keys, with the keys below them, that do not change results."""

_MISSING = object()


def differing_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the keys that differ, with their old and new values; empty if no key differs.

    Args:
      before, now: two jobs as plain data, without defaults; see `pipeline.job.job.Job.as_json`.
    """
    found = [
        f"{key} was {_shown(old)} and is {_shown(new)}"
        for key, old, new in _differing(before, now, ())
        if not _is_of_no_result(key)
    ]
    more = f", and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more


def _differing(before: Any, now: Any, key: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            yield from _differing(before.get(name, _MISSING), now.get(name, _MISSING), (*key, name))
    elif before is _MISSING and isinstance(now, Mapping) and now:
        for name, value in now.items():
            yield from _differing(_MISSING, value, (*key, name))
    elif now is _MISSING and isinstance(before, Mapping) and before:
        for name, value in before.items():
            yield from _differing(value, _MISSING, (*key, name))
    elif before is _MISSING or now is _MISSING or before != now:
        yield ".".join(key), before, now


def _is_of_no_result(key: str) -> bool:
    of_a_column = key.startswith("columns.") and key.endswith((".unit", ".meaning"))
    return of_a_column or any(key == name or key.startswith(f"{name}.") for name in _NOT_OF_RESULTS)


def _shown(value: Any) -> str:
    return "not set" if value is _MISSING else brief(value)
