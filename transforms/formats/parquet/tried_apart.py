"""The entry point of a process that reads a file which may have ended another process."""

from __future__ import annotations

import json
import sys


def try_out() -> None:
    """Read the file that standard input names; the process may die of it."""
    from beam_score.transforms.formats.parquet.file import open_parquet

    told = json.load(sys.stdin)
    with open_parquet(told["path"], told["version"]) as opened:
        for group in told["groups"]:
            for _ in opened.batches(group, 1024, told["names"]):
                pass
