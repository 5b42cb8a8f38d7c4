"""The first rows of a JSON Lines file as Python values."""

from __future__ import annotations

import json
import shlex

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.first_rows import FIRST_BYTES, FirstRows
from beam_score.transforms.formats.jsonl.blocks import blocks
from beam_score.transforms.formats.jsonl.exact import Malformed, members
from beam_score.transforms.framing.lines import line_spans


def first_rows(path: str, count: int) -> FirstRows:
    """Return the values of the first lines, and the number of lines that a run would reject as malformed.

    Raises:
      UnusableFile: the file is a JSON array, or none of its first lines is JSON.
      OSError: the file cannot be read.
    """
    lines = _lines(path, count)
    rows, bad = [], 0
    for line in lines:
        text = line.decode(errors="replace")
        try:
            members(text)
            rows.append(json.loads(text))
        except (Malformed, ValueError, RecursionError):
            bad += 1
    if len(rows) == 1 and not bad and isinstance(rows[0], list) and any(isinstance(r, dict) for r in rows[0]):
        raise UnusableFile(
            "malformed", "the file is a JSON array, expected JSON Lines, one object per line" + _hint("'.[]'", path)
        )
    # A line that is only an array may be a row; a line that is only a bracket is not.
    first = lines[0].strip() if lines else b""
    if bad and (not rows or first in (b"[", b"{", b"[{")):
        how = "'.[]'" if first.startswith(b"[") else "." if first.startswith(b"{") else ""
        message = "the file is not JSON Lines: expected one object per line" + (_hint(how, path) if how else "")
        raise UnusableFile("malformed", message)
    return FirstRows(rows, unreadable=bad)


def _hint(how: str, path: str) -> str:
    return f": jq -c {how} {shlex.quote(path)} > rows.jsonl"


def _lines(path: str, count: int) -> list[bytes]:
    """Return the first lines that are not blank."""
    found: list[bytes] = []
    size = 0
    settings = ReadSettings("jsonl", Contract(columns={}), max_block_bytes=FIRST_BYTES // 8, max_row_bytes=FIRST_BYTES)
    for block in blocks(FileRange(path, 0), settings):
        starts, ends = line_spans(block.data)
        found += [block.data[s:e] for s, e in zip(starts.tolist(), ends.tolist(), strict=True)][: count - len(found)]
        size += len(block.data)
        if len(found) >= count or size >= FIRST_BYTES or block.damage is not None:
            break
    return found
