"""What every place to run has in common, and which one a job asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import apache_beam as beam
from apache_beam.runners.runner import PipelineResult

from runners.settings import EngineSettings


class Engine(Protocol):
    """A place where a pipeline runs: settings turned into Beam's options, started, waited for, and stopped.

    Nothing in a result depends on which one it is. Counters of an engine are told, never trusted: what is on
    record comes from receipts.

    Attributes:
      in_one_process: whether the workers are threads of this process, and see its flags
        (`transforms.read.STOP` and `DRAIN`).
    """

    in_one_process: bool

    def problems(self) -> list[str]:
        """What is wrong with settings and Beam's options, or not there, a sentence each; in a second, and before
        anything is started or costs anything."""

    def explain(self) -> list[str]:
        """For `check`: how many processes, threads and copies of the model there will be, and why; a line each."""

    def run(self, build: Callable[[beam.Pipeline], object]) -> PipelineResult:
        """Runs a pipeline to its end, which may be elsewhere.

        Args:
          build: puts the transforms into a pipeline.

        Returns:
          Beam's result, for its state and counters.

        Raises:
          Exception: it failed; what a worker raised is in the text.
        """

    def stop(self) -> None:
        """Ends all that `run` has started; may be called from another thread, and where there is nothing to end."""


def engine_of(settings: EngineSettings, beam_args: Sequence[str] = ()) -> Engine:
    """The engine that a job asks for.

    Args:
      beam_args: Beam's own options, which win over ours.
    """
    if settings.runner == "flink":
        from runners.flink import Flink

        return Flink(settings, beam_args)
    if settings.runner == "prism":
        from runners.prism import Prism

        return Prism(settings, beam_args)
    from runners.local import Local

    return Local(settings, beam_args)
