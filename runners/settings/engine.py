"""The `engine` section of a job file. Except for XLA, no setting changes a result.

An engine with its own settings has a section with the name of the runner, and a method `layout(workers) -> Layout`
that depends only on the settings, since the plan is based on it.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from beam_score.runners.settings.dataflow import DataflowSettings
from beam_score.runners.settings.flink import FlinkSettings
from beam_score.runners.settings.layout import PROCESS_BYTES, Layout, one_process
from beam_score.runners.settings.machine_memory import machine_bytes
from beam_score.transforms.common.bounds import Bounds, bounds_of
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.common.units import parse_bytes

LEAST_MEMORY_BYTES = 1_000_000_000
MEMORY_SHARE = 0.75
"""Share of a machine's memory for workers; the rest is for the system, file caches, and the engine itself."""

UNKNOWN_MACHINE_BYTES = 512 << 20
"""Memory per thread on a cluster's machine, whose memory the launcher does not know."""


class PrismSettings(Strict):
    """`engine.prism` of a job file.

    Attributes:
      binary: path of Prism; by default from the environment variable, or found on PATH.
    """

    binary: str | None = None

    def layout(self, workers: int | Literal["auto"]) -> Layout:
        return one_process(workers)


class EngineSettings(Strict):
    """`engine` of a job file."""

    runner: Literal["local", "flink", "prism", "dataflow"] = "local"
    workers: int | Literal["auto"] = "auto"
    split_bytes: int = 64_000_000
    block_bytes: int = 8 << 20
    memory: int | Literal["auto"] = "auto"
    xla: Literal["on", "off"] = "off"
    intra_op_threads: int | Literal["auto"] = "auto"
    flink: FlinkSettings = FlinkSettings()
    prism: PrismSettings = PrismSettings()
    dataflow: DataflowSettings = DataflowSettings()

    _bytes = pydantic.field_validator("split_bytes", "block_bytes", mode="before")(parse_bytes)

    @pydantic.field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: Any) -> Any:
        return value if value == "auto" else parse_bytes(value)

    @pydantic.field_validator("xla", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return "on" if value else "off"
        return "off" if value == "auto" else value  # "auto" was the default in older job files

    @pydantic.model_validator(mode="after")
    def _sizes(self) -> EngineSettings:
        if self.split_bytes < 1 << 10 or self.block_bytes < 1 << 10:
            raise ValueError("expected split_bytes and block_bytes of at least 1 KiB")
        if isinstance(self.memory, int) and self.memory < LEAST_MEMORY_BYTES:
            raise ValueError(
                f"memory: a worker process takes {PROCESS_BYTES / 1e9:g} GB without a model and rows; set it to at "
                f"least {LEAST_MEMORY_BYTES / 1e9:g}GB, or auto"
            )
        if isinstance(self.workers, int) and self.workers < 1:
            raise ValueError("workers: expected a positive number, or auto")
        if isinstance(self.intra_op_threads, int) and self.intra_op_threads < 1:
            raise ValueError("intra_op_threads: expected a positive number, or auto")
        if self.runner == "flink" and self.workers == "auto" and not self.flink.embedded:
            raise ValueError("workers: for a Flink cluster, set the number of slots that the job may use")
        return self

    @property
    def layout(self) -> Layout:
        """Threads, processes and cores of the selected engine."""
        section = getattr(self, self.runner, None)
        if section is not None:
            return section.layout(self.workers)
        return one_process(self.workers)

    @property
    def memory_bytes(self) -> int:
        """Memory limit of a worker process: as set, else a share of the machine's memory or the container's limit."""
        if isinstance(self.memory, int):
            return self.memory
        if self.runner == "dataflow":
            return int(MEMORY_SHARE * self.dataflow.machine_bytes)
        if self.runner == "flink" and self.flink.environment_type != "LOOPBACK":
            return PROCESS_BYTES + self.layout.threads * UNKNOWN_MACHINE_BYTES
        return int(MEMORY_SHARE * machine_bytes())

    def bounds(self, model_bytes: int) -> Bounds:
        """Return the memory bounds of each worker thread.

        Args:
          model_bytes: size of the SavedModel on disk, most of which is variables.
        """
        return bounds_of(self.memory_bytes - PROCESS_BYTES - model_bytes, self.layout.threads)
