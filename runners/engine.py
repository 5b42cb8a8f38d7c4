"""What every place to run has in common, and which one a job asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import apache_beam as beam
from apache_beam.runners.runner import PipelineResult

from beam_score.runners.elsewhere import Elsewhere


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is known of a job's size before it runs.

    Attributes:
      rows: of the whole input, by its bytes and those of the first rows; 0 where there are none to go by.
      cpu_s_a_row: seconds of processor time that a row takes on this machine, writing apart.
      tried: how many rows were timed.
    """

    rows: float
    cpu_s_a_row: float
    tried: int


class Engine(Protocol):
    """A place where a pipeline runs: settings turned into Beam's options, started, waited for, and stopped.

    Nothing in a result depends on which one it is. Counters of an engine are told, never trusted: what is on
    record comes from receipts.

    Attributes:
      in_one_process: whether the workers are threads of this process, and see its flags
        (`transforms.common.stopping.Stopping`).
      chains: how many times the graph holds the chain from Plan to WriteParts. More than one only for an engine that
        has one thread go through all that a chain is given.
    """

    in_one_process: bool
    chains: int = 1

    def problems(self) -> list[str]:
        """What is wrong with settings and Beam's options, or not there, a sentence each; in a second, and before
        anything is started or costs anything."""

    def explain(self) -> list[str]:
        """For `check`: how many processes, threads and copies of the model there will be, and why; a line each."""

    def place_problems(self, places: Mapping[str, Sequence[str]]) -> list[str]:
        """What of a job's files the workers cannot see, a sentence each.

        Args:
          places: by key of the job file, the paths that it names.
        """
        return []

    def memory_problems(self, model_bytes: int) -> list[str]:
        """Where the machines that it starts have too little memory, a sentence each.

        Args:
          model_bytes: of the SavedModel on disk.
        """
        return []

    def estimate(self, measured: Callable[[], Measured]) -> list[str]:
        """For `check`: the time and the money that a job would take, where an engine costs any; a line each.

        Args:
          measured: times the job's first rows, which takes a second.
        """
        return []

    def elsewhere(self, name: str) -> Elsewhere | None:
        """The job that `run` submits, where it goes on without this process; else None.

        Args:
          name: the run's id.
        """
        return None

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        """Runs a pipeline to its end, which may be elsewhere.

        Args:
          build: puts the transforms into a pipeline.
          name: the run's id.

        Returns:
          Beam's result, for its state and counters.

        Raises:
          GoesOnElsewhere: it was not to be waited for.
          Exception: it failed; what a worker raised is in the text.
        """

    def stop(self) -> None:
        """Ends all that `run` has started; may be called from another thread, and where there is nothing to end."""
