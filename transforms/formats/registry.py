"""The table of formats."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beam_score.transforms.formats.base import Format

READERS = {
    "csv": "formats.csv.reader",
    "jsonl": "formats.jsonl.reader",
    "parquet": "formats.parquet.reader",
    "tfrecord": "formats.tfrecord.reader",
    "avro": "formats.avro.reader",
    "orc": "formats.orc.reader",
    "dead_letters": "replay.reader",
}
"""The module of each format, loaded on first use; `dead_letters` is the input of a replay."""

FORMATS = tuple(name for name in READERS if name != "dead_letters")
"""The formats of input files."""


@functools.cache
def load(name: str) -> Format:
    """Return a format; see `format_named` in `transforms.formats.base`."""
    return importlib.import_module(f"beam_score.transforms.{READERS[name]}").FORMAT
