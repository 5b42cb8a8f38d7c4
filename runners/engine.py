"""The interface of all engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from beam_score.runners.elsewhere import Elsewhere

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineResult


@dataclasses.dataclass(frozen=True)
class Measured:
    """The estimated size of a job, before it runs.

    Attributes:
      rows: of the whole input, estimated from its bytes and the bytes of the first rows; 0 if there are no rows.
      cpu_s_a_row: seconds of processor time per row on this machine, without writing.
      tried: number of rows that were timed.
    """

    rows: float
    cpu_s_a_row: float
    tried: int


class Engine(Protocol):
    """An engine that runs pipelines: it turns settings into Beam options, and starts, awaits and stops a job.

    Results do not depend on the engine. An engine's counters are shown, but recorded counts come from receipts.

    Attributes:
      in_one_process: whether the workers are threads of this process, and see its flags
        (`transforms.common.stopping.Stopping`).
      chains: how many copies of the chain from Plan to WriteParts the graph has. More than one only for an engine that
        uses one thread per chain.
    """

    @property
    def in_one_process(self) -> bool: ...

    @property
    def chains(self) -> int:
        return 1

    def problems(self) -> list[str]:
        """Return a message for each invalid or missing setting, Beam option or program. Takes about a second, and
        starts nothing that costs money."""

    def explain(self) -> list[str]:
        """Return lines for `check`: the numbers of processes, threads and copies of the model, and the reasons."""

    def place_problems(self, places: Mapping[str, Sequence[str]]) -> list[str]:
        """Return a message for each path of the job that the workers cannot access.

        Args:
          places: the paths in the job file, by key.
        """
        return []

    def memory_problems(self, model_bytes: int) -> list[str]:
        """Return a message if the machines that the engine starts have too little memory.

        Args:
          model_bytes: of the SavedModel on disk.
        """
        return []

    def estimate(self, measured: Callable[[], Measured]) -> list[str]:
        """Return lines for `check`: the estimated time and cost of a job, if the engine costs money.

        Args:
          measured: times the job's first rows, which takes a second.
        """
        return []

    def elsewhere(self, name: str) -> Elsewhere | None:
        """Return the remote job that `run` would submit; None if the job ends with this process.

        Args:
          name: the run's id.
        """
        return None

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        """Run a pipeline, here or as a remote job, and wait for its end.

        Args:
          build: puts the transforms into a pipeline.
          name: the run's id.

        Returns:
          Beam's result, for its state and counters.

        Raises:
          GoesOnElsewhere: the job was submitted, and the settings say not to wait for it.
          Exception: the job failed; the text contains what a worker raised.
        """

    def stop(self) -> None:
        """End everything that `run` has started, if anything; may be called from another thread."""
