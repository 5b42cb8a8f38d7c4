"""Remote jobs, which outlive the process that submits them, and their state. Clients of engines are imported on use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A remote job, as its launcher records it before it submits the job. It contains no secrets.

    Attributes:
      runner: `engine.runner` of the job file.
      name: of the job; unique.
      place: the worker location, by field: what is needed to ask the engine for the job.
    """

    runner: str
    name: str
    place: Mapping[str, str]

    @property
    def where(self) -> str:
        """The worker location, for messages."""
        return ", ".join(self.place.values())


@dataclasses.dataclass(frozen=True)
class Found:
    """The state of a remote job, from its engine.

    Attributes:
      job: the job in question.
      id: the engine's id of the job; None if the engine has no such job.
      state: the engine's name of the state; None if the engine does not answer, or has no such job.
      alive: whether the job runs or may still start; None if unknown.
      why: the reason that `alive` is unknown.
      cancel: the command to cancel the job; empty if it does not run.
    """

    job: Elsewhere
    id: str | None = None
    state: str | None = None
    alive: bool | None = False
    why: str = ""
    cancel: str = ""

    def __str__(self) -> str:
        if self.alive is None:
            return f"the state of job {self.job.name} on {self.job.where} is unknown ({self.why})"
        if not self.alive:
            return f"job {self.id or self.job.name} on {self.job.where} has ended"
        return f"job {self.id} on {self.job.where} is still {self.state}"
