"""Checks at launch that a job can write to its output folder, and that it would not read its own output."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.transforms.durable.disk_probe import problems_of_disk
from beam_score.transforms.ledger.folder import STAGING
from beam_score.transforms.ledger.manifest import MANIFEST
from beam_score.transforms.listing.files import InputFile
from beam_score.transforms.stores.objects import ObjectPath, is_object
from beam_score.transforms.stores.registry import check_store

if TYPE_CHECKING:
    from beam_score.pipeline.prepare.preflight import Prepared

_ROOM = 3  # in measured runs, predictions and staging took at most this fraction (1/3) of the input
_FINAL = ("predictions", "rejected")


def output_problems(job: Job, files: Sequence[InputFile]) -> list[str]:
    """Return the problems with writing the output, one sentence each; checked by writing a small file, which is
    removed.

    Args:
      files: the job's input files.
    """
    path = job.output.path
    if is_object(path):
        return _store_problems(path, files)
    try:
        problems = _local_problems(path, files)
    except OSError as error:
        return [f"output.path: {error.filename or path}: {error.strerror}"]
    return problems or _disk_problems(path)


def _local_problems(path: str, files: Sequence[InputFile]) -> list[str]:
    standing = _standing(path)
    if not standing.is_dir():
        return [f"output.path: {standing} is a file, expected a folder"]
    if not os.access(standing, os.W_OK | os.X_OK):
        return [f"output.path: {standing} may not be written by this user"]
    if inside := _inside(files, path):
        return [f"output.path: {path} holds input files ({inside}): write elsewhere"]
    return []


def _disk_problems(path: str) -> list[str]:
    if Path(path, MANIFEST).exists():
        return []  # a run is published here: running the job again writes nothing
    staging = Path(path, STAGING)
    standing = _standing(path)
    finals = [folder for name in _FINAL if (folder := Path(path, name)).is_dir()]
    found = problems_of_disk(staging if staging.is_dir() else standing, [*finals, standing])
    return [f"output.path: {problem}" for problem in dict.fromkeys(found)]


def own_files(job: Job) -> list[str]:
    """Return example paths of the files that a run of the job writes, one of each kind; local paths have links
    resolved."""
    output, run = job.output.path, time.strftime("%Y%m%dT%H%M%S-000000", time.gmtime())
    names = [
        *(f"predictions/{run}-00000.{job.output.format}", f"rejected/{run}-00000.jsonl"),
        *("manifest.json", "failed.json", f"{STAGING}/{run}/plan.json", f"{STAGING}/current.json"),
    ]
    if is_object(output):
        return [f"{output.rstrip('/')}/{name}" for name in names]
    return [os.path.realpath(os.path.join(output, name)) for name in names]


def check_room(prepared: Prepared) -> None:
    """Check that a new run has enough disk space. A finished or continued run needs less, or none.

    Raises JobError.
    """
    if is_object(prepared.job.output.path):
        return
    free, needed = shutil.disk_usage(_standing(prepared.job.output.path)).free, prepared.bytes // _ROOM
    if free < needed:
        raise JobError([f"output.path: {free / 1e6:,.1f} MB are free, and about {needed / 1e6:,.1f} MB are needed"])


def _standing(path: str) -> Path:
    """Return the folder, or its nearest existing ancestor."""
    absolute = Path(path).absolute()
    return next(p for p in (absolute, *absolute.parents) if p.exists())


def _store_problems(path: str, files: Sequence[InputFile]) -> list[str]:
    """Return the problems with an output in a store; checked by writing and removing a small object."""
    try:
        folder = ObjectPath.parse(path)
    except ValueError as error:
        return [f"output.path: {error}"]
    if inside := [f.path for f in files if f.path.startswith(f"{folder}/")]:
        return [f"output.path: {path} holds input files ({inside[0]}): write elsewhere"]
    try:
        check_store(folder / STAGING)
    except OSError as error:
        return [f"output.path: {error.filename or path}: {error.strerror or error}"]
    return []


def _inside(files: Sequence[InputFile], output: str) -> str | None:
    """Return the first file that is in the output folder, with links resolved; None if no file is."""
    real = os.path.join(os.path.realpath(output), "")
    local = [file.path for file in files if not is_object(file.path)]
    folders = {os.path.dirname(path): path for path in reversed(local)}  # one check per folder, not per file
    found = [path for folder, path in folders.items() if os.path.join(os.path.realpath(folder), "").startswith(real)]
    found += [path for path in local if os.path.islink(path) and os.path.realpath(path).startswith(real)]
    return min(found, default=None)
