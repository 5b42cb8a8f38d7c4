"""Writes many new files in three ways, each file followed by fsync: as it is, dropped from the page cache once it is on
the disk, and past the page cache. The difference is large where a hypervisor provides memory at its first use.

    python benchmarks/page_cache.py --folder bench-data/page-cache
"""

from __future__ import annotations

import argparse
import mmap
import os
import time
from pathlib import Path

WAYS = ("plain", "dropped", "direct")


def write(path: Path, content: mmap.mmap, way: str) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | (os.O_DIRECT if way == "direct" else 0)
    descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        if way == "dropped":
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def measure(folder: Path, way: str, files: int, content: mmap.mmap) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that it takes to write all files."""
    clock, cpu = time.perf_counter(), time.process_time()
    for i in range(files):
        write(folder / str(i), content, way)
    found = time.perf_counter() - clock, time.process_time() - cpu
    for i in range(files):
        (folder / str(i)).unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data/page-cache"))
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--mb", type=float, default=2.3, help="of each file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause", type=float, default=6.0, help="seconds, in which the system may return free memory")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    size = int(args.mb * 1e6) // mmap.PAGESIZE * mmap.PAGESIZE  # as direct writes need it
    content = mmap.mmap(-1, size)
    content.write(os.urandom(size))
    for round_ in range(args.rounds):
        for way in WAYS if round_ % 2 == 0 else WAYS[::-1]:
            time.sleep(args.pause)
            clock, cpu = measure(args.folder, way, args.files, content)
            mb = size * args.files / 1e6
            print(f"round {round_ + 1} {way}: {mb:.0f} MB in {clock:.2f} s, {cpu:.2f} s of CPU time")


if __name__ == "__main__":
    main()
