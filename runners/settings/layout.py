"""Numbers of threads, processes and copies of the model, set together, because TensorFlow, Arrow and Beam each
assume that they own every core."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal

PROCESS_BYTES = 800_000_000
"""Memory of a worker process with Beam, Arrow and TensorFlow, without a model and rows (measured: 0.74 GB, and part of
the allocations of a model's first call)."""

BLOCKS_IN_FLIGHT = 30
"""Memory for the rows of a thread, in blocks: as read, as tensors, as predictions, and waiting for a batch. Two threads
over CSV are estimated at 0.86 GB with blocks of 1 MiB (measured: 0.89), and at 1.30 with 8 MiB (0.74, with 1% bad rows
0.86, with only bad rows 1.02)."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Numbers of processes and threads of a job. A process has one copy of the model, which its threads share.

    Attributes:
      processes: worker processes on all machines together.
      threads: per process, each of which reads, scores and writes.
      cores: per process.
    """

    processes: int
    threads: int
    cores: int

    def __post_init__(self) -> None:
        if min(self.processes, self.threads, self.cores) < 1:
            raise ValueError(f"expected positive numbers of processes, threads and cores, found {self}")

    @property
    def workers(self) -> int:
        """Number of splits processed at the same time."""
        return self.processes * self.threads

    @property
    def op_threads(self) -> int:
        """Threads per op of the model: the cores of a process, divided by its threads."""
        return max(1, self.cores // self.threads)

    def memory_bytes(self, model_bytes: int, block_bytes: int) -> int:
        """Estimate the memory of a process, without the intermediate results of the model.

        Args:
          model_bytes: size of the SavedModel on disk, most of which is variables.
          block_bytes: input bytes per block.
        """
        return PROCESS_BYTES + model_bytes + self.threads * BLOCKS_IN_FLIGHT * block_bytes

    def __str__(self) -> str:
        return (
            f"{_count(self.processes, 'process', 'processes')}, {_count(self.threads, 'thread')}"
            f"{' each' if self.processes > 1 else ''}, "
            f"{_count(self.processes, 'copy', 'copies')} of the model"
        )


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"one {one}" if number == 1 else f"{number} {many or one + 's'}"


def one_process(workers: int | Literal["auto"]) -> Layout:
    """Return the layout with all workers as threads of one process on this machine; `auto` is a thread per core."""
    cores = available_cores()
    return Layout(1, workers if isinstance(workers, int) else cores, cores)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
