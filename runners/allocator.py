"""Arrow's allocator in a process that runs a job."""

from __future__ import annotations

import os


def use_jemalloc() -> None:
    """Allocate Arrow's memory with jemalloc, where this build of Arrow has it and the user has not chosen another.

    Blocks are made in one thread and freed in another, again and again. With mimalloc, the default, a run takes 7% more
    memory, and is not faster (docs/benchmarks.md).
    """
    import pyarrow as pa

    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
