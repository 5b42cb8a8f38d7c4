"""Takes away what dead attempts have left in an output folder: never what is published, never what a run that
lives, or one that can be gone on with, still needs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.run.jobs_elsewhere import at_work
from beam_score.pipeline.run.launching import launches
from beam_score.pipeline.run.standing import Standing, refuse_links
from beam_score.runners.elsewhere import Found as JobFound
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.on_disk import temporary_of
from beam_score.transforms.durable.sealed import Damaged
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
    """Attributes:
    path: a file or folder that nobody needs.
    bytes: what it takes on disk.
    why: what it is.
    is_folder: whether it is a folder.
    """

    path: Place
    bytes: int
    why: str
    is_folder: bool


@dataclasses.dataclass
class Found:
    """Attributes:
    leftovers: what can go.
    kept: what else is there, and why it stays, a sentence each.
    over: the run that is said to be begun though it is over, or is to be discarded; if one is. Empty where what says
      so is damaged.
    is_over: whether that one is over by itself.
    """

    leftovers: list[Leftover] = dataclasses.field(default_factory=list)
    kept: list[str] = dataclasses.field(default_factory=list)
    over: str | None = None
    is_over: bool = False

    def add(self, path: Place, why: str) -> None:
        self.leftovers.append(Leftover(path, storage.size_below(path), why, storage.is_folder(path)))

    def add_files(self, folder: Place, names: Sequence[str], why: str) -> None:
        """The same of files right in a folder, however many."""
        if names:
            size = storage.sizes(folder)
            self.leftovers += [Leftover(folder / name, size(name) or 0, why, False) for name in names]

    @property
    def bytes(self) -> int:
        return sum(leftover.bytes for leftover in self.leftovers)


def clean(output: str, dry_run: bool = False, unfinished: bool = False, lost_jobs: bool = False) -> Found:
    """Removes leftovers.

    Args:
      dry_run: whether to only look.
      unfinished: whether to discard a run that is not finished, too, if nobody is at work on it.
      lost_jobs: whether a job on an engine that does not answer is taken for ended.

    Raises:
      JobError: that is no output folder.
    """
    with _looked(output, unfinished, lost_jobs) as found:
        if dry_run:
            return found
        # Before its folder: else a launch would plan it anew.
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
        # Now that nobody can publish it any more, what it has under final names is on no record.
        with contextlib.suppress(JobError):
            found.leftovers += clean(output).leftovers
    return found


@contextlib.contextmanager
def _looked(output: str, unfinished: bool, lost_jobs: bool) -> Iterator[Found]:
    """What there is; no run that was found at rest can be gone on with while the body runs."""
    root = storage.at(output)
    staging = root / STAGING
    if not storage.is_folder(root):
        raise JobError([f"{output}: there is no such folder; expected the output.path of a job"])
    refuse_links(output)
    # Listed before it is read what is begun and what is published: names stand before a record tells of them, but
    # for a run's folder, which is made only once it is said to be begun.
    staged = storage.names(staging)
    final = [root / kind / name for kind in KINDS for name in storage.names(root / kind)]
    final += [root / name for name in storage.names(root)]
    standing = Standing.of(output)
    if not _is_output(standing, staged):
        raise JobError(
            [f"{output} holds no {MANIFEST}, {FAILED} or {STAGING} of a run: expected the output.path of a job"]
        )
    over = set() if standing.manifest is None else {standing.manifest["run"], *standing.manifest["replaces"]}
    current = None if standing.current is None else standing.current["run"]
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
            if planned and not held.enter_context(storage.alone(folder.plan)):
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
                    f"run {name} may not be finished: {folder.current}, which would tell, is damaged (--unfinished "
                    "discards it)"
                )
            elif planned:
                _attempts(folder, found)
                found.kept.append(
                    f"run {name} is not finished: the same job goes on with it (--unfinished discards it)"
                )
        if not live:
            _published(standing, final, found)
        yield found


def _launches(output: str, found: Found) -> bool:
    """Whether a launch is getting ready; what dead ones have left can go."""
    held = launches(output)
    for path, is_held in held:
        if is_held:
            found.kept.append("a launch is getting ready")
        elif is_launch(path.name):
            found.add(path, "of a launch that died")
    return any(is_held for _, is_held in held)


def _is_output(standing: Standing, staged: Sequence[str]) -> bool:
    """Whether a folder is the output of a job: by a record that can be read, or by a staging folder that holds nothing
    but what runs put there."""
    if standing.manifest is not None or standing.failed is not None or (standing.current or {}).get("run"):
        return True
    return bool(staged) and all(is_in_staging(name) for name in staged)


def _at_work(run: str, job: JobFound) -> str:
    if job.alive:
        return (
            f"run {run} is at work: its launcher is gone, and {job}; it publishes by itself. To cancel it: {job.cancel}"
        )
    return f"run {run} may be at work: {job}; --lost-jobs takes it for ended"


def _attempts(folder: RunFolder, found: Found) -> None:
    """What attempts that died have left in a run that can be gone on with."""
    parts = storage.names(folder.parts)  # first: one that comes later is of an attempt that lives
    try:
        receipts = collect(folder, read_plan(folder)["splits"])
    except FileNotFoundError:
        return  # discarded by a launch, this moment
    except Damaged as error:
        found.kept.append(f"{error}; run --restart, or clean --unfinished, discards the run")
        return
    needed = {part.name for receipt in receipts if receipt is not None for part in receipt.parts}
    needed |= {name for verdict in verdicts(folder) for name, _ in verdict["parts"]}
    if not storage.still_alone(folder.plan):
        found.kept.append(f"run {folder.run} is at work")
        return
    over = [name for name in parts if name not in needed and is_in_run(f"parts/{name}")]
    found.add_files(folder.parts, over, "part of an attempt that died")
    for within in ("", *FOLDERS):
        place = folder.path / within if within else folder.path
        names = [n for n in storage.names(place) if temporary_of(n) and is_in_run(f"{within}/{n}" if within else n)]
        if within != "parts":
            found.add_files(place, names, "half written")


def _published(standing: Standing, final: Sequence[Place], found: Found) -> None:
    """What stands under final names and is on no record."""
    records = [r for r in (standing.manifest, standing.failed) if r is not None]
    runs = {record["run"] for record in records}
    if standing.current is not None:  # it may be published while this looks
        runs.add(standing.current["run"])
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
