"""The registry of formats, and the detection of a file's format."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Sequence
from types import ModuleType

from beam_score.transforms.listing.files import InputFile

FORMATS = ("csv", "jsonl", "parquet", "tfrecord")


def format_module(name: str) -> ModuleType:
    """Return the module of a format, by the name in `FORMATS`."""
    package = "replay" if name == "dead_letters" else f"formats.{name}"
    return importlib.import_module(f"beam_score.transforms.{package}.reader")


FORMAT_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}


_COMPRESSED = re.compile(r"\.(?:gz|gzip|bz2|zst|zstd)$", re.IGNORECASE)


def format_of(files: Sequence[InputFile]) -> tuple[str | None, str]:
    """Return the format that the suffixes identify, without those of compression; else None and why not."""
    by_format: dict[str | None, str] = {}
    for file in files:
        suffix = os.path.splitext(_COMPRESSED.sub("", file.path))[1].lower()
        by_format.setdefault(FORMAT_SUFFIXES.get(suffix), file.path)
    if len(by_format) == 1 and None not in by_format:
        return next(iter(by_format)), ""
    shown = ", ".join(f"{path} ({kind or 'unknown'})" for kind, path in by_format.items())
    return (
        None,
        f"input.format cannot be told from the suffixes: {shown}; set input.format to csv, jsonl, parquet or tfrecord",
    )
