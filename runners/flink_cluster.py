"""A Flink cluster, asked by its REST service."""

from __future__ import annotations

import dataclasses
import json
import time
import urllib.error
import urllib.request
from typing import Any

_ANSWERS_WITHIN_S = 3
_CANCELLED_WITHIN_S = 10
_OVER = ("FINISHED", "FAILED", "CANCELED")


class Unreachable(Exception):
    """It does not answer; the text says why."""


@dataclasses.dataclass(frozen=True)
class Overview:
    """Attributes:
    version: of Flink, as 1.19.
    task_managers: that are registered.
    slots: of all of them.
    free: slots that no job has.
    """

    version: str
    task_managers: int
    slots: int
    free: int


def overview(address: str) -> Overview:
    """Raises Unreachable."""
    found = ask(address, "/overview")
    try:
        version = ".".join(found["flink-version"].split(".")[:2])
        return Overview(version, found["taskmanagers"], found["slots-total"], found["slots-available"])
    except (KeyError, TypeError, AttributeError):
        raise Unreachable("what answers is no Flink REST service") from None


def cancel(address: str, name: str) -> None:
    """Cancels all jobs of a name, and waits until they are; those that come up late too.

    Raises:
      Unreachable: it does not answer.
    """
    until = time.monotonic() + _CANCELLED_WITHIN_S
    quiet = 0
    while time.monotonic() < until and quiet < 3:
        jobs = [j for j in ask(address, "/jobs/overview")["jobs"] if j["name"] == name and j["state"] not in _OVER]
        for job in jobs:
            if job["state"] not in ("CANCELLING",):
                ask(address, f"/jobs/{job['jid']}?mode=cancel", "PATCH")
        quiet = 0 if jobs else quiet + 1
        time.sleep(0.1)


def ask(address: str, path: str, method: str = "GET") -> Any:
    """What the REST service answers. Raises Unreachable."""
    base = address if "://" in address else f"http://{address}"
    request = urllib.request.Request(base.rstrip("/") + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_ANSWERS_WITHIN_S) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        raise Unreachable(f"it answers {error.code} to {path}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(getattr(reason, "strerror", None) or str(reason) or type(error).__name__) from None
