"""Jobs that outlive the process that submits them, and whether they do. Light: what asks is imported when it asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


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
