"""The state of an output folder, and the actions it allows a launch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.run.differences import differing_settings
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile
from beam_score.transforms.ledger.folder import STAGING, RunFolder, parse_current, read_plan
from beam_score.transforms.ledger.manifest import KINDS, read_failed, read_manifest
from beam_score.transforms.ledger.names import FOLDERS
from beam_score.transforms.ledger.publication import is_publishing
from beam_score.transforms.listing.files import InputFile, differing


class Occupied(JobError):
    """The output folder holds a run that this job cannot continue.

    Attributes:
      flag: the option with which the same command continues.
    """

    def __init__(self, problems: Sequence[str], flag: str):
        super().__init__(problems)
        self.flag = flag


class Changed(Occupied):
    """The run belongs to another job, or to an earlier version of this one."""


class LostRace(Exception):
    """Another launch was faster: the state must be read again."""


@dataclasses.dataclass(frozen=True)
class OutputState:
    """The state of an output folder, read from the files of the protocol.

    Attributes:
      output: the folder.
      manifest: of the published run.
      failed: the record of the last run that was over budget.
      current: id and fingerprint of the run that has begun and has no final verdict; the id is empty if `current.json`
        is damaged.
      known: the content of `current.json`; None if it does not exist.
      discards: runs that the launch may replace.
      files: the input files of the job, to report which have changed.
      settings: the settings of the job as plain data, to report which have changed.
    """

    output: str
    manifest: Mapping[str, Any] | None
    failed: Mapping[str, Any] | None
    current: Mapping[str, Any] | None
    known: bytes | None
    discards: Collection[str] = ()
    files: Sequence[InputFile] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        output: str,
        discards: Collection[str] = (),
        files: Sequence[InputFile] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> OutputState:
        refuse_links(output)
        known, current = storage.read(RunFolder(output, "").current), None
        if known is not None:
            try:
                current = parse_current(known)
            except CorruptFile:
                current = {"run": "", "fingerprint": {}}
        if current is not None and current["run"]:
            refuse_links(output, RunFolder(output, current["run"]))
        records = read_manifest(output), read_failed(output)
        return cls(output, *records, current, known, discards, files, settings or {})

    def allowing(self, replace: bool, restart: bool) -> set[str]:
        """Return the runs in the folder that a launch may discard.

        Args:
          replace: include the published run.
          restart: include the current run.
        """
        found = {self.manifest["run"]} if replace and self.manifest is not None else set()
        return found | ({self.current["run"]} if restart and self.current is not None else set())

    def others(self, fingerprint: Mapping[str, str]) -> set[str]:
        """Return the runs here, finished or begun, of another job or of an earlier version of this one."""
        found = (s for s in (self.manifest, self.current) if s is not None)
        return {s["run"] for s in found if _differences(s["fingerprint"], fingerprint)}

    @property
    def runs(self) -> list[str]:
        """The ids of all runs that a new run replaces."""
        found = (s["run"] for s in (self.manifest, self.failed, self.current) if s is not None)
        return sorted(set(found) - {""})

    @property
    def publishing(self) -> RunFolder | None:
        """The run that is being published, which must not be discarded; see `transforms.ledger.publication`."""
        if self.known is None or self.current is None or not is_publishing(self.known):
            return None
        return RunFolder(self.output, self.current["run"])

    def finished(self, fingerprint: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Return the manifest of this job unless it is to be replaced; raise Changed if it is another job's."""
        if self.manifest is None or self.manifest["run"] in self.discards:
            return None
        if changed := _differences(self.manifest["fingerprint"], fingerprint):
            raise Changed(
                [
                    f"{self.output} holds a finished run of another job ({changed} changed)"
                    f"{self._which(self.manifest)}: write elsewhere, or add --replace to publish over it"
                ],
                "--replace",
            )
        return self.manifest

    def begun(self, fingerprint: Mapping[str, str]) -> RunFolder | None:
        """Return the run of this job to continue; it may have no plan yet.

        Raises:
          Changed: the run is another job's.
          Occupied: the run is damaged.
          LostRace: the run has been published or discarded since it was found.
        """
        if self.current is None or self.current["run"] in self.discards:
            return None
        folder = RunFolder(self.output, self.current["run"])
        changed = _differences(self.current["fingerprint"], fingerprint)
        if not folder.run:
            raise Occupied(
                [f"{folder.current} is damaged: add --restart to start over; beam-score clean removes the rest"],
                "--restart",
            )
        kind: type[Occupied]
        try:
            if changed and not storage.exists(folder.plan):
                return None  # the run has done no work
            if not changed:
                if storage.exists(folder.plan):
                    read_plan(folder, whole=True)
                return folder
            plan = read_plan(folder, whole=True)
            over = self.failed is not None and self.failed["run"] == folder.run
            state = "over its error budget and not published" if over else "not finished"
            kind, found = Changed, f"of another job, {state} ({changed} changed){self._which(plan)}"
        except FileNotFoundError:
            raise LostRace from None
        except CorruptFile as error:
            kind, found = Occupied, f"that cannot be continued ({error})"
        raise kind(
            [
                f"{self.output} holds run {folder.run} {found}: write elsewhere, or add --restart to discard it "
                "and start over"
            ],
            "--restart",
        )

    def _which(self, before: Mapping[str, Any]) -> str:
        """Return a phrase that names the changed files and settings, to append to a sentence; empty if none has
        changed."""
        files = differing(before["inputs"], self.files) if self.files else ""
        settings = differing_settings(before["job"], self.settings) if self.settings else ""
        return "".join(f"; {found}" for found in (files, settings) if found)


def refuse_links(output: str, run: RunFolder | None = None) -> None:
    """Make sure that files written or removed through an output folder are in that folder.

    Args:
      run: check the folders of this run instead.

    Raises:
      JobError: a folder of the protocol is a link; its target may be anybody's.
    """
    root = storage.at(output)
    if run is None:
        folders = [root / name for name in (STAGING, *KINDS)]
    else:
        folders = [run.path, *(run.path / name for name in FOLDERS)]
    links = [folder for folder in folders if storage.is_link(folder)]
    if links:
        what = "is a link, expected a folder of this output: remove the link, or move its target here"
        raise JobError([f"{link} {what}" for link in links])


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    return ", ".join(name for name in {**a, **b} if a.get(name) != b.get(name))
