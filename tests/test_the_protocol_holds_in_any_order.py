"""The protocol of plan, parts, receipts and verdict as a state machine: launches, resumes, replacements, restarts,
cleaners, deaths and damage, interleaved at every system call, over the real code."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import google_crc32c
import hypothesis.strategies as st
import pyarrow as pa
import pytest
import turns
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from small_blocks import blocks_of
from turns import Actor, Killed, Turns

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.run.begin import freeze
from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.output_state import OutputState
from beam_score.pipeline.run.protocol import Outcome, bring_to_verdict, publish
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.durable import disk
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder, read_plan, read_shard
from beam_score.transforms.ledger.publication import Superseded
from beam_score.transforms.ledger.receipts import is_done
from beam_score.transforms.ledger.verdict import CommitError
from beam_score.transforms.steps.write import WriteParts

SCHEMA = pa.schema([("id", pa.string())])
ROWS = 4  # a split; the last of each is refused


@dataclasses.dataclass(frozen=True)
class SmallJob:
    """A job whose rows are told by name."""

    name: str
    splits: int

    @property
    def fingerprint(self) -> dict[str, str]:
        return {"job": self.name}

    def ids(self, split: int) -> list[str]:
        return [f"{self.name}{split}-{row}" for row in range(ROWS - 1)]

    @property
    def rows(self) -> Counter:
        return Counter(name for split in range(self.splits) for name in self.ids(split))

    @property
    def refused(self) -> Counter:
        return Counter((f"{self.name}{split}", ROWS - 1) for split in range(self.splits))

    def blocks(self, split: int):
        return blocks_of(split, f"{self.name}{split}", self.ids(split))


@dataclasses.dataclass(frozen=True)
class SmallLaunch:
    """A launch of a job; `run` is the id that it gives to a run it begins."""

    job: SmallJob
    output: str
    run: str
    budget: Budget
    discards: Collection[str] = ()
    keep_replaced: bool = False

    @property
    def fingerprint(self) -> dict[str, str]:
        return self.job.fingerprint

    def state(self) -> OutputState:
        return OutputState.of(self.output, self.discards)

    def refuse(self, state: OutputState) -> None:
        pass

    def plan(self, state: OutputState) -> RunFolder:
        splits = [Split(n, (FileRange(f"{self.job.name}{n}", 10),)) for n in range(self.job.splits)]
        header = {
            "fingerprint": self.fingerprint, "start_up_s": {}, "engine": None, "versions": {}, "inputs": [],
            "job": {"output": {"format": "jsonl", "not_finite": "null"}},
            "model": {"path": "m", "version": None, "sha256": "00", "signature": "s"},
            "headers": [], "parent": None,
        }  # fmt: skip
        return freeze(state, self.fingerprint, splits, header, self.run)

    def score(self, folder: RunFolder) -> None:
        writer = WriteParts(WriteSettings(folder, SCHEMA, "jsonl")).writer()
        for shard in read_plan(folder)["shards"]:
            for split in read_shard(folder, shard):
                if not is_done(folder, split.id):
                    writer.start_bundle()
                    for block in self.job.blocks(split.id):
                        list(writer.process(block))
                    writer.finish_bundle()

    def publish(self, folder: RunFolder):
        return publish(folder, self.budget, SCHEMA)


JOBS = (SmallJob("a", 3), SmallJob("b", 2))
ENOUGH, TOO_LITTLE = Budget(), Budget(rows=0, share=None)
ENOUGH = dataclasses.replace(ENOUGH, share=1.0)


def lines(output: Path, record: dict, kind: str) -> list[dict]:
    """What the files of a manifest hold; each must be there, as it was published."""
    found = []
    for file in record["files"]:
        if file["kind"] == kind:
            content = (output / file["path"]).read_bytes()
            assert len(content) == file["bytes"]
            assert f"{google_crc32c.value(content):08x}" == file["crc32c"]
            found += [json.loads(line) for line in content.splitlines()]
            assert len(content.splitlines()) == file["rows"]
    return found


class Protocol(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        disk.use(Turns())
        self.output = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)) / "out"
        self.actors: list[Actor] = []
        self.started = 0
        self.damaged = False
        self.published: dict | None = None
        self.may_replace: set[str] = set()

    # Who comes, and what they do.

    def run_id(self, number: int) -> str:
        # By clocks that jump: a later run's id may sort before an earlier one's.
        return f"{(number * 7919) % 100:08d}T000000-{self.started:06x}"

    @precondition(lambda self: len(self.alive) < 4)
    @rule(
        job=st.sampled_from(JOBS),
        replace=st.booleans(),
        restart=st.booleans(),
        budget=st.sampled_from((ENOUGH, ENOUGH, TOO_LITTLE)),
        number=st.integers(0, 99),
    )
    def launch(self, job, replace, restart, budget, number):
        self.started += 1
        run = self.run_id(number)
        output = str(self.output)

        def go() -> Outcome:
            discards = OutputState.of(output).allowing(replace, restart)
            self.may_replace |= set(discards)
            return bring_to_verdict(SmallLaunch(job, output, run, budget, discards))

        self.actors.append(Actor(f"{job.name} {replace=} {restart=} {run}", go))

    @precondition(lambda self: len(self.alive) < 4 and self.output.is_dir())
    @rule(unfinished=st.booleans())
    def sweep(self, unfinished):
        self.actors.append(Actor("clean", lambda: clean(str(self.output), unfinished=unfinished)))

    @property
    def alive(self) -> list[Actor]:
        return [a for a in self.actors if not a.over]

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 3), calls=st.sampled_from((1, 1, 2, 3, 5, 8, 13, 30, 80)))
    def step(self, which, calls):
        self.alive[which % len(self.alive)].step(calls)

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 3))
    def go_on_to_the_end(self, which):
        self.finish(self.alive[which % len(self.alive)])

    def finish(self, actor: Actor) -> None:
        actor.finish([a for a in self.alive if a is not actor])

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 3))
    def kill(self, which):
        self.alive[which % len(self.alive)].kill()

    @precondition(lambda self: self.receipts)
    @rule(which=st.integers(0, 10))
    def damage_a_receipt(self, which):
        self.damaged = True
        turns.spoil(self.receipts[which % len(self.receipts)])

    @property
    def receipts(self) -> list[Path]:
        return sorted(self.output.glob("_staging/[0-9]*/receipts/[0-9]*.json"))

    # What must hold, whatever they do.

    @invariant()
    def what_is_published_is_whole(self):
        path = self.output / "manifest.json"
        if not path.exists():
            assert self.published is None, "what was published is gone"
            return
        manifest = json.loads(path.read_bytes())
        (job,) = (j for j in JOBS if j.fingerprint == manifest["fingerprint"])
        assert Counter(line["id"] for line in lines(self.output, manifest, "predictions")) == job.rows
        assert Counter((x["source"], x["row"]) for x in lines(self.output, manifest, "rejected")) == job.refused
        counts = manifest["counts"]
        assert (counts["read"], counts["predicted"], counts["rejected"]) == (
            ROWS * job.splits, (ROWS - 1) * job.splits, job.splits,
        )  # fmt: skip
        before, self.published = self.published, manifest
        if before is not None and before["run"] != manifest["run"]:
            assert before["run"] in manifest["replaces"]
            assert before["run"] in self.may_replace, "a finished run was replaced unasked"

    @invariant()
    def what_is_over_budget_shows_all_its_dead_letters(self):
        path = self.output / "failed.json"
        if path.exists() and not (self.output / "manifest.json").exists():
            failed = json.loads(path.read_bytes())
            (job,) = (j for j in JOBS if j.fingerprint == failed["fingerprint"])
            assert Counter((x["source"], x["row"]) for x in lines(self.output, failed, "rejected")) == job.refused

    @invariant()
    def everyone_who_is_done_knows_why(self):
        for actor in self.actors:
            if actor.over and actor.error is not None:
                known = Killed | JobError | Superseded
                if self.damaged:  # between its receipt and its commit: the same command reads the split again
                    known |= CommitError
                assert isinstance(actor.error, known), (actor.name, repr(actor.error))

    def teardown(self):
        try:
            for actor in self.alive:
                self.finish(actor)
                self.what_is_published_is_whole()
                self.everyone_who_is_done_knows_why()
            # The same command, and nothing else at work: it ends right, and leaves nothing over.
            job = next((j for j in JOBS if self.published and j.fingerprint == self.published["fingerprint"]), JOBS[0])
            output = str(self.output)
            discards = OutputState.of(output).allowing(replace=False, restart=True)
            self.may_replace |= set(discards)
            outcome = bring_to_verdict(SmallLaunch(job, output, "99999999T000000-ffffff", ENOUGH, discards))
            assert outcome.code == 0
            self.what_is_published_is_whole()
            assert self.published == outcome.manifest
            clean(output, unfinished=True)
            there = {str(p.relative_to(self.output)) for p in self.output.rglob("*") if p.is_file()}
            listed = {"manifest.json", *(f["path"] for f in outcome.manifest["files"])}
            if (self.output / "failed.json").exists():  # a replacement that was over budget
                failed = json.loads((self.output / "failed.json").read_bytes())
                assert failed["run"] not in {outcome.manifest["run"], *outcome.manifest["replaces"]}
                listed |= {"failed.json", *(f["path"] for f in failed["files"])}
            assert there == listed
            assert not (self.output / "_staging").exists()
        finally:
            for actor in self.alive:
                actor.kill()
            disk.use(disk.Disk())
            shutil.rmtree(self.output.parent, ignore_errors=True)


TestProtocol = pytest.mark.filterwarnings("ignore")(Protocol.TestCase)
TestProtocol.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.generate,),  # to shrink what takes turns takes minutes, and tells little more
)
