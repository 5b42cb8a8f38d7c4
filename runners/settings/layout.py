"""Threads, processes and copies of the model, set together: TensorFlow, Arrow and Beam each
think that they own every core."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal

PROCESS_BYTES = 800_000_000
"""A worker process with Beam, Arrow and TensorFlow in it, before there is a model or a row (measured: 0.74 GB, and some
of what a first call of a model allocates)."""

BLOCKS_IN_FLIGHT = 40
"""What a thread holds of rows, in blocks: as read, as tensors, as predictions, and the batches they wait for. With it
two threads over CSV come to 0.88 GB with blocks of 1 MiB (measured: 0.89), and to 1.14 with 4 MiB (0.93)."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a job is laid out by its engine. A process has one copy of the model, which its threads share.

    Attributes:
      processes: worker processes, on all machines together.
      threads: of each that read, score and write.
      cores: that each process has.
    """

    processes: int
    threads: int
    cores: int

    def __post_init__(self):
        if min(self.processes, self.threads, self.cores) < 1:
            raise ValueError(f"processes, threads and cores are positive numbers, not {self}")

    @property
    def workers(self) -> int:
        """Splits that are worked on at once."""
        return self.processes * self.threads

    @property
    def op_threads(self) -> int:
        """Threads that one op of the model may use: the cores that no other thread has."""
        return max(1, self.cores // self.threads)

    def memory_bytes(self, model_bytes: int, block_bytes: int) -> int:
        """What a process takes, roughly: what the model makes of its rows on the way is not in it.

        Args:
          model_bytes: of the SavedModel on disk, most of which are variables.
          block_bytes: input bytes a block.
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
    """All workers as threads of one process on this machine; as many as it has cores, where none are asked for."""
    cores = available_cores()
    return Layout(1, workers if isinstance(workers, int) else cores, cores)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
