"""Files in a store of objects are read as those on disk are: the same rows, positions and reasons, at few requests."""

from __future__ import annotations

import gzip
import os
import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jobs
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring
from faulty_proxy import Fault
from reading import read_settings

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.prepare.replay import load_replay
from beam_score.pipeline.printing.terminal import Console
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.run.output_state import Changed
from beam_score.pipeline.show.check import check_job
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings, format_named
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.formats.reading.splitting import split_files
from beam_score.transforms.framing.tfrecord import frame
from beam_score.transforms.listing.files import list_files
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.scoring.validate import validate
from beam_score.transforms.stores import held as object_held
from beam_score.transforms.stores import object_file as object_reads
from beam_score.transforms.stores.fetch import StoreFails
from beam_score.transforms.stores.object_file import ObjectFile
from beam_score.transforms.stores.objects import ObjectPath
from beam_score.transforms.stores.registry import store_of
from beam_score.transforms.stores.versions import InputChanged

ROWS = 2000
CONTRACT = Contract(columns={"x": Column(dtype="int64", range=(0, 10**6)), "text": Column(dtype="string")})


def put(store, files: Mapping[str, bytes]) -> None:
    """Objects, by their keys."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda f: store_of(store.scheme).write(ObjectPath.parse(store.url(f[0])), [f[1]]), files.items()))


def upload(store, folder: Path) -> None:
    """All files of a folder, under their relative names."""
    put(store, {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})


def settings(format_: str, **options) -> ReadSettings:
    return read_settings(format_.split(".")[0], CONTRACT, max_block_bytes=8192, max_block_rows=300, **options)


@pytest.fixture
def small_pieces(monkeypatch):
    """All that is done for large objects is done for small ones."""
    monkeypatch.setattr(object_reads, "HEAD_BYTES", 512)
    monkeypatch.setattr(object_held, "WHOLE_BYTES", 1024)
    monkeypatch.setattr(object_reads, "PIECE_BYTES", 4096)
    monkeypatch.setattr(object_reads, "FIRST_PIECE_BYTES", 700)
    monkeypatch.setattr("beam_score.transforms.formats.parquet.ahead.HELD_BYTES", 20_000)
    monkeypatch.setattr("beam_score.transforms.formats.parquet.ahead._LEAST_PIECE", 1000)
    monkeypatch.setattr("beam_score.transforms.formats.parquet.ahead._GAP_BYTES", 100)
    monkeypatch.setattr("beam_score.transforms.formats.parquet.ahead.PIECE_BYTES", 4096)


# The same rows.


def clean() -> list[dict]:
    return [{"x": i, "text": f"the text of row {i}"} for i in range(ROWS)]


def csv_text() -> bytes:
    lines = ["x,text", *(f"{r['x']},{r['text']}" for r in clean())]
    lines[700:703] = ["n/a,no number", "1,2,3", '5,"over\ntwo lines"']
    return "\n".join([*lines, '7,"never closed']).encode()


def jsonl_text() -> bytes:
    lines = [f'{{"x": {r["x"]}, "text": "{r["text"]}"}}' for r in clean()]
    lines[700:703] = ['{"x": "n/a", "text": "no number"}', "{", '{"x": -1, "text": "out of range"}']
    return "\n".join(lines).encode()


def tfrecords(folder: Path) -> bytes:
    content = bytearray(scoring.write(folder / "tfrecord", clean(), "tfrecord").read_bytes())
    at = 0
    for _ in range(300):
        at += 16 + int.from_bytes(content[at : at + 8], "little")
    content[at + 20] ^= 1  # in the data of a record
    return bytes(content + frame(b"no example"))


def parquet(folder: Path, damaged: bool = False, rows: int = ROWS, group: int = 250) -> bytes:
    folder.mkdir(exist_ok=True)
    rows_ = clean()[:rows]
    table = pa.table({"unused": [os.urandom(8) for _ in rows_], "x": [r["x"] for r in rows_]})
    table = table.append_column("text", pa.array([None if i == 5 else r["text"] for i, r in enumerate(rows_)]))
    path = folder / "made.parquet"
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True, use_dictionary=False)
    content = bytearray(path.read_bytes())
    if damaged:
        chunk = pq.read_metadata(path).row_group(3).column(1)
        content[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    return bytes(content)


def cases(folder: Path) -> dict[str, bytes]:
    return {
        "csv": csv_text(),
        "jsonl": jsonl_text(),
        "tfrecord": tfrecords(folder),
        "parquet": parquet(folder, damaged=True),
        "csv.gz": gzip.compress(csv_text()),
        "csv.cut.gz": gzip.compress(csv_text())[:-200],
        "jsonl.gz": gzip.compress(jsonl_text(), 0),
        "tfrecord.gz": gzip.compress(tfrecords(folder), 0),
        "csv.header": b"no,such,columns\n1,2,3\n",
        "jsonl.utf16": jsonl_text().decode().encode("utf-16"),
        "parquet.footer": parquet(folder)[:-9],
        "csv.empty": b"",
    }


def found(pattern: str, format_: str) -> list[tuple]:
    """(file, row, values) of good rows, and the dead letters, that come of all splits of some files."""
    files, problems = list_files([pattern])
    assert not problems and files
    options = settings(format_)
    rows = []
    for split in split_files([(f.path, f.size, f.version) for f in files], options, 30_000):
        blocks = [validate(b, CONTRACT, True) for b in read_split(split, options, "attempt")]
        assert blocks[-1].total == sum(b.count for b in blocks)
        for block in blocks:
            name = os.path.basename(block.source)
            rows += [(name, *r.values()) for r in block.rows.select([ROW, "x", "text"]).to_pylist()]
            rows += [(name, r.pop("row"), *map(str, r.values())) for r in block.rejected.to_pylist()]
    return sorted(rows, key=lambda r: (r[0], r[1], len(r), str(r)))


@pytest.mark.usefixtures("small_pieces")
def test_rows_and_dead_letters_are_those_of_local_files(tmp_path, store):
    for name, content in cases(tmp_path / "made").items():
        folder = tmp_path / "all" / name
        folder.mkdir(parents=True)
        (folder / f"rows.{name}").write_bytes(content)
    upload(store, tmp_path / "all")
    for folder in sorted((tmp_path / "all").iterdir()):
        local = found(str(folder), folder.name)
        assert found(store.url(folder.name), folder.name) == local, folder.name
        assert local or folder.name == "csv.empty"
        assert len(local) >= ROWS // 2 or "." in folder.name


def test_a_file_is_a_file(store, small_pieces):
    content = os.urandom(50_000)
    put(store, {"x": content})
    with ObjectFile(store.url("x")) as file:
        file.stream(10_000, 30_000)
        for at in (0, 100, 511, 512, 9_999, 10_000, 14_095, 29_999, 30_000, 49_400, 49_999, 50_000, 60_000, 5):
            file.seek(at)
            assert file.read(3) == content[at : at + 3]
            assert file.read(9000) == content[at + 3 : at + 9003]
        file.seek(-10, os.SEEK_END)
        buffer = bytearray(20)
        assert file.readinto(buffer) == 10 and bytes(buffer[:10]) == content[-10:]
        file.seek(0)
        assert file.read() == content


# Patterns.

TREE = (
    "a.csv b.csv B.csv c.jsonl _SUCCESS .hidden.csv day=1/a.csv day=2/a.csv day=2/_b.csv day=10/deep/er/a.csv "
    "_tmp/a.csv _tmp/.x.csv _tmp/_y.csv odd/[x].csv odd/x.csv odd/x*.csv"
)
PATTERNS = (
    "* *.csv ?.csv [ab].csv [!a].csv day=*/a.csv day=?/*.csv **/*.csv ** day=10/**/a.csv day=2 _tmp/*.csv _tmp/.* "
    "odd/[x].csv odd/x*.csv odd/* _SUCCESS .hidden.csv day=1/a.csv *[ day=*/ [a-c]*.csv **/er/* d*/**"
)


def test_a_pattern_matches_what_it_would_on_disk(tmp_path, store):
    for name in TREE.split():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    upload(store, tmp_path)
    for pattern in [*PATTERNS.split(), ""]:
        local, local_problems = list_files([str(tmp_path / "data" / pattern)])
        files, problems = list_files([store.url(f"data/{pattern}")])
        assert [f.path.removeprefix(f"{store.url('data')}/") for f in files] == [
            f.path.removeprefix(f"{tmp_path}/data/") for f in local
        ], pattern
        assert [bool(problems), [f.size for f in files]] == [bool(local_problems), [f.size for f in local]], pattern


def test_what_is_not_there_is_told(store):
    put(store, {"data/people.csv": b"x\n", "data/_x.csv": b"x\n"})
    near, nothing, passed_over, folder, bucket, no_bucket = (
        list_files([pattern])[1][0]
        for pattern in (
            store.url("data/peple.csv"),
            store.url("data/*.parquet"),
            store.url("data/*x.csv"),
            store.url("dota/*.csv"),
            f"{store.scheme}://buck*/x",
            f"{store.scheme}://no-such-bucket-{os.getpid()}/x/*",
        )
    )
    assert near == f"input.files: {store.url('data/peple.csv')} does not exist; did you mean 'people.csv'?"
    assert (
        nothing == f"input.files: no object matches {store.url('data')}/*.parquet; searched under {store.url('data')}/"
    )
    assert "(names that begin with _ or . are skipped)" in passed_over
    assert folder.endswith(f"; there is nothing under {store.url('dota')}/")
    assert bucket.endswith("/x: the bucket must not be a pattern, found 'buck*'")
    assert re.search(r"/x/\*: no (such object or )?bucket", no_bucket)


def test_only_what_a_pattern_has_in_common_is_listed_by_pages(store):
    put(store, {f"data/part-{i:04d}.csv": b"x\n" for i in range(1100)} | {f"other/{i}": b"" for i in range(30)})
    store.proxy.reset()
    files, problems = list_files([store.url("data/part-*.csv")])
    assert len(files) == 1100 and not problems
    assert files == sorted(files, key=lambda f: f.path)
    assert len(store.proxy.requests) <= 4
    assert not any("other" in r.target for r in store.proxy.requests)


# Versions.


@pytest.fixture
def listed(store):
    """A file of one range in a store, as it was listed."""
    put(store, {"rows.csv": csv_text()})
    return list_files([store.url("rows.csv")])[0][0]


def split_of(file):
    (split,) = split_files([(file.path, file.size, file.version)], settings("csv"), 10**9)
    return split


def test_an_object_replaced_or_removed_before_it_is_read_fails_its_split(store, listed):
    split = split_of(listed)
    put(store, {"rows.csv": b"x,text\n1,another\n"})
    with pytest.raises(InputChanged, match=r"rows.csv has changed since the files were listed \(size .*version .* -> "):
        list(read_split(split, settings("csv"), "a"))
    store_of(store.scheme).remove(ObjectPath.parse(store.url("rows.csv")))
    with pytest.raises(
        InputChanged, match=r"rows.csv was removed after the files were listed \(it had [\d,]+ bytes\): put it"
    ):
        list(read_split(split, settings("csv"), "a"))


@pytest.mark.usefixtures("small_pieces")
def test_an_object_replaced_while_it_is_read_fails_its_split(store, listed):
    blocks = read_split(split_of(listed), settings("csv"), "a")
    assert next(blocks).rows.num_rows
    put(store, {"rows.csv": csv_text().replace(b"text of", b"TEXT OF")})
    given = []
    with pytest.raises(InputChanged, match=r"version .* -> .*: put it back as it was and run the same command"):
        given.extend(blocks)
    assert all(b.total is None for b in given)
    assert not any("TEXT OF" in str(b.rows["text"]) for b in given)


def test_a_replaced_object_makes_another_job(tmp_path, store, model):
    put(store, {"people.csv": b"id,age,income,score\n1,20,3,0.5\n"})
    job = jobs.job(tmp_path, model("multiply"), input={"files": store.url("*.csv")})
    assert run(job).code == 0
    assert run(job).code == 0
    put(store, {"people.csv": b"id,age,income,score\n2,20,3,0.5\n"})
    with pytest.raises(Changed, match=r"people.csv: version \S+ -> \S+"):
        run(job)


# Requests.


def reads(store) -> Counter[str]:
    """How often each object was asked for. The proxy may write a request down after it was answered."""
    asked = [r.target for r in store.proxy.requests if r.method == "GET"]
    return Counter(t.partition("?")[0] for t in asked if re.search(r"/data(/|%2F)\d", t))


@pytest.mark.parametrize("format_", ["csv", "jsonl", "tfrecord", "parquet", "csv.gz"])
def test_a_small_file_costs_one_request_at_launch_and_one_to_read(tmp_path, store, format_):
    content = cases(tmp_path)[format_]
    put(store, {f"data/{i}.{format_}": content for i in range(3)})
    files, _ = list_files([store.url("data")])
    options = settings(format_)
    for file in files:
        format_named(options.format).check(file.path, options, file.version)
    (split,) = split_files([(f.path, f.size, f.version) for f in files], options, 10**9)
    assert max(reads(store).values()) == 1
    assert sum(b.count for b in read_split(split, options, "a")) >= 3 * ROWS
    assert len(reads(store)) == 3 and max(reads(store).values()) == 2


def test_row_groups_are_read_by_few_large_requests(tmp_path, store, monkeypatch):
    monkeypatch.setattr(object_held, "WHOLE_BYTES", 0)
    put(store, {"data/0.parquet": parquet(tmp_path, group=100)})
    files, _ = list_files([store.url("data")])
    options = settings("parquet")
    splits = split_files([(f.path, f.size, f.version) for f in files], options, 10**9)
    assert sum(b.count for b in read_split(splits[0], options, "a")) == ROWS
    # 20 row groups of 2 columns that are read: a request for each group, and one for the footer.
    assert 10 < sum(reads(store).values()) <= 21


# Faults.


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("format_", ["csv", "jsonl.gz", "parquet"])
def test_a_store_that_fails_now_and_then_changes_nothing(tmp_path, store, format_):
    name = f"rows.{format_}"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(cases(tmp_path)[format_])
    upload(store, tmp_path / "data")
    faults = [
        Fault("status", "GET", name, nth=2, status=503),
        Fault("reset", "GET", name, nth=3),
        Fault("truncate", "GET", name, nth=4),
        Fault("status", "GET", name, nth=6, status=429),
    ]
    with store.proxy.failing(*faults):
        assert found(store.url("*"), format_) == found(str(tmp_path / "data"), format_)
    assert [f.done for f in faults] == [1, 1, 1, 1]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("format_", ["csv", "jsonl.gz", "jsonl", "tfrecord", "parquet"])
def test_a_store_that_is_down_costs_no_row(tmp_path, store, format_, monkeypatch):
    monkeypatch.setenv("BEAM_SCORE_STORE_RETRY_S", "0.1")
    put(store, {f"rows.{format_}": cases(tmp_path)[format_]})
    (file,), _ = list_files([store.url("*")])
    (split,) = split_files([(file.path, file.size, file.version)], settings(format_), 10**9)
    blocks = read_split(split, settings(format_), "a")
    given = [next(blocks)]
    with store.proxy.failing(Fault("status", times=10**9)), pytest.raises(StoreFails, match=r"rows\.\S+: "):
        given.extend(blocks)
    assert all(b.total is None and "unreadable" not in b.rejected["reason"].to_pylist() for b in given)


def test_a_job_that_meets_a_store_that_is_down_fails_in_a_sentence_and_goes_on_later(
    tmp_path, store, model, monkeypatch
):
    monkeypatch.setenv("BEAM_SCORE_STORE_RETRY_S", "0.1")
    jobs.write_people(tmp_path / "data", files=4, rows=500, bad_every=50)
    for name in ("people-0.csv", "people-1.csv", "people-2.csv"):
        put(store, {f"data/{name}": (tmp_path / "data" / name).read_bytes()})
    files = [store.url("data"), str(tmp_path / "data" / "people-3.csv")]
    sections = {"rejects": {"budget": "50%"}, "output": {"keep": ["id"], "position": True}}
    job = jobs.job(tmp_path, model("multiply"), input={"files": files}, **sections)
    # Looked at once at launch, by its header; tried; then read.
    fault = Fault("status", "GET", "people-2", nth=2, times=10**9)
    with store.proxy.failing(fault), pytest.raises(Exception) as error:  # noqa: PT011 as Beam hands it over
        run(job)
    code, told = explain(error.value)
    assert code == ExitCode.FAILED and len(told) == 1 and "people-2.csv" in told[0], told
    assert run(job).code == 0
    by_id = pl.read_parquet(tmp_path / "out" / "predictions" / "*.parquet")
    assert by_id.height == by_id["id"].n_unique() == 4 * 500 - 4 * 10
    assert {os.path.dirname(s) for s in by_id["source"].unique()} == {store.url("data"), str(tmp_path / "data")}
    assert {letter["reason"] for letter in jobs.dead_letters(tmp_path / "out")} == {"wrong_type"}
    inputs = {i["path"]: i for i in jobs.manifest(tmp_path / "out")["inputs"]}
    assert all((i["object_version"] is None) == (i["inode"] is not None) for i in inputs.values())


def test_a_store_that_is_down_at_launch_is_told(tmp_path, store, model, monkeypatch):
    monkeypatch.setenv("BEAM_SCORE_STORE_RETRY_S", "0.1")
    put(store, {"people.csv": b"id,age,income,score\n1,20,3,0.5\n"})
    job = jobs.job(tmp_path, model("multiply"), input={"files": store.url("*.csv")})
    for nth in (1, 2, 3):
        with store.proxy.failing(Fault("status", nth=nth, times=10**9)), pytest.raises(StoreFails) as error:
            run(job)
        assert explain(error.value)[0] == ExitCode.FAILED and len(explain(error.value)[1]) == 1
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_dead_letters_of_a_store_are_replayed_from_it(tmp_path, store, model):
    put(store, {"people.csv": b"id,age,income,score\n1,20,3,0.5\n2,200,3,0.5\n3,30,3,0.5\n"})
    job = jobs.job(tmp_path, model("multiply"), input={"files": store.url("*.csv")}, rejects={"budget": "50%"})
    assert run(job).manifest["counts"]["rejected"] == 1
    mended = ["columns.age.range=[0, 300]"]
    settings_, parent = load_replay(str(tmp_path / "out"), mended, by="source")
    assert run(settings_, parent=parent).manifest["counts"]["predicted"] == 1
    put(store, {"people.csv": b"id,age,income,score\n1,20,3,0.5\n2,250,3,0.5\n3,30,3,0.5\n"})
    with pytest.raises(JobError, match=r"people\.csv has changed since run"):
        load_replay(str(tmp_path / "out"), mended, str(tmp_path / "again"), by="source")


def test_of_very_many_files_the_heads_of_some_are_read_at_launch_and_no_header_is_lost(
    tmp_path, store, model, monkeypatch, capsys
):
    monkeypatch.setattr("beam_score.pipeline.prepare.preflight._SAMPLE", 3)
    rows = [f"{i},{200 if i % 2 else 20},3,0.5" for i in range(9)]
    put(store, {f"data/{i}.csv": f"id,age,income,score\n{row}\n".encode() for i, row in enumerate(rows)})
    put(store, {"data/5.csv": b"id,income,score,age\n5,3,0.5,200\n", "data/6.csv": b"id,income\n6,3\n"})
    budget = {"budget": "90%", "files": 1}
    job = jobs.job(tmp_path, model("multiply"), input={"files": store.url("data")}, rejects=budget)
    assert prepare(job).looked_at == 3
    assert sorted(target[-5] for target in reads(store)) == ["0", "4", "8"]
    check_job(job, Console())
    assert "headers or footers of 3 were read" in capsys.readouterr().out

    manifest = run(job).manifest
    assert manifest["counts"] | {"predicted": 4, "rejected": 4, "stretches": 1} == manifest["counts"]
    texts = manifest["headers"]
    headers = [None if i["header"] is None else texts[i["header"]] for i in manifest["inputs"]]
    usual = "id,age,income,score"
    # Of the files whose rows are all good, only those that were looked at.
    assert headers == [usual, usual, None, usual, usual, "id,income,score,age", None, usual, usual]
    for i in range(9):
        store_of(store.scheme).remove(ObjectPath.parse(store.url(f"data/{i}.csv")))
    settings_, parent = load_replay(str(tmp_path / "out"), ["columns.age.range=[0, 300]"], by="payload")
    assert run(settings_, parent=parent).manifest["counts"]["predicted"] == 4
