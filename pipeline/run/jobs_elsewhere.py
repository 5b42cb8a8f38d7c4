"""Jobs that a launch has submitted to an engine elsewhere, and that go on without it: noted in the run's folder, asked
for by those who find no launch at work."""

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
from beam_score.transforms.durable.sealed import Damaged, checksum, read_sealed, seal
from beam_score.transforms.ledger.folder import JOB, RunFolder
from beam_score.transforms.ledger.shapes import NOTE, Misfit, fit

log = logging.getLogger(__name__)

_LOOKS_EVERY_S = {"flink": 1.0}
_ELSE_EVERY_S = 15.0
"""A service counts the requests."""


def note(folder: RunFolder, job: Elsewhere) -> None:
    """Notes a job before it is submitted, so that there is none that nobody knows of.

    Raises FileNotFoundError where the run has been cleaned up.
    """
    storage.create_if_absent(_place(folder, job), seal(dataclasses.asdict(job)))


def forget_if_over(folder: RunFolder, job: Elsewhere) -> None:
    """Takes the note away where the engine says how the job ended: later there may be no engine to ask. One that it
    does not know of may be too new to be listed."""
    with contextlib.suppress(OSError):
        place = _place(folder, job)
        if storage.exists(place) and (found := find(job)).alive is False and found.state is not None:
            storage.remove(place)


def _place(folder: RunFolder, job: Elsewhere) -> storage.Place:
    """On one service all jobs of a run have one name: that of a note tells where, too."""
    return folder.job(f"{job.name}-{checksum(job.where.encode())}")


def noted(folder: RunFolder) -> list[Elsewhere]:
    """The jobs of a run whose end nobody has seen, as far as they can be read."""
    jobs = []
    for name in storage.names(folder.path):
        if name.startswith(JOB):
            with contextlib.suppress(Damaged, FileNotFoundError):
                if (fields := read_sealed(folder.path / name)) is not None:
                    jobs.append(_job(fields))
    return jobs


def _job(fields: dict[str, Any]) -> Elsewhere:
    """What a note says, where it is of a form that may be asked for and shown. Raises Damaged."""
    try:
        fit(fields, NOTE)
        job = Elsewhere(fields["runner"], fields["name"], fields["place"])
    except Misfit as error:
        raise Damaged(str(error)) from None
    if problem := place_problem(job):
        raise Damaged(problem)
    return job


def at_work(folder: RunFolder) -> list[Found]:
    """Those that are at work, or of which nobody can tell."""
    return [found for job in noted(folder) if (found := find(job)).alive is not False]


def others_at_work(folder: RunFolder, own: Elsewhere | None) -> list[Found]:
    """Jobs of other launches that are at work on a run, each of them told in the log; also those of which nobody can
    tell.

    Args:
      own: the job that this launch would submit, and that its engine takes up by itself where it is at work.
    """
    found = [find(job) for job in noted(folder) if job != own]
    for unknown in found:
        if unknown.alive is None:
            log.warning("%s: going on beside it, which may do work again, and harms nothing", unknown)
    return [one for one in found if one.alive]


def wait_for(others: Sequence[Found]) -> None:
    """Waits until jobs have ended, or do not answer any more. They publish by themselves; a second job would do the
    same work, or wait for what the first one has of a cluster."""
    for other in others:
        log.warning("%s, for another launch of this run: waiting for it. To cancel it: %s", other, other.cancel)
    living = [other.job for other in others]
    try:
        while living:
            time.sleep(max(_LOOKS_EVERY_S.get(job.runner, _ELSE_EVERY_S) for job in living))
            living = [job for job in living if find(job).alive]
    except BaseException:
        log.warning("what was waited for goes on without this command, and publishes by itself")
        raise


def problems_of_discarding(folder: RunFolder) -> Sequence[str]:
    """What speaks against --restart: jobs that are at work on the run, a sentence each."""
    found = at_work(folder)
    for unknown in found:
        if unknown.alive is None:
            log.warning("%s: should it, it ends without a result, as its run is discarded", unknown)
    return [
        f"--restart would discard run {folder.run}, and {living}: cancel it first ({living.cancel}), or leave "
        "--restart away, and the same command waits for it"
        for living in found
        if living.alive
    ]
