"""Client of a Flink cluster's REST service."""

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
_NOT_FLINK = "the service that answers is not a Flink REST service"


class Unreachable(Exception):
    """The cluster does not answer; the text says why."""


@dataclasses.dataclass(frozen=True)
class Overview:
    """The size of a cluster.

    Attributes:
      version: of Flink, for example 1.19.
      task_managers: number of registered TaskManagers.
      slots: total number of slots.
      free: number of slots not used by a job.
    """

    version: str
    task_managers: int
    slots: int
    free: int


def overview(address: str) -> Overview:
    """Return the size of a cluster. Raises Unreachable."""
    found = ask(address, "/overview")
    try:
        version = ".".join(found["flink-version"].split(".")[:2])
        return Overview(version, found["taskmanagers"], found["slots-total"], found["slots-available"])
    except (KeyError, TypeError, AttributeError):
        raise Unreachable(_NOT_FLINK) from None


def hosts(address: str) -> list[str]:
    """Return the host name of each TaskManager. Raises Unreachable."""
    try:
        found = [_HOST.search(manager["path"]) for manager in ask(address, "/taskmanagers")["taskmanagers"]]
    except (KeyError, TypeError):
        raise Unreachable(_NOT_FLINK) from None
    if None in found:
        raise Unreachable(_NOT_FLINK)
    return [host[1] for host in found if host is not None]


def cancel(address: str, name: str) -> None:
    """Cancel all jobs with a name, including jobs that appear meanwhile, and wait until they are cancelled.

    Raises:
      Unreachable: the cluster does not answer.
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
    """Return the state of a job on a Flink cluster; see `runners.choose.find`."""
    address = job.place["address"]
    try:
        named = [found for found in ask(address, "/jobs/overview")["jobs"] if found["name"] == job.name]
        if not all(_ID.fullmatch(found["jid"]) and _STATE.fullmatch(found["state"]) for found in named):
            raise TypeError  # both are shown to the user, the id in a command
    except Unreachable as error:
        return Found(job, alive=None, why=f"no Flink cluster answers at this address: {error}")
    except (KeyError, TypeError):
        return Found(job, alive=None, why=_NOT_FLINK)
    # Each launch submits a job of its own; Flink forgets ended jobs after a while.
    for found in named:
        if found["state"] not in _OVER:
            cancel = f"curl -X PATCH '{_base(address)}/jobs/{found['jid']}?mode=cancel'"
            return Found(job, found["jid"], found["state"], True, cancel=cancel)
    return Found(job, named[0]["jid"], named[0]["state"]) if named else Found(job)


def ask(address: str, path: str, method: str = "GET") -> Any:
    """Return the answer of the REST service. Raises Unreachable."""
    try:
        request = urllib.request.Request(_base(address) + path, method=method)
        with urllib.request.urlopen(request, timeout=_ANSWERS_WITHIN_S) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        raise Unreachable(f"it answers {error.code} to {path}") from None
    except http.client.HTTPException:
        raise Unreachable("the service that answers does not speak HTTP, or the address is invalid") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(getattr(reason, "strerror", None) or str(reason) or type(error).__name__) from None


def _base(address: str) -> str:
    return (address if "://" in address else f"http://{address}").rstrip("/")
