"""Jobs that outlive the process that submits them, and whether they do. Light: what asks is imported when it asks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from runners import dataflow_names as names


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A job on another machine, as its launcher notes it before it submits it. It holds no secret.

    Attributes:
      runner: `engine.runner` of the job file.
      name: of the job, and of no other.
      place: what it takes to ask for it, by name.
    """

    runner: str
    name: str
    place: Mapping[str, str]

    @property
    def where(self) -> str:
        """For messages."""
        return ", ".join(self.place.values())


@dataclasses.dataclass(frozen=True)
class Found:
    """What an engine says of a job.

    Attributes:
      job: that was asked for.
      id: the engine's own; None where it knows of none.
      state: the engine's word for it; None where it does not answer, or knows of no such job.
      alive: whether it is at work, or may still come to it; None where nobody can tell.
      why: nobody can.
      cancel: what a person types to cancel it; empty where it is not at work.
    """

    job: Elsewhere
    id: str | None = None
    state: str | None = None
    alive: bool | None = False
    why: str = ""
    cancel: str = ""

    def __str__(self) -> str:
        if self.alive is None:
            return f"whether job {self.job.name} on {self.job.where} still runs cannot be told ({self.why})"
        if not self.alive:
            return f"job {self.id or self.job.name} on {self.job.where} is over"
        return f"job {self.id} on {self.job.where} is still {self.state}"


_ADDRESS = re.compile(r"(?:https?://)?(?:[\w.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?(?:/[\w./-]*)?", re.ASCII)
_ENDPOINT = re.compile(
    r"(?:https?://)?(?:localhost|127\.0\.0\.1|[a-z0-9.-]+\.googleapis\.com)(?::\d{1,5})?/?", re.ASCII
)


def place_problem(job: Elsewhere) -> str | None:
    """Why nobody may be asked for a job, or None. What a note says becomes the address of a request, sent with this
    user's credentials where it is of Google Cloud, and a part of a command that is shown to be typed."""
    place = job.place
    if job.runner == "flink" and not (place.keys() == {"address"} and _ADDRESS.fullmatch(place["address"])):
        return f"{dict(place)} is not the address of a Flink cluster"
    if job.runner == "dataflow":
        if not {"project", "region"} <= place.keys() <= {"project", "region", "endpoint"}:
            return f"{dict(place)} is not a project and a region"
        if not _ENDPOINT.fullmatch(place.get("endpoint", "localhost")):
            return f"{place['endpoint']} is not an endpoint of Google Cloud"
        return names.project_problem(place["project"]) or names.region_problem(place["region"])
    return None


def find(job: Elsewhere) -> Found:
    """Asks the engine what has become of a job; takes seconds where it does not answer."""
    if job.runner == "flink":
        from runners import flink_cluster

        return flink_cluster.find(job)
    if job.runner == "dataflow":
        from runners import dataflow_active

        return dataflow_active.find(job)
    return Found(job, alive=None, why=f"this release of beam-score knows no engine {job.runner!r}")
