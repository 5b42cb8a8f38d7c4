"""What is published opens in pandas, polars and DuckDB as it is, with the right types and values."""

import base64
import json
import math

import duckdb
import jobs
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.run.launch import run
from beam_score.transforms.arrays.nested import to_arrow
from beam_score.transforms.output.json_lines import json_pieces, to_json_lines
from beam_score.transforms.output.parts import LinesEncoder
from beam_score.transforms.rows.as_json import columns_json, lines_of

NAN, INF = float("nan"), float("inf")

# A kept column of every kind that a contract knows, beside a model whose output is not always finite.
KEPT = {
    "id": ({"dtype": "string"}, pa.string(), ["a", 'é\u2028\t"', "日本", ""]),
    "count": ({"dtype": "int64"}, pa.int64(), [1, -(2**63), 2**63 - 1, 0]),
    "small": ({"dtype": "uint8"}, pa.uint8(), [0, 255, 7, 1]),
    "flag": ({"dtype": "bool"}, pa.bool_(), [True, False, True, False]),
    "half": ({"dtype": "float16"}, pa.float16(), [0.5, 1.0, -2.0, 0.25]),
    "wide": ({"dtype": "float64"}, pa.float64(), [0.1, 1e300, -1e-300, 3.0]),
    "raw": ({"dtype": "bytes", "required": False}, pa.binary(), [b"plain", b"\xff\x00", None, b""]),
    "pair": ({"dtype": "int32", "shape": [2]}, pa.list_(pa.int32(), 2), [[1, 2], [3, 4], [5, 6], [7, 8]]),
    "words": ({"dtype": "string", "shape": [None]}, pa.list_(pa.string()), [["x"], [], ["y", "é"], ["z"]]),
}
X = [1.0, 0.0, -1.0, 1.0]
Y = [0.0, -INF, NAN, 0.0]  # its logarithm


@pytest.fixture(scope="module")
def published(tmp_path_factory, model):
    """`published(**output)` is the output folder of a run, made once for each setting."""
    folder, made = tmp_path_factory.mktemp("published"), {}
    columns = {name: pa.array(np.array(v, "float16") if name == "half" else v, t) for name, (_, t, v) in KEPT.items()}
    (folder / "data").mkdir()
    pq.write_table(pa.table({"x": pa.array(X, pa.float32()), **columns}), folder / "data" / "rows.parquet")

    def publish(**output):
        key = json.dumps(output)
        if key not in made:
            made[key] = folder / str(len(made))
            contract = {"x": {"dtype": "float32"}, **{name: rules for name, (rules, _, _) in KEPT.items()}}
            job = jobs.settings(
                folder,
                model("nan_out"),
                input={"files": str(folder / "data" / "*.parquet")},
                output={"path": str(made[key]), "keep": [*KEPT], **output},
                columns=contract,
            )
            assert run(jobs.parse_job(job | {"inputs": {}})).code == 0
        return made[key]

    return publish


def documented_fields(document):
    """The fields that a document lists, before its first section."""
    lines = (jobs.ROOT / "docs" / document).read_text().partition("\n## ")[0].splitlines()
    return [line.split("`")[1] for line in lines if line.startswith("| `")]


def plain(value):
    """A value as plain Python, whoever read it."""
    if isinstance(value, np.ndarray | list | tuple | pl.Series):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return bytes(value) if isinstance(value, bytearray) else value


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert plain(a) == b or (isinstance(b, float) and math.isnan(b) and math.isnan(a)), (found, expected)


def test_parquet_in_pandas(published):
    frame = pd.read_parquet(published() / "predictions")
    for name, (_, _, values) in KEPT.items():
        same(frame[name], values)
    same(frame["y"], Y)
    types = {n: str(t) for n, t in frame.dtypes.items()}
    assert types["count"] == "int64" and types["small"] == "uint8" and types["flag"] == "bool"
    assert types["half"] == "float16" and types["wide"] == "float64" and types["y"] == "float32"


def test_parquet_in_polars(published):
    frame = pl.read_parquet(published() / "predictions" / "*.parquet")
    for name, (_, _, values) in KEPT.items():
        same(frame[name], values)
    same(frame["y"], Y)
    assert frame.schema["y"] == pl.Float32 and frame.schema["raw"] == pl.Binary and frame.schema["small"] == pl.UInt8
    assert frame.schema["pair"] == pl.Array(pl.Int32, 2) and frame.schema["words"] == pl.List(pl.String)


def test_parquet_in_duckdb(published):
    table = duckdb.sql(f"SELECT * FROM '{published()}/predictions/*.parquet'")
    types = dict(zip(table.columns, map(str, table.types), strict=True))
    assert types["id"] == "VARCHAR" and types["count"] == "BIGINT" and types["small"] == "UTINYINT"
    assert types["flag"] == "BOOLEAN" and types["raw"] == "BLOB" and types["y"] == "FLOAT"
    assert types["pair"] == "INTEGER[]" and types["words"] == "VARCHAR[]"
    rows = table.fetchall()
    for at, name in enumerate(table.columns):
        same([row[at] for row in rows], Y if name == "y" else KEPT[name][2])


def test_parquet_itself_holds_plain_lists(published):
    # What Spark and all others go by: a fixed size is known to Arrow's own metadata alone.
    (path,) = (published() / "predictions").iterdir()
    schema = str(pq.ParquetFile(path).schema)
    assert "fixed_size" not in schema
    assert "optional group field_id=-1 pair (List)" in schema and "optional group field_id=-1 words (List)" in schema
    bare = pq.read_table(path, arrow_extensions_enabled=False)
    assert bare.num_rows == 4


def as_text(values):
    """Bytes as JSON Lines shows them."""
    return [
        v if not isinstance(v, bytes) else v.decode() if v != b"\xff\x00" else {"b64": base64.b64encode(v).decode()}
        for v in values
    ]


@pytest.mark.parametrize("reader", ["json", "pandas", "polars", "duckdb"])
def test_json_lines_with_null_for_what_is_not_finite(published, reader):
    (path,) = (published(format="jsonl") / "predictions").iterdir()
    rows = {
        "json": lambda: [json.loads(line, parse_constant=pytest.fail) for line in path.read_bytes().split(b"\n")[:-1]],
        "pandas": lambda: pd.read_json(path, lines=True, dtype=False).astype(object).to_dict("records"),
        "polars": lambda: pl.read_ndjson(path).to_dicts(),
        "duckdb": lambda: duckdb.read_json(str(path)).pl().to_dicts(),
    }[reader]()
    for name, (_, _, values) in KEPT.items():
        found = [row[name] for row in rows]
        if name == "raw" and reader in ("polars", "duckdb"):  # a column of text and objects is JSON text there
            found = [json.loads(v) if v and v[0] in '{"' else v for v in found]
        if reader == "pandas":
            found = [None if isinstance(v, float) and math.isnan(v) else v for v in found]
        if not (reader == "pandas" and name == "count"):  # pandas reads large integers through floats
            same(found, as_text(values))
    found = [row["y"] for row in rows]
    assert [v is None or v != v for v in found] == [False, True, True, False]
    assert [found[0], found[3]] == [0.0, 0.0]
    marks = [row["y_not_finite"] for row in rows]
    assert [m if isinstance(m, str) else None for m in marks] == [None, "-Infinity", "NaN", None]


def test_json_lines_with_strings_for_what_is_not_finite(published):
    (path,) = (published(format="jsonl", not_finite="string") / "predictions").iterdir()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_bytes().split(b"\n")[:-1]]
    assert [row["y"] for row in rows] == [0.0, "-Infinity", "NaN", 0.0]
    assert "y_not_finite" not in rows[0]
    for name, (_, _, values) in KEPT.items():
        same([row[name] for row in rows], as_text(values))


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_position_gives_source_and_row(published, format_):
    folder = published(format=format_, position=True, keep=["id"]) / "predictions"
    frame = (pl.read_parquet if format_ == "parquet" else pl.read_ndjson)(folder / f"*.{format_}")
    assert frame["row"].to_list() == [0, 1, 2, 3] and frame.schema["row"] == pl.Int64
    (source,) = set(frame["source"])
    assert source.endswith("data/rows.parquet")
    assert frame.columns[:4] == ["id", "source", "row", "y"]


def test_a_marker_that_meets_a_column_is_refused(tmp_path, model):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("x,y_not_finite\n1,2\n")
    job = jobs.settings(
        tmp_path, model("nan_out"), columns={"x": {"dtype": "float32"}}, inputs={}, output={"keep": ["y_not_finite"]}
    )
    assert run(jobs.parse_job(job)).code == 0  # Parquet has no such column
    job["output"] |= {"format": "jsonl", "path": str(tmp_path / "jsonl")}
    with pytest.raises(JobError, match="y_not_finite"):
        run(jobs.parse_job(job))


def test_string_outputs_of_any_bytes(tmp_path, model):
    (tmp_path / "data").mkdir()
    texts = [b"abc", b"\xff\xfe", "é".encode()]
    lines = [json.dumps({"text": {"b64": base64.b64encode(t).decode()}}) for t in texts]
    (tmp_path / "data" / "a.jsonl").write_text("\n".join(lines))
    job = jobs.settings(
        tmp_path, model("strings"), input={"files": str(tmp_path / "data" / "*")}, columns={"text": {"dtype": "bytes"}}
    ) | {"inputs": {}}
    for format_ in ("parquet", "jsonl"):
        job["output"] = {"path": str(tmp_path / format_), "format": format_}
        assert run(jobs.parse_job(job)).code == 0
    upper = [b"ABC", b"\xff\xfe", "é".encode()]  # only ASCII has an upper case there
    assert jobs.predictions(tmp_path / "parquet")["upper"].to_list() == upper
    (path,) = (tmp_path / "jsonl" / "predictions").iterdir()
    found = [json.loads(line)["upper"] for line in path.read_text().splitlines()]
    assert found == ["ABC", {"b64": base64.b64encode(upper[1]).decode()}, "é"]


# Any column that Parquet may hold can be kept, and then written as JSON Lines.

COLUMNS = {
    "floats in lists": (pa.array([[1.0, NAN], None, [INF]]), [[1.0, None], None, [None]], ["NaN", None, "Infinity"]),
    "floats in fixed lists": (
        pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, NAN, -INF, 5.0, 6.0]), 2),
        [[1.0, 2.0], [None, None], [5.0, 6.0]],
        [None, "NaN", None],
    ),
    "floats two deep": (
        pa.array([[[1.0], [INF, NAN]], [], [[2.0]]]),
        [[[1.0], [None, None]], [], [[2.0]]],
        ["Infinity", None, None],
    ),
    "nulls among floats": (pa.array([None, NAN, 1.0], pa.float32()), [None, None, 1.0], [None, "NaN", None]),
    "only nulls": (pa.nulls(3, pa.float32()), [None] * 3, [None] * 3),
    "half floats": (pa.array(np.array([1.5, NAN, 2], "float16")), [1.5, None, 2.0], [None, "NaN", None]),
    "bytes": (pa.array([b"a", b"\xff", None]), ["a", {"b64": "/w=="}, None], None),
    "large bytes": (pa.array([b"a", b"\xff", None], pa.large_binary()), ["a", {"b64": "/w=="}, None], None),
    "fixed bytes": (pa.array([b"ab", b"\xff\xff", None], pa.binary(2)), ["ab", {"b64": "//8="}, None], None),
    "bytes in lists": (pa.array([[b"a", None], None, [b"\xff"]]), [["a", None], None, [{"b64": "/w=="}]], None),
    "bytes in fixed lists": (
        pa.FixedSizeListArray.from_arrays(pa.array([b"a", b"b", b"\xff"]), 1),
        [["a"], ["b"], [{"b64": "/w=="}]],
        None,
    ),
    "structs": (
        pa.array([{"a": 1, "b": b"\xff"}, None, {"a": None, "b": b"x"}]),
        [{"a": 1, "b": {"b64": "/w=="}}, None, {"a": None, "b": "x"}],
        None,
    ),
    "decimals": (pa.array(["1.20", None, "3"]).cast(pa.decimal128(9, 2)), ["1.20", None, "3.00"], None),
    "dates": (pa.array([0, None, 19_000], pa.date32()), ["1970-01-01", None, "2022-01-08"], None),
    "dictionaries": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"], None),
    "unsigned": (pa.array([2**64 - 1, 0, None], pa.uint64()), [2**64 - 1, 0, None], None),
}


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_has_its_json(name, sliced):
    column, expected, marks = COLUMNS[name]
    if sliced:
        column, expected, marks = column.slice(1), expected[1:], marks and marks[1:]
    lines = to_json_lines(pa.table({"c": column}), "null").decode()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines.splitlines()]
    assert [row["c"] for row in rows] == expected
    assert [row.get("c_not_finite") for row in rows] == (marks or [None] * len(rows))
    spelled = [
        json.loads(line, parse_constant=pytest.fail)["c"]
        for line in to_json_lines(pa.table({"c": column}), "string").splitlines()
    ]
    if marks is None:
        assert spelled == expected
    else:
        assert [m is None or m in json.dumps(s) for m, s in zip(marks, spelled, strict=True)] == [True] * len(marks)


@pytest.mark.parametrize("dtype", [np.float32, object])
@pytest.mark.parametrize(("shape", "row"), [((2, 0), []), ((2, 2, 0), [[], []]), ((2, 0, 3), [])])
def test_tensors_without_values_are_empty_lists_in_json(dtype, shape, row):
    lines = to_json_lines(pa.table({"c": to_arrow(np.zeros(shape, dtype))}), "null").splitlines()
    assert [json.loads(line)["c"] for line in lines] == [row, row]


def test_dead_letters_have_one_schema_whatever_the_format(tmp_path, model):
    documented = documented_fields("dead-letters.md")

    data = tmp_path / "data"
    data.mkdir()
    (data / "a.csv").write_bytes(b'id,age,income,score\n1,2,3,0.5\n2,old,3,0.5\n3,\xff,3,0.5\n4,5\n5,6,7,"0.5\n')
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "100%"})
    assert run(job).code == 0
    (path,) = (tmp_path / "out" / "rejected").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(line) for line in lines] == [documented] * len(lines)
    assert sorted((x["row"], x["reason"]) for x in lines) == [
        (1, "wrong_type"), (2, "wrong_type"), (3, "ragged_row"), (4, "unterminated_quote"),
    ]  # fmt: skip
    by_row = {x["row"]: x for x in lines}
    assert by_row[1]["payload"] == "2,old,3,0.5" and by_row[1]["payload_encoding"] == "utf-8"
    assert base64.b64decode(by_row[2]["payload"]) == b"3,\xff,3,0.5" and by_row[2]["payload_encoding"] == "base64"
    frame = pl.read_ndjson(path)
    assert frame.columns == documented and frame.schema["row"] == pl.Int64
    assert frame.schema["errors"] == pl.List(
        pl.Struct({"column": pl.String, "reason": pl.String, "message": pl.String})
    )
    assert list(pd.read_json(path, lines=True).columns) == documented
    table = duckdb.read_json(str(path))
    assert table.columns == documented
    assert table.filter("reason = 'wrong_type'").shape[0] == 2


def test_many_rows_are_encoded_as_text_in_pieces():
    table = pa.table({"n": range(40_000), "text": [f'{i} "quoted"' for i in range(40_000)]})
    encoder = LinesEncoder(lambda rows: json_pieces(rows, "null"))
    assert encoder.add(table.slice(0, 0)) == 0
    size = encoder.add(table)
    pieces = encoder.end()
    assert len(pieces) == 8 + 8 + 4 and sum(map(len, pieces)) == size
    assert [json.loads(line) for line in b"".join(pieces).splitlines()] == table.to_pylist()


def test_lines_are_those_of_polars_own_writer():
    texts = ["a", 'quote " and \\ and \n', "ä€😀", "", None, "x" * 100_000]
    count = len(texts)
    table = pa.table(
        {
            'a "name"': texts,
            "float": [0.1, -0.0, 1e300, 1e-300, None, 3.0],
            "float32": pa.array([0.1, -0.0, 1e30, 1e-30, None, 3.0], pa.float32()),
            "integer": pa.array([2**63, 0, 1, 2, 3, None], pa.uint64()),
            "boolean": [True, False, None, True, False, True],
            "null": pa.nulls(count),
            "date": pa.array([0, 1, -1, None, 20_000, 2], pa.date32()),
            "time": pa.array([0, 1, -1, None, 10**15, 2], pa.timestamp("us")),
            "decimal": pa.array([None, 1, 2, 3, 4, 5], pa.decimal128(10, 2)),
            "list": [[1.5, None], [], None, [2.0], [3.0], [4.0]],
            "errors": [[{"column": None, "reason": text}] for text in texts],
        }
    )
    assert lines_of(table) == pl.from_arrow(table).write_ndjson().encode()
    assert lines_of(table.slice(2, 2)) == pl.from_arrow(table.slice(2, 2)).write_ndjson().encode()
    assert lines_of(table.slice(0, 0)) == b""


@pytest.mark.parametrize("name", ["a", "", "#", 'q"', "back\\slash", "line\n", "{", "},{", "\x7f", "x" * 5_000])
def test_lines_are_told_apart_whatever_is_in_them(name):
    text = json.dumps([{name: 1}, {name: 2}], separators=(",", ":"))
    texts = ["},{", text, f'"{text}', text + '\\"', "},{" + json.dumps(name) + ":", "\n"] * 500
    inner = pa.array([[{name: i}, {name: None}] for i in range(len(texts))])
    for columns in ({name: texts}, {name: texts, "more": texts}, {name: inner}, {"more": texts, name: inner}):
        table = pa.table(columns)
        lines = lines_of(table).split(b"\n")
        assert lines.pop() == b""
        assert [json.loads(line) for line in lines] == table.to_pylist()
        payloads = columns_json(table.combine_chunks().to_batches()[0])
        assert [json.loads(payload) for payload in payloads.to_pylist()] == table.to_pylist()
