"""Cost of a killed run: a run is killed with SIGKILL at several fractions of its work, and run again.

    python benchmarks/resume.py --rows 20000000

Prints a line of JSON for each: the number of splits left, the duration of the second run's pipeline, and its ratio to
the same share of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from contenders import Bench, Ours
from processes import run_process

_LOOKS_EVERY_S = 0.005


def report(command: Sequence[object]) -> dict[str, Any]:
    """Run the command to its end and return the manifest."""
    return json.loads(run_process(command).stdout)


def receipts(output: pathlib.Path) -> int:
    """Return the number of splits that are done."""
    return len(list(output.glob("_staging/*/receipts/[0-9]*.json")))


def killed(command: Sequence[object], output: pathlib.Path, least: int) -> int:
    """Run a command until at least `least` splits are done, and kill it. Returns the number of splits done."""
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while receipts(output) < least and process.poll() is None:
        time.sleep(_LOOKS_EVERY_S)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return receipts(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25, 0.5, 0.75, 0.9])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data"))
    arguments = parser.parse_args()
    bench = Bench(arguments.folder, arguments.rows, arguments.shards, arguments.threads, "small")
    output = arguments.folder / "out" / "resumed"
    command = Ours().command(bench, output)

    def fresh() -> None:
        shutil.rmtree(output, ignore_errors=True)

    fresh()
    splits = _planned(command, output)
    fresh()
    whole = report(command)
    seconds = whole["launch_s"]["run"]
    for share in arguments.shares:
        fresh()
        done = killed(command, output, max(1, round(share * splits)))
        again = report(command)
        if again["counts"] != whole["counts"]:
            sys.exit(f"other counts than undisturbed: {again['counts']}")
        left = 1 - done / splits
        took = again["launch_s"]["run"]
        print(
            json.dumps(
                {
                    "splits": splits,
                    "done_when_killed": done,
                    "left": round(left, 3),
                    "undisturbed_s": seconds,
                    "resumed_s": took,
                    "resumed_over_share_left": round(took / (left * seconds), 2) if left else None,
                }
            ),
            flush=True,
        )
    fresh()


def _planned(command: Sequence[object], output: pathlib.Path) -> int:
    killed(command, output, 1)
    (plan,) = output.glob("_staging/*/plan.json")
    return json.loads(plan.read_bytes())["splits"]


if __name__ == "__main__":
    main()
