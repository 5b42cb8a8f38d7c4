"""Removes leftovers of failed attempts from an output folder. Never removes published files, or files that a live run
or a run that can be continued needs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.run.launching import launches
from beam_score.pipeline.run.output_state import OutputState, refuse_links
from beam_score.pipeline.run.remote_jobs import at_work
from beam_score.runners.elsewhere import Found as JobFound
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.on_disk import temporary_of
from beam_score.transforms.durable.sealed import CorruptFile
from beam_score.transforms.durable.storage import Place
from beam_score.transforms.ledger.folder import CURRENT, LAUNCHES, STAGING, RunFolder, read_plan
from beam_score.transforms.ledger.manifest import FAILED, KINDS, MANIFEST
from beam_score.transforms.ledger.names import (
    FOLDERS,
    PUBLISHED,
    is_in_run,
    is_in_staging,
    is_launch,
    is_temporary_of_output,
)
from beam_score.transforms.ledger.publication import drop_current
from beam_score.transforms.ledger.receipts import collect
from beam_score.transforms.ledger.verdict import verdicts


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A file or folder that can be removed.

    Attributes:
      path: the file or folder.
      bytes: its size on disk.
      why: a description of it.
      is_folder: whether it is a folder.
    """

    path: Place
    bytes: int
    why: str
    is_folder: bool


@dataclasses.dataclass
class Found:
    """The leftovers found in an output folder.

    Attributes:
      leftovers: files and folders that can be removed.
      kept: descriptions of the other files and the reason each is kept, one sentence each.
      over: the run that `current.json` still marks as begun although it is finished or is to be discarded, if any.
        Empty if `current.json` is damaged.
      is_over: whether that run is finished.
    """

    leftovers: list[Leftover] = dataclasses.field(default_factory=list)
    kept: list[str] = dataclasses.field(default_factory=list)
    over: str | None = None
    is_over: bool = False

    def add(self, path: Place, why: str) -> None:
        self.leftovers.append(Leftover(path, storage.size_below(path), why, storage.is_folder(path)))

    def add_files(self, folder: Place, names: Sequence[str], why: str) -> None:
        """Add files directly inside a folder, listing the folder only once."""
        if names:
            size = storage.sizes(folder)
            self.leftovers += [Leftover(folder / name, size(name) or 0, why, False) for name in names]

    @property
    def bytes(self) -> int:
        return sum(leftover.bytes for leftover in self.leftovers)


def clean(output: str, dry_run: bool = False, unfinished: bool = False, lost_jobs: bool = False) -> Found:
    """Remove leftovers.

    Args:
      dry_run: only report, remove nothing.
      unfinished: also discard an unfinished run that no launch is working on.
      lost_jobs: treat a job on an engine that does not answer as ended.

    Raises:
      JobError: the folder is not the output folder of a job.
    """
    with _looked(output, unfinished, lost_jobs) as found:
        if dry_run:
            return found
        # Before its folder is removed: otherwise a launch would plan the run again.
        if found.over is not None and not drop_current(output, [found.over or None], publishing=found.is_over):
            raise JobError([f"run {found.over} in {output} is being published: the same job finishes it"])
        for leftover in found.leftovers:
            if leftover.is_folder and not temporary_of(leftover.path.name):
                storage.remove_folder(leftover.path, is_in_run)
        storage.remove_all([leftover.path for leftover in found.leftovers if not leftover.is_folder])
        staging = storage.at(output) / STAGING
        storage.remove_temporaries(staging, is_in_staging, is_in_run)
        storage.remove_if_empty(staging / LAUNCHES)
        storage.remove_if_empty(staging)
        found.leftovers = [x for x in found.leftovers if not (x.is_folder and storage.is_folder(x.path))]
        found.kept += [
            f"{staging / name} holds files that are not of a run"
            for name in storage.names(staging)
            if temporary_of(name) and storage.is_folder(staging / name)
        ]
    if found.over is not None:
        # No launch can publish the run any more, so its files under final names are not on record.
        with contextlib.suppress(JobError):
            found.leftovers += clean(output).leftovers
    return found


@contextlib.contextmanager
def _looked(output: str, unfinished: bool, lost_jobs: bool) -> Iterator[Found]:
    """Yield the leftovers; while the body runs, no run that was found idle can be continued."""
    root = storage.at(output)
    staging = root / STAGING
    if not storage.is_folder(root):
        raise JobError([f"{output}: there is no such folder; expected the output.path of a job"])
    refuse_links(output)
    # List the files before reading the current and published records: a file exists before a record names it, except
    # the folder of a run, which is created only after `current.json` names the run.
    staged = storage.names(staging)
    final = [root / kind / name for kind in KINDS for name in storage.names(root / kind)]
    final += [root / name for name in storage.names(root)]
    state = OutputState.of(output)
    if not _is_output(state, staged):
        raise JobError(
            [f"{output} holds no {MANIFEST}, {FAILED} or {STAGING} of a run: expected the output.path of a job"]
        )
    over = set() if state.manifest is None else {state.manifest["run"], *state.manifest["replaces"]}
    current = None if state.current is None else state.current["run"]
    found = Found(over=current if current in over or (unfinished and current not in staged) else None)
    found.is_over = current in over
    live = False
    with contextlib.ExitStack() as held:
        for name in staged:
            if name == CURRENT:
                continue
            if name == LAUNCHES and not storage.is_link(staging / name):
                live |= _launches(output, found)
                continue
            if not is_in_staging(name) or storage.is_link(staging / name):
                found.kept.append(f"{staging / name} is not of a run")
                continue
            if temporary_of(name) is not None:
                found.add(staging / name, "half written or half removed")
                continue
            folder = RunFolder(output, name)
            refuse_links(output, folder)
            planned = storage.exists(folder.plan)
            if planned and not held.enter_context(storage.exclusive(folder.plan)):
                live = True
                found.kept.append(f"run {name} is at work")
            elif name in over or (name != current and current != ""):
                found.add(folder.path, "staging of a run that is over")
            elif jobs := [job for job in at_work(folder) if job.alive or not lost_jobs]:
                live = True
                found.kept += [_at_work(name, job) for job in jobs]
            elif unfinished:
                found.over = current
                found.add(folder.path, "staging of a run that is not finished")
            elif name != current:
                found.kept.append(
                    f"run {name} may not be finished: {folder.current}, which names the run in progress, is damaged "
                    "(--unfinished discards it)"
                )
            elif planned:
                _attempts(folder, found)
                found.kept.append(f"run {name} is not finished: the same job continues it (--unfinished discards it)")
        if not live:
            _published(state, final, found)
        yield found


def _launches(output: str, found: Found) -> bool:
    """Return whether a launch is preparing; add the files of dead launches to the leftovers."""
    held = launches(output)
    for path, is_held in held:
        if is_held:
            found.kept.append("a launch is getting ready")
        elif is_launch(path.name):
            found.add(path, "of a launch that died")
    return any(is_held for _, is_held in held)


def _is_output(state: OutputState, staged: Sequence[str]) -> bool:
    """Return whether a folder is the output of a job: it has a readable record, or a staging folder that contains only
    files of runs."""
    if state.manifest is not None or state.failed is not None or (state.current or {}).get("run"):
        return True
    return bool(staged) and all(is_in_staging(name) for name in staged)


def _at_work(run: str, job: JobFound) -> str:
    if job.alive:
        return (
            f"run {run} is at work: its launcher is gone, and {job}; it publishes by itself. To cancel it: {job.cancel}"
        )
    return f"run {run} may be at work: {job}; --lost-jobs takes it for ended"


def _attempts(folder: RunFolder, found: Found) -> None:
    """Add the leftovers of dead attempts at a run that can be continued."""
    parts = storage.names(folder.parts)  # listed first: a part that appears later belongs to a live attempt
    try:
        receipts = collect(folder, read_plan(folder)["splits"])
    except FileNotFoundError:
        return  # a launch has just discarded the run
    except CorruptFile as error:
        found.kept.append(f"{error}; run --restart, or clean --unfinished, discards the run")
        return
    needed = {part.name for receipt in receipts if receipt is not None for part in receipt.parts}
    needed |= {name for verdict in verdicts(folder) for name, _ in verdict["parts"]}
    if not storage.still_exclusive(folder.plan):
        found.kept.append(f"run {folder.run} is at work")
        return
    over = [name for name in parts if name not in needed and is_in_run(f"parts/{name}")]
    found.add_files(folder.parts, over, "part of an attempt that died")
    for within in ("", *FOLDERS):
        place = folder.path / within if within else folder.path
        names = [n for n in storage.names(place) if temporary_of(n) and is_in_run(f"{within}/{n}" if within else n)]
        if within != "parts":
            found.add_files(place, names, "half written")


def _published(state: OutputState, final: Sequence[Place], found: Found) -> None:
    """Add the files under final names that are not on record."""
    records = [r for r in (state.manifest, state.failed) if r is not None]
    runs = {record["run"] for record in records}
    if state.current is not None:  # the run may be published meanwhile
        runs.add(state.current["run"])
    over: dict[Place, list[str]] = {}
    over_written: dict[Place, list[str]] = {}
    for path in final:
        named = PUBLISHED.fullmatch(path.name)
        if named and named[1] not in runs:
            over.setdefault(path.parent, []).append(path.name)
        elif is_temporary_of_output(path.name):
            over_written.setdefault(path.parent, []).append(path.name)
    for folder, names in over.items():
        found.add_files(folder, names, "of a run that was replaced or discarded")
    for folder, names in over_written.items():
        found.add_files(folder, names, "half written")
