"""Settings for how other programs write numbers and texts: blanks around text (`strip`), numbers in strings (`from`),
decimal commas (`decimal`)."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_csv_is_read_exactly import contract, fates, options, outcome, write

from beam_score.pipeline.draft.padded import begin_with_a_space, padded_columns, padded_hint
from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import _text_problems, fingerprint
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings

JOB = {"input": {"files": "x.csv"}, "model": {"path": "m"}, "output": {"path": "out"}}


def job(columns, **input_):
    return parse_job({**JOB, "input": {"files": "x.csv", **input_}, "columns": columns})


# strip


def test_stripped_text_has_no_blanks_around_it_and_is_looked_up_in_nulls_then(tmp_path):
    columns = contract(
        s={
            "dtype": "string",
            "required": False,
            "strip": True,
            "nulls": ["NA", "—"],
            "allowed": ["a", "b c", "NA", ""],
        },
        x={"dtype": "float32", "default": 0.5, "strip": True, "nulls": ["NA"]},
        t={"dtype": "string", "required": False, "nulls": ["NA"]},
    )
    lines = [
        "s,x,t",
        " a, 1,NA",
        "\tb c \t,2 , NA",
        " NA, NA,t",
        '" NA "," NA",t',
        "  ,,  ",
        "NA\t,  , ",
        '"\t",3,t',
        " — ,4,t",
    ]
    path = write(tmp_path, "\n".join(lines))
    for block in (1, 1 << 20):
        assert fates(path, options(columns, max_block_bytes=block)) == [
            {"s": "a", "x": 1.0, "t": None},
            {"s": "b c", "x": 2.0, "t": " NA"},
            {"s": None, "x": 0.5, "t": "t"},
            ("wrong_type", "x", b'" NA "," NA",t'),
            {"s": None, "x": 0.5, "t": "  "},
            {"s": None, "x": 0.5, "t": " "},
            {"s": "", "x": 3.0, "t": "t"},
            {"s": None, "x": 4.0, "t": "t"},
        ]
    path.write_bytes(path.read_bytes() + b"\n\xff,5,\xc3\xa9\n \xc3\xa9 ,6,t")
    found = fates(path, options(columns))
    assert found[7:] == [
        {"s": None, "x": 4.0, "t": "t"},
        ("bad_encoding", "s", b"\xff,5,\xc3\xa9"),
        ("not_allowed", "s", b" \xc3\xa9 ,6,t"),
    ]


def test_the_input_strips_all_text_unless_a_column_says_no(tmp_path):
    rules = job(
        {"s": {"dtype": "string"}, "t": {"dtype": "string", "strip": False}, "b": {"dtype": "bytes"}}, strip=True
    )
    path = write(tmp_path, "s,t,b,k\n a , a , a , k \n")
    settings = options(rules.contract, keep=("k",), strip=rules.input.strip)
    assert fates(path, settings) == [{"s": "a", "t": " a ", "b": b" a ", "k": "k"}]


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_text_is_stripped_in_every_format(tmp_path, format_):
    path = tmp_path / "rows"
    if format_ == "jsonl":
        path.write_text('{"s": " a "}\n{"s": "  "}\n{"s": null}\n')
    else:
        pq.write_table(pa.table({"s": [" a ", "  ", None]}), path)
    settings = ReadSettings(format_, contract(s={"dtype": "string", "required": False, "strip": True}))
    assert fates(path, settings) == [{"s": "a"}, {"s": ""}, {"s": None}]


def test_columns_whose_texts_all_begin_with_a_space_are_named():
    assert begin_with_a_space([" a", None, " b", 1])
    assert not begin_with_a_space([" a"])
    assert not begin_with_a_space([" a", "b"])
    assert padded_columns({"a": [" x", " y"], "b": ["x", " y"], "c": [1, 2]}) == ["a"]
    assert padded_hint(["a"]).startswith("all texts in column 'a' begin with a space")


# from: string


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_numbers_in_strings_are_read_by_the_rules_of_text(tmp_path, format_):
    columns = Contract(
        columns={
            "n": Column(**{"dtype": "int64", "from": "string", "range": [0, None], "required": False}),
            "f": Column(**{"dtype": "float32", "from": "string", "default": 0.5}),
            "b": Column(**{"dtype": "bool", "from": "string", "default": False}),
        }
    )
    rows = [
        ({"n": "9223372036854775807", "f": "1.5", "b": "TRUE"}, {"n": 2**63 - 1, "f": 1.5, "b": True}),
        ({"n": "9007199254740993", "f": " 1e2 ", "b": "0"}, {"n": 2**53 + 1, "f": 100.0, "b": False}),
        ({"n": None, "f": None, "b": None}, {"n": None, "f": 0.5, "b": False}),
        ({"n": "7.0", "f": "-0", "b": None}, {"n": 7, "f": "-0.0", "b": False}),
        ({"n": "9223372036854775808", "f": "1", "b": None}, ("out_of_range", "n")),
        ({"n": "-1", "f": "1", "b": None}, ("out_of_range", "n")),
        ({"n": "x", "f": "1", "b": None}, ("wrong_type", "n")),
        ({"n": "", "f": "1", "b": None}, ("wrong_type", "n")),
        ({"n": "1", "f": "NaN", "b": None}, ("not_finite", "f")),
        ({"n": "1", "f": "1,5", "b": None}, ("wrong_type", "f")),
    ]
    path = tmp_path / "rows"
    if format_ == "jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r, _ in rows))
    else:
        pq.write_table(pa.Table.from_pylist([r for r, _ in rows]), path)
    found = [f if isinstance(f, dict) else f[:2] for f in fates(path, ReadSettings(format_, columns))]
    assert found == [fate for _, fate in rows]


def test_numbers_that_are_none_in_a_string_are_refused_either_way(tmp_path):
    path = write(tmp_path, '{"n": 5}\n{"n": "5"}\n', "rows.jsonl")
    from_text = Contract(columns={"n": Column(**{"dtype": "int64", "from": "string"})})
    assert [f if isinstance(f, dict) else f[:2] for f in fates(path, ReadSettings("jsonl", from_text))] == [
        ("wrong_type", "n"),
        {"n": 5},
    ]
    _, letters = outcome(path, ReadSettings("jsonl", contract(n="int64")))
    assert [d["row"] for d in letters] == [1]
    assert "from: string" in letters[0]["message"]


# decimal


def test_decimal_commas_are_read_where_they_are_declared_and_told_where_not(tmp_path):
    columns = contract(a={"dtype": "float32", "decimal": ","}, n={"dtype": "int64", "decimal": ","}, p="float64")
    lines = [
        "a;n;p",
        "1,5;7,0;1.5",
        " -,5e1 ;7;2",
        "1.5;1;1",
        "1.234,5;1;1",
        "1,2,3;1;1",
        "1;1.0;1",
        "1;1;1,5",
        "3;4;5",
    ]
    path = write(tmp_path, "\n".join(lines))
    found = fates(path, options(columns, delimiter=";"))
    assert found == [
        {"a": 1.5, "n": 7, "p": 1.5},
        {"a": -5.0, "n": 7, "p": 2.0},
        *[("wrong_type", "a", lines[n].encode()) for n in (3, 4, 5)],
        ("wrong_type", "n", b"1;1.0;1"),
        ("wrong_type", "p", b"1;1;1,5"),
        {"a": 3.0, "n": 4, "p": 5.0},
    ]
    _, letters = outcome(path, options(columns, delimiter=";"))
    assert letters[-1]["message"] == (
        "column 'p' is '1,5', expected float64; for numbers with a decimal comma set decimal: \",\""
    )


# The job file.


def test_the_settings_are_refused_where_they_have_no_sense():
    for columns, said in (
        ({"b": {"dtype": "bytes", "strip": True}}, "strip is for"),
        ({"b": {"dtype": "string", "shape": [2], "strip": True}}, "strip is for"),
        ({"b": {"dtype": "string", "from": "string"}}, "from: string is for"),
        ({"b": {"dtype": "int8", "from": "int64"}}, "from"),
        ({"b": {"dtype": "string", "decimal": ","}}, "decimal is for numbers"),
        ({"b": {"dtype": "int8", "decimal": ";"}}, "decimal"),
    ):
        with pytest.raises(JobError, match=said):
            job(columns)
    for input_, columns, said in (
        ({"decimal": ","}, {"a": {"dtype": "int8"}}, "input.decimal is for numbers in text"),
        ({}, {"a": {"dtype": "int8", "decimal": ","}}, "columns.a.decimal"),
        ({}, {"a": {"dtype": "int8", "strip": True}}, "columns.a.strip"),
    ):
        (problem,) = _text_problems(job(columns, **input_), "parquet")
        assert said in problem
    assert not _text_problems(job({"a": {"dtype": "int8", "from": "string"}}, decimal=",", strip=True), "jsonl")
    with pytest.raises(JobError, match="escape and quote are the same"):
        job({}, csv={"escape": '"'})


def test_each_setting_makes_another_job():
    def print_(columns, **input_):
        return fingerprint(job(columns, **input_), [], "m", "s")

    plain = print_({"a": {"dtype": "int8"}})
    assert print_({"a": {"dtype": "int8", "strip": None}}, strip=False, decimal=".", csv={"escape": ""}) == plain
    for columns, input_ in (
        ({"a": {"dtype": "int8", "strip": True}}, {}),
        ({"a": {"dtype": "int8", "from": "string"}}, {}),
        ({"a": {"dtype": "int8", "decimal": ","}}, {}),
        ({"a": {"dtype": "int8"}}, {"strip": True}),
        ({"a": {"dtype": "int8"}}, {"decimal": ","}),
        ({"a": {"dtype": "int8"}}, {"csv": {"escape": "\\"}}),
    ):
        changed = print_(columns, **input_)
        assert {n for n in plain if changed[n] != plain[n]} <= {"contract", "input settings"}
        assert changed != plain
    again = parse_job(job({"a": {"dtype": "int8", "from": "string"}}).as_json())
    assert again.columns["a"].from_ == "string"
