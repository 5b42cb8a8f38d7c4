"""Jobs that a launch has submitted to a remote engine and that continue without it: recorded in the folder of the run,
and queried by commands that find no live launch."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

from beam_score.runners.choose import find, place_problem
from beam_score.runners.elsewhere import Elsewhere, Found
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile, checksum, read_sealed, seal
from beam_score.transforms.ledger.folder import JOB, RunFolder
from beam_score.transforms.ledger.shapes import NOTE, Misfit, fit

log = logging.getLogger(__name__)

_LOOKS_EVERY_S = {"flink": 1.0}
_ELSE_EVERY_S = 15.0
"""Services limit the number of requests."""


def note(folder: RunFolder, job: Elsewhere) -> None:
    """Record a job before it is submitted, so that no job is unknown.

    Raises FileNotFoundError if the run has been cleaned up.
    """
    storage.create_if_absent(_place(folder, job), seal(dataclasses.asdict(job)))


def forget_if_over(folder: RunFolder, job: Elsewhere) -> None:
    """Remove the note if the engine reports how the job ended: the engine may not exist later. A job unknown to the
    engine is kept, because it may be too new to be listed."""
    with contextlib.suppress(OSError):
        place = _place(folder, job)
        if storage.exists(place) and (found := find(job)).alive is False and found.state is not None:
            storage.remove(place)


def _place(folder: RunFolder, job: Elsewhere) -> storage.Place:
    """Return the path of a note. All jobs of a run on one service share a name, so the name of the note includes the
    service."""
    return folder.job(f"{job.name}-{checksum(job.where.encode())}")


def noted(folder: RunFolder) -> list[Elsewhere]:
    """Return the jobs of a run that have a readable note."""
    jobs = []
    for name in storage.names(folder.path):
        if name.startswith(JOB):
            with contextlib.suppress(CorruptFile, FileNotFoundError):
                if (fields := read_sealed(folder.path / name)) is not None:
                    jobs.append(_job(fields))
    return jobs


def _job(fields: dict[str, Any]) -> Elsewhere:
    """Return the job of a note, checked to be safe to query and to show. Raises CorruptFile."""
    try:
        fit(fields, NOTE)
        job = Elsewhere(fields["runner"], fields["name"], fields["place"])
    except Misfit as error:
        raise CorruptFile(str(error)) from None
    if problem := place_problem(job):
        raise CorruptFile(problem)
    return job


def at_work(folder: RunFolder) -> list[Found]:
    """Return the jobs of a run that are running or whose state is unknown."""
    return [found for job in noted(folder) if (found := find(job)).alive is not False]


def others_at_work(folder: RunFolder, own: Elsewhere | None) -> list[Found]:
    """Return the jobs of other launches that are running for a run. Warns about jobs whose state is unknown.

    Args:
      own: the job that this launch would submit; its engine reattaches to it if it is running.
    """
    found = [find(job) for job in noted(folder) if job != own]
    for unknown in found:
        if unknown.alive is None:
            log.warning("%s: continuing beside it, which may repeat work and does no other harm", unknown)
    return [one for one in found if one.alive]


def wait_for(others: Sequence[Found]) -> None:
    """Wait until the jobs have ended or do not answer any more. They publish by themselves; a second job would repeat
    their work, or wait for the cluster resources that they use."""
    for other in others:
        log.warning("%s, for another launch of this run: waiting for it. To cancel it: %s", other, other.cancel)
    living = [other.job for other in others]
    try:
        while living:
            time.sleep(max(_LOOKS_EVERY_S.get(job.runner, _ELSE_EVERY_S) for job in living))
            living = [job for job in living if find(job).alive]
    except BaseException:
        log.warning("stopped waiting: the job continues without this command, and publishes by itself")
        raise


def problems_of_discarding(folder: RunFolder) -> Sequence[str]:
    """Return the reasons against --restart: the jobs that are running for the run, one sentence each."""
    found = at_work(folder)
    for unknown in found:
        if unknown.alive is None:
            log.warning("%s: if it is running, it will end without a result, because its run is discarded", unknown)
    return [
        f"--restart would discard run {folder.run}, and {living}: cancel it first ({living.cancel}), or "
        "omit --restart, and the same command waits for it"
        for living in found
        if living.alive
    ]
