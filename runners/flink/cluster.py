"""A Flink cluster, asked by its REST service."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from typing import Any

from beam_score.runners.elsewhere import Elsewhere, Found

_ANSWERS_WITHIN_S = 3
_CANCELLED_WITHIN_S = 10
_HOST = re.compile(r"@([^/]+):\d+/")
_ID = re.compile("[0-9a-f]{1,64}")
_STATE = re.compile("[A-Z_]{1,40}")
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


def hosts(address: str) -> list[str]:
    """Where the TaskManagers are, a name each. Raises Unreachable."""
    try:
        return [_HOST.search(manager["path"])[1] for manager in ask(address, "/taskmanagers")["taskmanagers"]]
    except (KeyError, TypeError):
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


def find(job: Elsewhere) -> Found:
    """See `runners.choose.find`."""
    address = job.place["address"]
    try:
        named = [found for found in ask(address, "/jobs/overview")["jobs"] if found["name"] == job.name]
        if not all(_ID.fullmatch(found["jid"]) and _STATE.fullmatch(found["state"]) for found in named):
            raise TypeError  # both are shown, the id in a command
    except Unreachable as error:
        return Found(job, alive=None, why=f"no Flink cluster answers there: {error}")
    except (KeyError, TypeError):
        return Found(job, alive=None, why="what answers is not a Flink REST service")
    # It is asked for once by each launch; one that has ended may be forgotten after a while.
    for found in named:
        if found["state"] not in _OVER:
            cancel = f"curl -X PATCH '{_base(address)}/jobs/{found['jid']}?mode=cancel'"
            return Found(job, found["jid"], found["state"], True, cancel=cancel)
    return Found(job, named[0]["jid"], named[0]["state"]) if named else Found(job)


def ask(address: str, path: str, method: str = "GET") -> Any:
    """What the REST service answers. Raises Unreachable."""
    try:
        request = urllib.request.Request(_base(address) + path, method=method)
        with urllib.request.urlopen(request, timeout=_ANSWERS_WITHIN_S) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        raise Unreachable(f"it answers {error.code} to {path}") from None
    except http.client.HTTPException:
        raise Unreachable("what answers there does not speak HTTP, or the address is none") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(getattr(reason, "strerror", None) or str(reason) or type(error).__name__) from None


def _base(address: str) -> str:
    return (address if "://" in address else f"http://{address}").rstrip("/")
