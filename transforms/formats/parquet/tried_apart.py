"""The entry point of a process that reads a file which may have crashed another process."""

from __future__ import annotations

import json
import sys


def try_out() -> None:
    """Read the file that standard input names; this may crash the process."""
    from beam_score.transforms.formats.parquet.file import open_parquet

    asked = json.load(sys.stdin)
    with open_parquet(asked["path"], asked["version"]) as opened:
        for group in asked["groups"]:
            for _ in opened.batches(group, 1024, asked["names"]):
                pass
