"""`beam-score clean` removes what dead attempts left: nothing that is published, nothing that a run still needs."""

import json
import os
import subprocess
import sys

import jobs
import pytest
import turns

from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.launch import run
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.folder import RunFolder


@pytest.fixture
def people(tmp_path):
    jobs.write_people(tmp_path / "data", 3, 300, bad_every=20)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def over_budget(tmp_path, people, model):
    """A run that can be gone on with, and its job with a budget that suffices."""
    assert run(jobs.job(tmp_path, model("multiply"), rejects={"budget": 0})).code == 3
    return jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})


def staging(output) -> RunFolder:
    (plan,) = output.glob("_staging/*/plan.json")
    return RunFolder(str(output), plan.parent.name)


def everything(output) -> set[str]:
    return {str(p.relative_to(output)) for p in output.rglob("*")}


LEFTOVERS = {
    "parts/predictions-000001-aaaaaaaaaaaa-0.parquet": "part of an attempt that died",
    "parts/rejected-000000-bbbbbbbbbbbb-0.jsonl": "part of an attempt that died",
    "receipts/.000001.json.cccccccccccc.tmp": "half written",
    "plan/.00000-12345678.jsonl.dddddddddddd.tmp": "half written",
    ".plan.json.eeeeeeeeeeee.tmp": "half written",
}


def test_what_dead_attempts_left_goes_and_the_run_goes_on(over_budget, output):
    folder = staging(output)
    before = everything(output)
    for name in LEFTOVERS:
        (folder.path / name).write_bytes(b"half")
    found = clean(str(output))
    assert {str(x.path.relative_to(folder.path)): x.why for x in found.leftovers} == LEFTOVERS
    assert found.bytes == 4 * len(LEFTOVERS)
    assert everything(output) == before
    outcome = run(over_budget)
    assert outcome.code == 0 and "run" not in outcome.seconds  # nothing was scored again
    assert not (output / "_staging").exists()


def test_a_dry_run_changes_nothing(over_budget, output):
    folder = staging(output)
    for name in LEFTOVERS:
        (folder.path / name).write_bytes(b"half")
    before = everything(output)
    assert len(clean(str(output), dry_run=True).leftovers) == len(LEFTOVERS)
    assert everything(output) == before
    said = jobs.cli("clean", str(output), "--dry-run").stdout
    assert "5 leftovers would be removed" in said and "2 x part of an attempt that died" in said
    assert f"kept: run {folder.run} is not finished: the same job continues it" in said


def test_a_run_that_lives_keeps_all_it_has(over_budget, output):
    folder = staging(output)
    (folder.parts / "predictions-000001-aaaaaaaaaaaa-0.parquet").write_bytes(b"being written")
    before = everything(output)
    with storage.lease(folder.plan):
        for unfinished in (False, True):
            found = clean(str(output), unfinished=unfinished)
            assert found.leftovers == [] and found.kept == [f"run {folder.run} is at work"]
    assert everything(output) == before


def test_an_unfinished_run_is_discarded_only_when_that_is_asked_for(over_budget, output):
    folder = staging(output)
    clean(str(output))
    assert folder.plan.exists()
    clean(str(output), unfinished=True)
    assert not (output / "_staging").exists()
    # Its dead letters are published: they stay.
    failed = json.loads((output / "failed.json").read_bytes())
    assert everything(output) == {"failed.json", "rejected", *(f["path"] for f in failed["files"])}
    outcome = run(over_budget)
    assert outcome.code == 0 and outcome.manifest["run"] != folder.run
    assert everything(output) == {
        "manifest.json", "predictions", "rejected", *(f["path"] for f in outcome.manifest["files"]),
    }  # fmt: skip


def test_where_it_is_damaged_what_is_begun_nothing_of_it_goes_unasked(over_budget, output):
    folder = staging(output)
    whole = folder.current.read_bytes()
    turns.spoil(folder.current)
    before = everything(output)
    found = clean(str(output))
    assert found.leftovers == [] and folder.run in found.kept[0] and "current.json" in found.kept[0]
    assert everything(output) == before
    folder.current.write_bytes(whole)
    assert run(over_budget).code == 0


def test_what_is_begun_and_damaged_is_discarded_when_that_is_asked_for(over_budget, output):
    turns.spoil(staging(output).current)
    clean(str(output), unfinished=True)
    assert not (output / "_staging").exists()
    assert run(over_budget).code == 0


def test_what_is_on_no_record_goes_and_what_is_not_ours_stays(tmp_path, people, model, output):
    manifest = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).manifest
    before = everything(output)
    ours = [
        "predictions/20200101T000000-abcdef-00000.parquet",
        "rejected/20200101T000000-abcdef-00003.jsonl",
        ".manifest.json.0123456789ab.tmp",
        "_staging/20200101T000000-abcdef/receipts/000000.json",
        "_staging/.20200101T000000-abcdef.0123456789ab.tmp/plan.json",
    ]
    theirs = ["predictions/mine.parquet", "rejected/notes.txt", "predictions/_SUCCESS", "notes/today.txt"]
    for name in ours + theirs:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(b"x")
    clean(str(output))
    assert everything(output) == before | {*theirs, "notes"}
    assert jobs.manifest(output) == manifest


def test_what_a_replacement_left_to_readers_goes(tmp_path, people, model, output):
    old = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"})).manifest
    few = {"rejects": {"budget": "10%"}}
    new = run(jobs.job(tmp_path, model("dense"), **few), replace=True, keep_replaced=True).manifest
    assert new["replaces"] == [old["run"]] and not (output / "_staging").exists()
    for file in (*old["files"], *new["files"]):  # whoever goes by a manifest, old or new
        assert os.path.getsize(output / file["path"]) == file["bytes"]
    before = everything(output)
    assert run(jobs.job(tmp_path, model("dense"), **few), keep_replaced=True).already
    assert everything(output) == before, "to find it finished takes nothing away"
    clean(str(output))
    kept = {f["path"] for f in new["files"]}
    assert {str(p.relative_to(output)) for p in output.glob("[pr]*/*")} == kept


def test_two_replacements_leave_the_files_of_the_last_two_runs(tmp_path, people, model, output):
    names = ("multiply", "dense", "multiply")
    first, second, third = (
        run(jobs.job(tmp_path, model(name), rejects={"budget": "10%"}), replace=True, keep_replaced=True).manifest
        for name in names
    )
    files = [f["path"] for manifest in (second, third) for f in manifest["files"]]
    assert {str(p.relative_to(output)) for p in output.glob("[pr]*/*")} == set(files)
    assert third["replaces"] == [second["run"]] and second["replaces"] == [first["run"]]


def test_there_is_nothing_to_clean_in_a_finished_output(tmp_path, people, model, output):
    run(jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"}))
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    assert jobs.cli("clean", str(output)).stdout == "Nothing to clean.\n"
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == before


@pytest.mark.parametrize("kind", ["missing", "a file", "something else"])
def test_a_folder_that_is_no_output_is_refused(tmp_path, kind):
    folder = tmp_path / "precious"
    if kind == "a file":
        folder.write_text("x")
    elif kind == "something else":
        (folder / "predictions").mkdir(parents=True)
        (folder / "predictions" / "20200101T000000-abcdef-00000.parquet").write_bytes(b"x")
    before = everything(tmp_path)
    done = jobs.cli("clean", str(folder))
    assert done.returncode == 2 and "output.path of a job" in done.stderr and "Traceback" not in done.stderr
    assert everything(tmp_path) == before


def test_looking_and_cleaning_need_neither_beam_nor_tensorflow():
    code = (
        "import sys, beam_score.pipeline.cli, beam_score.pipeline.run.clean, beam_score.pipeline.show.status_view\n"
        "assert not {'apache_beam', 'tensorflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=jobs.environment())
