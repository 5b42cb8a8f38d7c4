"""The part of a job file that says where and how it runs. Nothing here changes a result.

An engine that has settings of its own has a section named like the runner, with a method
`layout(workers) -> Layout` that goes by the settings alone: the plan is made by it.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from runners.dataflow_settings import DataflowSettings
from runners.flink_settings import FlinkSettings
from runners.layout import Layout, available_cores, one_process
from transforms.contract import Strict
from transforms.units import parse_bytes


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
    xla: Literal["auto", "on", "off"] = "auto"
    intra_op_threads: int | Literal["auto"] = "auto"
    flink: FlinkSettings = FlinkSettings()
    prism: PrismSettings = PrismSettings()
    dataflow: DataflowSettings = DataflowSettings()

    _bytes = pydantic.field_validator("split_bytes", "block_bytes", mode="before")(parse_bytes)

    @pydantic.field_validator("xla", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @pydantic.model_validator(mode="after")
    def _sizes(self) -> EngineSettings:
        if self.split_bytes < 1 << 10 or self.block_bytes < 1 << 10:
            raise ValueError("split_bytes and block_bytes are at least 1 KiB")
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


__all__ = ["EngineSettings", "PrismSettings", "available_cores"]
