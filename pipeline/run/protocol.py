"""The protocol in its order: from any state of an output folder to a verdict or an error.

docs/guarantees.md describes which files a run writes, and who may write each of them at which time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.run.begin import is_read
from beam_score.pipeline.run.standing import LostRace, Standing
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.manifest import DONE, published, read_manifest
from beam_score.transforms.ledger.publication import Superseded, clean_up, roll_forward
from beam_score.transforms.ledger.verdict import PUBLISH, decide, verdicts
from beam_score.transforms.listing.files import InputFile

log = logging.getLogger(__name__)

_LOOKS = 10


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
      code: the exit code.
      manifest: the published manifest, or the failure record if the run is over budget.
      already: whether the run was finished before this command, or by another launch.
      by_another: whether another launch published the run while this one was working on it.
      seconds: duration of each step of this command.
    """

    code: int
    manifest: Mapping[str, Any]
    already: bool = False
    by_another: bool = False
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Work:
    """The parts of a job that the protocol needs.

    Attributes:
      output: the output folder.
      fingerprint: identifies the job; see `pipeline.prepare.preflight.fingerprint`.
      refuse: takes the state of the output folder; returns the failure record if the job is over budget before anything
        is read, else None.
      plan: takes the state of the output folder; begins a run and plans it. Raises LostRace.
      score: writes the receipts that a run still lacks; may also publish.
      budget: of rejections.
      schema: of the predictions.
      keep_replaced: see `transforms.ledger.publication.roll_forward`.
      files: the input files, to report which have changed.
      settings: the settings of the job file, to report which have changed.
    """

    output: str
    fingerprint: Mapping[str, str]
    refuse: Callable[[Standing], Mapping[str, Any] | None]
    plan: Callable[[Standing], RunFolder]
    score: Callable[[RunFolder], None]
    budget: Budget
    schema: pa.Schema
    keep_replaced: bool = False
    files: Sequence[InputFile] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def bring_to_verdict(work: Work, discards: Collection[str] = ()) -> Outcome:
    """Return the outcome of a finished run of the job, or continue or begin a run; other launches may run concurrently.

    Args:
      discards: runs that may be replaced.

    Raises:
      JobError: the output folder holds another job.
      Superseded: another launch has discarded this run, or published another job here.
      Exception: raised by `score`; the next launch continues from there.
    """
    at_first = read_manifest(work.output)
    for _ in range(_LOOKS):
        with contextlib.suppress(LostRace):
            try:
                return _go(work, discards)
            except LostRace:
                raise
            except Exception as error:
                # Of two concurrent launches, the other may have published and removed the files in use here.
                manifest = Standing.of(work.output, discards, work.files, work.settings).finished(work.fingerprint)
                if manifest is None or (at_first is not None and manifest["run"] == at_first["run"]):
                    raise
                log.debug("another launch was faster", exc_info=error)
                return Outcome(ExitCode.DONE, manifest, already=True, by_another=True)
    raise Superseded(f"{work.output}: other launches keep changing what is begun here; run one job at a time")


def _go(work: Work, discards: Collection[str]) -> Outcome:
    standing = Standing.of(work.output, discards, work.files, work.settings)
    if standing.manifest is not None:
        # Do the clean-up that the publishing launch left undone if it died: a run that replaces this one does not know
        # of the runs before it. The files of a replaced run stay until another replacement begins.
        stays = work.keep_replaced and standing.manifest["run"] not in discards
        clean_up(work.output, standing.manifest, standing.manifest["replaces"] if stays else ())
        standing = Standing.of(work.output, discards, work.files, work.settings)
    if standing.publishing is not None:
        _finish_publication(standing.publishing)
        standing = Standing.of(work.output, discards, work.files, work.settings)
    if (manifest := standing.finished(work.fingerprint)) is not None:
        return Outcome(ExitCode.DONE, manifest, already=True)
    folder = standing.begun(work.fingerprint)
    if folder is None and (refused := work.refuse(standing)):
        return Outcome(ExitCode.OVER_BUDGET, refused)
    if folder is None or not storage.exists(folder.plan):
        folder = work.plan(standing)
    try:
        with storage.lease(folder.plan):
            if not is_read(folder):
                work.score(folder)
            return _verdict(work, folder)
    except Exception as error:
        if storage.exists(folder.plan) or published(folder.output, folder.run):
            raise
        now = Standing.of(work.output)
        if now.current is None and now.manifest == standing.manifest:
            raise LostRace from error  # removed before the lock on the plan was visible
        raise Superseded(f"run {folder.run} was discarded by another launch: nothing of it is published") from error


def _finish_publication(folder: RunFolder) -> None:
    """Carry out the verdict of a run that can no longer be discarded, whichever job it belongs to. Publication may turn
    out to be impossible."""
    with contextlib.suppress(Superseded, FileNotFoundError):
        for verdict in verdicts(folder):
            if verdict["decision"] == PUBLISH:
                roll_forward(folder, verdict)
                return


def _verdict(work: Work, folder: RunFolder) -> Outcome:
    manifest = read_manifest(work.output)
    if manifest is None or manifest["run"] != folder.run:
        manifest = roll_forward(folder, decide(folder, work.budget, work.schema), work.keep_replaced)
    return Outcome(ExitCode.DONE if manifest["verdict"] == DONE else ExitCode.OVER_BUDGET, manifest)
