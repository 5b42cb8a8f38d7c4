"""The part of a job file that says where and how it runs. Nothing here changes a result, but for XLA.

An engine that has settings of its own has a section named like the runner, with a method
`layout(workers) -> Layout` that goes by the settings alone: the plan is made by it.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from beam_score.runners.settings.dataflow import DataflowSettings
from beam_score.runners.settings.flink import FlinkSettings
from beam_score.runners.settings.layout import PROCESS_BYTES, Layout, available_cores, one_process
from beam_score.runners.settings.machine_memory import machine_bytes
from beam_score.transforms.common.bounds import Bounds, bounds_of
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.common.units import parse_bytes

LEAST_MEMORY_BYTES = 1_000_000_000
MEMORY_SHARE = 0.75
"""Of a machine: the rest is for the system, file caches, and the engine itself."""

UNKNOWN_MACHINE_BYTES = 512 << 20
"""For a thread on a cluster's machine, of which the launcher does not know the memory."""


class PrismSettings(Strict):
    """`engine.prism` of a job file.

    Attributes:
      binary: path of the program; else that of the environment, or on the path.
    """

    binary: str | None = None

    def layout(self, workers: int | Literal["auto"]) -> Layout:
        return one_process(workers)


class EngineSettings(Strict):
    """`engine` of a job file."""

    runner: Literal["local", "flink", "prism", "dataflow"] = "local"
    workers: int | Literal["auto"] = "auto"
    split_bytes: int = 64_000_000
    block_bytes: int = 1 << 20
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
        return "off" if value == "auto" else value  # of job files written when it was the default

    @pydantic.model_validator(mode="after")
    def _sizes(self) -> EngineSettings:
        if self.split_bytes < 1 << 10 or self.block_bytes < 1 << 10:
            raise ValueError("split_bytes and block_bytes are at least 1 KiB")
        if isinstance(self.memory, int) and self.memory < LEAST_MEMORY_BYTES:
            raise ValueError(
                f"memory: a worker process takes {PROCESS_BYTES / 1e9:g} GB before there is a model or a row; give it "
                f"at least {LEAST_MEMORY_BYTES / 1e9:g}GB, or auto"
            )
        if isinstance(self.workers, int) and self.workers < 1:
            raise ValueError("workers: a positive number, or auto")
        if isinstance(self.intra_op_threads, int) and self.intra_op_threads < 1:
            raise ValueError("intra_op_threads: a positive number, or auto")
        if self.runner == "flink" and self.workers == "auto" and not self.flink.embedded:
            raise ValueError("workers: with a Flink cluster, say how many of its slots the job may have")
        return self

    @property
    def layout(self) -> Layout:
        """Threads, processes and cores, as the engine that is asked for lays them out."""
        section = getattr(self, self.runner, None)
        if section is not None:
            return section.layout(self.workers)
        return one_process(self.workers)

    @property
    def memory_bytes(self) -> int:
        """What a worker process may take: as set, else a share of the machine's memory or the container's limit."""
        if isinstance(self.memory, int):
            return self.memory
        if self.runner == "dataflow":
            return int(MEMORY_SHARE * self.dataflow.machine_bytes)
        if self.runner == "flink" and self.flink.environment_type != "LOOPBACK":
            return PROCESS_BYTES + self.layout.threads * UNKNOWN_MACHINE_BYTES
        return int(MEMORY_SHARE * machine_bytes())

    def bounds(self, model_bytes: int) -> Bounds:
        """The bounds of each worker thread.

        Args:
          model_bytes: of the SavedModel on disk, most of which are variables.
        """
        return bounds_of(self.memory_bytes - PROCESS_BYTES - model_bytes, self.layout.threads)


__all__ = ["EngineSettings", "PrismSettings", "available_cores"]
