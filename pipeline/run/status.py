"""The state of a run, from its plan and receipts, for every user who can read the output folder, on any engine. Nothing
here creates or changes a file."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from beam_score.pipeline.run.launching import launches
from beam_score.pipeline.run.remote_jobs import at_work
from beam_score.runners.elsewhere import Found
from beam_score.transforms.common.busy import busy_seconds
from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.common.sums import add_tally
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile
from beam_score.transforms.ledger.folder import CURRENT, STAGING, RunFolder, parse_current, read_plan, read_shard
from beam_score.transforms.ledger.manifest import FAILED, MANIFEST, OVER_BUDGET, parse
from beam_score.transforms.ledger.receipt import Counts, Receipt
from beam_score.transforms.ledger.verdict import verdicts


class RunState(enum.StrEnum):
    """The state of the run in an output folder; docs/status.md says what each means."""

    NOTHING = "nothing"
    STARTING = "starting"
    PLANNED = "planned"
    RUNNING = "running"
    PUBLISHING = "publishing"
    INTERRUPTED = "interrupted"
    OVER_BUDGET = "over budget"
    DONE = "done"


_AT_ONCE = 32
_TRIES = 3
_ASKS_EVERY_S = 10.0

_RECEIPT = re.compile(r"(\d+)(?:\.(\d+))?\.json")


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of the run of an output folder.

    Attributes:
      output: the folder.
      state: see `RunState`.
      run: id of the run; None for `nothing` and `starting`.
      published: id of the run whose predictions are published.
      splits_done, splits, bytes_done, bytes: of the plan; None if the run is over and its plan is removed. Bytes are
        the bytes that must be read for a split.
      counts: `read`, `predicted`, ...: as in a manifest.
      rows_per_s: rows read per second, over the time in which splits were being processed; None if unknown.
      seconds_left: for a running run, estimated from its bytes; None if unknown.
      last_receipt: time at which the last receipt was written, in seconds since the epoch.
      damaged: names of receipts that cannot be read; their splits count as not done.
      jobs: if no launch is alive, the jobs on a remote engine that are running or whose state is unknown.
    """

    output: str
    state: RunState
    run: str | None = None
    published: str | None = None
    splits_done: int | None = None
    splits: int | None = None
    bytes_done: int | None = None
    bytes: int | None = None
    counts: Mapping[str, Any] = dataclasses.field(default_factory=Counts().summary)
    rows_per_s: float | None = None
    seconds_left: float | None = None
    last_receipt: float | None = None
    damaged: tuple[str, ...] = ()
    jobs: tuple[Found, ...] = ()


def lives(folder: RunFolder) -> bool:
    """Return whether a launch is working on a run; False also where locks are not supported. Raises OSError."""
    return storage.is_leased(folder.plan)


class Watcher:
    """Reports the state of an output folder repeatedly; files that cannot change are read once."""

    def __init__(self, output: str):
        self._output = output
        self._run: _Run | None = None
        self._read: dict[storage.Place, tuple[Hashable, Any]] = {}
        self._asked: tuple[str, float, tuple[Found, ...]] | None = None

    def look(self) -> Status:
        """Return the current state. Raises CorruptFile, Unreadable, OSError."""
        found = self._look()
        if found.state in (RunState.RUNNING, RunState.PUBLISHING) or not any(
            held for _, held in launches(self._output)
        ):
            return found
        return Status(self._output, RunState.STARTING, published=found.published)

    def _look(self) -> Status:
        for _ in range(_TRIES):
            current = self._parsed(storage.at(self._output) / STAGING / CURRENT, parse_current)
            if current is None:
                break
            try:
                return self._begun(RunFolder(self._output, current["run"]))
            except FileNotFoundError:
                continue  # the run was published and cleaned up, or replaced, meanwhile
        return self._settled()

    def _begun(self, folder: RunFolder) -> Status:
        if self._run is None or self._run.folder != folder:
            self._run = _Run(folder)
        run = self._run
        # The lock is checked before the files are read, so that the last files of an ended launch are seen.
        alive = lives(folder)
        jobs = () if alive else self._jobs(folder)
        run.read_receipts()
        manifest = self._record(MANIFEST)
        published = manifest and manifest["run"]
        if published == folder.run:
            return self._settled()
        if alive or any(job.alive for job in jobs):
            state = RunState.PUBLISHING if len(run.spans) == len(run.split_bytes) else RunState.RUNNING
        elif any(verdict["decision"] == OVER_BUDGET for verdict in verdicts(folder)[-1:]):
            state = RunState.OVER_BUDGET
        else:
            state = RunState.INTERRUPTED if run.spans else RunState.PLANNED
        return dataclasses.replace(self._of(run, state, published), jobs=jobs)

    def _jobs(self, folder: RunFolder) -> tuple[Found, ...]:
        """Return the state of the remote jobs of a run; engines are asked at most every `_ASKS_EVERY_S`."""
        now = time.monotonic()
        if self._asked is None or self._asked[0] != folder.run or now > self._asked[1] + _ASKS_EVERY_S:
            self._asked = folder.run, now, tuple(at_work(folder))
        return self._asked[2]

    def _settled(self) -> Status:
        """Return the state left by the last run; no run has begun."""
        manifest = self._record(MANIFEST)
        failed = self._record(FAILED)
        published = manifest and manifest["run"]
        over = failed is not None and (manifest is None or failed["run"] not in (published, *manifest["replaces"]))
        record = failed if over else manifest
        if record is None:
            return Status(self._output, RunState.NOTHING)
        state = RunState.OVER_BUDGET if over else RunState.DONE
        found = Status(self._output, state, record["run"], published)
        if self._run is not None and self._run.folder.run == record["run"]:
            found = self._of(self._run, state, published)  # watched to its end
            found = dataclasses.replace(found, splits_done=found.splits, bytes_done=found.bytes, damaged=())
        return dataclasses.replace(found, counts=record["counts"], rows_per_s=record["timings"]["rows_per_s"])

    def _of(self, run: _Run, state: RunState, published: str | None) -> Status:
        seconds = busy_seconds(list(run.spans.values()))
        all_bytes, bytes_ = sum(run.split_bytes.values()), sum(run.split_bytes[split] for split in run.spans)
        left = None
        if state == RunState.RUNNING and bytes_ and seconds:
            left = (all_bytes - bytes_) * seconds / bytes_
        return Status(
            self._output,
            state,
            run.folder.run,
            published,
            len(run.spans),
            len(run.split_bytes),
            bytes_,
            all_bytes,
            run.counts.summary(),
            run.counts.read / seconds if seconds else None,
            left,
            run.last_receipt,
            tuple(sorted(name for split, name in run.damaged.items() if split not in run.spans)),
        )

    def _record(self, name: str) -> Any:
        path = storage.at(self._output) / name
        return self._parsed(path, lambda content: parse(content, path))

    def _parsed(self, path: storage.Place, parsed: Callable[[bytes], Any]) -> Any:
        """Return the parsed content of a file of the protocol, read again only if the file has changed; None if it does
        not exist.

        Raises CorruptFile, Unreadable.
        """
        if (version := storage.version(path)) is None:
            return None
        try:
            if self._read.get(path, (None,))[0] != version:
                if (content := storage.read(path)) is None:
                    return None
                self._read[path] = version, parsed(content)
        except CorruptFile:
            raise CorruptFile(f"{path} is damaged: restore it, or run the job again with --restart") from None
        return self._read[path][1]


class _Run:
    """The plan and receipts of one run; each file is read once.

    Attributes:
      split_bytes: bytes that must be read for each split.
      spans: begin and end of each split that is done, by its worker's clock.
      damaged: for each split with an unreadable receipt, the name of that receipt.

    Raises FileNotFoundError if the run has been cleaned up.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        shards = read_plan(folder)["shards"]
        self.split_bytes = {split.id: split.bytes for shard in shards for split in read_shard(folder, shard)}
        self.spans: dict[int, tuple[float, float]] = {}
        self.damaged: dict[int, str] = {}
        self.counts = Counts()
        self.last_receipt: float | None = None
        self._seen: set[str] = set()

    def read_receipts(self) -> None:
        """Read the receipts written since the last call."""
        names = storage.names(self.folder.receipts)
        if not names and not storage.exists(self.folder.plan):
            raise FileNotFoundError(str(self.folder.plan))
        new = [(int(m[1]), int(m[2] or 1), m[0]) for n in names if n not in self._seen and (m := _RECEIPT.fullmatch(n))]
        if not new:
            return
        new.sort()  # the first intact receipt of a split counts
        found = parallel_map(lambda one: read_receipt(self.folder.receipts / one[2], one[0]), new, _AT_ONCE)
        for (split, _, name), receipt in zip(new, found, strict=True):
            self._seen.add(name)
            if receipt is None or split not in self.split_bytes:
                self.damaged[split] = name
            elif split not in self.spans:
                self._count(receipt)

    def _count(self, receipt: KnownReceipt) -> None:
        counts, own = self.counts, receipt.counts
        counts.read += own.read
        counts.predicted += own.predicted
        counts.rejected += own.rejected
        counts.stretches += own.stretches
        counts.reasons = add_tally(counts.reasons, own.reasons)
        counts.rejections.add(own.rejections.all())
        counts.stretch_reasons = add_tally(counts.stretch_reasons, own.stretch_reasons)
        self.spans[receipt.split] = (receipt.began, receipt.ended)
        self.last_receipt = max(self.last_receipt or 0.0, receipt.written)


@dataclasses.dataclass(frozen=True)
class KnownReceipt:
    """The parts of a receipt that the status needs.

    Attributes: as of `Receipt`; `written` is in seconds since the epoch, by the clock of the storage.
    """

    split: int
    counts: Counts
    began: float
    ended: float
    written: float


def read_receipt(path: storage.Place, split: int) -> KnownReceipt | None:
    """Return the receipt of a split; None if it is damaged."""
    content, written = storage.read_stamped(path)
    try:
        receipt = Receipt.from_json(content)
        known = KnownReceipt(split, Counts.of([receipt]), float(receipt.began), float(receipt.ended), written)
    except (CorruptFile, TypeError, KeyError, AttributeError):
        return None
    return known if receipt.split == split and math.isfinite(known.began + known.ended) else None
