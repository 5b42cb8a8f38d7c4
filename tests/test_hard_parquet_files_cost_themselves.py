"""Parquet files that end the process, or its memory, when they are read carelessly: each costs itself, and no more."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_files import CASES, write_encrypted
from reading import read_settings

from beam_score.transforms.common.bounds import Bounds
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import UnusableFile
from beam_score.transforms.formats.parquet import sizes as parquet_sizes
from beam_score.transforms.formats.parquet.pages import BadPage, parse_header
from beam_score.transforms.formats.parquet.reader import FORMAT as PARQUET
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.rows.block import ROW

ROOT = Path(__file__).parents[1]


def reading(columns, **more):
    made = {n: Column(**c) if isinstance(c, dict) else Column(dtype=c) for n, c in columns.items()}
    return read_settings("parquet", Contract(columns=made), **more)


def outcome(path, settings):
    """(rows that could be read, [(rows, reason, message)] of the dead letters): cut as at launch, read as in a run."""
    size = os.path.getsize(path)
    split = Split(0, tuple(PARQUET.cut(str(path), size, 100, settings)))
    rows, count, letters = 0, 0, []
    for block in read_split(split, settings, "attempt"):  # one at a time: some tests watch the memory
        rows, count = rows + block.rows.num_rows, count + block.count
        letters += [(r["rows"], r["reason"], r["message"]) for r in block.rejected.to_pylist()]
    assert block.total == count
    return rows, letters


# Footers that pyarrow cannot be asked about.


def test_a_footer_that_aborts_pyarrow_is_read_where_its_used_columns_are_sound():
    path = str(CASES / "aborts-in-pyarrow.parquet")
    settings = reading({"age": "float64", "name": "string"})
    PARQUET.check(path, settings)
    assert outcome(path, settings) == (900, [])


def test_a_footer_that_aborts_pyarrow_in_a_used_column_is_a_dead_letter():
    path = CASES / "aborts-in-pyarrow.parquet"
    rows, letters = outcome(path, reading({"age": "float64"}, keep=("unused",)))
    ((count, reason, message),) = letters
    assert (rows, count, reason) == (0, 900, "unreadable") and "histogram" in message


def encrypted(tmp_path, **more):
    table = pa.table({"id": range(5), "age": [1.5] * 5, "secret": list("abcde")})
    return write_encrypted(tmp_path / "a.parquet", table, ["secret"], row_group_size=2, **more)


def test_an_encrypted_column_that_is_not_used_does_not_matter(tmp_path):
    path = encrypted(tmp_path)
    PARQUET.check(path, reading({"age": "float64"}))
    assert outcome(path, reading({"age": "float64"}, keep=("id",))) == (5, [])


@pytest.mark.parametrize("columns", [{"secret": "string"}, {"age": "float64"}])
def test_an_encrypted_column_that_is_used_makes_the_file_unusable(tmp_path, columns):
    path = encrypted(tmp_path)
    settings = reading(columns, keep=None)
    with pytest.raises(UnusableFile) as error:
        PARQUET.check(path, settings)
    assert (error.value.reason, error.value.column) == ("unreadable", "secret")
    assert "column 'secret' is encrypted" in error.value.message
    rows, ((count, reason, message),) = outcome(path, settings)
    assert (rows, count, reason) == (0, None, "unreadable") and "'secret' is encrypted" in message


def test_an_encrypted_footer_makes_the_file_unusable(tmp_path):
    path = encrypted(tmp_path, footer=True)
    with pytest.raises(UnusableFile, match="unreadable"):
        PARQUET.check(path, reading({"age": "float64"}))
    assert outcome(path, reading({"age": "float64"}))[1][0][1] == "unreadable"


def test_a_schema_that_cannot_be_makes_the_file_unusable_where_it_is_used():
    path = str(CASES / "negative-list-size.parquet")
    used = reading({"w": {"dtype": "int32", "shape": (2,)}})
    with pytest.raises(UnusableFile, match="unreadable: its schema is damaged: column 'w' is of lists of -16"):
        PARQUET.check(path, used)
    for settings in (used, reading({"age": "float64"}, keep=None), reading({"age": "float64"}, keep=("w",))):
        assert [letter[1] for letter in outcome(path, settings)[1]] == ["unreadable"]
    with pytest.raises(UnusableFile):
        PARQUET.columns_of(path, reading({}, keep=None))
    assert PARQUET.columns_of(path, reading({}, keep=("age",)))["age"] == pa.float64()


# Memory.


def peak_mb(path, columns, limit_mb=1500):
    """(rows, dead letters, MB at the most) of reading a file in a process of its own, whose memory is limited."""
    code = (
        "import json, resource, sys\n"
        "import test_hard_parquet_files_cost_themselves as t\n"
        "from beam_score.transforms.formats.parquet.reader import FORMAT as PARQUET\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = t.outcome(sys.argv[1], t.reading(json.loads(sys.argv[2]), payload=False))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps([*found, (after - before) // 1024]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), json.dumps(columns)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/tests/kit"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit_mb << 20, limit_mb << 20)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_page_that_claims_gigabytes_is_not_given_them():
    path = CASES / "large-memory.parquet"
    columns = {"id": "int64", "age": "float64", "name": "string", "w": {"dtype": "int32", "shape": [2]}}
    rows, letters, mb = peak_mb(path, columns)
    assert rows == 0 and [(n, reason) for n, reason, _ in letters] == [(100, "unreadable")] * 9 and mb < 100


def test_texts_of_a_dictionary_are_decoded_a_few_at_a_time(tmp_path):
    # 47 kB in the file, and 2 GB decoded.
    pq.write_table(pa.table({"s": ["a" * 1_000_000] * 2000}), tmp_path / "a.parquet")
    assert os.path.getsize(tmp_path / "a.parquet") < 100_000
    rows, letters, mb = peak_mb(tmp_path / "a.parquet", {"s": "string"})
    assert (rows, letters) == (2000, []) and mb < 400


def test_the_longest_text_of_a_dictionary_decides_how_many_rows_are_decoded(tmp_path, monkeypatch):
    texts = [f"{i}" for i in range(2000)] * 30 + ["a" * 100_000]
    table = pa.table({"s": texts, "l": [[t, t] for t in texts]})
    pq.write_table(table, tmp_path / "a.parquet", dictionary_pagesize_limit=1 << 24)
    path, seen = str(tmp_path / "a.parquet"), []
    decided = parquet_sizes.rows_at_once

    def noted(*args):
        seen.append(decided(*args))
        return seen[-1]

    monkeypatch.setattr("beam_score.transforms.formats.parquet.reader.rows_at_once", noted)
    for column, expected in (("s", 104), ("l", 52)):
        rule = "string" if column == "s" else {"dtype": "string", "shape": (2,)}
        settings = reading({column: rule}, bounds=Bounds(decoded_bytes=10 << 17))
        rows = [r for c in PARQUET.read(FileRange(path, 0), settings) for r in c.rows.to_pylist()]
        assert [r[ROW] for r in rows] == list(range(len(texts)))
        assert [r[column] for r in rows] == table[column].to_pylist()
        assert abs(seen[-1] - expected) <= 1


def test_a_run_of_list_elements_beyond_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_sizes, "MOST_BYTES", 1 << 20)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [[0] * 1_000_000, [1]], "y": [1, 2]}), path)
    settings = reading({"x": {"dtype": "int64", "shape": (None,)}}, max_block_bytes=1 << 16)
    rows, ((count, reason, message),) = outcome(path, settings)
    assert (rows, count, reason) == (0, 2, "unreadable") and "'x.list.element' decodes to" in message
    assert outcome(path, reading({"y": "int64"})) == (2, [])
    # As many elements, but of many rows: these are read.
    pq.write_table(pa.table({"x": [[0] * 1000] * 1000}), path)
    assert outcome(path, settings) == (1000, [])


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_what_pages_say_is_what_was_written(tmp_path, compression, version):
    from beam_score.transforms.formats.parquet.file import open_parquet
    from beam_score.transforms.formats.parquet.file import reading as bytes_of

    count = 20_000
    table = pa.table({"x": [None, 7] * (count // 2), "s": [f"text {i}" for i in range(count)], "l": [[1, 2]] * count})
    path = str(tmp_path / "a.parquet")
    options = {"dictionary_pagesize_limit": 50_000, "write_statistics": True, "write_page_checksum": True}
    pq.write_table(table, path, compression=compression, data_page_version=version, **options)
    with open_parquet(path, None) as opened, bytes_of(opened) as read_at:
        chunks = opened.chunks(0, ["x", "s", "l"], [0, 1, 2])
        x, s, lists = (chunk.pages(read_at, True) for chunk in chunks)
    assert (x.values, x.entries, x.dictionary, x.plain) == (count, 1, 8, 0)
    assert lists.values == 2 * count and lists.entries == 2
    assert s.values == count and 50_000 <= s.dictionary < 70_000 and s.plain > 50_000  # the dictionary was given up
    assert all(p.largest <= c.decoded for p, c in zip((x, s, lists), chunks, strict=True))


NESTED_COUNT = b"\x15\x00\x15\x02\x15\x02\x2c\x1c\x15\x02\x00\x00\x00"
"""A header of a data page whose number of values is a struct."""


def test_a_page_header_with_a_struct_in_place_of_a_number_is_a_dead_letter(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": list(range(100))}), path, use_dictionary=False)
    at = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + len(NESTED_COUNT)] = NESTED_COUNT
    path.write_bytes(data)
    rows, [(count, reason, message)] = outcome(path, reading({"x": "int64"}))
    assert (rows, count, reason) == (0, 100, "unreadable") and "a struct in place of a number" in message


@pytest.mark.parametrize("data", [b"", b"\x15", b"\x15\x00" + b"\xff" * 20, b"\x1c" * 50, b"\x00", b"\x18\xff\xff\x7f"])
def test_what_is_no_page_header_is_refused(data):
    with pytest.raises((BadPage, IndexError)):
        parse_header(data)


# At `init`, where all columns are looked at.


def test_the_first_rows_are_of_the_columns_that_can_be_read(tmp_path):
    from beam_score.pipeline.draft.first_rows import first_rows
    from beam_score.pipeline.job.mistakes import JobError

    found = first_rows(encrypted(tmp_path), "parquet")
    assert found.rows == [{"id": i, "age": 1.5} for i in range(5)] and found.names == ("id", "age")
    for name in ("aborts-in-pyarrow.parquet", "large-memory.parquet", "negative-list-size.parquet"):
        with pytest.raises(JobError, match=f"{name} cannot be read as Parquet: row group 0 is damaged"):
            first_rows(str(CASES / name), "parquet")


# A process that dies all the same.


def test_the_file_that_is_read_is_noted_while_pyarrow_has_it(tmp_path):
    from beam_score.runners.ended import told
    from beam_score.transforms.model import in_flight

    register = in_flight.make_register()
    before = in_flight._register
    try:
        in_flight.open_register(register)
        with in_flight.reading(str(tmp_path / "a.parquet")):
            noted = in_flight.read_register(register)
        assert in_flight.read_register(register) == []
    finally:
        in_flight._register = before
    said = told("the scoring process", 6, noted)
    assert "ended by SIGABRT" in said and f"while it read {tmp_path / 'a.parquet'}:" in said and "model" not in said


# Wide files.


def test_a_wide_file_takes_time_in_proportion_to_its_columns(tmp_path):
    import time

    from parquet_files import write_wide

    seconds = {}
    for columns in (500, 4000):
        path = write_wide(tmp_path / f"{columns}.parquet", columns)
        settings = reading({f"c{i}": "int64" for i in range(columns)})
        taken = []
        for _ in range(3):
            began = time.process_time()
            PARQUET.check(path, settings)
            assert outcome(path, settings) == (3, [])
            taken.append(time.process_time() - began)
        seconds[columns] = min(taken)
    # Eight times the columns; it was sixty times the time.
    assert seconds[4000] < 24 * seconds[500], seconds
