"""What goes wrong inside a run: it ends with one message and an exit code, and the same command goes on."""

import gc
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jobs
import numpy as np
import polars as pl
import pytest

from beam_score.pipeline.job.job import load_job, parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.chain import build
from beam_score.pipeline.prepare.preflight import fingerprint, prepare
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.launch import run
from beam_score.runners.ended import told
from beam_score.transforms.ledger.folder import read_plan
from beam_score.transforms.model import in_flight
from beam_score.transforms.model.deadline import THREAD, ModelHangs, within
from beam_score.transforms.model.loading import ModelChanged, load_once
from beam_score.transforms.model.versions import hash_model
from beam_score.transforms.rows.redact import without_values
from beam_score.transforms.scoring.halving import Attempts, halve

LONGEST_S = 300  # of anything, on a machine that others use too
GROUPS = 150_000  # rows are scored in groups of a hundred thousand or so, and a group's splits end together
PROCESSES = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")


def until(true, process=None):
    """Waits until something is true, while a process lives."""
    end = time.monotonic() + LONGEST_S
    while not (found := true()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def processes_of(parent):
    """The processes that one has started: (id, command line)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
            line = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(after_name[1]) == parent and after_name[0] != "Z":
            found.append((int(path.parent.name), line))
    return found


def state(pid):
    """R, S, T, Z ...; Z also for a process that is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def is_alive(pid):
    return state(pid) != "Z"


def slow_job(tmp_path, saved_model, batch_rows=1, rows=40_000, **engine):
    """A job that takes long, for its batches of a row each, in splits that end one by one."""
    row = pl.select(pl.int_range(rows)).to_series()
    (tmp_path / "data").mkdir(exist_ok=True)
    columns = {"age": row % 90, "income": row % 7, "score": (row % 10) / 10}
    for file in range(4):
        people = pl.DataFrame({"id": pl.select(pl.format(f"r{file}-{{}}", row)).to_series(), **columns})
        people.write_csv(tmp_path / "data" / f"people-{file}.csv")
    engine = {"split_bytes": "64KiB"} | engine
    return jobs.write_job(tmp_path, saved_model, model={"batch_rows": batch_rows}, engine=engine)


def job_of_groups(tmp_path, saved_model):
    """A job that takes some seconds, and whose splits end in several groups."""
    return slow_job(tmp_path, saved_model, batch_rows=128, rows=GROUPS, block_bytes="16KiB")


def start_marked(tmp_path, saved_model, rows=5000):
    """Starts a slow job of one split, and waits until its rows are in hand."""
    (tmp_path / "marks.py").write_text(
        "import os, pathlib\n"
        "def mark(batch):\n"
        "    if list(pathlib.Path(os.environ['OUT']).glob('_staging/*/plan.json')):\n"  # not while it is tried
        "        pathlib.Path(os.environ['MARK']).touch()\n"
        "    return batch\n"
    )
    job = slow_job(tmp_path, saved_model, rows=rows, split_bytes="1GB", workers=1)
    path = f"{tmp_path}:{jobs.environment()['PYTHONPATH']}"
    where = {"PYTHONPATH": path, "OUT": str(tmp_path / "out"), "MARK": str(tmp_path / "mark")}
    process = jobs.start("run", job, "--set", "preprocess=marks:mark", **where)
    until((tmp_path / "mark").exists, process)
    return process


def with_a_row(tmp_path, income, file=2, row=1500, rows=2000):
    """Four files, one of them with a row that the models of these tests take ill."""
    jobs.write_people(tmp_path / "data", 4, rows)
    path = tmp_path / "data" / f"people-{file}.csv"
    lines = path.read_text().splitlines()
    lines[row + 1] = f"x,1,{income},0.5"
    path.write_text("\n".join(lines) + "\n")
    return path


def rows_named(said, path):
    """The rows of a file that a message names."""
    found = re.search(rf"{re.escape(str(path))} rows (\d+)-(\d+)", said)
    assert found, said
    return range(int(found[1]), int(found[2]) + 1)


def is_clear(said):
    return "Traceback" not in said and "unexpected error" not in said and said.count("error:") == 1


# The process dies.


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_is_told_with_what_was_in_hand_and_gone_on_from(tmp_path, model, sign):
    job, output = job_of_groups(tmp_path, model("multiply")), tmp_path / "out"
    process = jobs.start("run", job)
    until(lambda: jobs.staged(output), process)
    ((child, _),) = processes_of(process.pid)
    os.kill(child, sign)
    said = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 1 and is_clear(said), said
    assert f"was ended by {sign.name}" in said and "the same command continues from here" in said
    assert "in a model call" in said  # some rows or, if it was between two calls, none
    assert ("out of memory" in said and "lower engine.memory" in said) == (sign == signal.SIGKILL)
    done = jobs.staged(output)
    assert done and not (output / "manifest.json").exists()
    assert run(load_job(job)).code == 0
    assert jobs.predictions(output)["id"].n_unique() == jobs.manifest(output)["counts"]["predicted"] == 4 * GROUPS


@pytest.mark.parametrize("income", ["2e6", "-2e6"])
def test_a_model_that_ends_the_process_is_told_with_its_rows(tmp_path, model, income):
    path = with_a_row(tmp_path, income)
    done = jobs.cli("run", jobs.write_job(tmp_path, model("aborts")))
    assert done.returncode == 1, done  # also where it calls exit(0)
    assert is_clear(done.stderr)
    assert "the same command continues from here" in done.stderr
    if income == "2e6":
        assert f"was ended by SIGABRT, most likely in the model {model('aborts')} or in a library" in done.stderr
        assert 1500 in rows_named(done.stderr, path)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_work_ends_with_the_process_that_watches_over_it(tmp_path, model):
    process = start_marked(tmp_path, model("multiply"))
    ((child, _),) = processes_of(process.pid)
    process.kill()
    process.wait()
    began = time.monotonic()
    until(lambda: not is_alive(child))
    assert time.monotonic() - began < 5  # milliseconds, on a machine with nothing else to do
    process.communicate(timeout=LONGEST_S)  # nobody holds its output open


def test_suspending_the_command_suspends_the_work(tmp_path, model):
    process = start_marked(tmp_path, model("multiply"))
    ((child, _),) = processes_of(process.pid)
    process.send_signal(signal.SIGTSTP)
    until(lambda: state(child) == state(process.pid) == "T")
    process.send_signal(signal.SIGCONT)
    until(lambda: state(child) in "RS" and state(process.pid) in "RS", process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 143 and is_clear(said), said


def test_the_process_that_watches_is_light():
    code = (
        "import sys, beam_score.pipeline.process.supervise\n"
        "heavy = {'apache_beam', 'tensorflow', 'pyarrow', 'polars', 'numpy', 'pydantic'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=jobs.environment(), cwd=jobs.ROOT
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_register_tells_what_every_thread_has_in_hand():
    descriptor = in_flight.make_register()
    assert in_flight.read_register(descriptor) == []
    in_flight.open_register(descriptor)
    given = [in_flight.Rows(n + 1, "a.csv", n, "b-\u00e9.csv", 2 * n) for n in range(in_flight.SLOTS + 3)]
    notes = [in_flight.note(rows) for rows in given]
    assert sorted(in_flight.read_register(descriptor)) == sorted(given[: in_flight.SLOTS])
    assert notes[in_flight.SLOTS :] == [None, None, None]  # no room: it goes on without
    for note in notes:
        in_flight.clear(note)
    assert in_flight.read_register(descriptor) == []
    long = "/" + "x" * 5000 + "/people.csv"
    note = in_flight.note(in_flight.Rows(1, long, 7, long, 7))
    (shown,) = in_flight.read_register(descriptor)
    assert str(shown).startswith("...x") and str(shown).endswith("/people.csv rows 7-7")
    in_flight.clear(note)


def test_a_process_that_dies_is_told_with_the_model_that_it_loaded():
    descriptor = in_flight.make_register()
    in_flight.open_register(descriptor)
    in_flight.note_model("models/people/7")
    in_flight.note_model("models/people/7")
    assert len(in_flight.read_register(descriptor)) == 1
    loading = told("the scoring process", signal.SIGSEGV, in_flight.read_register(descriptor))
    assert "most likely in the model models/people/7 or in a library, with no rows in a model call" in loading
    note = in_flight.note(in_flight.Rows(2, "a.csv", 3, "a.csv", 4))
    scoring = told("the scoring process", signal.SIGSEGV, in_flight.read_register(descriptor))
    assert "in the model models/people/7 or in a library, with these rows in a model call: a.csv rows 3-4:" in scoring
    in_flight.clear(note)


# The model hangs.


def test_a_model_that_hangs_fails_the_job_and_no_row(tmp_path, model):
    path = with_a_row(tmp_path, "2e6")
    job = jobs.write_job(tmp_path, model("hangs"), model={"deadline": "2s"})
    done = jobs.cli("run", job)
    assert done.returncode == 1 and is_clear(done.stderr), done
    assert "the model has not returned within 2 s" in done.stderr and "model.deadline" in done.stderr
    assert 1500 in rows_named(done.stderr, path)
    receipts = [p.read_text() for p in jobs.staged(tmp_path / "out")]
    assert receipts and not any("model_error" in text for text in receipts)


def test_check_finds_a_model_that_hangs_on_the_first_rows(tmp_path, model):
    path = with_a_row(tmp_path, "2e6", file=0, row=5)
    done = jobs.cli("check", jobs.write_job(tmp_path, model("hangs"), model={"deadline": 1}))
    assert done.returncode == 1 and is_clear(done.stderr), done
    assert "the model has not returned within 1 s" in done.stderr and 5 in rows_named(done.stderr, path)


def test_a_late_call_is_left_alone_and_the_next_one_is_made():
    release, ended = threading.Event(), threading.Event()

    def call():
        release.wait(LONGEST_S)
        ended.set()

    with pytest.raises(ModelHangs, match=r"within 0\.01 s for a call"):
        within(0.01, call)
    assert within(LONGEST_S, lambda: threading.current_thread().name) == THREAD
    with pytest.raises(ZeroDivisionError):
        within(LONGEST_S, lambda: 1 / 0)
    assert within(None, lambda: threading.current_thread()) is threading.current_thread()
    assert not ended.is_set()
    release.set()
    assert ended.wait(LONGEST_S)


def test_a_model_that_hangs_is_no_rows_fault():
    calls = []

    def call(start, stop):
        calls.append((start, stop))
        raise ModelHangs("late")

    with pytest.raises(ModelHangs):
        halve(64, call, Attempts(), lambda row, error: "", fatal=(ModelHangs,))
    assert calls == [(0, 64)]


@pytest.mark.parametrize(("written", "seconds"), [("30s", 30), ("2m", 120), ("1.5 h", 5400), (0.5, 0.5), (None, None)])
def test_a_deadline_is_a_duration(tmp_path, written, seconds):
    settings = jobs.settings(tmp_path, "m", model={"deadline": written})
    assert parse_job(settings).model.deadline == seconds


@pytest.mark.parametrize("written", ["0s", "-1", "soon", "5d", True, [1], "nan", "inf"])
def test_a_deadline_that_is_none_is_refused(tmp_path, written):
    with pytest.raises(JobError, match=r"model\.deadline: .* is not a duration: expected 30s"):
        parse_job(jobs.settings(tmp_path, "m", model={"deadline": written}))


def test_a_deadline_does_not_make_another_job(tmp_path, model):
    jobs.write_people(tmp_path / "data", 1, 10)
    prints = []
    for deadline in (None, "5s"):
        prepared = prepare(jobs.job(tmp_path, model("multiply"), model={"deadline": deadline}))
        prints.append(fingerprint(prepared.job, prepared.files, prepared.model_hash, "serving_default"))
        assert prepared.steps.call.deadline_s == prepared.job.model.deadline
    assert prints[0] == prints[1]


# Someone interrupts.


def test_the_first_interrupt_finishes_what_is_in_hand(tmp_path, model):
    job, output = job_of_groups(tmp_path, model("multiply")), tmp_path / "out"
    process = jobs.start("run", job)
    until(lambda: jobs.staged(output), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 130 and is_clear(said), said
    assert "finishing the splits in hand; interrupt again to stop now" in said
    receipts = jobs.staged(output)
    splits = json.loads(receipts[0].parent.parent.joinpath("plan.json").read_bytes())["splits"]
    assert len(receipts) < splits
    assert f"stopped: {len(receipts)} of {splits} splits are done; the same command continues from here" in said
    # No split was cut short: every part that was written has a receipt.
    told = "".join(p.read_text() for p in receipts)
    assert all(p.name in told for p in receipts[0].parent.parent.glob("parts/*"))


def test_an_interrupt_with_every_split_in_hand_changes_nothing(tmp_path, model):
    process = start_marked(tmp_path, model("multiply"), rows=1500)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 0 and "finishing the splits in hand" in said, said
    assert jobs.manifest(tmp_path / "out")["counts"]["predicted"] == 6000


def test_the_second_interrupt_stops_now(tmp_path, model):
    process = start_marked(tmp_path, model("multiply"))
    process.send_signal(signal.SIGINT)
    said = [process.stderr.readline()]
    while "finishing the splits in hand" not in said[-1]:
        assert said[-1], said  # it has ended
        said.append(process.stderr.readline())
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 130 and is_clear(rest), rest
    assert "interrupted; the same command continues from here" in rest
    assert not jobs.staged(tmp_path / "out") and not (tmp_path / "out" / "manifest.json").exists()


# Too many rows are refused.


def test_stop_after_shows_an_example_of_each_reason(tmp_path, model):
    jobs.write_people(tmp_path / "data", 1, 100, bad_every=4)
    lines = (tmp_path / "data" / "people-0.csv").read_text().splitlines()
    lines[11] = "r,777,1,0.5"
    lines[16] = "one,two"
    (tmp_path / "data" / "people-0.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(Exception, match=r"rejects\.stop_after is 5") as error:
        run(jobs.job(tmp_path, model("multiply"), rejects={"stop_after": 5}, engine={"workers": 1}))
    code, (said,) = explain(error.value)
    assert code == 3
    path = tmp_path / "data" / "people-0.csv"
    assert f"wrong_type: {path} row 3, column 'age': expected float32" in said
    assert f"out_of_range: {path} row 10, column 'age': expected float32" in said
    assert f"ragged_row: {path} row 15: expected 4" in said
    assert "n/a" not in said and "777" not in said


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("column 'age' is 'n/a, expected 1', expected float32", "expected float32"),
        ("not valid JSON: expected a value, found 'secret'", "not valid JSON: expected a value"),
        ("key 'it's secret' comes twice", "key ... comes twice"),
        ("the model failed on this row: Error: # is above", "the model failed on this row: Error: # is above"),
    ],
)
def test_a_message_in_a_log_quotes_nothing(message, shown):
    assert without_values(message) == shown


# The model is another one.


def test_a_worker_loads_only_the_model_of_the_plan(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, 500)
    copy = tmp_path / "model"
    shutil.copytree(model("multiply"), copy)
    planned = jobs.plan(jobs.job(tmp_path, str(copy)))
    assert planned.steps.call.sha256 == hash_model(copy)
    gc.collect()  # what planned it has loaded it; a worker elsewhere has not
    with open(copy / "saved_model.pb", "ab") as file:
        file.write(b"\0")
    shards = read_plan(planned.folder)["shards"]
    with pytest.raises(Exception, match="has changed since this run was planned") as error:
        jobs.run_locally(lambda p: build(p, planned.steps, planned.write, shards, planned.job.rejects.as_budget()), 1)
    code, (said,) = explain(error.value)
    assert code == 6 and str(copy) in said
    assert planned.steps.call.sha256 in said and hash_model(copy) in said and "put the planned model back" in said
    assert not jobs.receipts(planned.folder)


def test_a_model_that_is_gone_is_a_changed_one(tmp_path, model):
    copy = tmp_path / "model"
    shutil.copytree(model("multiply"), copy)
    sha256 = hash_model(copy)
    assert load_once(str(copy), "serving_default", 1, sha256).call({"inputs": np.zeros((1, 3), np.float32)})
    gc.collect()
    shutil.rmtree(copy)
    with pytest.raises(ModelChanged, match=f"expected SHA-256 {sha256}"):
        load_once(str(copy), "serving_default", 1, sha256)


# Worker processes.


def test_a_worker_process_that_is_killed_ends_the_run(tmp_path, model):
    job, output = slow_job(tmp_path, model("multiply"), rows=4000), tmp_path / "out"
    process = jobs.start("run", job, *PROCESSES)
    until(lambda: jobs.staged(output), process)
    ((child, _),) = processes_of(process.pid)
    workers = [pid for pid, line in processes_of(child) if "beam_score.runners.worker.harness" in line]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    said = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 1 and is_clear(said), said
    assert "a worker process was ended by SIGKILL" in said and "the same command continues from here" in said
    assert not any(map(is_alive, [child, *workers]))
    assert run(load_job(job)).code == 0
    assert jobs.manifest(output)["counts"]["predicted"] == 16_000


def test_a_worker_process_that_cannot_write_says_why(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, 5000)
    job = jobs.write_job(tmp_path, model("multiply"), engine={"split_bytes": "1GB"})

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        jobs.command("run", job, *PROCESSES),
        capture_output=True,
        text=True,
        env=jobs.environment(),
        cwd=jobs.ROOT,
        preexec_fn=limit,
    )
    assert done.returncode == 1 and is_clear(done.stderr), done
    assert "File too large" in done.stderr
