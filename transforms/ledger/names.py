"""Names of the files that runs write under an output folder. Names of another form do not belong to this program:
they are never followed, and never removed."""

from __future__ import annotations

import re

from beam_score.transforms.durable.disk_probe import PROBE
from beam_score.transforms.durable.on_disk import temporary_of

_RUN = r"[0-9]{8}T[0-9]{6}-[0-9a-f]{6}"
_PART = r"(?:predictions|rejected)-[0-9A-Za-z-]+\.(?:parquet|jsonl)"
_SHARD = r"[0-9]{5,}-[0-9a-f]{8}\.jsonl"
_PUBLISHED = rf"({_RUN})-[0-9]{{5,}}\.(?:parquet|jsonl)"

RUN = re.compile(_RUN)
"""Id of a run: the time, UTC, and six random digits."""

PART = re.compile(_PART)
"""A file of rows under a run's `parts` folder."""

SHARD = re.compile(_SHARD)
"""A file of splits under a run's `plan` folder."""

PUBLISHED = re.compile(_PUBLISHED)
"""A file of rows under its final name, directly in `predictions` or `rejected`; the first group is its run."""

PUBLISHED_PATH = re.compile(rf"(predictions|rejected)/{_PUBLISHED}")
"""The final name with its folder; the groups are the folder and the run."""


_LAUNCH = re.compile(r"[0-9a-f]{12}\.json|alive")

_IN_RUN = {
    "": re.compile(r"plan\.json|commit-[0-9]+\.json|job-[0-9A-Za-z_.~%-]+\.json|manifest\.json|failed\.json"),
    "plan": SHARD,
    "parts": PART,
    "receipts": re.compile(r"[0-9]{6,}(?:\.[0-9]+)?\.json"),
    "alive": re.compile(r"[0-9a-f]{12}"),
}
FOLDERS = tuple(filter(None, _IN_RUN))
"""Folders in a run's folder."""


def is_run(name: str) -> bool:
    """Return whether a name is the id of a run."""
    return RUN.fullmatch(name) is not None


def is_in_run(path: str) -> bool:
    """Return whether a run writes a file of that path, relative to the run's folder."""
    folder, _, name = path.rpartition("/")
    names = _IN_RUN.get(folder)
    return names is not None and names.fullmatch(temporary_of(name) or name) is not None


def is_in_staging(name: str) -> bool:
    """Return whether a file or folder directly in the staging folder has a name that a run gives."""
    name = temporary_of(name) or name
    return name in ("current.json", "launches", PROBE) or is_run(name)


def is_launch(name: str) -> bool:
    """Return whether a file in the folder of launches has a name that a launch gives."""
    return _LAUNCH.fullmatch(temporary_of(name) or name) is not None


def is_temporary_of_output(name: str) -> bool:
    """Return whether a name is that of a file being written directly in the output folder, in `predictions` or in
    `rejected`."""
    to_be = temporary_of(name)
    ours = ("manifest.json", "failed.json", PROBE)
    return to_be is not None and (to_be in ours or PUBLISHED.fullmatch(to_be) is not None)
