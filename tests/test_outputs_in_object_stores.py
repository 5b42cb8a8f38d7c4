"""An output folder on gs:// and s3://: all that a local one promises, but what docs/guarantees.md says otherwise."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import outcomes
import polars as pl
import pyarrow.dataset as ds
import pyarrow.fs as fs
import pytest
import store_jobs
from faulty_proxy import Fault
from store_jobs import ENOUGH, StoreJob, assert_result

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.launch import _LONGEST_WAIT_S
from beam_score.pipeline.run.output_state import Changed
from beam_score.pipeline.run.status import RunState, Watcher
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.on_objects import ALIVE, SILENT_S
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.manifest import read_failed, read_manifest
from beam_score.transforms.ledger.publication import Superseded
from beam_score.transforms.stores.registry import store_of

A, B, C = (f"20260101T000000-{name * 6}" for name in "abc")
NO_REJECTS = Budget(rows=0, share=None)


def download(store, key: str, to: Path) -> Path:
    """All objects of a folder as files, folders among them."""
    shutil.rmtree(to, ignore_errors=True)
    folder = storage.at(store.url(key))
    client = store_of(folder)
    for found in client.list(folder):
        path = to / str(found.path).removeprefix(f"{folder}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.read(found.path))
    return to


def arrow_files(store) -> fs.FileSystem:
    """The same bucket, as a stranger sees it."""
    address = store.proxy.url.removeprefix("http://")
    if store.scheme == "gs":
        return fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=address)
    return fs.S3FileSystem(
        access_key="key", secret_key="secret", scheme="http", endpoint_override=address, region="us-east-1"
    )


# Whole jobs, by the command line, with a model.


def test_a_job_writes_to_a_store_what_it_writes_to_a_disk(store, stage, tmp_path):
    ended = stage.forks.run(*stage.command("job", store.url("out")), **store.environment)
    assert ended.code == 0, ended.said
    outcomes.assert_complete(download(store, "out", tmp_path / "out"), stage.expected["job"])
    table = ds.dataset(f"{store.name}/out/predictions", filesystem=arrow_files(store)).to_table()
    assert pl.from_arrow(table)["out"].sum() == sum(row["out"] for row in stage.expected["job"].predictions)
    for command in (stage.command("job", store.url("out")), ("status", store.url("out")), ("clean", store.url("out"))):
        again = stage.forks.run(*command, **store.environment)
        assert again.code == 0, again.said


@pytest.mark.parametrize("at", [("receipts", 3), ("commit-1", 1), ("manifest.json", 1)])
def test_a_job_that_is_killed_goes_on(store, stage, tmp_path, at):
    name, nth = at
    command = stage.command("job", store.url("out"))
    started, running = threading.Event(), []

    def kill() -> None:
        assert started.wait(60)
        running[0].signal(signal.SIGKILL)

    # Its last request is carried out, and its answer comes to no one.
    with store.proxy.failing(fault := Fault("before", "PUT|POST", re.escape(name), nth=nth, call=kill)):
        running.append(stage.forks.start(*command, **store.environment))
        started.set()
        assert running[0].wait().code != 0
    assert fault.done == 1
    ended = stage.forks.run(*command, **store.environment)
    assert ended.code == 0, ended.said
    outcomes.assert_complete(download(store, "out", tmp_path / "out"), stage.expected["job"])


def test_a_job_that_is_launched_twice_at_once_has_one_result(store, stage, tmp_path):
    command = stage.command("job", store.url("out"))
    both = [stage.forks.start(*command, **store.environment) for _ in range(2)]
    for running in both:
        ended = running.wait()
        assert ended.code == 0, ended.said
    outcomes.assert_complete(download(store, "out", tmp_path / "out"), stage.expected["job"])


def test_what_is_wrong_with_an_output_is_told_before_anything_is_done(store, stage, monkeypatch):
    nowhere = store.url("out").replace(store.name, "no-such-bucket")
    told = {nowhere: "no bucket|no such object or bucket", "ftp://x/out": "expected a local path, gs://"}
    for output, sentence in told.items():
        ended = stage.forks.run(*stage.command("job", output), **store.environment)
        outcomes.assert_told(1, ended.said)
        assert ended.code == 2 and re.search(sentence, ended.said), ended.said
    with store.proxy.failing(Fault("status", method="PUT|POST", status=403, times=100)):
        ended = stage.forks.run(*stage.command("job", store.url("out")), **store.environment)
    assert ended.code == 2 and "access is denied" in ended.said, ended.said
    assert store_jobs.names(store.url()) == []


def test_a_run_that_fails_says_so_without_delay(store, stage):
    """The thread that tells that the launch lives is none that a step is still at work in."""
    began = time.monotonic()
    with store.proxy.failing(Fault("status", target="parts", method="PUT|POST", status=403, times=1000)):
        ended = stage.forks.run(*stage.command("job", store.url("out")), **store.environment)
    assert ended.code == 1 and "access is denied" in ended.said, ended.said
    assert time.monotonic() - began < _LONGEST_WAIT_S


# The protocol by itself.


@pytest.fixture
def job(store) -> StoreJob:
    return StoreJob(store.url("out"))


def test_a_finished_job_stays_as_it_is(job):
    assert job.launch(A).code == 0
    assert job.launch(B).already
    assert_result(job, A)
    with pytest.raises(Changed):
        job.launch(C, name="b")
    assert_result(job, A)


def test_over_budget_dead_letters_are_there_and_a_raised_budget_publishes_without_scoring(job):
    assert job.launch(A, budget=NO_REJECTS).code == 3
    failed = read_failed(job.output)
    assert read_manifest(job.output) is None
    assert len(store_jobs.rows(job.output, failed, "rejected")) == job.splits
    assert Watcher(job.output).look().state == RunState.OVER_BUDGET

    def never() -> None:
        raise AssertionError("scored again")

    assert job.launch(B, budget=ENOUGH, between=never).code == 0
    assert_result(job, A)


def test_a_replacement_takes_the_place_of_what_was_published(job):
    job.launch(A)
    seen = []
    outcome = job.launch(
        B,
        replace=True,
        name="b",
        keep_replaced=True,
        between=lambda: seen.append(store_jobs.rows(job.output, read_manifest(job.output))),
    )
    assert outcome.code == 0
    assert all(len(rows) == sum(job.ids.values()) for rows in seen)  # whole, as long as it stood
    assert len(clean(job.output).leftovers) == 2 * job.splits  # for readers that still go by it
    assert_result(StoreJob(job.output, "b"), B)


def test_a_restart_begins_anew(job):
    with pytest.raises(KeyboardInterrupt):
        job.launch(A, between=interrupted)
    with pytest.raises(Changed):
        job.launch(B, name="b")
    assert job.launch(B, name="b", restart=True).code == 0
    assert_result(StoreJob(job.output, "b"), B)


def interrupted() -> None:
    raise KeyboardInterrupt


def test_status_tells_whether_a_run_lives(job, store):
    looks = []
    assert Watcher(job.output).look().state == RunState.NOTHING
    job.launch(A, between=lambda: looks.append(Watcher(job.output).look()))
    assert [(look.state, look.splits_done, look.splits) for look in looks][:2] == [
        (RunState.RUNNING, 1, 3),
        (RunState.RUNNING, 2, 3),
    ]
    assert looks[0].counts["read"] == store_jobs.ROWS
    assert Watcher(job.output).look().state == RunState.DONE


def test_who_has_died_is_seen_to_once_its_object_is_old_by_the_stores_clock(job, store):
    with pytest.raises(KeyboardInterrupt):
        job.launch(A, between=interrupted)
    storage.replace(RunFolder(job.output, A).path / ALIVE / "0123456789ab", b"alive")  # what a kill -9 leaves
    assert Watcher(job.output).look().state == RunState.RUNNING  # until two minutes are over
    assert "is at work" in clean(job.output, unfinished=True).kept[0]
    store.proxy.ahead_s = SILENT_S + 10
    try:
        status = Watcher(job.output).look()
        assert (status.state, status.splits_done) == (RunState.INTERRUPTED, 1)
        found = clean(job.output)
        assert [leftover.path for leftover in found.leftovers] == []
    finally:
        store.proxy.ahead_s = 0
    assert job.launch(B).code == 0
    assert_result(job, A)


def test_clean_takes_what_dead_attempts_left(job):
    with pytest.raises(KeyboardInterrupt):
        job.launch(A, between=interrupted)
    folder = RunFolder(job.output, A)
    storage.write_new(folder.parts / "predictions-000001-aaaaaaaaaaaa-0.jsonl", b"half")
    dead = RunFolder(job.output, C)
    storage.write_new(dead.receipts / "000000.json", b"of a run that was discarded")
    storage.write_new(storage.at(job.output) / "predictions" / f"{C}-00000.jsonl", b"of a run that was discarded")
    assert {leftover.path.name for leftover in clean(job.output, dry_run=True).leftovers} == {
        "predictions-000001-aaaaaaaaaaaa-0.jsonl", C, f"{C}-00000.jsonl",
    }  # fmt: skip
    assert clean(job.output).bytes == 4 + 2 * len("of a run that was discarded")
    assert job.launch(B).code == 0
    assert_result(job, A)
    assert clean(job.output).leftovers == []


def test_clean_unfinished_discards_a_run(job):
    with pytest.raises(KeyboardInterrupt):
        job.launch(A, between=interrupted)
    clean(job.output, unfinished=True)
    assert store_jobs.names(job.output) == []


def test_a_damaged_receipt_is_passed_over(job):
    with pytest.raises(KeyboardInterrupt):
        job.launch(A, between=interrupted)
    receipt = RunFolder(job.output, A).receipt(0)
    storage.replace(receipt, storage.read(receipt)[:-20])
    assert job.launch(B).code == 0
    assert_result(job, A)


# A process that is believed dead and comes back.


def test_what_a_zombie_writes_after_its_run_was_discarded_goes_again(job):
    def meanwhile() -> None:
        job.launch(B, name="b", restart=True)

    with pytest.raises((Superseded, Changed)):
        job.launch(A, between=once(meanwhile))
    assert_result(StoreJob(job.output, "b"), B)


def test_a_run_that_is_being_published_is_finished_by_whoever_comes(job, store):
    """Between the claim to be published and the manifest nobody may discard it: its files may go to no one."""
    with store.proxy.failing(Fault("status", "PUT|POST", "manifest.json", status=403, times=10)):
        with pytest.raises(PermissionError):
            job.launch(A)
        with pytest.raises(JobError, match="is being published"):
            clean(job.output, unfinished=True)
    with pytest.raises(Changed, match="finished run of another job"):
        job.launch(B, name="b")
    assert_result(job, A)


@pytest.mark.parametrize(("name", "nth", "published"), [("current.json", 2, False), ("manifest.json", 1, True)])
def test_a_run_is_discarded_or_published_and_never_both(job, store, name, nth, published):
    """Whichever comes first: it is decided where the run claims to be published, just before its manifest."""
    told, scored = [], []

    def come() -> None:
        store.proxy.ahead_s = SILENT_S + 10  # the first is taken for dead
        try:
            told.append(clean(job.output, unfinished=True))
        except JobError as error:
            told.append(error)
        finally:
            store.proxy.ahead_s = 0

    with store.proxy.failing(fault := Fault("before", "PUT|POST", re.escape(name), nth=nth, call=come)):
        assert job.launch(A, between=lambda: scored.append(1)).code == 0
    assert fault.done == len(told) == 1
    assert_result(job, A)
    if published:
        assert "is being published" in str(told[0])
        assert len(scored) == job.splits
    else:
        assert told[0].over == A
        assert len(scored) == 2 * job.splits  # discarded, and begun anew


def test_what_is_written_while_a_run_is_taken_away_goes_with_it(job, store):
    with pytest.raises(KeyboardInterrupt):
        job.launch(A, between=interrupted)
    folder, raised = RunFolder(job.output, A), []

    def zombie() -> None:
        try:
            job.write(folder, 2)
        except FileNotFoundError as error:
            raised.append(error)

    with store.proxy.failing(fault := Fault("after", "GET", f"prefix=[^&]*{A}", call=zombie)):
        folder.remove()
    assert fault.done == len(raised) == 1
    assert store_jobs.names(job.output) == ["_staging/current.json"]


def once(function: Callable[[], object]) -> Callable[[], None]:
    """A function that calls another the first time only."""
    left = [function]
    return lambda: left.pop()() if left else None


def restart_another(job: StoreJob) -> None:
    job.launch(B, name="b", splits=1, restart=True)


def discard(job: StoreJob) -> None:
    clean(job.output, unfinished=True)


def launch_the_same(job: StoreJob) -> None:
    job.launch(B)


OTHERS = (restart_another, discard, launch_the_same)
CASES = {"gs": 40, "s3": 8}
"""How many of all are tried: the emulator of S3 is slow."""


def test_whatever_another_does_between_two_requests_one_whole_result_stands(store):
    """One launch is held at each of its requests in turn, before or after it is carried out, while another works to
    its end: then it goes on, as a zombie does."""
    StoreJob(store.url("calm"), splits=1).launch(A)
    requests = sum("calm" in request.target for request in store.proxy.requests)
    cases = [(nth, when, other) for nth in range(1, requests + 1) for when in ("before", "after") for other in OTHERS]
    ended = {"published": 0, "overtaken": 0, "nothing": 0}
    drawn = random.Random(2).sample(cases, CASES[store.scheme])
    early = (requests // 4, "before", restart_another)  # whatever was drawn, one is surely overtaken
    for number, case in enumerate([*drawn, early]):
        ended[_interrupted_by_another(store, number, *case)] += 1
    assert ended["published"] > 0 and ended["overtaken"] + ended["nothing"] > 0, ended


def _interrupted_by_another(store, number: int, nth: int, when: str, other: Callable[[StoreJob], None]) -> str:
    job = StoreJob(store.url(f"case-{number}"), splits=1)
    case = f"{other.__name__} {when} request {nth}"

    def come() -> None:
        store.proxy.ahead_s = SILENT_S + 10  # the first is taken for dead
        try:
            with contextlib.suppress(JobError, Superseded):
                other(job)
        finally:
            store.proxy.ahead_s = 0

    overtaken = False
    with store.proxy.failing(fault := Fault(when, target=f"case-{number}\\b", nth=nth, call=come)):
        try:
            job.launch(A)
        except (JobError, Superseded):
            overtaken = True
    assert fault.done == 1, case
    manifest = read_manifest(job.output)
    if manifest is None:
        assert other is discard and overtaken, case
        return "nothing"
    of = StoreJob(job.output, manifest["fingerprint"]["job"], splits=1)
    store_jobs.rows(job.output, manifest)  # whole, before anyone tidies up
    clean(job.output)
    assert_result(of)
    assert of.launch(C).already, case
    return "overtaken" if overtaken else "published"
