"""A file that is not the one that was planned fails its split: bytes of two versions are never mixed."""

import dataclasses
import gzip
import os
import re
import shutil

import jobs
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring
from reading import read_settings

from beam_score.pipeline.prepare.chain import build
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.run.output_state import Changed
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.formats.reading.splitting import split_files
from beam_score.transforms.ledger.folder import RunFolder, read_plan, read_shard, write_plan
from beam_score.transforms.listing.files import list_files
from beam_score.transforms.stores.local_file import ReadFails
from beam_score.transforms.stores.versions import InputChanged

ROWS = 3000
AN_HOUR = 3600 * 10**9
FORMATS = ["csv", "jsonl", "parquet", "tfrecord", "csv.gz", "jsonl.gz", "tfrecord.gz"]


def settings(format_: str, **options) -> ReadSettings:
    contract = Contract(columns={"x": Column(dtype="int64")})
    return read_settings(format_.removesuffix(".gz"), contract, max_block_bytes=2048, max_block_rows=500, **options)


def write(folder, format_: str, rows: int = ROWS):
    """A file of many blocks, last changed an hour ago; and how it was listed."""
    values = [{"x": i} for i in range(rows)]
    if format_ == "parquet":
        path = folder / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(values), path, row_group_size=500)
    else:
        path = scoring.write(folder, values, format_.removesuffix(".gz"))
        if format_.endswith(".gz"):
            plain, path = path, folder / f"rows.{format_}"
            path.write_bytes(gzip.compress(plain.read_bytes(), 0))
            plain.unlink()
    then = path.stat().st_mtime_ns - AN_HOUR
    os.utime(path, ns=(then, then))
    (listed,), _ = list_files([str(path)])
    return path, listed


def rename_over(path):
    """Another file with the same size, times and even bytes."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    os.replace(other, path)


def rewrite(path):
    """In place, with as many bytes."""
    content = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(content[::-1])


def append(path):
    with open(path, "ab") as file:
        file.write(b"\n")


CHANGES = {
    "cut short": (lambda path: os.truncate(path, path.stat().st_size // 2), r"size [\d,]+ -> [\d,]+ bytes, modified"),
    "emptied": (lambda path: os.truncate(path, 0), r"size [\d,]+ -> 0 bytes, modified"),
    "appended to": (append, r"size [\d,]+ -> [\d,]+ bytes, modified"),
    "renamed over": (rename_over, r"\(replaced by another file\)"),
    "rewritten": (rewrite, r"\(modified \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ -> \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\)"),
    "touched": (lambda path: path.touch(), r"\(modified \S+ \S+Z -> \S+ \S+Z\)"),
    "deleted": (lambda path: path.unlink(), r"was removed after the files were listed \(it had [\d,]+ bytes\)"),
}
REMEDY = "put it back as it was and run the same command, or add --restart to read it as it is now"

every_format = pytest.mark.parametrize("format_", FORMATS)
every_change = pytest.mark.parametrize("kind", CHANGES)


def whole(listed) -> Split:
    return Split(0, (FileRange(listed.path, listed.size, bytes=listed.size, version=listed.version),))


def refused(blocks, path, kind):
    """What is left of the blocks never comes to the total."""
    found = []
    with pytest.raises(InputChanged) as error:
        found.extend(blocks)
    assert all(block.total is None for block in found)
    said = str(error.value)
    assert said.startswith(f"{path} ") and said.endswith(f": {REMEDY}") and "\n" not in said
    assert re.search(CHANGES[kind][1], said), said


# One split.


@every_format
def test_a_file_that_stays_as_it_is_is_read_whole(tmp_path, format_):
    _, listed = write(tmp_path, format_)
    blocks = list(read_split(whole(listed), settings(format_), "a"))
    assert len(blocks) > 4 and blocks[-1].total == ROWS == sum(b.rows.num_rows for b in blocks)


@every_format
@every_change
def test_a_change_before_the_split_is_begun(tmp_path, format_, kind):
    path, listed = write(tmp_path, format_)
    CHANGES[kind][0](path)
    with pytest.raises(InputChanged):
        next(read_split(whole(listed), settings(format_), "a"))
    refused(read_split(whole(listed), settings(format_), "a"), path, kind)


@every_format
@every_change
def test_a_change_while_the_split_is_read(tmp_path, format_, kind):
    path, listed = write(tmp_path, format_)
    blocks = read_split(whole(listed), settings(format_), "a")
    assert next(blocks).rows.num_rows
    CHANGES[kind][0](path)
    refused(blocks, path, kind)


@every_format
@every_change
def test_a_change_before_a_later_range_of_the_same_file(tmp_path, format_, kind):
    path, listed = write(tmp_path, format_)
    splits = split_files([(listed.path, listed.size, listed.version)], settings(format_), 4096)
    assert len(splits) > 1 or format_.endswith(".gz") or format_ == "parquet"
    for split in splits:
        assert list(read_split(split, settings(format_), "a"))[-1].total
    CHANGES[kind][0](path)
    for split in splits:
        refused(read_split(split, settings(format_), "b"), path, kind)


@every_change
def test_one_file_of_several_in_a_split_changes(tmp_path, kind):
    listed, paths = [], []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path, file = write(tmp_path / name, "csv", 300)
        paths.append(path)
        listed.append(file)
    split = Split(0, tuple(FileRange(f.path, f.size, version=f.version) for f in listed))
    # The second before it is begun.
    blocks = read_split(split, settings("csv"), "a")
    next(blocks)
    CHANGES[kind][0](paths[1])
    refused(blocks, paths[1], kind)
    # The first once it was read.
    split = Split(0, (split.ranges[0], dataclasses.replace(split.ranges[0], path=listed[1].path, version=None)))
    write(tmp_path / "b", "csv", 300)
    blocks = read_split(split, settings("csv"), "a")
    while next(blocks).source != listed[1].path:
        pass
    CHANGES[kind][0](paths[0])
    refused(blocks, paths[0], kind)


def test_a_file_cut_short_is_no_unreadable_stretch(tmp_path):
    path, listed = write(tmp_path, "csv.gz")
    os.truncate(path, listed.size // 2)
    (rejected,) = [
        r
        for b in read_split(Split(0, (FileRange(listed.path, listed.size),)), settings("csv"), "a")
        for r in b.rejected.to_pylist()
    ]
    assert rejected["reason"] == "unreadable"  # as a file that was listed so
    refused(read_split(whole(listed), settings("csv"), "a"), path, "cut short")


@pytest.mark.parametrize("broken", ["a folder", "a loop of links"])
def test_what_cannot_be_read_and_has_not_changed_fails_the_split(tmp_path, broken):
    path = tmp_path / "rows.csv"
    path.mkdir()
    stat = path.stat()
    version = f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
    if broken == "a loop of links":
        path.rmdir()
        path.symlink_to(path)  # it cannot even be looked at
    said = {"a folder": "Is a directory", "a loop of links": "Too many levels of symbolic links"}[broken]
    with pytest.raises(ReadFails, match=f"{path}: {said}"):
        list(read_split(Split(0, (FileRange(str(path), 1, version=version),)), settings("csv"), "a"))


@every_change
def test_without_a_version_nothing_is_checked(tmp_path, kind):
    path, listed = write(tmp_path, "csv")
    (split,) = split_files([(listed.path, listed.size)], settings("csv"))
    assert split.ranges[0].version is None
    CHANGES[kind][0](path)
    if not path.exists():
        with pytest.raises(ReadFails, match="No such file"):
            list(read_split(split, settings("csv"), "a"))
        return
    assert list(read_split(split, settings("csv"), "a"))[-1].total is not None


# The plan.


@every_format
@every_change
def test_a_change_between_listing_and_cutting_is_told_at_launch(tmp_path, format_, kind):
    path, listed = write(tmp_path, format_)
    CHANGES[kind][0](path)
    with pytest.raises(InputChanged, match=r"run the same command again to read it as it is now$"):
        split_files([(listed.path, listed.size, listed.version)], settings(format_), 4096)


@pytest.mark.parametrize("row", ["1,2", '1,"2"'])
def test_cutting_a_file_that_was_cut_short_ends(tmp_path, row):
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + f"{row}\n" * 1000)
    (split,) = split_files([(str(path), 50 * path.stat().st_size)], settings("csv"), 2 << 20)
    assert list(read_split(split, settings("csv"), "a"))[-1].total == 1000


def test_a_plan_holds_the_version_of_every_range(tmp_path):
    _, listed = write(tmp_path, "csv")
    splits = split_files([(listed.path, listed.size, listed.version)], settings("csv"), 4096)
    folder = RunFolder(str(tmp_path / "out"), "20260101T000000-abcdef")
    write_plan(folder, splits, {})
    (shard,) = read_plan(folder)["shards"]
    found = list(read_shard(folder, shard))
    assert found == splits and len(found) > 2
    assert {r.version for s in found for r in s.ranges} == {listed.version}


# Whole runs.

WAITING = []
"""What is done to the input once the run that is planned reads its first block."""


def pass_on(rows: pa.RecordBatch) -> pa.RecordBatch:
    """A preprocessing function, called with every block."""
    while WAITING and WAITING[0]():
        WAITING.pop(0)
    return rows


@pytest.fixture
def job(tmp_path, model):
    jobs.write_people(tmp_path / "data", 4, 1000)
    for path in (tmp_path / "data").iterdir():
        os.utime(path, ns=(10**18, 10**18))
    yield jobs.job(
        tmp_path, model("multiply"), preprocess=f"{__name__}:pass_on", engine={"workers": 1}, output={"position": True}
    )
    WAITING.clear()


def once_planned(output, change):
    def do():
        planned = list(output.glob("_staging/*/plan.json"))
        if planned:
            change()
        return bool(planned)

    WAITING.append(do)


@every_change
def test_a_run_whose_input_changes_fails_with_what_changed_and_publishes_nothing(tmp_path, job, kind):
    # The first splits come from one of them; both are read further later on.
    changed = [tmp_path / "data" / f"people-{n}.csv" for n in range(4)]
    once_planned(tmp_path / "out", lambda: [CHANGES[kind][0](path) for path in changed])
    with pytest.raises(Exception, match=r"(since|after) the files were listed") as error:
        run(job)
    code, (said,) = explain(error.value)
    assert code == 6 and said.endswith(REMEDY) and re.search(CHANGES[kind][1], said), said
    assert said.startswith(str(tmp_path / "data" / "people-"))
    assert not jobs.staged(tmp_path / "out")  # the split that was being read has none either
    assert not any((tmp_path / "out" / name).exists() for name in ("manifest.json", "failed.json", "predictions"))


def test_a_worker_that_begins_after_the_change_refuses(tmp_path, job):
    planned = jobs.plan(job)
    (tmp_path / "data" / "people-2.csv").touch()
    shards = read_plan(planned.folder)["shards"]
    with pytest.raises(Exception, match=r"(since|after) the files were listed") as error:
        jobs.run_locally(lambda p: build(p, planned.steps, planned.write, shards, job.rejects.as_budget()), 1)
    code, (said,) = explain(error.value)
    assert code == 6 and "people-2.csv has changed" in said
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_put_back_as_it_was_the_run_goes_on(tmp_path, job):
    path = tmp_path / "data" / "people-3.csv"
    once_planned(tmp_path / "out", lambda: path.rename(path.with_suffix(".away")))
    with pytest.raises(Exception, match=r"people-3\.csv was removed after the files were listed"):
        run(job)
    path.with_suffix(".away").rename(path)
    assert run(job).code == 0
    found = jobs.predictions(tmp_path / "out")
    assert len(found) == 4000 == found["id"].n_unique()


def test_left_as_it_is_the_next_launch_names_it_and_restart_reads_it_anew(tmp_path, job):
    paths = [tmp_path / "data" / f"people-{n}.csv" for n in range(4)]

    def change():
        paths[1].write_text(paths[1].read_text().replace(".5,", ".25,"))
        paths[2].unlink()

    once_planned(tmp_path / "out", change)
    with pytest.raises(Exception, match=r"(since|after) the files were listed"):
        run(job)
    (tmp_path / "data" / "people-9.csv").write_text("id,age,income,score\nnew,1,2,0.5\n")
    with pytest.raises(Changed) as refusal:
        run(job)
    (said,) = refusal.value.problems
    assert "(input files changed)" in said and "--restart" in said
    assert re.search(r"people-1\.csv: size [\d,]+ -> [\d,]+ bytes, modified", said)
    assert "people-2.csv no longer exists" in said and "people-9.csv is new" in said
    assert run(job, restart=True).code == 0
    sources = jobs.predictions(tmp_path / "out").group_by("source").len().sort("source")
    assert [(os.path.basename(s), n) for s, n in sources.rows()] == [
        ("people-0.csv", 1000), ("people-1.csv", 1000), ("people-3.csv", 1000), ("people-9.csv", 1),
    ]  # fmt: skip


def test_of_many_changed_files_three_are_named(tmp_path, job):
    assert run(job).code == 0
    for n in range(4):
        os.utime(tmp_path / "data" / f"people-{n}.csv", ns=(1, 10**18 + 1))
    with pytest.raises(Changed) as refusal:
        run(job)
    (said,) = refusal.value.problems
    assert said.count("people-") == 3 and "; and 1 more: write elsewhere" in said
    # Where the seconds are the same, it is told to the nanosecond.
    assert "modified 2001-09-09 01:46:40.000000000Z -> 2001-09-09 01:46:40.000000001Z" in said


def test_a_replacement_that_fails_is_told_why_and_leaves_what_stood(tmp_path, job):
    first = run(job).manifest
    os.utime(tmp_path / "data" / "people-0.csv", ns=(1, 1))
    once_planned(tmp_path / "out", (tmp_path / "data" / "people-3.csv").touch)
    with pytest.raises(Exception, match=r"people-3\.csv has changed since the files were listed"):
        run(job, replace=True)
    assert jobs.manifest(tmp_path / "out") == first


def test_the_command_says_it_in_one_sentence(tmp_path, model):
    jobs.write_people(tmp_path / "data", 4, 1000)
    path = tmp_path / "data" / "people-0.csv"
    (tmp_path / "changing.py").write_text(
        "import os, pathlib\n"
        "def touch(rows):\n"
        "    if 'LEAVE' not in os.environ and list(pathlib.Path('out').glob('_staging/*/plan.json')):\n"
        f"        os.utime({str(path)!r}, ns=(1, 1))\n"
        "    return rows\n"
    )
    job = jobs.write_job(tmp_path, model("multiply"), preprocess="changing:touch")
    stat = path.stat()
    done = jobs.cli("run", job, cwd=tmp_path)
    assert done.returncode == 6 and "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"{path} has changed since the files were listed" in said and "1970-01-01 00:00:00Z" in said
    assert "(in step" not in said
    done = jobs.cli("run", job, cwd=tmp_path)
    assert done.returncode == 6 and "input files changed" in done.stderr and str(path) in done.stderr
    # As it was, and left alone.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = jobs.cli("run", job, cwd=tmp_path, LEAVE="1")
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(tmp_path / "out" / "predictions" / "*.parquet")["id"].n_unique() == 4000
