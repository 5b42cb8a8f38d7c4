"""Each rule of docs/semantics on Parquet: what is accepted, what is refused, and why."""

import datetime
import decimal
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from reading import read_settings

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.run.launch import run
from beam_score.transforms.common.bounds import Bounds
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import UnusableFile
from beam_score.transforms.formats.parquet.reader import FORMAT as PARQUET
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import FAULTS, known_rows

D = decimal.Decimal
NAN, INF = float("nan"), float("inf")


def reading(columns, **more):
    contract = Contract(
        columns={name: Column(**c) if isinstance(c, dict) else Column(dtype=c) for name, c in columns.items()}
    )
    return read_settings("parquet", contract, **more)


def written(path, table, **options):
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    return str(path)


def outcome(path, settings, split_bytes=None):
    """Every row as {number: values or (column, reason) pairs}, and the stretches."""
    size = len(pathlib.Path(path).read_bytes())
    ranges = PARQUET.cut(path, size, split_bytes, settings) if split_bytes else [FileRange(path, size)]
    rows, stretches = {}, []
    for range_ in ranges:
        for chunk in PARQUET.read(range_, settings):
            for name, column in settings.contract_columns.items():
                assert chunk.rows.schema.field(name).type == column.arrow_type
            chunk.rows.validate(full=True)
            for row in chunk.rows.to_pylist():
                number, faults = row.pop(ROW), row.pop(FAULTS, None)
                assert number not in rows
                rows[number] = [(f["column"], f["reason"]) for f in faults] if faults else row
            stretches += [(r["row"], r["rows"], r["reason"]) for r in chunk.rejected.to_pylist()]
    return rows, stretches


def one(tmp_path, array, column, **more):
    """What becomes of the single column `x`: a value, or the reason of its fault, for each row."""
    path = written(tmp_path / "one.parquet", {"x": array})
    rows, stretches = outcome(path, reading({"x": column}, **more))
    assert not stretches
    return [rows[i][0][1] if isinstance(rows[i], list) else rows[i]["x"] for i in range(len(array))]


def same(found, expected):
    return len(found) == len(expected) and all(
        type(a) is type(b) and (a == b or (a != a and b != b)) for a, b in zip(found, expected, strict=True)
    )


BIG = 2**53 + 1
VALUES = [
    # Integers by value, wider and narrower, exact beyond 2^53.
    (pa.array([1, -128, None], pa.int8()), "int64", [1, -128, None]),
    (pa.array([127, 128, -129, None, 0], pa.int64()), "int8", [127, "out_of_range", "out_of_range", None, 0]),
    (pa.array([-1, 5], pa.int64()), "uint64", ["out_of_range", 5]),
    (pa.array([2**64 - 1, 2**63, 7], pa.uint64()), "int64", ["out_of_range", "out_of_range", 7]),
    (pa.array([2**64 - 1, BIG], pa.uint64()), "uint64", [2**64 - 1, BIG]),
    (pa.array([BIG, None], pa.int64()), "int64", [BIG, None]),
    # To float: the nearest float64, rounded to the dtype.
    (pa.array([BIG, 1], pa.int64()), "float64", [float(BIG), 1.0]),
    (pa.array([16777217, None], pa.int32()), "float32", [16777216.0, None]),
    (pa.array([65504, 70000], pa.int32()), "float16", [65504.0, "out_of_range"]),
    (
        pa.array([D("0.1"), D("123456789012345678.123456789"), None], pa.decimal128(38, 9)),
        "float64",
        [0.1, 123456789012345678.123456789, None],
    ),
    (pa.array([D("0.10")], pa.decimal128(5, 2)), "float32", [float(np.float32(0.1))]),
    (
        pa.array([0.1, 1e39, 1e-300, NAN, INF, -INF, None]),
        "float32",
        [float(np.float32(0.1)), "out_of_range", 0.0, NAN, INF, -INF, None],
    ),
    (pa.array([0.1], pa.float32()), "float64", [float(np.float32(0.1))]),
    (pa.array([1e5, 0.5, 65519.0], pa.float32()), "float16", ["out_of_range", 0.5, 65504.0]),
    (pa.array(np.array([1.5, 2], np.float16)), "float16", [1.5, 2.0]),
    (pa.array(np.array([1.5, 2], np.float16)), "float32", [1.5, 2.0]),
    # Float to integer, only by value.
    (
        pa.array([7.0, 7.5, -0.0, NAN, INF, 2.0**63, -(2.0**63), None]),
        "int64",
        [7, "wrong_type", 0, "not_finite", "not_finite", "out_of_range", -(2**63), None],
    ),
    (pa.array([255.0, 256.0, -1.0, 255.5]), "uint8", [255, "out_of_range", "out_of_range", "wrong_type"]),
    (pa.array([2.0**64, 2.0**63], pa.float32()), "uint64", ["out_of_range", 2**63]),
    (pa.array(np.array([3, 3.5], np.float16)), "int8", [3, "wrong_type"]),
    # Booleans.
    (pa.array([True, False, None]), "bool", [True, False, None]),
    # Text and bytes.
    (pa.array(["a", "é", None, "", "\0"]), "string", ["a", "é", None, "", "\0"]),
    (pa.array(["a", "é", None], pa.large_string()), "string", ["a", "é", None]),
    (pa.array(["a", "b" * 20], pa.string_view()), "string", ["a", "b" * 20]),
    (pa.array(["a", "é", None, "a"]).dictionary_encode(), "string", ["a", "é", None, "a"]),
    (
        pa.array([b"a", b"\xff", "é".encode(), None, b"\xed\xa0\x80"]),
        "string",
        ["a", "bad_encoding", "é", None, "bad_encoding"],
    ),
    (pa.array([b"ab", b"\xff\xff"], pa.binary(2)), "string", ["ab", "bad_encoding"]),
    (pa.array([b"\xff", b"", None], pa.large_binary()), "bytes", [b"\xff", b"", None]),
    (pa.array(["é", None]), "bytes", ["é".encode(), None]),
    # A column of nulls only.
    (pa.nulls(2), "int32", [None, None]),
    (pa.nulls(1), {"dtype": "string", "shape": (2,)}, [None]),
    # Lists.
    (
        pa.array([[1, 2], [1], None, [], [1, 2, 3], [None, 1], [300, 1], [3, 4]]),
        {"dtype": "int8", "shape": (2,)},
        [[1, 2], "wrong_shape", None, "wrong_shape", "wrong_shape", "missing_value", "out_of_range", [3, 4]],
    ),
    (pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)), {"dtype": "float32", "shape": (2,)}, [[1.0, 2.0], None]),
    (
        pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)),
        {"dtype": "float32", "shape": (3,)},
        ["wrong_shape", None],
    ),
    (
        pa.array([["a"], ["b", "c"], [], None], pa.large_list(pa.large_string())),
        {"dtype": "string", "shape": (None,)},
        [["a"], ["b", "c"], [], None],
    ),
    (pa.array([[b"a", b"\xff"], [b"c", b"d"]]), {"dtype": "string", "shape": (2,)}, ["bad_encoding", ["c", "d"]]),
    (
        pa.array([[[1, 2], [3, 4]], [[1, 2], [3]], [[1, 2], None], [[1, 2]], None, [[5, 6], [7, None]]]),
        {"dtype": "float32", "shape": (2, 2)},
        [[[1.0, 2.0], [3.0, 4.0]], "wrong_shape", "missing_value", "wrong_shape", None, "missing_value"],
    ),
    (
        pa.array([[[1], [2, 3]], [], None, [[]]]),
        {"dtype": "int64", "shape": (None, None)},
        [[[1], [2, 3]], [], None, [[]]],
    ),
    (
        pa.array([[[1, 2]], [[1, 2], [3]], [[1, 2], [3, 4]]]),
        {"dtype": "int64", "shape": (None, 2)},
        [[[1, 2]], "wrong_shape", [[1, 2], [3, 4]]],
    ),
    (
        pa.array([[1.5, NAN], [NAN, 1.5], [1.0, 2.0]]),
        {"dtype": "int64", "shape": (2,)},
        ["wrong_type", "not_finite", [1, 2]],
    ),
]


@pytest.mark.parametrize("case", range(len(VALUES)))
def test_a_value_is_exact_or_a_fault(tmp_path, case):
    array, column, expected = VALUES[case]
    found = one(tmp_path, array, column)
    assert same(found, expected), found
    # A row's fate depends on that row alone.
    for size in (1, 2, 3):
        assert same(one(tmp_path, array, column, max_block_rows=size), expected)
    for i in range(len(array)):
        assert same(one(tmp_path, array.slice(i, 1), column), expected[i : i + 1])


MISFITS = [
    (pa.array([True]), "int64"),
    (pa.array([1.0]), "bool"),
    (pa.array(["1"]), "float32"),
    (pa.array([1]), "string"),
    (pa.array([datetime.date(2020, 1, 1)]), "int32"),
    (pa.array([datetime.datetime(2020, 1, 1)]), "int64"),
    (pa.array([{"a": 1}]), "int64"),
    (pa.array([D("1")], pa.decimal128(3, 0)), "int64"),
    (pa.array([[1]]), "int64"),
    (pa.array([1]), {"dtype": "int64", "shape": (1,)}),
    (pa.array([[1]]), {"dtype": "int64", "shape": (1, 1)}),
    (pa.array([[[1]]]), {"dtype": "int64", "shape": (1,)}),
    (pa.array([["a"]]), {"dtype": "int64", "shape": (1,)}),
]


@pytest.mark.parametrize(("array", "column"), MISFITS, ids=[f"{a.type} for {c}" for a, c in MISFITS])
def test_a_column_of_another_kind_makes_the_file_unusable(tmp_path, array, column):
    path = written(tmp_path / "a.parquet", {"x": array})
    with pytest.raises(UnusableFile) as error:
        PARQUET.check(path, reading({"x": column}))
    assert (error.value.reason, error.value.column) == ("wrong_type", "x")
    assert (
        str(array.type).replace("item", "element") in error.value.message
        and Column(**column if isinstance(column, dict) else {"dtype": column}).describe() in error.value.message
    )


def test_a_missing_column_is_named_with_its_near_miss(tmp_path):
    path = written(tmp_path / "a.parquet", {"Age": [1], "other": [2]})
    with pytest.raises(UnusableFile, match="missing_column: column 'age' is missing; did you mean 'Age'"):
        PARQUET.check(path, reading({"age": "int64"}))
    rows, _ = outcome(path, reading({"age": {"dtype": "int64", "required": False}, "other": "int64"}))
    assert rows == {0: {"age": None, "other": 2}}
    with pytest.raises(UnusableFile) as error:
        list(PARQUET.read(FileRange(path, 0), reading({"other": "int64"}, keep=("id",))))
    assert (error.value.reason, error.value.column) == ("missing_column", "id")


def test_a_contract_column_that_is_there_twice_makes_the_file_unusable(tmp_path):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["x", "x", "y"])
    path = written(tmp_path / "a.parquet", twice)
    with pytest.raises(UnusableFile) as error:
        PARQUET.check(path, reading({"x": "int64"}))
    assert (error.value.reason, error.value.column) == ("duplicate_key", "x")
    assert outcome(path, reading({"y": "int64"}))[0] == {0: {"y": 3}}


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"not parquet at all" * 10, b"PAR1" + b"\0" * 20 + b"\x10\0\0\0PAR1"]
)
def test_what_is_not_parquet_is_one_dead_letter(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    settings = reading({"x": "int64"})
    with pytest.raises(UnusableFile) as error:
        PARQUET.check(str(path), settings)
    assert error.value.reason == "unreadable"
    (range_,) = PARQUET.cut(str(path), len(content), 100, settings)
    blocks = list(read_split(Split(0, (range_,)), settings, "attempt"))
    assert [r["reason"] for b in blocks for r in b.rejected.to_pylist()] == ["unreadable"]


def test_a_file_that_is_not_there_is_an_error_and_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        PARQUET.check(str(tmp_path / "none.parquet"), reading({"x": "int64"}))


def test_extra_columns_are_ignored_kept_or_refused(tmp_path):
    path = written(
        tmp_path / "a.parquet",
        {"id": pa.array(["a"]).dictionary_encode(), "x": [1], "day": [datetime.date(2020, 1, 2)]},
    )
    columns = {"x": "int64"}
    assert outcome(path, reading(columns))[0] == {0: {"x": 1}}
    (chunk,) = PARQUET.read(FileRange(path, 0), reading(columns, keep=("day", "x")))
    assert chunk.rows.schema.names == [ROW, "x", "day"] and chunk.rows["day"].type == pa.date32()
    (chunk,) = PARQUET.read(FileRange(path, 0), reading(columns, keep=None))
    assert chunk.rows.schema.names == [ROW, "x", "id", "day"] and chunk.rows["id"].type == pa.string()
    with pytest.raises(UnusableFile) as error:
        PARQUET.check(path, reading(columns, keep=("day",), extra="reject"))
    assert (error.value.reason, error.value.column) == ("not_allowed", "id")
    PARQUET.check(path, reading(columns, keep=("day", "id"), extra="reject"))


def test_lists_of_a_fixed_size_with_nulls_keep_their_type(tmp_path):
    lists = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    days = pa.array([datetime.timedelta(1), None])
    path = written(tmp_path / "a.parquet", {"x": lists, "k": lists, "d": days})
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"x": {"dtype": "float64", "shape": (2,)}}, keep=("k", "d")))
    assert chunk.rows.drop_columns([ROW, "x"]).schema.types == [lists.type, days.type]
    assert chunk.rows.to_pylist()[1] == {ROW: 1, "x": None, "k": None, "d": None}
    assert chunk.rows["k"][0].as_py() == chunk.rows["x"][0].as_py() == [1.0, 2.0]


def test_views_of_text_and_bytes_are_read_and_shown_in_payloads(tmp_path):
    columns = {"x": pa.array(["1", "é"], pa.string_view()), "k": pa.array([b"a", None], pa.binary_view())}
    path = written(tmp_path / "a.parquet", columns)
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"x": "string"}, keep=("k",)))
    assert chunk.rows.to_pylist() == [{ROW: 0, "x": "1", "k": b"a"}, {ROW: 1, "x": "é", "k": None}]
    assert [json.loads(p) for p in chunk.origin.payloads(np.array([1])).to_pylist()] == [{"x": "é", "k": None}]


def test_names_with_dots_and_structs_do_not_meet(tmp_path):
    table = pa.table({"a.b": [1], "a": [{"b": 2}], "a.b.c": [3]})
    path = written(tmp_path / "a.parquet", table)
    assert outcome(path, reading({"a.b": "int64"}))[0] == {0: {"a.b": 1}}
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"a.b": "int64"}, keep=("a",)))
    assert chunk.rows.to_pylist() == [{ROW: 0, "a.b": 1, "a": {"b": 2}}]


def test_kept_text_that_is_not_utf8_costs_its_row(tmp_path):
    raw = pa.array([b"a", b"\xff", b"c"])
    broken = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), broken)
    path = written(tmp_path / "a.parquet", {"x": [1, 2, 3], "s": broken, "l": nested}, store_schema=False)
    assert outcome(path, reading({"x": "int64"}))[0][1] == {"x": 2}  # what is not used is not judged
    assert outcome(path, reading({"s": "string"}))[0] == {0: {"s": "a"}, 1: [("s", "bad_encoding")], 2: {"s": "c"}}
    rows, _ = outcome(path, reading({"x": "int64"}, keep=("s", "l")))
    assert rows == {
        0: {"x": 1, "s": "a", "l": ["a"]},
        1: [("s", "bad_encoding"), ("l", "bad_encoding")],
        2: {"x": 3, "s": "c", "l": ["c"]},
    }


def test_all_faults_of_a_row_are_listed_in_contract_order(tmp_path):
    path = written(tmp_path / "a.parquet", {"b": [7.5, 1.0], "a": [300, 1]})
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"a": {"dtype": "int8", "range": (0, 150)}, "b": "int32"}))
    assert chunk.rows[FAULTS].to_pylist() == [
        [
            {
                "column": "a",
                "reason": "out_of_range",
                "message": "column 'a' is 300, expected int8 (contract: range 0..150)",
            },
            {"column": "b", "reason": "wrong_type", "message": "column 'b' is 7.5, expected int32"},
        ],
        [],
    ]
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"a": "int8", "b": "int32"}, payload=False))
    assert chunk.origin is None
    assert not any("7.5" in f["message"] or "300" in f["message"] for f in chunk.rows[FAULTS][0].as_py())
    path = written(tmp_path / "b.parquet", {"a": [1.5]})
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"a": "int8"}))
    assert chunk.rows[FAULTS][0].as_py()[0]["reason"] == "wrong_type"


def test_a_long_value_is_cut_in_the_message(tmp_path):
    path = written(tmp_path / "a.parquet", {"a": [b"\xff" * 1000]})
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"a": "string"}))
    assert len(chunk.rows[FAULTS][0].as_py()[0]["message"]) < 120


def numbers(n):
    return pa.table(
        {"x": np.arange(n, dtype=np.int64), "y": np.arange(n) / 3, "unused": [f"u{i}" * 3 for i in range(n)]}
    )


def test_rows_do_not_depend_on_blocks_or_splits(tmp_path):
    table = numbers(1000).set_column(1, "y", pa.array([None if i % 7 == 0 else i / 2 for i in range(1000)]))
    path = written(tmp_path / "a.parquet", table, row_group_size=90)
    columns = {"x": "int64", "y": "int16"}
    whole = outcome(path, reading(columns))
    assert len(whole[0]) == 1000 and whole[0][1] == [("y", "wrong_type")] and whole[0][2] == {"x": 2, "y": 1}
    for more in ({"max_block_rows": 7}, {"max_block_bytes": 100}, {"max_block_rows": 1}):
        assert outcome(path, reading(columns, **more)) == whole
    for split_bytes in (1, 1000, 3000, 10**9):
        assert outcome(path, reading(columns), split_bytes) == whole
    ranges = PARQUET.cut(path, 12345, 1, reading(columns))
    assert [(r.start, r.end, r.first_row, r.index) for r in ranges] == [(i, i + 1, i * 90, i) for i in range(12)]
    (range_,) = PARQUET.cut(path, 123_456, 10**9, reading(columns))
    assert (range_.start, range_.end, range_.size) == (0, 12, 123_456) and 0 < range_.bytes < 12345


def test_blocks_are_bounded(tmp_path):
    path = written(tmp_path / "a.parquet", {"x": pa.array(["a" * 10_000] * 1000), "y": range(1000)})
    settings = reading({"x": "string"}, max_block_bytes=100_000, max_block_rows=300)
    sizes = [(c.rows.num_rows, c.rows.nbytes) for c in PARQUET.read(FileRange(path, 0), settings)]
    assert sum(n for n, _ in sizes) == 1000 and max(size for _, size in sizes) < 250_000
    settings = reading({"y": "int64"}, max_block_rows=300)
    assert [c.rows.num_rows for c in PARQUET.read(FileRange(path, 0), settings)] == [300, 300, 300, 100]


def test_no_rows_and_no_columns(tmp_path):
    path = written(tmp_path / "a.parquet", numbers(0))
    assert outcome(path, reading({"x": "int64"})) == ({}, [])
    assert len(PARQUET.cut(path, 10, 100, reading({"x": "int64"}))) == 1
    path = written(tmp_path / "b.parquet", numbers(5), row_group_size=2)
    assert outcome(path, reading({}))[0] == {i: {} for i in range(5)}


def damaged(path, column, group):
    """Flips a bit in the middle of one column chunk."""
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(column)
    data = bytearray(pathlib.Path(path).read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    pathlib.Path(path).write_bytes(data)


@pytest.mark.parametrize("more", [{}, {"max_block_rows": 3}, {"max_block_bytes": 50}])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_damaged_row_group_costs_itself(tmp_path, more, compression):
    options = {
        "row_group_size": 2000,
        "write_page_checksum": True,
        "use_dictionary": False,
        "compression": compression,
        "data_page_size": 1000,
    }
    path = written(tmp_path / "a.parquet", numbers(7000), **options)
    damaged(path, 1, 1)
    rows, stretches = outcome(path, reading({"x": "int64", "y": "float64"}, **more))
    assert sorted(rows) == [*range(2000), *range(4000, 7000)] and stretches == [(2000, 2000, "unreadable")]
    assert rows[4001] == {"x": 4001, "y": 4001 / 3}
    rows, stretches = outcome(path, reading({"x": "int64"}, **more))  # damage in an unused column
    assert len(rows) == 7000 and not stretches


def test_a_large_damaged_row_group_costs_itself(tmp_path):
    path = written(
        tmp_path / "a.parquet",
        numbers(6000),
        row_group_size=2000,
        write_page_checksum=True,
        use_dictionary=False,
        data_page_size=1000,
    )
    settings = reading({"x": "int64", "y": "float64"}, max_block_rows=50, bounds=Bounds(decoded_bytes=1000))
    assert len(outcome(path, settings)[0]) == 6000
    damaged(path, 0, 2)
    rows, stretches = outcome(path, settings)
    assert sorted(rows) == list(range(4000)) and stretches == [(4000, 2000, "unreadable")]


def test_the_payload_is_the_row_as_json(tmp_path):
    table = pa.table(
        {
            "x": pa.array([7.5, 0.5, NAN]),
            "raw": pa.array([b"\xff", b"a", b"b"]),
            "text": ['q"\n', "é", None],
            "day": pa.array([datetime.datetime(2020, 1, 2)] * 3, pa.timestamp("us")),
            "price": pa.array([D("1.10")] * 3),
            "list": [[1, None], [], None],
            "deep": pa.array([[{"a": b"\xff"}], None, []], pa.list_(pa.struct([("a", pa.binary())]))),
            "dict": pa.array(["a", "b", "a"]).dictionary_encode(),
            "half": pa.array(np.array([1.5, 2, INF], np.float16)),
            "unused": [1, 2, 3],
        }
    )
    path = written(tmp_path / "a.parquet", table)
    keep = tuple(n for n in table.schema.names if n not in ("x", "unused"))
    (chunk,) = PARQUET.read(FileRange(path, 0), reading({"x": "int64"}, keep=keep))
    assert chunk.origin.kind == "json"
    found = [json.loads(p) for p in chunk.origin.payloads(np.array([2, 0, 1])).to_pylist()]
    row = {"day": "2020-01-02 00:00:00.000000", "price": "1.10"}
    assert found == [
        row | {"x": "NaN", "raw": "b", "text": None, "list": None, "deep": [], "dict": "a", "half": "Infinity"},
        row
        | {
            "x": 7.5,
            "raw": {"b64": "/w=="},
            "text": 'q"\n',
            "list": [1, None],
            "deep": [{"a": {"b64": "/w=="}}],
            "dict": "a",
            "half": 1.5,
        },
        row | {"x": 0.5, "raw": "a", "text": "é", "list": [], "deep": None, "dict": "b", "half": 2.0},
    ]


@pytest.fixture(scope="module")
def fuzzable(tmp_path_factory):
    table = pa.table(
        {
            "x": pa.array([None if i % 5 == 0 else i for i in range(300)]),
            "s": [f"text {i % 50}" for i in range(300)],
            "l": pa.array([[i, i + 1] for i in range(300)]),
        }
    )
    folder = tmp_path_factory.mktemp("fuzz")
    path = written(folder / "good.parquet", table, row_group_size=100, write_page_checksum=True)
    return folder, pathlib.Path(path).read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=strategies.data())
def test_fuzzed_files_never_crash_and_never_give_wrong_values(fuzzable, data):
    folder, good = fuzzable
    content = bytearray(good)
    for _ in range(data.draw(strategies.integers(1, 4))):
        content[data.draw(strategies.integers(0, len(good) - 1))] = data.draw(strategies.integers(0, 255))
    content = content[: data.draw(strategies.none() | strategies.integers(0, len(good)))]
    path = folder / "bad.parquet"
    path.write_bytes(content)
    settings_ = reading({"x": "int64", "s": "string", "l": {"dtype": "int64", "shape": (2,)}}, max_block_rows=30)
    blocks = list(read_split(Split(0, (FileRange(str(path), len(content)),)), settings_, "attempt"))
    assert blocks[-1].total == sum(b.count for b in blocks)
    assert all(known_rows(b.rejected) >= 0 for b in blocks)


@pytest.mark.parametrize("keep", [["day", "k"], "all"])
def test_kept_columns_have_their_own_type_in_which_files_must_agree(keep, model, tmp_path):
    table = pa.table(
        {"k": pa.array([1, 2], pa.int64()), "day": pa.array([0, 1], pa.date32()), **{n: [0.5, 0.5] for n in "abc"}}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.set_column(0, "k", [["x", "y"]]), tmp_path / "b.parquet")
    job = parse_job(
        {
            "input": {"files": str(tmp_path / "*.parquet")},
            "model": {"path": model("multiply")},
            "columns": {n: {"dtype": "float32"} for n in "abc"},
            "inputs": {"inputs": {"pack": ["a", "b", "c"]}},
            "output": {"path": str(tmp_path / "out"), "keep": keep},
            "rejects": {"files": 1},
        }
    )
    outcome = run(job)
    assert outcome.manifest["counts"]["stretches_by_reason"] == {"wrong_type": 1}
    (path,) = (tmp_path / "out" / "predictions").iterdir()
    found = pq.read_table(path)
    assert (found.schema.field("k").type, found.schema.field("day").type) == (pa.int64(), pa.date32())
    assert found["k"].to_pylist() == [1, 2]
