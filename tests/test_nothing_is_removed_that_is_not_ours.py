"""Whatever the records of an output folder say, nothing outside of it is removed, read or asked for, and nothing in it
that has another name than those that runs give."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from store_jobs import StoreJob

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.output_state import OutputState
from beam_score.pipeline.run.remote_jobs import note, noted
from beam_score.pipeline.run.status import Watcher
from beam_score.runners.elsewhere import Elsewhere
from beam_score.transforms.durable.sealed import CorruptFile, seal
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder, parse_current, read_plan, read_shard
from beam_score.transforms.ledger.manifest import Unreadable, read_manifest
from beam_score.transforms.ledger.publication import clean_up
from beam_score.transforms.ledger.receipt import Receipt
from beam_score.transforms.ledger.shapes import MANIFEST, Misfit, fit
from beam_score.transforms.ledger.verdict import verdicts

A, B = "20260101T000000-aaaaaa", "20260101T000001-bbbbbb"
BAD_RUNS = ["../../victim", "..", "/etc", "a/b", "", f"{A}/..", f"{A}\n", "20260101T000000-AAAAAA", "٢٠٢٦T٠٠-aaaaaa"]


@pytest.fixture
def victim(tmp_path):
    """A folder beside the output that must stay as it is."""
    folder = tmp_path / "victim"
    (folder / "parts").mkdir(parents=True)
    (folder / "precious.txt").write_text("mine")
    (folder / "parts" / "predictions-000000-aaaaaaaaaaaa-0.jsonl").write_text("mine")
    (folder / f"{A}-00000.jsonl").write_text("mine")
    (folder / "plan.json").write_text("mine")
    yield folder
    assert everything(folder) == {
        "precious.txt", "parts", "parts/predictions-000000-aaaaaaaaaaaa-0.jsonl", f"{A}-00000.jsonl", "plan.json",
    }  # fmt: skip


@pytest.fixture
def output(tmp_path):
    return tmp_path / "lake" / "out"


@pytest.fixture
def done(output):
    """An output folder with a published run."""
    StoreJob(str(output), "a", splits=2).launch(A)
    return output


@pytest.fixture
def over(output):
    """An output folder with a run that is over its budget: staging stands, with everything in it."""
    StoreJob(str(output), "a", splits=2, budget=Budget(rows=0, share=None)).launch(A)
    return output


def everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def rewrite(path: Path, change, sealed: bool) -> None:
    """Changes a record as someone would who wants it to be believed."""
    fields = json.loads(path.read_bytes())
    fields.pop("crc32c", None) if sealed else None
    change(fields)
    path.write_bytes(seal(fields) if sealed else json.dumps(fields).encode())


def refused(call) -> str:
    """What a call is refused with: a sentence, no traceback."""
    with pytest.raises((JobError, CorruptFile, Unreadable)) as raised:
        call()
    code, said = explain(raised.value)
    assert code in (1, 2) and "please report it" not in " ".join(said)
    return " ".join(said)


# Ids of runs.


@pytest.mark.parametrize("run", [r for r in BAD_RUNS if r])
def test_what_is_not_the_id_of_a_run_becomes_no_path(run):
    with pytest.raises(CorruptFile, match="is not the id of a run"):
        RunFolder("out", run)


@pytest.mark.parametrize("run", BAD_RUNS)
def test_replaces_of_a_planted_manifest_removes_nothing(done, victim, run):
    rewrite(done / "manifest.json", lambda m: m.update(replaces=[run]), sealed=False)
    before = everything(done)
    for call in (
        lambda: StoreJob(str(done), "b").launch(B),
        lambda: clean(str(done)),
        lambda: Watcher(str(done)).look(),
    ):
        assert "replaces" in refused(call)
    assert everything(done) == before


@pytest.mark.parametrize("run", BAD_RUNS)
@pytest.mark.parametrize("record", ["manifest.json", "failed.json"])
def test_the_run_of_a_planted_record_removes_nothing(over, victim, run, record):
    fields = json.loads((over / "failed.json").read_bytes())
    (over / record).write_text(json.dumps(fields | {"run": run}))
    before = everything(over)
    for call in (
        lambda: StoreJob(str(over), "a").launch(B, restart=True),
        lambda: clean(str(over), unfinished=True),
    ):
        assert "run is" in refused(call)
    assert everything(over) == before


@pytest.mark.parametrize("run", BAD_RUNS)
def test_the_run_of_a_planted_current_removes_nothing(over, victim, run):
    current = over / "_staging" / "current.json"
    rewrite(current, lambda c: c.update(run=run), sealed=True)
    with pytest.raises(CorruptFile):
        parse_current(current.read_bytes())
    refused(lambda: Watcher(str(over)).look())
    refused(lambda: StoreJob(str(over), "a").launch(B))
    before = everything(over)
    clean(str(over))
    assert everything(over) == before, "what is begun is not known, so nothing goes"


@pytest.mark.parametrize(
    "path", ["../../victim/precious.txt", "/etc/passwd", "predictions/../../victim/precious.txt", "x"]
)
@pytest.mark.parametrize("record", ["manifest.json", "failed.json"])
def test_files_of_a_planted_record(over, victim, path, record):
    fields = json.loads((over / "failed.json").read_bytes())
    fields["files"][0]["path"] = path
    (over / record).write_text(json.dumps(fields))
    before = everything(over)
    assert "files.path" in refused(lambda: StoreJob(str(over), "a").launch(B))
    assert "files.path" in refused(lambda: clean(str(over)))
    assert everything(over) == before


def test_files_of_another_run_or_in_the_wrong_folder(done):
    for path in (f"predictions/{B}-00000.jsonl", f"rejected/{A}-00000.jsonl"):
        rewrite(done / "manifest.json", lambda m: m["files"][0].update(path=path, kind="predictions"), sealed=False)  # noqa: B023
        assert "is not a file of predictions of run" in refused(lambda: read_manifest(str(done)))


# Plan, receipts, verdicts, notes.


def test_shards_of_a_planted_plan(over, victim):
    folder = RunFolder(str(over), A)
    for shards in (["../../../../victim/precious.txt"], ["/etc/passwd"], [1], "abc"):
        rewrite(folder.plan, lambda p: p.update(shards=shards), sealed=True)  # noqa: B023
        assert "shards" in refused(lambda: read_plan(folder))
    rewrite(folder.plan, lambda p: p.update(shards=[], run=B), sealed=True)
    assert f"it is the plan of run {B}" in refused(lambda: read_plan(folder))


@pytest.mark.parametrize(
    "line", ["[]", "5", '["../x", []]', "[-1, []]", '[0, [["p", "1"]]]', "[0, [[1, 10]]]", "[0, 7]", "{", "[true, []]"]
)
def test_splits_of_a_planted_shard(tmp_path, line):
    from beam_score.transforms.durable.sealed import checksum

    folder = RunFolder(str(tmp_path), A)
    name = f"00000-{checksum(line.encode())}.jsonl"
    (folder.path / "plan").mkdir(parents=True)
    folder.shard(name).write_text(line)
    assert "a line is not a split" in refused(lambda: list(read_shard(folder, name)))


def test_parts_of_a_planted_receipt(over, victim):
    path = RunFolder(str(over), A).receipt(0)
    for name in ("../../../../victim/precious.txt", "/etc/passwd", "plan.json", "predictions-0/../x.jsonl"):
        rewrite(path, lambda r: r["parts"][0].update(name=name), sealed=True)  # noqa: B023
        assert "parts.name" in refused(lambda: Receipt.from_json(path.read_bytes()))
    # It counts for nothing: the split is read again, and what the receipt names is not touched.
    assert StoreJob(str(over), "a", splits=2).launch(B).manifest["run"] == A


def test_parts_of_a_planted_verdict(over, victim):
    folder = RunFolder(str(over), A)
    whole = folder.verdict(1).read_bytes()
    changes = [
        lambda v: v["parts"][0].__setitem__(0, "../../../../victim/precious.txt"),
        lambda v: v["parts"][0].__setitem__(1, "../../victim/new.jsonl"),
        lambda v: v["parts"][0].__setitem__(1, f"rejected/{B}-00000.jsonl"),
        lambda v: v["manifest"].update(replaces=["../../victim"]),
        lambda v: v["manifest"].update(run=B),
        lambda v: v.update(decision="burn"),
        lambda v: v.update(parts=[1]),
        lambda v: v["manifest"]["files"][0].update(path="../x"),
    ]
    for change in changes:
        folder.verdict(1).write_bytes(whole)
        rewrite(folder.verdict(1), change, sealed=True)
        assert verdicts(folder) == []
    assert StoreJob(str(over), "a", splits=2).launch(B).manifest["run"] == A


@pytest.mark.parametrize(
    ("runner", "place"),
    [
        ("flink", {"address": "evil.example:80/'; rm -rf ~; '"}),
        ("flink", {"address": "x:1$(id)"}),
        ("flink", {"address": "file:///etc/passwd"}),
        ("flink", {"address": "localhost:8081", "more": "x"}),
        ("flink", {}),
        ("dataflow", {"project": "my-project; id", "region": "europe-west4"}),
        ("dataflow", {"project": "my-project", "region": "$(id)"}),
        ("dataflow", {"project": "my-project", "region": "europe-west4", "endpoint": "https://evil.example"}),
        ("dataflow", {"project": "my-project", "region": "europe-west4", "endpoint": "https://evil.example/localhost"}),
        ("dataflow", {"project": "my-project"}),
    ],
)
def test_a_planted_note_of_a_job_is_not_asked_for_and_makes_no_command(over, runner, place):
    folder = RunFolder(str(over), A)
    note(folder, Elsewhere(runner, "beam-score-x", place))
    assert noted(folder) == []


@pytest.mark.parametrize(
    ("runner", "place"),
    [
        ("flink", {"address": "flink-jobmanager:8081"}),
        ("flink", {"address": "https://[::1]:8081/"}),
        ("dataflow", {"project": "my-project", "region": "europe-west4"}),
        ("dataflow", {"project": "my-project", "region": "europe-west4", "endpoint": "http://localhost:1234"}),
        (
            "dataflow",
            {"project": "my-project", "region": "us-east1", "endpoint": "https://dataflow.us.rep.googleapis.com"},
        ),
    ],
)
def test_a_note_that_a_launch_writes_is_believed(over, runner, place):
    folder = RunFolder(str(over), A)
    note(folder, job := Elsewhere(runner, "beam-score-x", place))
    assert noted(folder) == [job]


# Links.


@pytest.mark.parametrize("name", ["_staging", "predictions", "rejected"])
def test_a_folder_of_the_protocol_that_is_a_link_is_refused(done, victim, name):
    if (done / name).exists():
        shutil.rmtree(done / name)
    (done / name).symlink_to(victim)
    before = everything(done)
    for call in (lambda: clean(str(done), unfinished=True), lambda: StoreJob(str(done), "b").launch(B, replace=True)):
        assert f"{name} is a link" in refused(call)
    assert everything(done) == before


@pytest.mark.parametrize("name", ["", "parts", "receipts", "plan"])
def test_a_folder_of_a_run_that_is_a_link_is_refused(over, victim, name):
    path = RunFolder(str(over), A).path / name
    os.rename(path, over.parent / "moved")
    path.symlink_to(victim)
    before = everything(over)
    for call in (lambda: clean(str(over), unfinished=True), lambda: StoreJob(str(over), "a").launch(B, restart=True)):
        assert "is a link" in refused(call)
    assert everything(over) == before


# Folders of others.


@pytest.mark.parametrize(
    "files",
    [
        ["_staging/precious.txt"],
        ["_staging/job_1/part-0.parquet", "_staging/plan.json"],
        [f"_staging/{A}/plan.json", "_staging/notes"],
        ["_staging/current.json.bak"],
        ["predictions/x", "manifest.txt"],
    ],
)
def test_a_folder_without_our_records_is_not_an_output(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = everything(tmp_path)
    for dry_run in (True, False):
        assert "expected the output.path of a job" in refused(lambda: clean(str(tmp_path), dry_run, unfinished=True))  # noqa: B023
    assert everything(tmp_path) == before


def test_files_of_other_names_stay_wherever_they_are(over):
    theirs = [
        "_staging/theirs.txt",
        "_staging/.theirs.tmp",
        "_staging/job_1/part-0.parquet",
        f"_staging/.{B}.tmp/precious.txt",
        "predictions/.precious.tmp",
        "rejected/data.jsonl",
        ".cache.tmp/precious.txt",
        f".{A}.0123456789ab.tmp/precious.txt",
    ]
    within = ["notes.txt", "parts/precious.bak", "parts/deep/er.txt", "mine/x", "receipts/.swp", "plan/00000.jsonl"]
    for name in [*theirs, *(f"_staging/{A}/{n}" for n in within)]:
        (over / name).parent.mkdir(parents=True, exist_ok=True)
        (over / name).write_text("mine")
    found = clean(str(over), unfinished=True)
    left = everything(over)
    assert set(theirs) <= left
    (moved,) = (p for p in (over / "_staging").iterdir() if p.name.startswith(f".{A}."))
    assert {str(p.relative_to(moved)) for p in moved.rglob("*") if p.is_file()} == set(within)
    assert any("holds files that are not of a run" in sentence for sentence in found.kept)
    assert not (over / "_staging" / "current.json").exists()


def test_a_link_in_a_run_goes_and_what_it_leads_to_stays(over, victim):
    folder = RunFolder(str(over), A)
    (folder.parts / "predictions-000009-aaaaaaaaaaaa-0.jsonl").symlink_to(victim / "precious.txt")
    (folder.path / "job-x.json").symlink_to(victim / "precious.txt")
    clean(str(over), unfinished=True)
    assert not folder.path.exists()


def test_what_a_finished_run_cleans_up_is_its_own(done, victim):
    for name in (f"_staging/{A}/precious.txt", f"_staging/.{A}.0123456789ab.tmp/precious.txt", "_staging/.x.tmp"):
        (done / name).parent.mkdir(parents=True, exist_ok=True)
        (done / name).write_text("mine")
    clean_up(str(done), read_manifest(str(done)))
    assert len([p for p in (done / "_staging").rglob("*") if p.is_file()]) == 3


# Shapes.


def test_what_is_written_has_its_shape_and_every_change_of_kind_is_seen(done):
    manifest = json.loads((done / "manifest.json").read_bytes())
    fit(manifest, MANIFEST)

    def changed(at, shape):
        """Copies in which one thing that the shape tells is of another kind."""
        if isinstance(shape, dict):
            for key, inner in shape.items():
                if key in at:
                    yield from (copied(at, key, other) for other in changed(at[key], inner))
        elif not isinstance(at, bool):
            yield object()

    def copied(at, key, value):
        return {**copy.copy(at), key: value}

    seen = 0
    for other in changed(manifest, MANIFEST):
        with pytest.raises(Misfit):
            fit(other, MANIFEST)
        seen += 1
    assert seen > 15


def test_standing_of_an_empty_folder(tmp_path):
    assert OutputState.of(str(tmp_path)).runs == []
