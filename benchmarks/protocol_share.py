"""Cost of receipts and commit in a whole run: the time in their system calls, relative to the time of the run.

    python benchmarks/protocol_share.py JOB

Runs the job again in this process, and times every disk call of the protocol by purpose: parts (the output itself),
receipts, and everything else (plan, verdict, publication, manifest, cleaning). Prints JSON.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import threading
import time
from collections.abc import Callable

from beam_score.pipeline.job.job import load_job
from beam_score.pipeline.run.launch import run
from beam_score.transforms.durable import disk

_CALLS = ("open", "close", "read", "write", "fsync", "link", "rename", "unlink", "mkdir", "rmdir", "names", "stat")


class Timed(disk.Disk):
    """A disk that sums the seconds and the number of calls by purpose."""

    def __init__(self):
        self.seconds, self.calls = collections.Counter(), collections.Counter()
        self._paths: dict[int, pathlib.Path] = {}
        self._lock = threading.Lock()

    def timed(self, call: Callable, first: pathlib.Path | int, *others):
        path = self._paths.get(first) if isinstance(first, int) else first
        parts = () if path is None else path.parts
        purpose = next((name for name in ("parts", "receipts") if name in parts), "commit and plan")
        began = time.perf_counter()
        try:
            result = call(first, *others)
        finally:
            with self._lock:
                self.seconds[purpose] += time.perf_counter() - began
                self.calls[purpose] += 1
        if isinstance(result, int) and not isinstance(first, int):
            self._paths[result] = first
        return result


def _timed(name: str) -> Callable:
    def call(self: Timed, *arguments):
        return self.timed(getattr(super(Timed, self), name), *arguments)

    return call


for _name in _CALLS:
    setattr(Timed, _name, _timed(_name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("job")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    disk.use(timed := Timed())
    job = load_job(arguments.job, arguments.set)
    outcome = run(job, replace=True, restart=True)
    whole = outcome.seconds["run"] * job.engine.layout.workers
    share = {name: round(seconds / whole, 5) for name, seconds in timed.seconds.items()}
    print(
        json.dumps(
            {
                "rows": outcome.manifest["counts"]["read"],
                "run_s": outcome.seconds["run"],
                "threads": job.engine.layout.workers,
                "calls": dict(timed.calls),
                "seconds": {name: round(seconds, 3) for name, seconds in timed.seconds.items()},
                "share_of_thread_time": share,
                "receipts_and_commit": round(share.get("receipts", 0) + share.get("commit and plan", 0), 5),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
