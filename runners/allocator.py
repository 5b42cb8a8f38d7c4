"""The allocators in a process that runs a job: blocks of some MB are made and freed again and again, often in different
threads (docs/benchmarks.md)."""

from __future__ import annotations

import ctypes
import os

_KEEP = {
    "MMAP_THRESHOLD": (-3, 32 << 20),  # the most: larger pieces come from the system, and return to it when freed
    "TRIM_THRESHOLD": (-1, 64 << 20),  # free memory at the end of a heap, of which more returns to the system
    "TOP_PAD": (-2, 16 << 20),  # what a heap takes from the system beyond its need
}
"""Parameters of glibc's `mallopt` by name, each with its number (malloc.h) and value in bytes."""


_KEPT_MS = 10_000
"""How long jemalloc keeps memory that is freed: ten times as long as Arrow lets it, so that the next block finds it."""


def use_jemalloc() -> None:
    """Allocate Arrow's memory with jemalloc, where this build of Arrow has it and the user has not chosen another.

    With mimalloc, the default, a run takes 7% more memory, and is not faster.
    """
    import pyarrow as pa

    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(_KEPT_MS)


def keep_freed_memory() -> bool:
    """Make glibc's allocator, which numpy and Python use, keep memory that is freed, unless the user has set how much.

    By default it returns it to the system after each block, and the next block pays for new pages.

    Returns:
      False if there is nothing to set: another C library, or a choice of the user.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    chosen = any(f"MALLOC_{name}_" in os.environ for name in _KEEP)
    if mallopt is None or chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    return all(mallopt(number, value) for number, value in _KEEP.values())
