"""The part of a job file that says where and how it runs. Nothing here changes a result."""

from __future__ import annotations

import os
from typing import Any, Literal

import pydantic

from transforms.contract import Strict
from transforms.units import parse_bytes


class EngineSettings(Strict):
    """`engine` of a job file."""

    runner: Literal["local"] = "local"
    workers: int | Literal["auto"] = "auto"
    split_bytes: int = 64_000_000
    block_bytes: int = 1 << 20
    xla: Literal["auto", "on", "off"] = "auto"
    intra_op_threads: int | Literal["auto"] = "auto"

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
        return self

    @property
    def worker_count(self) -> int:
        return self.workers if isinstance(self.workers, int) else available_cores()


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
