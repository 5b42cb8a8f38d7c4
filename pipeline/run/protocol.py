"""The protocol in its order: from whatever an output folder holds to a verdict, or a sentence that says why not.

What a run writes, and who may write it when, is told in docs/guarantees.md.
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
from beam_score.pipeline.run.standing import Overrun, Standing
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.manifest import DONE, published, read_manifest
from beam_score.transforms.ledger.publication import Overtaken, clean_up, roll_forward
from beam_score.transforms.ledger.verdict import PUBLISH, Budget, decide, verdicts
from beam_score.transforms.listing.files import InputFile

log = logging.getLogger(__name__)

_LOOKS = 10


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      code: the exit code.
      manifest: what was published, or what stands in its place over budget.
      already: whether it was finished before this command, or by another.
      by_another: whether another launch published it while this one was at work on it.
      seconds: what this command took, by step.
    """

    code: int
    manifest: Mapping[str, Any]
    already: bool = False
    by_another: bool = False
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Work:
    """What a job brings to the protocol.

    Attributes:
      output: the output folder.
      fingerprint: what makes the job this one; see `pipeline.prepare.preflight.fingerprint`.
      refuse: told what stands, gives what stands in a manifest's place where the job is over budget before
        anything is read; else None.
      plan: told what stands, begins a run and plans it. Raises Overrun.
      score: makes the receipts that a run still lacks; may publish, too.
      budget: of rejections.
      schema: of the predictions.
      keep_replaced: see `transforms.ledger.publication.roll_forward`.
      files: that it reads, to tell which of them have changed.
      settings: of the job file, to tell the same of them.
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
    """Finds the job finished, goes on with it, or begins it; whatever other launches do meanwhile.

    Args:
      discards: runs that another may be put in place of.

    Raises:
      JobError: another job stands here.
      Overtaken: another launch has discarded this run, or published another job here.
      Exception: what `score` raises; the next launch goes on from there.
    """
    at_first = read_manifest(work.output)
    for _ in range(_LOOKS):
        with contextlib.suppress(Overrun):
            try:
                return _go(work, discards)
            except Overrun:
                raise
            except Exception as error:
                # Of two launches at once, the other may have published, and cleaned up under our feet.
                manifest = Standing.of(work.output, discards, work.files, work.settings).finished(work.fingerprint)
                if manifest is None or (at_first is not None and manifest["run"] == at_first["run"]):
                    raise
                log.debug("another launch was faster", exc_info=error)
                return Outcome(ExitCode.DONE, manifest, already=True, by_another=True)
    raise Overtaken(f"{work.output}: other launches keep changing what is begun here; run one job at a time")


def _go(work: Work, discards: Collection[str]) -> Outcome:
    standing = Standing.of(work.output, discards, work.files, work.settings)
    if standing.manifest is not None:
        # What its writer could not, if it died; a run that replaces it will know of no one before it.
        # The files of one that was replaced stay until another replacement begins.
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
        with storage.hold(folder.plan):
            if not is_read(folder):
                work.score(folder)
            return _verdict(work, folder)
    except Exception as error:
        if storage.exists(folder.plan) or published(folder.output, folder.run):
            raise
        now = Standing.of(work.output)
        if now.current is None and now.manifest == standing.manifest:
            raise Overrun from error  # cleaned away before it was seen to live
        raise Overtaken(f"run {folder.run} was discarded by another launch: nothing of it is published") from error


def _finish_publication(folder: RunFolder) -> None:
    """Carries out the verdict on a run that nobody may discard any more, whichever job's it is; it may turn out that it
    cannot be."""
    with contextlib.suppress(Overtaken, FileNotFoundError):
        for verdict in verdicts(folder):
            if verdict["decision"] == PUBLISH:
                roll_forward(folder, verdict)
                return


def _verdict(work: Work, folder: RunFolder) -> Outcome:
    manifest = read_manifest(work.output)
    if manifest is None or manifest["run"] != folder.run:
        manifest = roll_forward(folder, decide(folder, work.budget, work.schema), work.keep_replaced)
    return Outcome(ExitCode.DONE if manifest["verdict"] == DONE else ExitCode.OVER_BUDGET, manifest)
