"""The protocol in its order: from any state of an output folder to a verdict or an error.

docs/guarantees.md describes which files a run writes, and who may write each of them at which time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import pyarrow as pa

from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.run.begin import is_read
from beam_score.pipeline.run.output_state import LostRace, OutputState
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.manifest import DONE, published, read_manifest
from beam_score.transforms.ledger.publication import Superseded, clean_up, roll_forward
from beam_score.transforms.ledger.verdict import PUBLISH, decide, verdicts

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


class LaunchSteps(Protocol):
    """The steps of a launch that the protocol puts in order; `pipeline.run.launch.Launch` is what a command runs."""

    @property
    def output(self) -> str:
        """The output folder."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Hashes that identify the job; see `pipeline.prepare.preflight.fingerprint`."""

    @property
    def discards(self) -> Collection[str]:
        """The runs that may be replaced."""

    @property
    def keep_replaced(self) -> bool:
        """See `transforms.ledger.publication.roll_forward`."""

    def state(self) -> OutputState:
        """Return the present state of the output folder."""

    def refuse(self, state: OutputState) -> Mapping[str, Any] | None:
        """Return the failure record if the job is over budget before anything is read, else None."""

    def plan(self, state: OutputState) -> RunFolder:
        """Begin a run, or continue one that has no plan, and write its plan. Raises LostRace."""

    def score(self, folder: RunFolder) -> None:
        """Write the receipts that a run lacks; may also publish."""

    def publish(self, folder: RunFolder) -> Mapping[str, Any]:
        """Decide on a run that has all its receipts. Returns the manifest, or the failure record."""


def bring_to_verdict(launch: LaunchSteps) -> Outcome:
    """Return the outcome of a finished run of the job, or continue or begin a run; other launches may run concurrently.

    Raises:
      JobError: the output folder holds another job.
      Superseded: another launch has discarded this run, or published another job here.
      Exception: raised by `score`; the next launch continues from there.
    """
    at_first = read_manifest(launch.output)
    for _ in range(_LOOKS):
        with contextlib.suppress(LostRace):
            try:
                return _go(launch)
            except LostRace:
                raise
            except Exception as error:
                # Of two concurrent launches, the other may have published and removed the files in use here.
                manifest = launch.state().finished(launch.fingerprint)
                if manifest is None or (at_first is not None and manifest["run"] == at_first["run"]):
                    raise
                log.debug("another launch was faster", exc_info=error)
                return Outcome(ExitCode.DONE, manifest, already=True, by_another=True)
    raise Superseded(f"{launch.output}: other launches keep changing what is begun here; run one job at a time")


def _go(launch: LaunchSteps) -> Outcome:
    state = launch.state()
    if state.manifest is not None:
        # Do the clean-up that the publishing launch left undone if it died: a run that replaces this one does not know
        # of the runs before it. The files of a replaced run stay until another replacement begins.
        stays = launch.keep_replaced and state.manifest["run"] not in launch.discards
        clean_up(launch.output, state.manifest, state.manifest["replaces"] if stays else ())
        state = launch.state()
    if state.publishing is not None:
        _finish_publication(state.publishing)
        state = launch.state()
    if (manifest := state.finished(launch.fingerprint)) is not None:
        return Outcome(ExitCode.DONE, manifest, already=True)
    folder = state.begun(launch.fingerprint)
    if folder is None and (refused := launch.refuse(state)):
        return Outcome(ExitCode.OVER_BUDGET, refused)
    if folder is None or not storage.exists(folder.plan):
        folder = launch.plan(state)
    try:
        with storage.lease(folder.plan):
            if not is_read(folder):
                launch.score(folder)
            record = launch.publish(folder)
    except Exception as error:
        if storage.exists(folder.plan) or published(folder.output, folder.run):
            raise
        now = launch.state()
        if now.current is None and now.manifest == state.manifest:
            raise LostRace from error  # removed before the lock on the plan was visible
        raise Superseded(f"run {folder.run} was discarded by another launch: nothing of it is published") from error
    return Outcome(ExitCode.DONE if record["verdict"] == DONE else ExitCode.OVER_BUDGET, record)


def _finish_publication(folder: RunFolder) -> None:
    """Carry out the verdict of a run that can no longer be discarded, whichever job it belongs to. Publication may turn
    out to be impossible."""
    with contextlib.suppress(Superseded, FileNotFoundError):
        for verdict in verdicts(folder):
            if verdict["decision"] == PUBLISH:
                roll_forward(folder, verdict)
                return


def publish(folder: RunFolder, budget: Budget, schema: pa.Schema, keep_replaced: bool = False) -> Mapping[str, Any]:
    """Decide on a run that has all its receipts, and carry out the decision, unless the pipeline has done so.

    Args:
      budget: of rejections.
      schema: of the predictions.
      keep_replaced: see `transforms.ledger.publication.roll_forward`.

    Returns:
      the published manifest, or the failure record if the run is over budget.
    """
    manifest = read_manifest(folder.output)
    if manifest is not None and manifest["run"] == folder.run:
        return manifest
    return roll_forward(folder, decide(folder, budget, schema), keep_replaced)
