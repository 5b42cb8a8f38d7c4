"""The entry point of a process that reads a file which may have crashed another process."""

from __future__ import annotations

import json
import sys


def try_out() -> None:
    """Read the file that standard input names; this may crash the process."""
    from beam_score.transforms.formats.orc.file import open_orc

    asked = json.load(sys.stdin)
    with open_orc(asked["path"], asked["version"]) as opened:
        for stripe in asked["groups"]:
            opened.stripe(stripe, asked["names"])
