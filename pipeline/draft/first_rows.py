"""The first rows of a file, in any format, as Python values: read by the readers of a run."""

from __future__ import annotations

from collections.abc import Sequence

from beam_score.pipeline.job.mistakes import JobError
from beam_score.transforms.formats.base import UnusableFile, format_named
from beam_score.transforms.formats.detect import format_by_content, format_of
from beam_score.transforms.formats.first_rows import UNKNOWN, FirstRows, Hints
from beam_score.transforms.listing.files import InputFile
from beam_score.transforms.stores.compression import CorruptStream, RawStream

ROWS = 1000
"""Number of rows to inspect, from the first files."""

_HEAD_BYTES = 64


def first_rows(path: str, format: str, hints: Hints = UNKNOWN) -> FirstRows:
    """Read the first rows of a file.

    Raises:
      JobError: if the file cannot be read as this format.
    """
    try:
        return format_named(format).first_rows(path, ROWS, hints)
    except UnusableFile as error:
        raise JobError([f"{path} cannot be read as {format_named(format).title}: {error.message}"]) from error
    except OSError as error:
        raise JobError([f"{path} cannot be read: {error.strerror or error}"]) from error


def detect_format(files: Sequence[InputFile]) -> str:
    """Return the format of some files, by their suffixes, or by the first bytes of the first file.

    Raises:
      JobError: if neither identifies the format.
    """
    found, why_not = format_of(files)
    if not found:
        with RawStream(files[0].path) as stream:
            try:
                head = stream.read(_HEAD_BYTES)
            except CorruptStream:
                head = b""
        found = format_by_content(head)
    if not found:
        raise JobError([f"{why_not.partition(';')[0]}; nor from the first bytes of {files[0].path}: rename the files"])
    return found
