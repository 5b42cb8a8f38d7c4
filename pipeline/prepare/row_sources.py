"""The two sources of the rows of a job: the files that its patterns match, or the dead letters of an earlier run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.prepare.output_place import own_files
from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.formats.base import ReadSettings, UnusableFile, format_named
from beam_score.transforms.listing.files import InputFile, as_it_is, list_files, told_folders
from beam_score.transforms.replay.options import Replay
from beam_score.transforms.stores.objects import is_object

log = logging.getLogger(__name__)

_LOOKED_AT_ONCE = 16
_OF_IDENTITY = [f.name for f in dataclasses.fields(InputFile)]

Checked = Sequence[tuple[str, UnusableFile | str | None]]
"""By path: why a file is unusable, or its header, or None if it has no header."""


class RowSource(Protocol):
    """A source of rows."""

    @property
    def files(self) -> Sequence[InputFile]:
        """The files to read."""

    @property
    def originals(self) -> Sequence[InputFile]:
        """The files in which the rows were first stored, as far as they exist."""

    @property
    def inputs(self) -> Sequence[InputFile]:
        """`files` and `originals`, each file once."""

    @property
    def matched(self) -> Sequence[InputFile]:
        """The files that the patterns of the job match, to report which have changed."""

    @property
    def problems(self) -> Sequence[str]:
        """The problems of finding the files."""

    def reading(self, read: ReadSettings) -> ReadSettings:
        """Return the settings for reading `files`, from those for reading `originals`."""

    def sample(self, files: Sequence[InputFile], most: int) -> Sequence[InputFile]:
        """Return the files to look at before a launch.

        Args:
          files: those of the source.
          most: of a sample.
        """

    def headers(self, read: ReadSettings, checked: Checked) -> dict[str, str]:
        """Return the headers of the originals, by path, for the files that have one.

        Args:
          read: settings for reading the originals.
          checked: of `files`.
        """

    def keep_problems(self, job: Job, keep: Sequence[str], types: Mapping[str, Any]) -> list[str]:
        """Return the problems with kept columns that cannot be resolved because no original exists."""

    def has_proven(self, model_hash: str) -> bool:
        """Return whether an earlier run has predicted such rows with this model."""

    def fingerprint(self) -> dict[str, str]:
        """Return hashes that identify the source, in addition to those of the job and of `files`."""

    def parent_on_record(self) -> dict[str, str] | None:
        """Return the entry that names the parent in the manifest of a replay."""

    def files_on_record(self) -> Iterable[dict[str, Any]]:
        """Return an entry for the manifest for each original."""


@dataclasses.dataclass(frozen=True)
class FromFiles:
    """The rows of the files that the patterns of a job match."""

    files: Sequence[InputFile]
    problems: Sequence[str]

    @classmethod
    def of(cls, job: Job) -> FromFiles:
        """List the files of a job. Logs which folders are skipped."""
        folders: list[str] = []
        found = cls(*list_files(job.input.files, own_files(job), folders))
        if folders:
            log.warning("%s", told_folders(folders))
        return found

    @property
    def originals(self) -> Sequence[InputFile]:
        return self.files

    inputs = matched = originals

    def reading(self, read: ReadSettings) -> ReadSettings:
        return read

    def sample(self, files: Sequence[InputFile], most: int) -> Sequence[InputFile]:
        if len(files) <= most or not any(is_object(file.path) for file in files):
            return files
        step = (len(files) - 1) / (most - 1)
        return [files[round(number * step)] for number in range(most)]

    def headers(self, read: ReadSettings, checked: Checked) -> dict[str, str]:
        texts: dict[str, str] = {}  # one copy of a header shared by thousands of files
        return {path: texts.setdefault(found, found) for path, found in checked if isinstance(found, str)}

    def keep_problems(self, job: Job, keep: Sequence[str], types: Mapping[str, Any]) -> list[str]:
        return []

    def has_proven(self, model_hash: str) -> bool:
        return False

    def fingerprint(self) -> dict[str, str]:
        return {}

    def parent_on_record(self) -> None:
        return None

    def files_on_record(self) -> Iterable[dict[str, Any]]:
        return (vars(f) | {"predicted_before": 0} for f in self.files)  # a generator: the list of files can be long


@dataclasses.dataclass(frozen=True)
class FromDeadLetters:
    """The rows of the dead letters of an earlier run, the parent.

    Attributes:
      output: the output folder of the parent.
      record: its manifest, or its failure record if it is over budget.
      replay: how the dead letters are read.
      files: the files of dead letters.
    """

    output: str
    record: Mapping[str, Any]
    replay: Replay
    files: Sequence[InputFile]
    matched = problems = ()

    @functools.cached_property
    def entries(self) -> list[Mapping[str, Any]]:
        """The record's entry of each original file that has dead letters."""
        return [i for i in self.record["inputs"] if i["rejected"] or i["stretches"]]

    @functools.cached_property
    def now(self) -> dict[str, dict[str, Any] | None]:
        """The current state of each original, by path; None for files that no longer exist."""
        paths = [f["path"] for f in self.entries]
        return dict(zip(paths, parallel_map(as_it_is, paths, _LOOKED_AT_ONCE), strict=True))

    @property
    def originals(self) -> list[InputFile]:
        return [InputFile(**now) for now in self.now.values() if now is not None]

    @property
    def inputs(self) -> list[InputFile]:
        return [*self.files, *self.originals]

    def is_unchanged(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an original is as the parent read it."""
        now = self.now[entry["path"]]
        return now is not None and all(entry.get(name) == value for name, value in now.items())

    def reading(self, read: ReadSettings) -> ReadSettings:
        replay = dataclasses.replace(self.replay, options=read.options)
        return dataclasses.replace(read, format="dead_letters", options=replay)

    def sample(self, files: Sequence[InputFile], most: int) -> Sequence[InputFile]:
        return files

    def headers(self, read: ReadSettings, checked: Checked) -> dict[str, str]:
        found = {}
        for entry in self.entries:
            path = entry["path"]
            if entry["header"] is not None:
                found[path] = self.record["headers"][entry["header"]]
            elif read.options.header and (now := self.now[path]) is not None:
                try:
                    text = format_named(read.format).header_of(path, read, InputFile(**now).version)
                except UnusableFile:
                    continue
                if text is not None:
                    found[path] = text
        return found

    def keep_problems(self, job: Job, keep: Sequence[str], types: Mapping[str, Any]) -> list[str]:
        left = [n for n in keep if n not in job.columns and n not in types]
        if job.output.keep == "all" and not keep:
            return [
                "output.keep: no input file exists any more that defines all columns: name them (--set output.keep)"
            ]
        if self.replay.prefers_source and left:
            return [
                f"output.keep: no input file exists any more that defines the type of column {left[0]!r}: declare it, "
                f"as with --set columns.{left[0]}.dtype=string, or do not keep it"
            ]
        return []

    def has_proven(self, model_hash: str) -> bool:
        return self.record["model"]["sha256"] == model_hash and self.record["counts"]["predicted"] > 0

    def fingerprint(self) -> dict[str, str]:
        originals = [] if self.replay.by == "payload" else list(self.now.values())
        content = json.dumps([self.parent_on_record(), originals]).encode()
        return {"parent": hashlib.sha256(content).hexdigest()[:16]}

    def parent_on_record(self) -> dict[str, str]:
        return {"run": self.record["run"], "output": self.output, "from": self.replay.by}

    def files_on_record(self) -> list[dict[str, Any]]:
        # As they were when their rows were first read, so that a replay of the replay can report later changes.
        found = []
        for entry in self.entries:
            # For a file from which nothing could be read, the identity is that of the file as it is now.
            unread = not entry["read"] and not entry["predicted_before"]
            identity = (self.now[entry["path"]] if unread else None) or {n: entry.get(n) for n in _OF_IDENTITY}
            found.append(identity | {"predicted_before": entry["predicted_before"] + entry["predicted"]})
        return found
