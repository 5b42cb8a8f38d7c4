"""Predictions and dead letters appear together, once, or not at all; and the same command always goes on."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jobs
import polars as pl
import pyarrow.parquet as pq
import pytest

from beam_score.pipeline.job.job import load_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.prepare.trial import load
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.begin import plan_run
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.run.output_state import Changed, LostRace, OutputState
from beam_score.transforms.ledger.publication import clean_up

ROWS, FILES = 600, 4


@pytest.fixture
def people(tmp_path):
    return jobs.write_people(tmp_path / "data", FILES, ROWS, bad_every=20)


def names(output):
    """Every file and folder under an output, the run's id written as RUN."""
    run_id = json.loads(next(p for n in ("manifest.json", "failed.json") if (p := output / n).exists()).read_bytes())[
        "run"
    ]
    return {str(p.relative_to(output)).replace(run_id, "RUN") for p in output.rglob("*")}


def is_whole(output, rows=ROWS * FILES):
    """The manifest tells the truth about the files that are there."""
    manifest = jobs.manifest(output)
    listed = {f["path"]: f for f in manifest["files"]}
    there = {str(p.relative_to(output)) for kind in ("predictions", "rejected") for p in output.glob(f"{kind}/*")}
    assert there == set(listed)
    for path, file in listed.items():
        assert (output / path).stat().st_size == file["bytes"]
    predictions = jobs.predictions(output)
    counts = manifest["counts"]
    assert len(predictions) == counts["predicted"] == predictions["id"].n_unique()
    assert len(jobs.dead_letters(output)) == counts["rejected"]
    assert counts["read"] == rows == counts["predicted"] + counts["rejected"]
    assert not (output / "_staging").exists()
    assert not (output / "failed.json").exists()
    return manifest


def test_an_output_is_predictions_dead_letters_and_a_manifest(tmp_path, people, model):
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"}, engine={"split_bytes": "1GB"})
    assert run(job).code == 0
    output = tmp_path / "out"
    assert names(output) == {
        "manifest.json", "predictions", "predictions/RUN-00000.parquet", "rejected", "rejected/RUN-00000.jsonl",
    }  # fmt: skip
    manifest = is_whole(output)
    assert manifest["verdict"] == "done"
    assert {i["path"]: i["read"] for i in manifest["inputs"]} == {str(p): ROWS for p in (tmp_path / "data").iterdir()}


@pytest.mark.parametrize("budget", [{"budget": "4.9%"}, {"budget": 119}, {"budget": 0}])
def test_over_budget_shows_dead_letters_only_and_goes_on_without_scoring(tmp_path, people, model, budget):
    assert people == 120
    output = tmp_path / "out"
    outcome = run(jobs.job(tmp_path, model("multiply"), rejects=budget))
    assert outcome.code == 3
    assert not (output / "predictions").exists() and not (output / "manifest.json").exists()
    failed = json.loads((output / "failed.json").read_bytes())
    assert failed["verdict"] == "over budget" and "rejected" in failed["over_budget"][0]
    assert failed["counts"]["rejected_by_reason"] == {"wrong_type": 120}
    (fault,) = failed["counts"]["rejected_by_column"]
    assert (fault["reason"], fault["column"], fault["rows"], fault["also"]) == ("wrong_type", "age", 120, 0)
    assert fault["row"] == 19 and fault["source"].endswith(".csv") and "n/a" not in fault["message"]
    assert len(jobs.dead_letters(output)) == 120
    receipts = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in jobs.staged(output)}
    parts = {p.name: p.stat().st_ino for p in output.glob("_staging/*/parts/pred*")}
    assert receipts and parts
    # Again, as it was: the same verdict, and nothing is read again.
    assert run(jobs.job(tmp_path, model("multiply"), rejects=budget)).code == 3
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in jobs.staged(output)} == receipts
    outcome = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": 120}))
    assert outcome.code == 0 and outcome.manifest["run"] == failed["run"]
    assert "run" not in outcome.seconds  # no pipeline was run, nor TensorFlow waited for
    is_whole(output)
    # The very files that were written before the first verdict.
    assert {p.stat().st_ino for p in output.glob("predictions/*")} == set(parts.values())


def test_a_share_of_exactly_the_budget_is_inside_it(tmp_path, people, model):
    assert run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "5%"})).code == 0


def test_more_unusable_files_than_allowed_cost_nothing(tmp_path, people, model):
    (tmp_path / "data" / "people-x.csv").write_text("id,aeg,income,score\n1,2,3,0.4\n")
    output = tmp_path / "out"
    outcome = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"}))
    assert outcome.code == 3
    assert names(output) == {"failed.json", "rejected", "rejected/RUN-00000.jsonl"}  # nothing was read
    (letter,) = jobs.dead_letters(output)
    assert letter["reason"] == "missing_column" and letter["source"].endswith("people-x.csv") and letter["rows"] is None
    assert outcome.manifest["over_budget"] == ["1 file or stretch cannot be read, and rejects.files allows 0"]
    assert run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).code == 3
    assert len(list(output.glob("rejected/*"))) == 1  # the first refusal's is gone
    assert run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%", "files": 1})).code == 0
    manifest = jobs.manifest(output)
    assert manifest["counts"]["stretches"] == 1 and manifest["counts"]["read"] == ROWS * FILES
    assert sorted(p.name for p in output.iterdir()) == ["manifest.json", "predictions", "rejected"]
    assert {letter["run"] for letter in jobs.dead_letters(output)} == {manifest["run"]}


def test_damage_that_only_reading_shows_is_over_the_budget_of_files(tmp_path, model):
    import gzip

    jobs.write_people(tmp_path / "data", 2, ROWS)
    file = tmp_path / "data" / "people-1.csv"
    (tmp_path / "data" / "people-1.csv.gz").write_bytes(gzip.compress(file.read_bytes())[:-400])
    file.unlink()
    of = {"input": {"files": [str(tmp_path / "data" / "*")]}}
    assert run(jobs.job(tmp_path, model("multiply"), **of)).code == 3
    assert [letter["reason"] for letter in jobs.dead_letters(tmp_path / "out")] == ["unreadable"]
    assert run(jobs.job(tmp_path, model("multiply"), rejects={"files": 1}, **of)).code == 0


def test_the_same_job_again_is_finished(tmp_path, people, model):
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})
    first = run(job)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    # Neither budget nor threads are part of what the job is.
    for again in (
        job,
        jobs.job(tmp_path, model("multiply"), rejects={"budget": 0}, engine={"workers": 1, "split_bytes": "1MB"}),
    ):
        outcome = run(again)
        assert outcome.already and outcome.code == 0 and outcome.manifest == first.manifest
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


CHANGES = {
    "input files": lambda t: os.utime(t / "data" / "people-0.csv", ns=(1, 1)),
    "contract": {"columns": {**jobs.COLUMNS, "age": {"dtype": "float32", "range": [0, 80]}}},
    "outputs": {"output": {"keep": ["id", "age"]}},
    "preprocessing": {"inputs": {"inputs": {"pack": ["age", "score", "income"]}}},
    "input settings": {"input": {"extra": "reject"}},
    "payload": {"rejects": {"budget": "10%", "payload": "none"}},
    "model": "dense",
}


@pytest.mark.parametrize("state", ["finished", "over budget"])
def test_a_changed_job_is_refused_with_what_changed(tmp_path, people, model, state):
    finished = state == "finished"
    remedy = "--replace" if finished else "--restart"
    base = {"rejects": {"budget": "10%" if finished else 0}}
    job = jobs.job(tmp_path, model("multiply"), **base)
    assert run(job).code == (0 if finished else 3)
    for what, change in CHANGES.items():
        sections = base | change if isinstance(change, dict) else base
        if callable(change):
            stat = (tmp_path / "data" / "people-0.csv").stat()
            change(tmp_path)
        name = change if isinstance(change, str) else "multiply"
        with pytest.raises(
            Changed,
            match=rf"{'finished' if finished else 'over its error budget'}.*\({what} changed\).*{remedy}",
        ):
            run(jobs.job(tmp_path, model(name), **sections))
        if callable(change):
            os.utime(tmp_path / "data" / "people-0.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(job).code == (0 if finished else 3)


def test_another_preprocessing_under_the_same_name_is_another_job(tmp_path, people, model):
    code = tmp_path / "features_of_mine.py"
    code.write_text("def same(rows):\n    return rows\n")
    job = jobs.write_job(tmp_path, model("multiply"), rejects={"budget": "10%"}, preprocess="features_of_mine:same")
    path = {"PYTHONPATH": f"{jobs.environment()['PYTHONPATH']}:{tmp_path}"}
    assert jobs.cli("run", job, **path).returncode == 0
    assert "Finished already" in jobs.cli("run", job, **path).stdout
    code.write_text("def same(rows):\n    return rows.slice(0)\n")
    again = jobs.cli("run", job, **path)
    assert again.returncode == 6 and "(preprocessing changed)" in again.stderr


def test_a_replacement_takes_the_old_files_away(tmp_path, people, model):
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})
    old = run(job).manifest
    with open(tmp_path / "out" / "predictions" / "mine.txt", "w") as file:
        file.write("not ours to remove")
    other = jobs.job(tmp_path, model("dense"), rejects={"budget": "10%"})
    new = run(other, replace=True).manifest
    assert new["run"] != old["run"] and new["replaces"] == [old["run"]]
    (tmp_path / "out" / "predictions" / "mine.txt").unlink()
    assert is_whole(tmp_path / "out")["run"] == new["run"]
    # What a killed replacement left over is taken away by whoever comes next.
    stale = tmp_path / "out" / old["files"][0]["path"]
    stale.write_bytes(b"")
    assert run(other).already
    assert not stale.exists()


def test_replaced_files_stay_only_where_that_is_asked_for(tmp_path, people, model):
    """Readers of the whole folder would count the rows of both runs."""
    few = {"rejects": {"budget": "10%"}}
    old = run(jobs.job(tmp_path, model("multiply"), **few)).manifest
    kept = run(jobs.job(tmp_path, model("dense"), **few), replace=True, keep_replaced=True).manifest
    assert {f["path"] for f in old["files"] + kept["files"]} <= names_as_they_are(tmp_path / "out")
    new = run(jobs.job(tmp_path, model("multiply"), **few), replace=True).manifest
    assert names_as_they_are(tmp_path / "out") == {f["path"] for f in new["files"]} | {"manifest.json"}


def names_as_they_are(output: Path) -> set[str]:
    return {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}


def test_what_has_changed_is_replaced_where_that_is_asked_for(tmp_path, people, model):
    few = {"rejects": {"budget": "10%"}}
    job = jobs.job(tmp_path, model("multiply"), **few)
    old = run(job, replace_if_changed=True).manifest
    assert run(job, replace_if_changed=True).already
    jobs.write_people(tmp_path / "data", 1, 10)  # over the first file
    with pytest.raises(Changed, match="input files changed") as refused:
        run(job)
    assert explain(refused.value)[0] == 6
    new = run(job, replace_if_changed=True)
    assert not new.already and new.manifest["replaces"] == [old["run"]]
    # A run that was begun and is not finished: of the same job it is gone on with, of another it is discarded.
    over = run(jobs.job(tmp_path, model("dense"), rejects={"budget": 0}), replace_if_changed=True)
    assert over.code == 3
    again = run(jobs.job(tmp_path, model("dense"), **few), replace_if_changed=True)
    assert again.code == 0 and again.manifest["run"] == over.manifest["run"]


def test_an_input_that_is_late_is_not_a_mistake(tmp_path, model):
    """A scheduler tries one of them again: exit code 5, and 2 as soon as something else is wrong, too."""
    late = {"input": {"files": [str(tmp_path / "data" / "*.csv")]}}
    with pytest.raises(JobError) as error:
        run(jobs.job(tmp_path, model("multiply"), **late))
    assert explain(error.value)[0] == 5
    with pytest.raises(JobError) as error:
        run(jobs.job(tmp_path, tmp_path / "no-model", **late))
    assert explain(error.value)[0] == 2


def test_a_replacement_over_budget_leaves_what_stood_and_is_gone_on_with(tmp_path, people, model):
    old = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).manifest
    over = run(jobs.job(tmp_path, model("dense"), rejects={"budget": 0}), replace=True)
    assert over.code == 3
    assert jobs.manifest(tmp_path / "out") == old
    assert all((tmp_path / "out" / f["path"]).exists() for f in old["files"])
    receipts = [p.stat().st_mtime_ns for p in jobs.staged(tmp_path / "out")]
    assert receipts
    again = run(jobs.job(tmp_path, model("dense"), rejects={"budget": "10%"}), replace=True)
    assert again.code == 0 and again.manifest["run"] == over.manifest["run"]
    is_whole(tmp_path / "out")


def test_restart_begins_anew_what_was_begun(tmp_path, people, model):
    first = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": 0}))
    assert first.code == 3
    second = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"}), restart=True)
    assert second.code == 0 and second.manifest["run"] != first.manifest["run"]
    is_whole(tmp_path / "out")


def test_a_run_without_rows_publishes_an_empty_part_with_the_schema(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, 0)
    for format_ in ("parquet", "jsonl"):
        output = tmp_path / format_
        job = jobs.job(
            tmp_path, model("multiply"), output={"path": str(output), "format": format_, "keep": ["id", "age"]}
        )
        assert run(job).code == 0
        assert names(output) == {"manifest.json", "predictions", f"predictions/RUN-00000.{format_}"}
        (file,) = jobs.manifest(output)["files"]
        assert file["rows"] == 0 and (output / file["path"]).stat().st_size == file["bytes"]
    (path,) = (tmp_path / "parquet" / "predictions").iterdir()
    schema = pq.read_schema(path)
    assert schema.names == ["id", "age", "probabilities"]
    assert [str(t) for t in schema.types] == ["string", "float", "float"]


def test_stop_after_ends_a_hopeless_run_and_leaves_it_resumable(tmp_path, people, model):
    with pytest.raises(Exception, match=r"rejects\.stop_after is 10") as error:
        run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%", "stop_after": 10}))
    from beam_score.pipeline.process.errors import explain

    code, (said,) = explain(error.value)
    assert code == 3 and "wrong_type" in said
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).code == 0
    is_whole(tmp_path / "out")


def test_stop_after_counts_what_earlier_launches_have_rejected(tmp_path, model):
    # Each file is more than a group: the first is scored and written when the bad rows at the end of the second come.
    (tmp_path / "data").mkdir()
    text = "id,age,income,score\n" + "r,1,2,0.5\n" * 140_000 + "r,n/a,2,0.5\n" * 40
    for file in range(2):
        (tmp_path / "data" / f"people-{file}.csv").write_text(text)
    sections = {
        "model": {"batch_rows": 8192},
        "engine": {"workers": 1, "split_bytes": "64MB", "block_bytes": "64KiB"},
    }
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%", "stop_after": 50}, **sections)
    done = []
    for _ in range(2):
        with pytest.raises(Exception, match=r"80 rows have been rejected .*people-\d.csv row \d+, column 'age'"):
            run(job)
        done.append(jobs.staged(tmp_path / "out"))
    assert len(done[0]) == 1 and done[1] == done[0]  # the second has finished no further split
    outcome = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%", "stop_after": 80}, **sections))
    assert outcome.code == 0
    counts = jobs.manifest(tmp_path / "out")["counts"]
    assert (counts["read"], counts["predicted"], counts["rejected"]) == (280_080, 280_000, 80)


def test_a_worker_that_fails_stops_the_others(tmp_path, people, model):
    # The parts folder goes away under the run, as when someone clears the output.
    done, of_before = threading.Event(), sys._current_frames().keys()

    def remove():
        while not done.is_set():
            for folder in (tmp_path / "out").glob("_staging/*/parts"):
                shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.001)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        with pytest.raises(Exception, match="No such file"):
            run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"}))
    finally:
        done.set()
        thread.join()
    at_work = [f for i, f in sys._current_frames().items() if i not in of_before]
    for frame in at_work:
        while frame is not None:
            assert not frame.f_globals.get("__name__", "").startswith("beam_score.")
            frame = frame.f_back
    before = sorted((tmp_path / "out").rglob("*"))
    time.sleep(0.3)
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert not (tmp_path / "out" / "manifest.json").exists()


# In processes of their own.

BIG = 800_000  # rows are scored in groups of a hundred thousand or so, and a group's splits end together


def write_many(folder):
    folder.mkdir()
    row = pl.select(pl.int_range(BIG // 4)).to_series()
    columns = {"age": row % 90, "income": row % 7, "score": (row % 10) / 10}
    for file in range(4):
        pl.DataFrame({"id": pl.select(pl.format(f"r{file}-{{}}", row)).to_series(), **columns}).write_csv(
            folder / f"people-{file}.csv"
        )


def slow_job(tmp_path, saved_model, **sections):
    """A job that takes some seconds, for its tiny batches."""
    settings = {"model": {"batch_rows": 16}, "engine": {"split_bytes": "256KiB"}, "rejects": {"budget": "10%"}}
    settings |= {name: {**settings.get(name, {}), **section} for name, section in sections.items()}
    return jobs.write_job(tmp_path, saved_model("multiply"), **settings)


def when_some_are_done(process, output, least=3):
    until = time.monotonic() + 60
    while len(jobs.staged(output)) < least:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_with_the_splits_left(tmp_path, model, sign):
    write_many(tmp_path / "data")
    job, output = slow_job(tmp_path, model, model={"batch_rows": 64}, engine={"block_bytes": "8KiB"}), tmp_path / "out"
    process = jobs.start("run", job)
    when_some_are_done(process, output)
    process.send_signal(sign)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[sign]
    if sign != signal.SIGKILL:
        word = {
            signal.SIGINT: "splits are done; the same command continues from here",
            signal.SIGTERM: "interrupted; the same command continues from here",
        }[sign]
        assert word in said and "Traceback" not in said
    done = {p.name: p.read_bytes() for p in jobs.staged(output)}
    assert not (output / "predictions").exists() and not (output / "manifest.json").exists()
    plan = json.loads(next(output.glob("_staging/*/plan.json")).read_bytes())
    assert 3 <= len(done) < plan["splits"]
    # Kept aside, since a finished run removes them: every receipt that stood is still the one that counts.
    attempts = {json.loads(content)["attempt"] for content in done.values()}
    parts = {p.stat().st_ino for p in output.glob("_staging/*/parts/pred*") if p.name.split("-")[2] in attempts}
    if sign == signal.SIGTERM:
        return  # as with the others from here on
    assert run(load_job(job)).code == 0
    manifest = is_whole(output, BIG)
    assert manifest["run"] == plan["run"]
    assert parts <= {p.stat().st_ino for p in output.glob("predictions/*")}


def test_two_launches_at_once_make_one_output(tmp_path, model):
    jobs.write_people(tmp_path / "data", 4, 5000, bad_every=1000)
    job = slow_job(tmp_path, model, rejects={"budget": "10%"})
    both = [jobs.start("run", job, "--json") for _ in range(2)]
    said = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    manifest = is_whole(tmp_path / "out", 20_000)
    assert {json.loads(out)["run"] for out, _ in said} == {manifest["run"]}


def test_a_launch_that_plans_while_another_finishes_leaves_nothing(tmp_path, people, model):
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})
    before = OutputState.of(str(tmp_path / "out"))  # what the slow one has seen
    finished = run(job).manifest
    prepared = prepare(job)
    fingerprint = prepared.fingerprint()
    with pytest.raises(LostRace):
        plan_run(prepared, fingerprint, load(prepared), before)
    assert is_whole(tmp_path / "out") == finished


def test_a_full_disk_is_told_and_gone_on_from(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, 20_000)
    with jobs.small_disk(tmp_path / "small", "size=1m") as remount:
        output = {"path": str(tmp_path / "small" / "out"), "format": "jsonl", "keep": ["id", "age", "income", "score"]}
        job = slow_job(tmp_path, model, output=output, engine={"split_bytes": "128KiB"})
        first = jobs.cli("run", job)
        assert first.returncode == 1, first
        assert "No space left on device" in first.stderr and "Traceback" not in first.stderr
        assert not (tmp_path / "small" / "out" / "manifest.json").exists()
        remount("size=20m")
        assert run(load_job(job)).code == 0
        manifest = jobs.manifest(tmp_path / "small" / "out")
        assert manifest["counts"] == manifest["counts"] | {"read": 40_000, "predicted": 40_000}


def test_room_is_asked_for_only_where_a_run_begins(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, 40_000, bad_every=20)
    output = tmp_path / "small" / "out"
    with jobs.small_disk(tmp_path / "small", "size=9m") as remount:
        settings = {"output": {"path": str(output)}, "engine": {"split_bytes": "1MB", "block_bytes": "1MB"}}
        assert run(jobs.job(tmp_path, model("multiply"), **settings, rejects={"budget": 0})).code == 3
        remount(f"size={shutil.disk_usage(output).used + 200_000}")
        with pytest.raises(JobError, match=r"output\.path: .* MB are free, and about .* MB are needed"):
            run(jobs.job(tmp_path, model("multiply"), **settings, rejects={"budget": 0}), restart=True)
        # Neither a verdict nor a look at what is finished takes the room of a run.
        for _ in range(2):
            assert run(jobs.job(tmp_path, model("multiply"), **settings, rejects={"budget": "10%"})).code == 0
        assert jobs.manifest(output)["counts"]["read"] == 80_000


def test_a_limit_on_file_size_is_told(tmp_path, people, model):
    job = jobs.write_job(tmp_path, model("multiply"), rejects={"budget": "10%"}, engine={"split_bytes": "1GB"})

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        jobs.command("run", job),
        capture_output=True,
        text=True,
        env=jobs.environment(),
        cwd=jobs.ROOT,
        preexec_fn=limit,
    )
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("_staging/*/parts/*"))  # no half part in the way
    assert run(load_job(job)).code == 0
    is_whole(tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused_at_launch(tmp_path, people, model):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(JobError, match="is a file, expected a folder"):
        run(jobs.job(tmp_path, model("multiply"), output={"path": str(file / "out")}))
    with jobs.small_disk(tmp_path / "closed", "ro"), pytest.raises(JobError, match="closed may not be written"):
        run(jobs.job(tmp_path, model("multiply"), output={"path": str(tmp_path / "closed" / "out")}))


def test_cleaning_up_leaves_other_runs_alone(tmp_path, people, model):
    manifest = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).manifest
    later = tmp_path / "out" / "_staging" / "99990101T000000-abcdef"
    later.mkdir(parents=True)
    clean_up(str(tmp_path / "out"), manifest)
    assert later.exists()
    assert pl.read_parquet(tmp_path / "out" / "predictions" / "*.parquet").height == manifest["counts"]["predicted"]
