"""How far a run is can be seen by anyone who sees its output folder, and looking changes nothing."""

import contextlib
import errno
import fcntl
import json
import math
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import jobs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.run.status import Status, Watcher, lives
from beam_score.pipeline.show.status_view import (
    as_dict,
    as_line,
    as_table,
    duration,
    exit_code,
    show_status,
    until_over,
)
from beam_score.transforms.common.busy import busy_seconds
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.durable import disk, storage
from beam_score.transforms.durable.sealed import CorruptFile, seal
from beam_score.transforms.ledger.folder import RunFolder, write_plan
from beam_score.transforms.ledger.manifest import Unreadable
from beam_score.transforms.ledger.receipt import Receipt


def look(output) -> Status:
    return Watcher(str(output)).look()


def shown(status: Status, now: float = 0.0) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(as_table(status, now))
    return capture.get()


# Runs that are written by hand: a plan, receipts, and a launch at work or not.


def planned(output, splits: int = 4, run_: str = "20260101T000000-abcdef", bytes_: int = 1000) -> RunFolder:
    folder = RunFolder(str(output), run_)
    ranges = [FileRange(f"data-{n}.csv", bytes_, bytes=bytes_) for n in range(splits)]
    write_plan(folder, [Split(n, (r,)) for n, r in enumerate(ranges)], {"inputs": [], "replaces": []})
    (output / "_staging" / "current.json").write_bytes(seal({"run": run_, "fingerprint": {}}))
    return folder


def receipt(split: int, began: float = 0.0, ended: float = 1.0, rows: int = 10) -> bytes:
    files = {f"data-{split}.csv": {"read": rows, "predicted": rows - 3, "rejected": {"b": 1, "a": 2}, "stretches": {}}}
    return Receipt(split, "attempt", (), files, {}, began, ended).to_json()


def write(folder: RunFolder, split: int, version: int = 1, content: bytes | None = None, **fields) -> None:
    name = f"{split:06d}.json" if version == 1 else f"{split:06d}.{version}.json"
    (folder.receipts / name).write_bytes(receipt(split, **fields) if content is None else content)


@contextlib.contextmanager
def a_launch(folder: RunFolder):
    """As a launch in another process holds it."""
    with open(folder.path / "plan.json") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def test_a_folder_without_a_run(tmp_path):
    found = look(tmp_path)
    assert (found.state, found.run, found.splits, exit_code(found)) == ("nothing", None, None, 1)
    assert "no run has started or was published here" in shown(found) and "no run has started" in as_line(found)


def test_a_plan_is_running_while_a_launch_is_at_work_on_it(tmp_path):
    folder = planned(tmp_path)
    assert (look(tmp_path).state, exit_code(look(tmp_path))) == ("planned", 1)
    with a_launch(folder), a_launch(folder):
        found = look(tmp_path)
        assert (found.state, exit_code(found), found.splits_done, found.splits) == ("running", 4, 0, 4)
        assert (found.rows_per_s, found.seconds_left, found.last_receipt) == (None, None, None)
        assert re.search(r"time left +unknown", shown(found)) and as_line(found).endswith("unknown left")
        write(folder, 2)
        assert look(tmp_path).state == "running"
    assert (look(tmp_path).state, exit_code(look(tmp_path))) == ("interrupted", 1)
    with storage.lease(folder.plan):
        assert lives(folder) and look(tmp_path).state == "running"
        for split in range(4):
            write(folder, split)
        assert (look(tmp_path).state, exit_code(look(tmp_path))) == ("publishing", 4)
    assert not lives(folder) and look(tmp_path).state == "interrupted"


def test_counts_speed_and_time_left_are_those_of_the_receipts(tmp_path):
    folder = planned(tmp_path, 10)
    with a_launch(folder):
        write(folder, 0, began=100, ended=104)
        write(folder, 1, began=102, ended=106)
        write(folder, 7, began=9000, ended=9002)  # a launch later
        found = look(tmp_path)
    assert found.counts == {
        "read": 30, "predicted": 21, "rejected": 9, "stretches": 0,
        "rejected_by_reason": {"a": 6, "b": 3}, "stretches_by_reason": {}, "rejected_by_column": [],
    }  # fmt: skip
    assert (found.splits_done, found.bytes_done, found.bytes) == (3, 3000, 10_000)
    assert found.rows_per_s == 30 / 8 and found.seconds_left == 7000 / 3000 * 8
    text = shown(found, found.last_receipt + 75)
    for line in (
        "rows read +30",
        "rejected +9 +30.00%",
        " a +6",
        "rows/s +4",
        "time left +19 s",
        "receipt +1 min 15 s ago",
    ):
        assert re.search(line, text), (line, text)


def test_time_left_goes_by_bytes(tmp_path):
    folder = RunFolder(str(tmp_path), "20260101T000000-abcdef")
    planned(tmp_path)
    sizes = [9000, 500, 500]
    shutil.rmtree(folder.path)
    write_plan(folder, [Split(n, (FileRange("d", s, bytes=s),)) for n, s in enumerate(sizes)], {"inputs": []})
    with a_launch(folder):
        write(folder, 0, began=0, ended=9)
        assert look(tmp_path).seconds_left == 1.0


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(5, 5)], 0),
        ([(5, 1)], 0),  # set back meanwhile
        ([(0, 2), (1, 3)], 3),
        ([(0, 10), (2, 3)], 10),
        ([(0, 1), (100, 101)], 2),  # nobody at work between
        ([(0, 1), (2, 3), (4, 1e9)], 22),  # set forward meanwhile
        ([(0, 1), (2, 3), (9, 4)], 2),
    ],
)
def test_time_at_work_is_robust_against_clocks_that_are_set(spans, seconds):
    assert busy_seconds(spans) == seconds


@given(st.lists(st.tuples(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)), max_size=30))
def test_time_at_work_is_never_negative_and_never_more_than_all_spans(spans):
    seconds = busy_seconds(spans)
    assert 0 <= seconds <= sum(max(0, ended - began) for began, ended in spans) * (1 + 1e-9) and math.isfinite(seconds)


def test_no_speed_is_told_where_the_clocks_tell_none(tmp_path):
    folder = planned(tmp_path)
    with a_launch(folder):
        write(folder, 0, began=50, ended=40)
        os.utime(folder.receipt(0), (2e9, 2e9))  # and the file system's is ahead of ours
        found = look(tmp_path)
    assert (found.rows_per_s, found.seconds_left) == (None, None)
    assert re.search("last receipt +0 s ago", shown(found, 1e9))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.2, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3600 * 30 + 65, "30 h 01 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


WHOLE = receipt(1)


def _other(part: bytes, by: bytes) -> bytes:
    assert WHOLE.count(part) == 1
    return WHOLE.replace(part, by)


DAMAGED = {
    "empty": b"",
    "cut": WHOLE[: len(WHOLE) // 2],
    "zeros": b"\0" * len(WHOLE),
    "a list": b"[]",
    "of another split": receipt(2),
    "without counts": json.dumps(json.loads(WHOLE) | {"files": {"a": {}}}).encode(),
    "with text for a number": _other(b'"read":10', b'"read":"10"'),
    "without a time": _other(b'"ended":1.0', b'"ended":NaN'),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_receipt_counts_as_not_done_and_is_named(tmp_path, kind):
    folder = planned(tmp_path)
    write(folder, 0)
    write(folder, 1, content=DAMAGED[kind])
    found = look(tmp_path)
    assert (found.splits_done, found.counts["read"], found.damaged) == (1, 10, ("000001.json",))
    assert "receipts, counted as not done: 000001.json" in shown(found)
    # A later one that is whole stands in for it.
    write(folder, 1, 2, content=b"")
    write(folder, 1, 3)
    found = look(tmp_path)
    assert (found.splits_done, found.counts["read"], found.damaged) == (2, 20, ())


def test_the_first_whole_receipt_of_a_split_counts_and_others_do_not(tmp_path):
    folder = planned(tmp_path)
    write(folder, 1, 2, rows=99)
    write(folder, 1, rows=10)
    write(folder, 99)  # of no split of the plan
    (folder.receipts / ".000002.json.0011aabb").write_bytes(receipt(2))  # being written
    found = look(tmp_path)
    assert (found.splits_done, found.counts["read"], found.damaged) == (1, 10, ("000099.json",))


def test_a_receipt_is_never_read_twice(tmp_path):
    folder = planned(tmp_path)
    write(folder, 0)
    write(folder, 1, content=b"damaged")
    watcher = Watcher(str(tmp_path))
    before = watcher.look()
    write(folder, 0, rows=500)
    write(folder, 1)
    assert watcher.look() == before
    write(folder, 2)
    after = watcher.look()
    assert (after.splits_done, after.counts["read"], after.damaged) == (2, 20, ("000001.json",))


def test_ten_thousand_receipts_are_read_once_and_cost_little_more_than_their_reading(tmp_path):
    """As a ratio in one run: three times the reading on an idle machine, where 10,000 of them take 1.7 s."""
    folder = planned(tmp_path, 10_001)
    for split in range(10_000):
        write(folder, split, began=split, ended=split + 1.5)

    def cpu(work) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    reading = cpu(lambda: [json.loads(path.read_bytes()) for path in folder.receipts.iterdir()])
    watcher = Watcher(str(tmp_path))
    first = cpu(lambda: watcher.look())
    write(folder, 10_000)
    second = cpu(lambda: watcher.look())
    assert watcher.look().splits_done == 10_001
    assert first < 8 * reading and second < first / 5


@pytest.mark.parametrize("name", ["manifest.json", "failed.json", "_staging/current.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1]", b'{"run": "x"}'])
def test_a_record_that_is_damaged_is_told_in_a_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises((CorruptFile, Unreadable)) as error:
        look(tmp_path)
    code, (said,) = explain(error.value)
    assert code == 1 and said.startswith(str(path)) and "is damaged: " in said


def test_a_begun_run_whose_plan_is_gone_is_none(tmp_path):
    folder = planned(tmp_path)
    shutil.rmtree(folder.path)
    assert look(tmp_path).state == "nothing"


def test_watching_ends_with_the_run_and_not_before_a_launch_is_at_work(tmp_path):
    folder = planned(tmp_path)
    with contextlib.ExitStack() as launch:
        steps = [
            lambda: launch.enter_context(a_launch(folder)),  # it had planned, and not begun
            lambda: write(folder, 0),
            launch.close,
            lambda: None,
        ]
        states = [s.state for s in until_over(Watcher(str(tmp_path)), lambda _: steps.pop(0)())]
    assert states == ["planned", "running", "running", "interrupted", "interrupted"] and not steps


# Real runs.


@pytest.fixture
def people(tmp_path):
    return jobs.write_people(tmp_path / "data", 4, 1000, bad_every=20)


def test_a_published_run_is_done_with_the_counts_of_its_manifest(tmp_path, people, model):
    manifest = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).manifest
    found = look(tmp_path / "out")
    assert (found.state, found.run, found.published, exit_code(found)) == ("done", manifest["run"], manifest["run"], 0)
    assert found.counts == manifest["counts"] and found.rows_per_s == manifest["timings"]["rows_per_s"]
    assert (found.splits, found.bytes, found.seconds_left, found.last_receipt) == (None, None, None, None)
    assert re.search("rows read +4,000", shown(found)) and "splits" not in shown(found)


def test_over_budget_in_rows_and_in_files(tmp_path, people, model):
    over = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": 0}))
    found = look(tmp_path / "out")
    assert (found.state, found.run, found.published, exit_code(found)) == ("over budget", over.manifest["run"], None, 3)
    assert found.counts == over.manifest["counts"] and found.splits_done == found.splits > 1
    assert "rejects.budget" in shown(found)
    # Of a run that was refused before it began only failed.json is there.
    (tmp_path / "data" / "people-x.csv").write_text("id,aeg,income,score\n1,2,3,0.4\n")
    other = {"path": str(tmp_path / "other")}
    over = run(jobs.job(tmp_path, model("multiply"), output=other))
    found = look(tmp_path / "other")
    assert (found.state, found.run, found.splits) == ("over budget", over.manifest["run"], None)
    assert found.counts["stretches"] == 1 and "cannot be read" in shown(found)


def test_a_replacement_is_told_from_what_is_published(tmp_path, people, model):
    budget = {"rejects": {"budget": "10%"}}
    old = run(jobs.job(tmp_path, model("multiply"), **budget)).manifest["run"]
    over = run(jobs.job(tmp_path, model("dense"), rejects={"budget": 0}), replace=True).manifest["run"]
    found = look(tmp_path / "out")
    assert (found.state, found.run, found.published) == ("over budget", over, old)
    folder = RunFolder(str(tmp_path / "out"), over)
    folder.receipt(0).unlink()
    with a_launch(folder):
        found = look(tmp_path / "out")
    assert (found.state, found.run, found.published, exit_code(found)) == ("running", over, old, 4)
    assert f"replaces {old}" in " ".join(shown(found).split())


def test_looking_changes_nothing(tmp_path, people, model):
    def everything():
        stats = {p: p.lstat() for p in (tmp_path / "out").rglob("*")}
        return {p: (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode) for p, s in stats.items()}

    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": 0})
    jobs.plan(job)
    for state in ("planned", "over budget", "done"):
        before = everything()
        assert look(tmp_path / "out").state == state
        with contextlib.redirect_stdout(None):
            show_status(str(tmp_path / "out"), Console(file=open(os.devnull, "w")), watch=True, as_json=False)  # noqa: SIM115
        assert everything() == before
        run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "0%" if state == "planned" else "10%"}))


def test_a_run_that_publishes_and_cleans_up_is_seen_whole(tmp_path, people, model):
    output, over, seen = tmp_path / "out", threading.Event(), []
    output.mkdir()

    def watch():
        watcher = Watcher(str(output))
        while not over.is_set():
            seen.append(watcher.look())
        seen.append(watcher.look())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        manifest = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).manifest
    finally:
        over.set()
        thread.join()
    order = ["nothing", "planned", "running", "publishing", "done"]
    places = [order.index(s.state) for s in seen]
    assert places == sorted(places) and {"nothing", "running", "done"} <= {s.state for s in seen}
    rows = [s.counts["read"] for s in seen]
    assert rows == sorted(rows) and rows[-1] == manifest["counts"]["read"] == 4000
    assert seen[-1].counts == manifest["counts"] and seen[-1].splits_done == seen[-1].splits > 1


def test_a_run_says_how_fast_it_is_and_how_long_it_takes(tmp_path, people, model):
    seen = []
    run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"}), show_progress=seen.append)
    assert seen[-1].state == "done" and seen[-1].rows_per_s > 0  # it is published inside the graph
    assert seen[-1].splits_done == seen[-1].splits and seen[-1].counts["read"] == 4000


# The command, in processes of its own.


def slow_job(tmp_path, model):
    jobs.write_people(tmp_path / "data", 4, 10_000, bad_every=100)
    sections = {"model": {"batch_rows": 4}, "engine": {"split_bytes": "32KiB"}, "rejects": {"budget": "10%"}}
    return jobs.write_job(tmp_path, model("multiply"), **sections)


def when_some_are_done(process, output, least=3):
    until = time.monotonic() + 180  # for a machine that is busy
    while len(jobs.staged(output)) < least:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_run_in_another_process_is_watched_to_its_end(tmp_path, model):
    job, output = slow_job(tmp_path, model), tmp_path / "out"
    process = jobs.start("run", job)
    when_some_are_done(process, output)
    running = look(output)
    assert running.state == "running" and running.splits_done > 0 and running.rows_per_s > 0
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGSTOP)  # as one whose launch takes its time
    try:
        done = jobs.cli("status", str(output), "--json")
        assert done.returncode == 4, done.stderr
        said = json.loads(done.stdout)
        assert said["state"] == "running" and 0 < said["counts"]["read"] < 40_000 and said["seconds_left"] > 0
        assert said["splits"]["done"] == len(jobs.staged(output)) and said["bytes"]["done"] < said["bytes"]["all"]
    finally:
        os.kill(int(worker), signal.SIGCONT)
    began = time.monotonic()
    watching = jobs.start("status", str(output), "--watch")
    assert process.wait(120) == 0, process.communicate()
    lines = watching.communicate(timeout=60)[0].splitlines()
    assert watching.returncode == 0
    assert re.fullmatch(r"\S+ done(, \d+ of \d+ splits)?, 40,000 rows, 400 rejected, [\d,]+ rows/s", lines[-1])
    assert len(lines) <= 4 + (time.monotonic() - began) / 10  # where there is no terminal, a line now and then
    # By hand, of a finished one: an object a line.
    done = jobs.cli("status", str(output), "--json", "--watch")
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "done" and done.stdout.count("\n") == 1


def test_a_run_that_was_killed_is_interrupted(tmp_path, model):
    job, output = slow_job(tmp_path, model), tmp_path / "out"
    process = jobs.start("run", job)
    when_some_are_done(process, output)
    process.kill()
    process.communicate()
    for options in ([], ["--watch"]):
        done = jobs.cli("status", str(output), *options)
        assert done.returncode == 1 and "interrupted" in done.stdout and done.stderr == ""


def on_a_terminal(*arguments):
    """What `beam-score ARGUMENTS` writes to a terminal; and its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        jobs.command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, cwd=jobs.ROOT,
        env=jobs.environment(TERM="xterm"),
    )  # fmt: skip
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 4096):
            written += piece
    os.close(ours)
    return process.wait(60), written.decode()


def test_on_a_terminal_both_commands_show_speed_and_time_left(tmp_path, model):
    job, output = slow_job(tmp_path, model), tmp_path / "out"
    found = {}
    runner = threading.Thread(target=lambda: found.update(run=on_a_terminal("run", job)))
    runner.start()
    until = time.monotonic() + 180  # for a machine that is busy
    while not list(output.glob("_staging/current.json")):
        assert time.monotonic() < until
        time.sleep(0.01)
    code, text = on_a_terminal("status", str(output), "--watch")
    runner.join()
    assert code == 0 and re.search(r"state +\S*done", text) and re.search(r"rows read +40,000", text), text
    code, text = found["run"]
    assert code == 0 and re.search(r"\d+/\d+ splits  [\d,]+ rows  [\d,]+ rows/s  \S+ s left", text), text


@pytest.mark.parametrize("name", ["no-such-folder", "file", "ftp://bucket/out"])
def test_a_folder_that_is_none_is_told_in_one_sentence(tmp_path, name):
    (tmp_path / "file").write_text("")
    output = name if "://" in name else str(tmp_path / name)
    with pytest.raises(JobError) as error:
        show_status(output, Console(), watch=True, as_json=False)
    (said,) = error.value.problems
    assert said.startswith(f"{output}") and explain(error.value)[0] == 2
    if name == "no-such-folder":
        done = jobs.cli("status", output)
        assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
        assert "does not exist, expected the output folder of a job" in done.stderr


def test_the_fields_and_states_are_those_of_the_documentation(tmp_path):
    text = (jobs.ROOT / "docs" / "status.md").read_text()
    documented = re.findall(r"^\| `([\w. ]+)` \|", text, re.MULTILINE)
    fields = []
    for name, value in as_dict(look(tmp_path)).items():
        fields += [name, *(f"{name}.{key}" for key in value)] if isinstance(value, dict) else [name]
    states = ["nothing", "starting", "planned", "running", "publishing", "interrupted", "over budget", "done"]
    assert documented == states + fields


@pytest.mark.parametrize(("number", "held"), [(errno.ENOLCK, False), (errno.EACCES, False), (errno.EIO, None)])
def test_an_error_of_the_moment_does_not_make_a_launch_look_dead(tmp_path, number, held):
    class Failing(disk.Disk):
        def lock(self, descriptor, how):
            raise OSError(number, os.strerror(number))

    (tmp_path / "plan.json").write_text("{}")
    disk.use(Failing())
    try:
        if held is None:
            with pytest.raises(OSError, match=r"Input/output error: .*plan\.json"):
                storage.is_leased(tmp_path / "plan.json")
        else:
            assert storage.is_leased(tmp_path / "plan.json") is held
    finally:
        disk.use(disk.Disk())
