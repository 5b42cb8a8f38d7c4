"""CSV: every rule of the semantics, through the reader and Validate; and the same outcome however a
file is read: in blocks of any size, in ranges, compressed, with quotes of every kind."""

import bz2
import gzip
import math
import resource
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from reading import read_settings

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings, UnusableFile, empty_rows
from beam_score.transforms.formats.csv import blocks as csv_blocks
from beam_score.transforms.formats.csv import ranges as csv_ranges
from beam_score.transforms.formats.csv.reader import FORMAT as CSV
from beam_score.transforms.formats.csv.reader import _Parser
from beam_score.transforms.formats.csv.typed import TypedColumns
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.framing import csv as csv_records
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.scoring.validate import validate

NOTHING = "missing_value"  # the fate of an empty field in a column without a default


def contract(**columns) -> Contract:
    return Contract(
        columns={
            n: c if isinstance(c, Column) else Column(**({"dtype": c} if isinstance(c, str) else c))
            for n, c in columns.items()
        }
    )


def options(columns: Contract, **changes) -> ReadSettings:
    return read_settings("csv", columns, **changes)


def outcome(path, settings: ReadSettings, ranges=None) -> tuple[dict, list]:
    """Reads and validates a file: the good rows by number, without the dead letters' rows; and the
    dead letters, in order of row. What must hold of every run is checked on the way."""
    ranges = ranges or [FileRange(str(path), path.stat().st_size)]
    rows, letters, counted, total = {}, [], 0, None
    for block in read_split(Split(0, tuple(ranges)), settings, "a"):
        assert total is None
        assert block.rows.num_rows <= settings.max_block_rows
        judged = validate(block, settings.columns, settings.payload)
        assert judged.count == block.count
        judged.rows.validate(full=True)
        judged.rejected.validate(full=True)
        assert judged.rows.schema.names == empty_rows(settings).schema.names
        for name, column in settings.columns.columns.items():
            assert judged.rows.schema.field(name).type == column.arrow_type
        for row in judged.rows.to_pylist():
            number = row.pop(ROW)
            assert number not in rows
            rows[number] = row
        for letter in judged.rejected.to_pylist():
            first = letter["errors"][0]
            assert (letter["reason"], letter["column"], letter["message"]) == (
                first["reason"],
                first["column"],
                first["message"],
            )
            letters.append(letter)
        counted, total = counted + block.count, block.total
    assert total == counted
    letters.sort(key=lambda d: d["row"])
    single = [d["row"] for d in letters if d["rows"] == 1]
    assert sorted([*rows, *single]) == list(range(len(rows) + len(single)))
    return rows, letters


def fates(path, settings: ReadSettings, ranges=None) -> list:
    """What became of each record, in order: its values, or (reason, column, payload)."""
    rows, letters = outcome(path, settings, ranges)
    told = {number: {k: shown(v) for k, v in row.items()} for number, row in rows.items()}
    for letter in letters:
        if letter["rows"] == 1:
            told[letter["row"]] = (letter["reason"], letter["column"], letter["payload"])
    rest = [(d["reason"], d["row"]) for d in letters if d["rows"] != 1]
    return [told[n] for n in sorted(told)] + rest


def shown(value):
    """NaN and signed zeros told apart, and equal to themselves."""
    return repr(value) if isinstance(value, float) and (math.isnan(value) or value == 0) else value


def write(tmp_path, data: str | bytes, name: str = "data.csv"):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# Numbers and booleans in text.

REFUSED_NUMBERS = [
    *("1_000", "0x10", "0x1p3", "1d3", "1.5f", "1e", "e5", ".e5", "1e+", "1e1.5", ".", "+", "-", "--1", "+-1", "1.5.2"),
    *(
        "1 2",
        "1e 5",
        "- 1",
        "n/a",
        "NULL",
        "NA",
        "None",
        "true",
        "one",
        "$1",
        "1%",
        "1,000",
        "(1)",
        "nan(1)",
        "infinit",
    ),
    *(
        "١",
        "１",
        "\u00a01",
        "1\u00a0",
        "1\u2003",
        "\ufeff1",
        "½",
        "−1",
        "1\0",
        "\0",
        "1\n",
        "\n1",
        "1\r\n",
        "1\x0b",
        "\x0c1",
        " ",
        "\t",
        " \t ",
    ),
]

ANY_NUMBER = [
    ("7", 7),
    ("+7", 7),
    ("-7", -7),
    ("007", 7),
    ("-007", -7),
    ("7.0", 7),
    ("7.", 7),
    ("+7.000", 7),
    ("7e1", 70),
    ("7E+1", 70),
    ("70e-1", 7),
    ("0.7e1", 7),
    (".7e1", 7),
    ("+.7e1", 7),
    ("-.7e1", -7),
    ("1e0001", 10),
    (" 7", 7),
    ("7 ", 7),
    ("\t7\t ", 7),
    (" 7.0 ", 7),
    ("  7e1", 70),
    ("0" * 400 + "7", 7),
    ("7." + "0" * 400, 7),
    ("0e999999999999999999999", 0),
    ("0.000e-99999999999999999999", 0),
    ("1" + "0" * 50 + "e-50", 1),
    ("0." + "0" * 49 + "1e50", 1),
]

INTEGERS = [
    ("int64", "-0", 0),
    ("uint64", "-0", 0),
    ("uint64", "-0.0", 0),
    ("int64", "7.5", "wrong_type"),
    ("int64", "7e-1", "wrong_type"),
    ("int64", "0.1", "wrong_type"),
    ("int64", "1e-400", "wrong_type"),
    ("int64", "1e-999999999999999999999", "wrong_type"),
    ("int64", "9007199254740993", 9007199254740993),
    ("int64", "9007199254740993.0", 9007199254740993),
    ("int64", "900719925474099.3e1", 9007199254740993),
    ("int64", "9007199254740993000e-3", 9007199254740993),
    ("int64", "9007199254740993.5", "wrong_type"),
    ("int64", "9223372036854775807", 2**63 - 1),
    ("int64", "9223372036854775807.0", 2**63 - 1),
    ("int64", "9223372036854775808", "out_of_range"),
    ("int64", "-9223372036854775808", -(2**63)),
    ("int64", "-9223372036854775809.0", "out_of_range"),
    ("int64", "1e400", "out_of_range"),
    ("int64", "1e999999999999999999999", "out_of_range"),
    ("int64", "-1e999999999999999999999", "out_of_range"),
    ("int64", "1e" + "9" * 5000, "out_of_range"),
    ("int64", "9" * 5000, "out_of_range"),
    ("int64", "9" * 5000 + ".5", "wrong_type"),
    ("int64", "nan", "not_finite"),
    ("int64", "inf", "not_finite"),
    ("uint64", "18446744073709551615", 2**64 - 1),
    ("uint64", "18446744073709551615.0", 2**64 - 1),
    ("uint64", "1844674407370955161.5e1", 2**64 - 1),
    ("uint64", "18446744073709551616", "out_of_range"),
    ("uint64", "-1", "out_of_range"),
    ("uint64", "-1.0", "out_of_range"),
    ("uint64", "-1.5", "wrong_type"),
]
for bits in (8, 16, 32):
    INTEGERS += [
        (f"int{bits}", str(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1),
        (f"int{bits}", str(2 ** (bits - 1)), "out_of_range"),
        (f"int{bits}", f"{-(2 ** (bits - 1))}.0", -(2 ** (bits - 1))),
        (f"int{bits}", f"{-(2 ** (bits - 1)) - 1}", "out_of_range"),
        (f"int{bits}", str(2**64 + 1), "out_of_range"),
        (f"uint{bits}", str(2**bits - 1), 2**bits - 1),
        (f"uint{bits}", f"{2**bits}.0", "out_of_range"),
        (f"uint{bits}", "-1", "out_of_range"),
    ]

FLOATS = [
    ("float64", ".5", 0.5),
    ("float64", "5.", 5.0),
    ("float64", "+1.5", 1.5),
    ("float64", "-0", "-0.0"),
    ("float64", "0.1", 0.1),
    ("float64", "9007199254740993", 9007199254740992.0),
    ("float64", "2.2250738585072011e-308", 2.2250738585072011e-308),
    ("float64", "0.1000000000000000055511151231257827021181583404541015625", 0.1),
    ("float64", "1.7976931348623157e308", 1.7976931348623157e308),
    ("float64", "1.7976931348623159e308", "out_of_range"),
    ("float64", "1e39", 1e39),
    ("float64", "1e400", "out_of_range"),
    ("float64", " -1e400 ", "out_of_range"),
    ("float64", "9" * 400, "out_of_range"),
    ("float64", "1e999999999999999999999", "out_of_range"),
    ("float64", "1e-400", "0.0"),
    ("float64", "-1e-400", "-0.0"),
    ("float64", "1e-999999999999999999999", "0.0"),
    ("float32", "0.1", float(np.float32(0.1))),
    ("float32", "16777217", 16777216.0),
    ("float32", "1e39", "out_of_range"),
    ("float32", "-1e39", "out_of_range"),
    ("float32", "3.4028235e38", float(np.finfo("float32").max)),
    ("float32", "3.4028236e38", "out_of_range"),
    ("float32", "1e-46", "0.0"),
    ("float32", "1e-45", float(np.float32(1e-45))),
    # Just above half way: float64 is halfway exactly, and that goes to the even one.
    ("float32", "1.00000005960464477540", 1.0),
    ("float16", "0.1", float(np.float16(0.1))),
    ("float16", "65504", 65504.0),
    ("float16", "65519.99", 65504.0),
    ("float16", "65520", "out_of_range"),
    ("float16", "-1e10", "out_of_range"),
    ("float16", "1e-9", "0.0"),
]
NOT_FINITE = [
    "nan",
    "NaN",
    "NAN",
    "+nan",
    "-nan",
    "inf",
    "INF",
    "+inf",
    "Inf",
    "infinity",
    "INFINITY",
    " inf ",
    "-inf",
    "-Infinity",
    "\tnan",
]

BOOLEANS = [(t, True) for t in ("true", "True", "TRUE", "tRuE", "1", " true", "1\t")] + [
    (t, False) for t in ("false", "False", "FALSE", "0", " 0 ")
]
REFUSED_BOOLEANS = [
    "yes",
    "no",
    "t",
    "f",
    "T",
    "y",
    "on",
    "2",
    "-1",
    "1.0",
    "0.0",
    "01",
    "tru",
    "true.",
    "TRUE\0",
    "ｔrue",
    " ",
    "null",
    "\u00a0true",
]

VALUES = (
    [(d, t, v) for d in ("float16", "float32", "float64") for t, v in ANY_NUMBER if v]
    + [(d, t, v) for d in ("int8", "int16", "int32", "int64") for t, v in ANY_NUMBER]
    + [(d, t, v if v >= 0 else "out_of_range") for d in ("uint8", "uint16", "uint32", "uint64") for t, v in ANY_NUMBER]
    + [
        (d, t, "wrong_type")
        for d in ("float16", "float32", "float64", "int8", "int64", "uint64")
        for t in REFUSED_NUMBERS
    ]
    + INTEGERS
    + FLOATS
    + [(d, t, "not_finite") for d in ("float16", "float32", "float64", "int64") for t in NOT_FINITE]
    + [("bool", t, v) for t, v in BOOLEANS]
    + [("bool", t, "wrong_type") for t in REFUSED_BOOLEANS]
)
DTYPES = sorted({dtype for dtype, _, _ in VALUES})


def in_quotes(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def plain(text: str) -> str:
    """As a writer writes it that quotes where it must."""
    return in_quotes(text) if set(text) & set(',"\r\n') or not text else text


def of_dtype(fate, dtype):
    return float(fate) if dtype.startswith("float") and isinstance(fate, int) else fate


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("mixed", [False, True], ids=["alike", "mixed"])
def test_every_spelling_of_a_value(tmp_path, dtype, quoted, mixed):
    """Together in one block, and each in a block of nothing but itself: the neighbours change nothing."""
    cases = [(t, of_dtype(v, d)) for d, t, v in VALUES if d == dtype]
    settings = options(contract(x=dtype))
    spell = in_quotes if quoted else plain
    if mixed:
        path = write(tmp_path, "x,n\n" + "".join(f"{spell(t)},{i}\n" for i, (t, _) in enumerate(cases)))
        found = [f["x"] if isinstance(f, dict) else f[0] for f in fates(path, settings)]
        assert dict(enumerate(zip([c[0][:60] for c in cases], found, strict=True))) == {
            i: (t[:60], v) for i, (t, v) in enumerate(cases)
        }
        return
    for text, fate in cases:
        path = write(tmp_path, "x\n" + f"{spell(text)}\n" * 3)
        found = [f["x"] if isinstance(f, dict) else f[0] for f in fates(path, settings)]
        assert found == [fate] * 3, text[:60]


def test_not_finite_values_where_they_are_welcome(tmp_path):
    path = write(tmp_path, "x,y\nnan,1\n-inf,2\n Infinity,3\n1e400,4\nx,5\n")
    settings = options(contract(x={"dtype": "float32", "finite": False}, y="int8"))
    assert fates(path, settings) == [
        {"x": "nan", "y": 1},
        {"x": -math.inf, "y": 2},
        {"x": math.inf, "y": 3},
        ("out_of_range", "x", b"1e400,4"),
        ("wrong_type", "x", b"x,5"),
    ]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_floats_come_back_as_they_were_written(tmp_path, values):
    path = write(tmp_path, "x\n" + "".join(f"{v!r}\n" for v in values))
    assert [f["x"] for f in fates(path, options(contract(x="float64")))] == [shown(v) for v in values]


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["{}", "{}.0", "{}.", " {}", "+0{}", "{}0e-1"])),
        min_size=1,
    )
)
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_integers_come_back_as_they_were_written(tmp_path, values):
    texts = [
        ("-" if v < 0 else "") + form.format(abs(v)) if "+" not in form or v < 0 else form.format(v)
        for v, form in values
    ]
    texts = [t.replace("-+", "-").replace("- ", " -") for t in texts]
    path = write(tmp_path, "x\n" + "".join(f"{t}\n" for t in texts))
    assert [f["x"] for f in fates(path, options(contract(x="int64")))] == [v for v, _ in values]


def test_a_whole_file_that_pandas_wrote_is_as_fast_as_plain_integers(tmp_path):
    rows = 300_000
    seconds = {}
    for end in ("", ".0"):
        path = write(tmp_path, "x\n" + f"1234567{end}\n" * rows)
        settings = options(contract(x="int64"), payload=False)
        for _ in range(2):
            began = time.process_time()
            count = sum(
                validate(b, settings.columns).rows.num_rows
                for b in read_split(Split(0, (FileRange(str(path), 0),)), settings, "a")
            )
            seconds[end] = time.process_time() - began
        assert count == rows
    assert seconds[".0"] < 20 * seconds[""] + 0.5


def test_a_megabyte_of_digits_is_judged_at_once(tmp_path):
    long = "1" * 1_000_000
    path = write(tmp_path, f"x\n{long}x\n{long}\n{long}.5\n0.{long}e{long}\n")
    began = time.process_time()
    assert [f[0] for f in fates(path, options(contract(x="int32")))] == [
        "wrong_type",
        "out_of_range",
        "wrong_type",
        "out_of_range",
    ]
    assert time.process_time() - began < 5


# Nulls.


def test_an_empty_field_is_missing_and_an_empty_text_is_not(tmp_path):
    path = write(tmp_path, 'n,s,x\n1,,1\n2,"",2\n3,a,\n4,b,""\n5, ,5\n')
    assert fates(path, options(contract(s="string", x="int8"), keep=("n",))) == [
        (NOTHING, "s", b"1,,1"),
        {"n": "2", "s": "", "x": 2},
        (NOTHING, "x", b"3,a,"),
        ("wrong_type", "x", b'4,b,""'),
        {"n": "5", "s": " ", "x": 5},
    ]


def test_tokens_are_null_where_the_column_or_the_input_says_so_and_never_in_quotes(tmp_path):
    columns = contract(
        a={"dtype": "string", "required": False},
        b={"dtype": "string", "required": False, "nulls": ["NA", "—"]},
        x={"dtype": "float32", "default": 0.5, "nulls": ["n/a", "-1"]},
    )
    path = write(tmp_path, 'a,b,x\nNA,NA,n/a\n"NA","NA","n/a"\nNULL,NULL,NULL\n—,—,-1\n NA,na,\n,,"-1"\n')
    assert fates(path, options(columns, nulls=("NULL",))) == [
        {"a": "NA", "b": None, "x": 0.5},
        ("wrong_type", "x", b'"NA","NA","n/a"'),
        {"a": None, "b": None, "x": 0.5},
        {"a": "—", "b": None, "x": 0.5},
        {"a": " NA", "b": "na", "x": 0.5},
        {"a": None, "b": None, "x": -1.0},
    ]


def test_tokens_are_null_beside_bytes_that_are_no_text(tmp_path):
    columns = contract(b={"dtype": "string", "required": False, "nulls": ["—"]}, s="string")
    path = write(tmp_path, "b,s\n—,1\n".encode() + b"\xff,2\n" + "é,ü\n".encode())
    assert fates(path, options(columns)) == [
        {"b": None, "s": "1"},
        ("bad_encoding", "b", b"\xff,2"),
        {"b": "é", "s": "ü"},
    ]


def test_defaults_fill_what_is_missing_and_are_counted_and_a_bad_value_is_never_missing(tmp_path):
    columns = contract(
        f={"dtype": "float16", "default": 0.5},
        i={"dtype": "uint64", "default": 2**64 - 1},
        b={"dtype": "bool", "default": True},
        s={"dtype": "string", "default": "é"},
        r={"dtype": "bytes", "default": "é"},
        n={"dtype": "int8", "required": False},
    )
    path = write(tmp_path, "f,i,b,s,r,n\n,,,,,\nx,,,,,\n1,1,0,a,b,2\n")
    filled = {"f": 0.5, "i": 2**64 - 1, "b": True, "s": "é", "r": "é".encode(), "n": None}
    settings = options(columns)
    assert fates(path, settings) == [
        filled,
        ("wrong_type", "f", b"x,,,,,"),
        {"f": 1.0, "i": 1, "b": False, "s": "a", "r": b"b", "n": 2},
    ]
    tallies = [validate(b, columns).tally for b in read_split(Split(0, (FileRange(str(path), 0),)), settings, "a")]
    assert tallies[0]["defaults_used.f"] == 1
    assert tallies[0]["defaults_used.s"] == 2
    assert "defaults_used.n" not in tallies[0]


def test_a_column_that_is_not_required_may_be_absent(tmp_path):
    columns = contract(
        x="int8", y={"dtype": "float32", "required": False, "default": 2.0}, z={"dtype": "string", "required": False}
    )
    assert fates(write(tmp_path, "x\n1\n2\n"), options(columns)) == [
        {"x": 1, "y": 2.0, "z": None},
        {"x": 2, "y": 2.0, "z": None},
    ]


def test_with_no_column_used_the_rows_are_still_counted(tmp_path):
    columns = contract(y={"dtype": "float32", "required": False, "default": 2.0})
    assert fates(write(tmp_path, b"a,b\n1,2\n\xff,4\n5\n\n"), options(columns)) == [
        {"y": 2.0},
        {"y": 2.0},
        ("ragged_row", None, b"5"),
    ]


# Faults.


def test_all_faults_of_a_row_are_told_in_contract_order(tmp_path):
    columns = contract(
        c={"dtype": "int8", "range": [0, 10]},
        a={"dtype": "float32"},
        s={"dtype": "string", "allowed": ["x", "y"]},
        t="string",
    )
    path = write(tmp_path, b"s,a,t,c\nz,nan,\xff,11\nx,,t,300\nx,1,t,10\nz,q,,1.5\n")
    _, letters = outcome(path, options(columns))
    assert [[(e["column"], e["reason"]) for e in d["errors"]] for d in letters] == [
        [("c", "out_of_range"), ("a", "not_finite"), ("s", "not_allowed"), ("t", "bad_encoding")],
        [("c", "out_of_range"), ("a", "missing_value")],
        [("c", "wrong_type"), ("a", "wrong_type"), ("s", "not_allowed"), ("t", "missing_value")],
    ]
    assert [d["stage"] for d in letters] == ["validate"] * 3
    assert [d["payload"] for d in letters] == [b"z,nan,\xff,11", b"x,,t,300", b"z,q,,1.5"]


def test_a_fault_in_a_kept_column_comes_after_those_of_the_contract(tmp_path):
    path = write(tmp_path, b"k,x\n\xff,y\n\xff,1\n")
    _, letters = outcome(path, options(contract(x="int8"), keep=("k",)))
    assert [[(e["column"], e["reason"]) for e in d["errors"]] for d in letters] == [
        [("x", "wrong_type"), ("k", "bad_encoding")],
        [("k", "bad_encoding")],
    ]


def test_messages_say_what_was_found_and_what_was_expected(tmp_path):
    columns = contract(age={"dtype": "float32", "range": [0, 150]}, n="uint8", s={"dtype": "string", "max_length": 3})
    path = write(tmp_path, "age,n,s\nn/a,1,a\n212,1,a\n1,300,a\n1,2,abcd\n,2,a\n1\n")
    _, letters = outcome(path, options(columns))
    assert [d["message"] for d in letters] == [
        "column 'age' is 'n/a', expected float32 (contract: range 0..150)",
        "column 'age' is '212', expected float32 (contract: range 0..150)",
        "column 'n' is '300', expected uint8, with the range 0 to 255",
        "column 's' is 'abcd', expected string (contract: length 0..3)",
        "column 'age' is missing, expected float32 (contract: range 0..150): supply it, or give the column a default",
        "found 1 fields, expected 3, as in the header",
    ]
    block = next(read_split(Split(0, (FileRange(str(path), 0),)), options(columns), "a"))
    quiet = validate(block, columns, show_values=False).rejected
    assert not any("n/a" in m or "212" in m or "abcd" in m for m in quiet["message"].to_pylist())


def test_no_payload_where_none_is_wanted(tmp_path):
    path = write(tmp_path, 'x\ny\n1,2\n"z')
    _, letters = outcome(path, options(contract(x="int8"), payload=False))
    assert [(d["reason"], d["payload"]) for d in letters] == [
        ("wrong_type", None),
        ("ragged_row", None),
        ("unterminated_quote", None),
    ]


# Text.


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_every_line_end(tmp_path, end, last):
    lines = [
        "",
        "x,s",
        "",
        "1,a",
        "",
        "",
        'y,"b\r\nc\nd\re"',
        "2,\u2028\u2029\x85\x0b\x0c\x1c",
        '3,"',
    ]
    lines[-1] = "3,f"
    path = write(tmp_path, end.join(lines) + (end if last else ""))
    assert fates(path, options(contract(x="int8", s="string"))) == [
        {"x": 1, "s": "a"},
        ("wrong_type", "x", b'y,"b\r\nc\nd\re"'),
        {"x": 2, "s": "\u2028\u2029\x85\x0b\x0c\x1c"},
        {"x": 3, "s": "f"},
    ]


def test_line_ends_may_be_mixed(tmp_path):
    path = write(tmp_path, "x\r1\n2\r\n3\r\r\n\n4\n\r5")
    assert [f["x"] for f in fates(path, options(contract(x="int8")))] == [1, 2, 3, 4, 5]


def test_blank_lines_are_no_rows_and_an_empty_text_is_one(tmp_path):
    path = write(tmp_path, 's\n\n""\n\na\n \n""\n\n')
    assert [f["s"] for f in fates(path, options(contract(s="string")))] == ["", "a", " ", ""]


QUOTING = [
    ('"a,b"', "a,b"),
    ('"a""b"', 'a"b'),
    ('""""', '"'),
    ('""', ""),
    ('"a\n\nb"', "a\n\nb"),
    ('5" pipe', '5" pipe'),
    ('a"b"c', 'a"b"c'),
    ('a""b', 'a""b'),
    (' "a"', ' "a"'),
    ('"a\\"', "a\\"),
    ("'a'", "'a'"),
    ("#a", "#a"),
    ("a\0b", "a\0b"),
    ("\0", "\0"),
    ("\ufeffa", "\ufeffa"),
]


JOINED = ['"a"b', '"a" ', '"a"b"c"', '"a,"b"', '""a"', '"a" "b"', '"a\nb"c']


@pytest.mark.parametrize(("text", "value"), QUOTING)
@pytest.mark.parametrize("place", ["first", "last"])
def test_quotes(tmp_path, text, value, place):
    line = f"{text},1" if place == "first" else f"1,{text}"
    path = write(tmp_path, ("s,x\n" if place == "first" else "x,s\n") + f"{line}\n" * 2 + line)
    assert fates(path, options(contract(s="string", x="int8"))) == [{"s": value, "x": 1}] * 3


@pytest.mark.parametrize("text", JOINED)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_record_with_text_after_a_closing_quote_is_refused(tmp_path, text, place):
    line = f"{text},1" if place == "first" else f"1,{text}"
    good = "a,1" if place == "first" else "1,a"
    path = write(tmp_path, ("s,x\n" if place == "first" else "x,s\n") + f"{line}\n{good}\n{line}\n{good}\n{line}")
    bad = ("malformed", None, line.encode())
    assert fates(path, options(contract(s="string", x="int8"))) == [bad, {"s": "a", "x": 1}] * 2 + [bad]


def test_quotes_escaped_with_backslashes_swallow_no_row(tmp_path):
    """As Spark writes them: of each two rows, the second was silently joined to the first."""
    lines = [f'"monitor {n}\\"",{n}' for n in range(6)]
    path = write(tmp_path, "s,x\n" + "\n".join(lines) + "\n")
    columns = contract(s="string", x="int8")
    _, letters = outcome(path, options(columns))
    assert [(d["reason"], d["payload"]) for d in letters] == [
        ("malformed", f"{a}\n{b}".encode()) for a, b in zip(lines[::2], lines[1::2], strict=True)
    ]
    assert letters[0]["message"] == (
        "text follows a closing quote in this record, which spans 2 lines; expected the delimiter or the end of the "
        "line: if quotes in this data are escaped by a backslash (Spark's default), set input.csv.escape"
    )
    assert fates(path, options(columns, escape="\\")) == [{"s": f'monitor {n}"', "x": n} for n in range(6)]


ESCAPED = [
    (r'"a\"b"', 'a"b'),
    (r'"a\\"', "a\\"),
    (r'"a\\\"b"', 'a\\"b'),
    (r'"a\nb\,\é"', "anb,é"),
    ('"a\\\nb"', "a\nb"),
    (r'"a""b"', 'a"b'),
    (r'"\""",1"', '"",1'),
    (r'"\""" "', '"" '),
    (r'""', ""),
    (r"C:\x", r"C:\x"),
    (r"a\\b", r"a\\b"),
    (r"\N", r"\N"),
    (r"a\"b", r"a\"b"),
    (r'a\""b', r'a\""b'),
    ("a\\", "a\\"),
    (r'\"a"', r'\"a"'),
]


@pytest.mark.parametrize(("text", "value"), ESCAPED)
@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("place", ["first", "last"])
def test_an_escape_takes_the_next_character_inside_quotes_only(tmp_path, text, value, block, place):
    header, good = ("s,x", '"b",1') if place == "first" else ("x,s", '1,"b"')
    line = f"{text},1" if place == "first" else f"1,{text}"
    path = write(tmp_path, "\n".join([header, line, good, line]))
    settings = options(contract(s="string", x={"dtype": "int8", "range": [1, 1]}), escape="\\", max_block_bytes=block)
    assert fates(path, settings) == [{"s": value, "x": 1}, {"s": "b", "x": 1}, {"s": value, "x": 1}]


def test_an_escape_in_the_header_and_beside_bytes_that_are_no_text(tmp_path):
    path = write(tmp_path, b'"s\\"\\\\",x,b\n"a\\"\xc3\xa9",1,"\\\xff"\n"\xff",1,c\n')
    columns = contract(**{'s"\\': "string", "x": "int8", "b": "bytes"})
    assert fates(path, options(columns, escape="\\")) == [
        {'s"\\': 'a"é', "x": 1, "b": b"\xff"},
        ("bad_encoding", 's"\\', b'"\xff",1,c'),
    ]


def test_a_record_that_cannot_end_wins_over_one_with_text_after_a_quote(tmp_path):
    path = write(tmp_path, 's,x\n"a"b,"c\n1\n')
    assert fates(path, options(contract(s="string", x="int8"))) == [("unterminated_quote", None, b'"a"b,"c\n1\n')]
    with pytest.raises(UnusableFile, match=r"malformed.*the header.*1 line;"):
        CSV.check(str(write(tmp_path, '"s"t,x\na,1\n')), options(contract(x="int8")))


def test_all_quotes_in_one_file_and_then_every_row_at_fault(tmp_path):
    path = write(tmp_path, "s,x\n" + "".join(f"{t},1\n" for t, _ in QUOTING))
    assert [f["s"] for f in fates(path, options(contract(s="string", x="int8")))] == [v for _, v in QUOTING]
    found = fates(path, options(contract(s="string", x={"dtype": "int8", "range": [2, 3]})))
    assert found == [("out_of_range", "x", f"{t},1".encode()) for t, _ in QUOTING]


def test_other_delimiters_and_quotes(tmp_path):
    columns = contract(s="string", x="int8")
    for delimiter in ";\t|^]- \\":
        path = write(tmp_path, f"s{delimiter}x\n'a{delimiter}''b'{delimiter}1\n\"a\"{delimiter}2\n'{delimiter}\n")
        assert fates(path, options(columns, delimiter=delimiter, quote="'")) == [
            {"s": f"a{delimiter}'b", "x": 1},
            {"s": '"a"', "x": 2},
            ("unterminated_quote", None, f"'{delimiter}\n".encode()),
        ]
        path = write(tmp_path, f's{delimiter}x\n"a"{delimiter}1\n"{delimiter}2\n')
        assert fates(path, options(columns, delimiter=delimiter, quote="")) == [
            {"s": '"a"', "x": 1},
            {"s": '"', "x": 2},
        ]


def test_ragged_rows(tmp_path):
    path = write(tmp_path, b's,x\na\na,1\na,1,\n"a\nb",1,2\n\xff\n\n,\nb,2\n\xff,\xfe,\xff\n,,,')
    assert fates(path, options(contract(s="string", x="int8"))) == [
        ("ragged_row", None, b"a"),
        {"s": "a", "x": 1},
        ("ragged_row", None, b"a,1,"),
        ("ragged_row", None, b'"a\nb",1,2'),
        ("ragged_row", None, b"\xff"),
        (NOTHING, "s", b","),
        {"s": "b", "x": 2},
        ("ragged_row", None, b"\xff,\xfe,\xff"),
        ("ragged_row", None, b",,,"),
    ]


def test_nothing_but_ragged_rows(tmp_path, capfd):
    path = write(tmp_path, b"s,x\n1\n\xff\n3")
    assert [f[0] for f in fates(path, options(contract(s="string", x="int8")))] == ["ragged_row"] * 3
    assert capfd.readouterr().err == ""


def test_many_ragged_rows_beside_bad_values(tmp_path):
    """Each read of the block skips the ragged records, also one that fails; small blocks are read in other ways."""
    path = write(tmp_path, "x,y\n" + "1,2\n1\nabc,3\n4,5,6\n7,-1\n" * 2000)
    columns = contract(x="int64", y={"dtype": "float32", "range": [0, 9]})
    found = fates(path, options(columns))
    assert found == fates(path, options(columns, max_block_bytes=1000))
    one = [
        {"x": 1, "y": 2.0},
        ("ragged_row", None, b"1"),
        ("wrong_type", "x", b"abc,3"),
        ("ragged_row", None, b"4,5,6"),
    ]
    assert found[:5] == [*one, ("out_of_range", "y", b"7,-1")] == found[-5:]


def test_a_ragged_record_costs_no_call_in_a_thread_of_pyarrow(tmp_path):
    """Each such call maps memory for a new thread state of Python: a page fault a record, as a rule."""
    records = 20_000
    path = write(tmp_path, "a,b\n1,2\n" + "1,2,3\n" * records)
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        (chunk,) = CSV.read(FileRange(str(path), 0, 0, path.stat().st_size), options(contract(a="int64", b="float32")))
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        assert (chunk.rows.num_rows, chunk.rejected.num_rows) == (1, records)
    assert max(faults) < records / 2, faults


def test_a_byte_order_mark_at_the_start_is_dropped_and_only_there(tmp_path):
    columns = contract(s="string")
    path = write(tmp_path, "\ufeff\ufeffs,s2\n1,\n")
    with pytest.raises(UnusableFile):
        CSV.check(str(path), options(columns))
    path = write(tmp_path, '\ufeff"s",x\n\ufeffa,1\n\ufeffb,2\n')
    for size in (1, 4, 9, 1 << 20):
        assert [f["s"] for f in fates(path, options(columns, max_block_bytes=size))] == ["\ufeffa", "\ufeffb"]
    path = write(tmp_path, '\ufeff"a\nb"\n\ufeffc')
    assert [f["s"] for f in fates(path, options(columns, header=False))] == ["a\nb", "\ufeffc"]


def test_a_quoted_header_after_a_byte_order_mark(tmp_path):
    path = write(tmp_path, '\ufeff"s\n,""t""",x\na,1\n')
    assert fates(path, options(contract(**{'s\n,"t"': "string", "x": "int8"}))) == [{'s\n,"t"': "a", "x": 1}]


def test_a_long_quoted_header_after_a_byte_order_mark(tmp_path):
    name = "s\n" + "a" * 200_000
    path = write(tmp_path, f'\ufeff"{name}",x\na,1\n')
    assert fates(path, options(contract(x="int8"), keep=(name,))) == [{name: "a", "x": 1}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("header", [True, False])
def test_utf16_makes_the_file_unusable(tmp_path, encoding, header):
    path = write(tmp_path, "x,s\n1,a\n".encode(encoding))
    settings = options(contract(x="int8", s="string"), header=header)
    rows, letters = outcome(path, settings)
    assert rows == {}
    assert [(d["reason"], d["row"], d["rows"]) for d in letters] == [("bad_encoding", 0, None)]
    assert f"iconv -f {encoding.upper()[:6]}" in letters[0]["message"]


def test_bytes_that_are_no_text_are_judged_where_they_are_used(tmp_path):
    columns = contract(x="float32", s="string", b="bytes", y={"dtype": "bool"})
    path = write(
        tmp_path,
        b"x,s,b,unused,y,k\n1,a,\xff\x00\xfe,\xe9,1,k\n2,\xe9,b,u,1,k\n\xe9,c,d,u,1,k\n4,\xc3\xa9,\xc3\xa9,\xe9,1,\xc3\xa9\n5,a,b,u,\xff,k\n6,a,b,u,1,\xe9\n",
    )
    assert fates(path, options(columns, keep=("k",))) == [
        {"x": 1.0, "s": "a", "b": b"\xff\x00\xfe", "y": True, "k": "k"},
        ("bad_encoding", "s", b"2,\xe9,b,u,1,k"),
        ("wrong_type", "x", b"\xe9,c,d,u,1,k"),
        {"x": 4.0, "s": "é", "b": "é".encode(), "y": True, "k": "é"},
        ("wrong_type", "y", b"5,a,b,u,\xff,k"),
        ("bad_encoding", "k", b"6,a,b,u,1,\xe9"),
    ]


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\x80"])
def test_what_is_no_utf8(tmp_path, bad):
    path = write(tmp_path, b"s\n" + bad + b"\nok\n")
    assert fates(path, options(contract(s="string"))) == [("bad_encoding", "s", bad), {"s": "ok"}]


def test_a_replacement_character_is_a_character(tmp_path):
    path = write(tmp_path, "s,t\n\ufffd,1\n".encode() + b"\xff,2\n\xff,\xef\xbf\xbd\n")
    assert [f["s"] if isinstance(f, dict) else f[:2] for f in fates(path, options(contract(s="string")))] == [
        "\ufffd",
        ("bad_encoding", "s"),
        ("bad_encoding", "s"),
    ]


# Large and endless records.


@pytest.mark.parametrize("block", [1 << 12, 1 << 20, 8 << 20])
def test_long_fields_and_records_are_ordinary(tmp_path, block):
    long, record = "é" * 500_000, "\n".join(["a" * 99] * 50_000)
    path = write(tmp_path, f's,x\n{long},1\n"{record}",2\na,3\n')
    if block < 1 << 20:
        record = None
        path = write(tmp_path, f"s,x\n{long},1\na,3\n")
    found = fates(path, options(contract(s="string", x="int8"), max_block_bytes=block))
    assert found == [{"s": s, "x": x} for s, x in ((long, 1), (record, 2), ("a", 3)) if s]


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_record_over_the_limit_is_refused_and_reading_goes_on_at_its_true_end(tmp_path, block, end):
    exact = "a" * 18 + ",1"
    large = ["b" * 19 + ",1", f'"c{end},1""x{end * 3}","dddd",1,2', '"' + "e" * 20 + '"f",1']
    lines = ["s,x", exact, large[0], "g,2", *large[1:], "h,3", '"' + "i" * 16 + '",4', '"' + "j" * 30]
    path = write(tmp_path, end.join(lines))
    settings = options(contract(s="string", x="int8"), max_row_bytes=20, max_block_bytes=block)
    assert fates(path, settings) == [
        {"s": "a" * 18, "x": 1},
        ("too_large", None, large[0].encode()),
        {"s": "g", "x": 2},
        ("too_large", None, large[1].encode()),
        ("too_large", None, large[2].encode()),
        {"s": "h", "x": 3},
        {"s": "i" * 16, "x": 4},
        ("unterminated_quote", None, ('"' + "j" * 30).encode()),
    ]
    _, letters = outcome(path, settings)
    assert letters[0]["message"] == "the record has 21 bytes, more than max_row_bytes 20"


@pytest.mark.parametrize("block", [1 << 16, 1 << 20])
def test_a_long_payload_is_cut(tmp_path, block):
    long = "a" * 200_000
    path = write(
        tmp_path, f"s,x\n{long},1\n{'b' * 65530},{long}\n" + "c" * 65533 + ",x\n" + "c" * 65534 + ",xx\n" + f'"{long}'
    )
    settings = options(
        contract(s={"dtype": "string", "max_length": 3}, x="int8"), max_row_bytes=150_000, max_block_bytes=block
    )
    _, letters = outcome(path, settings)
    assert [(d["reason"], len(d["payload"]), d["payload_cut"]) for d in letters] == [
        ("too_large", 65536, True),
        ("too_large", 65536, True),
        ("out_of_range", 65535, False),
        ("out_of_range", 65536, True),
        ("unterminated_quote", 65536, True),
    ]


@pytest.mark.parametrize("size", [0, 10, 5_000, 300_000])
@pytest.mark.parametrize("block", [1 << 12, 1 << 20])
def test_a_quote_that_is_never_closed_costs_one_record(tmp_path, size, block):
    text = ("x\n" * size)[:size]
    path = write(tmp_path, f'x,s\n1,"a\nb"\n2,c\n3,"{text}')
    found = fates(path, options(contract(x="int8", s="string"), max_row_bytes=100_000, max_block_bytes=block))
    payload = f'3,"{text}'.encode()[:65536]
    assert found == [{"x": 1, "s": "a\nb"}, {"x": 2, "s": "c"}, ("unterminated_quote", None, payload)]


# Headers and files.


def test_columns_are_found_by_name_in_any_order(tmp_path):
    path = write(tmp_path, 'z,"s", x ,x,z\n0,a,9,1,0\n')
    assert fates(path, options(contract(x="int8", s="string"))) == [{"x": 1, "s": "a"}]


@pytest.mark.parametrize(
    ("header", "reason", "column", "text"),
    [
        ("Age,id", "missing_column", "age", "did you mean 'Age'?"),
        ("age ,id", "missing_column", "age", "did you mean 'age '?"),
        ("agge,id", "missing_column", "age", "did you mean 'agge'?"),
        ("salary,id", "missing_column", "age", "the header has no column 'age'"),
        ("age,age,id", "duplicate_key", "age", "2 times"),
        ("age", "missing_column", "id", "kept column 'id'"),
        ("age,id,id", "duplicate_key", "id", "kept column 'id' occurs 2 times"),
        ('age,id,"x', "unterminated_quote", None, "never closed"),
        (b"age,id,\xff", "bad_encoding", None, "not UTF-8"),
        ("a" * 70_000, "missing_column", "age", "age"),
        ('""', "missing_column", "age", "age"),
    ],
)
def test_a_header_that_does_not_do_is_one_dead_letter_for_the_file(tmp_path, header, reason, column, text):
    path = write(tmp_path, (header.encode() if isinstance(header, str) else header) + b"\n1,2\n3,4\n")
    settings = options(contract(age="int8"), keep=("id",))
    with pytest.raises(UnusableFile) as error:
        CSV.check(str(path), settings)
    assert (error.value.reason, error.value.column) == (reason, column)
    assert text in error.value.message
    rows, letters = outcome(path, settings)
    assert rows == {}
    assert [(d["reason"], d["column"], d["row"], d["rows"]) for d in letters] == [(reason, column, 0, None)]


def test_a_header_without_an_end(tmp_path):
    path = write(tmp_path, "age," + "a" * 5_000_000)
    with pytest.raises(UnusableFile, match="too_large"):
        CSV.check(str(path), options(contract(age="int8"), max_row_bytes=100_000))
    began = time.process_time()
    assert fates(path, options(contract(age="int8"))) == []
    assert time.process_time() - began < 2


def test_extra_columns_are_refused_where_the_job_says_so(tmp_path):
    path = write(tmp_path, "age,id,more\n1,2,3\n")
    assert fates(path, options(contract(age="int8"), keep=("id",))) == [{"age": 1, "id": "2"}]
    with pytest.raises(UnusableFile, match=r"not_allowed.*more"):
        CSV.check(str(path), options(contract(age="int8"), keep=("id",), extra="reject"))
    path = write(tmp_path, "id,age\n2,1\n")
    assert fates(path, options(contract(age="int8"), keep=("id",), extra="reject")) == [{"age": 1, "id": "2"}]


def test_without_a_header_the_fields_are_the_contracts_columns_then_the_kept_ones(tmp_path):
    path = write(tmp_path, "1,a,k\n2,b\n3,c,k,\n")
    assert fates(path, options(contract(x="int8", s="string"), keep=("k",), header=False)) == [
        {"x": 1, "s": "a", "k": "k"},
        ("ragged_row", None, b"2,b"),
        ("ragged_row", None, b"3,c,k,"),
    ]


@pytest.mark.parametrize("text", ["", "x", "x\n", "x\r\n\r\n", "\ufeff", "\ufeffx\n", "\n\n", '"x"'])
def test_files_without_rows(tmp_path, text):
    path = write(tmp_path, text)
    settings = options(contract(x="int8"))
    assert outcome(path, settings) == ({}, [])
    assert CSV.cut(str(path), path.stat().st_size, 1, settings)[0].index == 0


def test_a_header_of_quotes_alone(tmp_path):
    columns = contract(y={"dtype": "int8", "default": 1})
    columns = contract(y={"dtype": "int8", "default": 1, "required": False})
    assert fates(write(tmp_path, '""\n""\na\n'), options(columns)) == [{"y": 1}, {"y": 1}]
    assert CSV.columns_of(str(write(tmp_path, '"","a""b",c d\n')), options(columns)) == dict.fromkeys(
        ["", 'a"b', "c d"], pa.string()
    )


def test_a_column_named_twice_that_nobody_uses(tmp_path):
    path = write(tmp_path, "z,x,z,\n1,2,3,4\n")
    assert fates(path, options(contract(x="int8"))) == [{"x": 2}]


# Against a slow and simple parser.


def reference(text: str, delimiter=",", quote='"', escape="") -> tuple[list[tuple[str, list | None]], bool]:
    """The records of a text, each as it stands and its fields (None for empty ones without quotes; None for all
    where text follows a closing quote); and whether a quote is open at the end. RFC 4180 by a state machine, a
    character at a time."""
    records, fields, field, start, state, quoted, joined = [], [], "", 0, "line", False, False

    def close(end):
        nonlocal fields, field, quoted, state, joined
        fields.append(field if field or quoted else None)
        records.append((text[start:end], None if joined else fields))
        fields, field, quoted, state, joined = [], "", False, "line", False

    for at, c in enumerate(text):
        if state == "line":  # nothing of a record yet
            if c in "\r\n":
                continue
            start, state = at, "start"
        if state == "quoted":
            if c == quote:
                state = "closing"
            elif c == escape:
                state = "escaped"
            else:
                field += c
        elif state == "escaped" or (state == "closing" and c == quote):
            field, state = field + c, "quoted"
        elif c in "\r\n":
            close(at)
        elif c == delimiter:
            fields.append(field if field or quoted else None)
            field, quoted, state = "", False, "start"
        elif state == "start" and c == quote:
            quoted, state = True, "quoted"
        else:
            joined = joined or state == "closing"
            field, state = field + c, "text"
    is_open = state in ("quoted", "escaped")
    if state != "line":
        close(len(text))
    return records, is_open


TEXTS = st.text(alphabet='aa1",,\n\n\r \\', max_size=40) | st.lists(
    st.sampled_from(["a", "1", ",", "\n", "\r\n", '"', '""', '"a"', '"\n"', '","', 'a"', " ", "\\", '\\"']), max_size=30
).map("".join)
ESCAPES = st.sampled_from(["", "\\", "a"])
MANY = hypothesis_settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
SOME = hypothesis_settings(MANY, max_examples=120)
FEW = hypothesis_settings(MANY, max_examples=25)


def test_escapes_do_not_move_the_records_of_bad_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b's,x\n"a\\\\",1\n"b",zzz\n"c\\\\",3\n"d",4\n')
    settings = options(contract(s="string", x="float32"), escape="\\")
    rows, letters = outcome(path, settings)
    assert rows == {0: {"s": "a\\", "x": 1}, 2: {"s": "c\\", "x": 3}, 3: {"s": "d", "x": 4}}
    assert [(one["row"], one["reason"], one["payload"]) for one in letters] == [(1, "wrong_type", b'"b",zzz')]


@given(TEXTS, st.sampled_from(['"', "", "1"]), ESCAPES)
@example('"a""\n', '"', "")
@example('a\n"b"c"\n,"\n', '"', "")
@example('a\\"","\n', '"', "\\")  # a quote after an escaped one, outside of quotes
@MANY
def test_spans_are_those_of_a_simple_parser(text, quote, escape):
    escape = escape if quote else ""
    data = text.encode()
    found = csv_records.spans(data, ",", quote, escape)
    records, is_open = reference(text, quote=quote, escape=escape)
    spans = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    assert [text[s:e] for s, e in spans] == [r for r, _ in records]
    assert found.open_quote == is_open
    joined = [any(s <= j < e for j in found.joined.tolist()) for s, e in spans]
    assert joined == [fields is None for _, fields in records]
    for record, fields in records[: len(records) - is_open]:
        if fields is not None:
            assert csv_records.fields(record, ",", quote, escape) == [f or "" for f in fields]


@given(TEXTS, st.sampled_from(['"', ""]), st.sampled_from(["", "\n"]))
@example("\na\nbc\n", '"', "")
@example("\n", '"', "")
@example("a\n" * 200, '"', "")
@example("a" * 63 + "\n" + "b" * 64 + "\n" + "\n", '"', "")
@MANY
def test_records_are_found_by_their_number(text, quote, end):
    data = (text + end).encode()
    found = csv_records.spans(data, ",", quote)
    positions = csv_records.positions(data, ",", quote)
    assert len(positions) == len(found.starts)
    for index in (np.arange(len(positions))[::step] for step in (1, 2, 30)):  # many of the records, and few
        starts, ends = positions.of(index)
        assert (starts.tolist(), ends.tolist()) == (found.starts[index].tolist(), found.ends[index].tolist())


@given(TEXTS, ESCAPES)
@example('a\\"","\n', "\\")
@MANY
def test_plain_quotes_are_told_from_others_and_both_ways_agree(text, escape):
    data = text.encode()
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == ord('"'))
    if escape:
        quotes = csv_records._not_escaped(array, quotes, escape)
    if csv_records.quotes_are_plain(array, quotes, ","):
        begins, closes = csv_records._one_by_one(data, array, quotes, ",", '"', escape)
        line_ends = [i for i, c in enumerate(text) if c in "\r\n"]
        inside = [any(b < i < c for b, c in zip(begins, closes, strict=True)) for i in line_ends]
        assert inside == [np.sum(quotes < i) % 2 == 1 for i in line_ends]


@given(TEXTS, st.sampled_from(['"', ""]), ESCAPES)
@MANY
def test_the_last_record_end_is_that_of_a_simple_parser(text, quote, escape):
    escape = escape if quote else ""
    ends = [0]
    for at, c in enumerate(text):
        if c in "\r\n" and not reference(text[:at], quote=quote, escape=escape)[1]:
            ends.append(at + 1)
    whole = csv_records.whole_records(text.encode(), ",", quote, escape)
    assert whole.end == ends[-1]
    joined = csv_records.spans(text.encode()[: whole.end], ",", quote, escape).joined
    assert whole.joined.tolist() == joined.tolist()


@given(TEXTS, st.lists(st.integers(1, 5), min_size=1, max_size=8), st.sampled_from(['"', ""]), ESCAPES)
@MANY
def test_a_record_passed_over_ends_where_it_ends(text, sizes, quote, escape):
    escape = escape if quote else ""
    text = "b" + text if text[:1] in ("", "\r", "\n") else text
    skipper, at, end = csv_records.RecordSkipper(",", quote, escape), 0, None
    while at < len(text) and end is None:
        size = sizes[at % len(sizes)]
        end = skipper.feed(text[at : at + size].encode())
        end, at = (None, at + size) if end is None else (at + end, at)
    records, is_open = reference(text, quote=quote, escape=escape)
    first = len(records[0][0])
    assert end == (first if first < len(text) else None)
    assert skipper.in_quotes == (is_open and len(records) == 1)


def expected_fates(text: str, quote: str, most: int, escape: str = "") -> list:
    """What becomes of the rows of a text with the columns s (string, not required) and x (int8)."""
    records, is_open = reference(text, quote=quote, escape=escape)
    told = []
    for number, (record, fields) in enumerate(records):
        payload = record.encode()
        if is_open and number == len(records) - 1:
            told.append(("unterminated_quote", None, payload))
        elif len(record) > most:
            told.append(("too_large", None, payload))
        elif fields is None:
            told.append(("malformed", None, payload))
        elif len(fields) != 2:
            told.append(("ragged_row", None, payload))
        elif fields[1] is None:
            told.append((NOTHING, "x", payload))
        else:
            number_text = fields[1].strip(" \t")
            if not (number_text and set(number_text) <= set("1")):
                told.append(("wrong_type", "x", payload))
            elif int(number_text) > 127:
                told.append(("out_of_range", "x", payload))
            else:
                told.append({"s": fields[0], "x": int(number_text)})
    return told


@given(
    TEXTS,
    st.integers(1, 50),
    st.integers(1, 4),
    st.sampled_from([12, 1000]),
    st.sampled_from(['"', ""]),
    st.sampled_from(["", "\\"]),
)
@example('"",', 1, 1, 1000, '"', "")  # pyarrow 25 takes the last field for a quoted one where no line end follows
@SOME
def test_whole_files_are_read_as_by_a_simple_parser(tmp_path, text, block_bytes, block_rows, most, quote, escape):
    path = write(tmp_path, "s,x\n" + text)
    columns = contract(s={"dtype": "string", "required": False}, x="int8")
    escape = escape if quote else ""
    sizes = {"max_row_bytes": most, "max_block_bytes": block_bytes, "max_block_rows": block_rows}
    settings = options(columns, quote=quote, escape=escape, **sizes)
    assert fates(path, settings) == expected_fates(text, quote, most, escape)


ROWS = st.lists(
    st.sampled_from(
        [
            "a,1",
            "b,1",
            "c,x",
            '"d",1',
            '"e\n""\r\n",1',
            'f"g",1',
            "h",
            "i,1,1",
            ",",
            "",
            '"j"k"l,1',
            '"m,",11',
            r'"n\"",1',
        ]
    ),
    max_size=60,
)


@given(
    ROWS,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 60),
    st.booleans(),
    st.integers(0, 1),
    st.sampled_from(["", "\\"]),
)
@SOME
def test_however_a_file_is_cut_the_rows_are_the_same(tmp_path, lines, end, split_bytes, header, tail, escape):
    text = end.join(lines) + end * tail
    path = write(tmp_path, ("s,x\n" if header else "") + text)
    columns = contract(s={"dtype": "string", "required": False}, x="int8")
    settings = options(columns, header=header, max_block_bytes=16, escape=escape)
    size = path.stat().st_size
    ranges = CSV.cut(str(path), size, split_bytes, settings)
    assert [r.index for r in ranges] == list(range(len(ranges)))
    assert sum(r.bytes for r in ranges) in (size, size - 3)  # the header's bytes belong to no range
    assert fates_of_ranges(ranges, settings) == expected_fates(text, '"', 1 << 20, escape)


def fates_of_ranges(ranges, settings) -> list:
    """What became of each record of ranges read one by one; each range knows how many stand before it."""
    told = []
    for range_ in ranges:
        assert range_.first_row == len(told)
        found = {}
        for block in read_split(Split(0, (range_,)), settings, "a"):
            judged = validate(block, settings.columns)
            for row in judged.rows.to_pylist():
                found[row.pop(ROW)] = row
            for d in judged.rejected.to_pylist():
                found[d["row"]] = (d["reason"], d["column"], d["payload"])
        assert sorted(found) == list(range(len(told), len(told) + len(found)))
        told += [found[n] for n in sorted(found)]
    return told


def test_files_large_enough_are_really_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_ranges, "_SCAN_BYTES", 100)
    columns = contract(s={"dtype": "string", "required": False}, x="int8")
    settings = options(columns)
    for line in ("abc,1\n", "abc,1\r\n\r\n", 'a"c,1\n', '"a\nc",1\n', '"a"",",1\r', '"a""c",1\n5" pipe,1\n'):
        text = line * 200
        path = write(tmp_path, "s,x\n" + text)
        ranges = CSV.cut(str(path), path.stat().st_size, 333, settings)
        assert len(ranges) == pytest.approx(len(text) / 333, abs=2)
        found = fates_of_ranges(ranges, settings)
        assert found == expected_fates(text, '"', 1 << 20)


def test_a_record_longer_than_a_range_is_in_one_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_ranges, "_SCAN_BYTES", 100)
    columns = contract(s={"dtype": "string", "required": False}, x="int8")
    settings = options(columns, max_row_bytes=1000)
    for long in ("b" * 990, '"' + "b\n" * 490 + '"', "b" * 2000, '"' + "b\n" * 1000 + '"'):
        text = "a,1\n" * 100 + long + ",1\n" + "a,1\n" * 100
        path = write(tmp_path, "s,x\n" + text)
        found = fates_of_ranges(CSV.cut(str(path), path.stat().st_size, 50, settings), settings)
        assert found == expected_fates(text, '"', 1000)


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstandard.ZstdCompressor().compress}


@given(ROWS, st.sampled_from(sorted(PACKERS)), st.integers(1, 40))
@FEW
def test_compressed_files_read_the_same(tmp_path, lines, kind, block_bytes):
    text = "\n".join(lines)
    path = write(tmp_path, PACKERS[kind](("s,x\n" + text).encode()), "data")
    columns = contract(s={"dtype": "string", "required": False}, x="int8")
    settings = options(columns, max_block_bytes=block_bytes)
    assert CSV.cut(str(path), path.stat().st_size, 1, settings) == [
        FileRange(str(path), path.stat().st_size, bytes=path.stat().st_size * 4)
    ]
    assert fates(path, settings) == expected_fates(text, '"', 1 << 20)


@given(st.sampled_from(sorted(PACKERS)), st.floats(0.05, 0.99), st.sampled_from([1 << 10, 1 << 20]))
@FEW
def test_a_compressed_file_that_breaks_off_gives_whole_rows_and_one_stretch(tmp_path, kind, share, block_bytes):
    rng = np.random.default_rng(7)
    rows = [f'"{a}\n{a}",{b}' for a, b in rng.integers(0, 100, (3000, 2)).tolist()]
    packed = PACKERS[kind](("s,x\n" + "\n".join(rows)).encode())
    path = write(tmp_path, packed[: int(len(packed) * share)], "data")
    rows_read, letters = outcome(path, options(contract(s="string", x="int8"), max_block_bytes=block_bytes))
    told = [f'"{r["s"]}",{r["x"]}' for r in rows_read.values()]
    assert told == rows[: len(told)]
    assert [(d["reason"], d["row"], d["rows"]) for d in letters] == [("unreadable", len(told), None)]
    assert len(told) < len(rows)


def test_a_file_that_breaks_off_inside_its_header_is_unreadable(tmp_path):
    packed = gzip.compress(
        b"".join(b"%d," % i for i in np.random.default_rng(1).integers(0, 1 << 62, 5000)) + b"x\n1\n"
    )
    path = write(tmp_path, packed[: len(packed) // 2], "data.gz")
    rows, letters = outcome(path, options(contract(x="int8")))
    assert (rows, [(d["reason"], d["rows"]) for d in letters]) == ({}, [("unreadable", None)])


def test_a_large_record_at_the_damage_belongs_to_the_stretch(tmp_path):
    data = b"s,x\na,1\n" + b"b" * 1000 + b",1\nc,1\n" + np.random.default_rng(1).bytes(50_000).hex().encode()
    packed = gzip.compress(data)
    path = write(tmp_path, packed[: len(packed) // 2], "data.gz")
    rows, letters = outcome(path, options(contract(s="string", x="int8"), max_row_bytes=500, max_block_bytes=64))
    assert list(rows.values()) == [{"s": "a", "x": 1}, {"s": "c", "x": 1}]
    assert [(d["reason"], d["row"], d["rows"]) for d in letters] == [("too_large", 1, 1), ("unreadable", 3, None)]


def test_an_endless_record_is_not_held(tmp_path):
    path = write(tmp_path, "s,x\na,1\n" + "b" * 20_000_000 + ",1\nc,1\n")
    settings = options(contract(s="string", x="int8"), max_row_bytes=100_000, max_block_bytes=1 << 16)
    tracemalloc.start()
    for _ in csv_blocks.blocks(FileRange(str(path), 0), 4, settings):
        pass
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 2_000_000
    began = time.process_time()
    assert [f if isinstance(f, dict) else f[0] for f in fates(path, settings)] == [
        {"s": "a", "x": 1},
        "too_large",
        {"s": "c", "x": 1},
    ]
    assert time.process_time() - began < 3


def test_dead_letters_stand_in_the_block_of_their_neighbours(tmp_path):
    path = write(tmp_path, "x\n" + "1\n1,1\n" * 10)
    settings = options(contract(x="int8"), max_block_rows=2)
    ranges = [(FileRange(str(path), 0),)]
    blocks = [b for b in read_split(Split(0, ranges[0]), settings, "a") if b.count]
    assert max(b.count for b in blocks) <= 4
    numbers = [sorted(b.rows[ROW].to_pylist() + b.rejected["row"].to_pylist()) for b in blocks]
    assert [n for block in numbers for n in block] == list(range(20))
    assert [i for b in blocks for i in b.rows[ROW].to_pylist()] == list(range(0, 20, 2))
    assert [r for b in blocks for r in b.rejected["row"].to_pylist()] == list(range(1, 20, 2))


# Two ways of reading numbers.

CELLS = st.one_of(
    st.integers(-5, 200).map(str),
    st.sampled_from(["7", "7.5", "1e2", "007", "+3"]),
    st.sampled_from(
        ["", "NA", "n/a", '"n/a"', " n/a ", " NA", "unknown", "nan", "inf", "-inf", "1e400", "1e39", "0x1A"]
    ),
    st.sampled_from(
        ["0x1A", '""', '"12"', '" 12 "', " 12 ", "99999999999999999999", "1.50", "x" * 50, '"a\nb"', "a,b"]
    ),
)
GOOD = st.integers(0, 100).map(str)
BOTH_WAYS = {
    "i": {"dtype": "int32", "range": (0, 150)},
    "f": {"dtype": "float32", "range": (0, 150)},
    "d": {"dtype": "float64", "default": 5.0, "nulls": ("NA",)},
    "o": {"dtype": "int64", "required": False, "nulls": ("NA", "n/a")},
    "m": {"dtype": "float32", "nan": "missing", "default": 1.0},
    "e": {"dtype": "float64", "finite": False, "required": False},
    "s": {"dtype": "string", "required": False},
}


@SOME
@given(
    rows=st.lists(st.tuples(*[GOOD] * 7), min_size=30, max_size=60),
    dirt=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 6), CELLS), max_size=25),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    changes=st.fixed_dictionaries(
        {"strip": st.booleans(), "payload": st.booleans(), "keep": st.sampled_from([(), ("k",)])},
        optional={"max_block_bytes": st.sampled_from([200, 1000])},
    ),
)
def test_numbers_parsed_directly_have_the_fate_of_numbers_parsed_from_text(tmp_path, rows, dirt, end, changes):
    table = [[*row, "kept"] for row in rows]
    for row, column, cell in dirt:
        table[row % len(table)][column] = cell
    path = write(tmp_path, "\n".join(["i,f,d,o,m,e,s,k", *(",".join(row) for row in table)]).replace("\n", end))
    columns = Contract(columns={n: Column(**c).within(changes["strip"], ".") for n, c in BOTH_WAYS.items()})
    directly = outcome(path, options(columns, **changes))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TypedColumns, "types", lambda *_: {})
        from_text = outcome(path, options(columns, **changes))
    assert repr(directly) == repr(from_text)


def test_a_few_bad_values_leave_a_column_typed(tmp_path):
    rows = [f"{i},{'n/a' if i % 10 == 3 else '212' if i % 10 == 7 else 20}" for i in range(200)]
    path = write(tmp_path, "\n".join(["n,x", *rows]))
    settings = options(contract(n="int64", x={"dtype": "float32", "range": (0, 150)}), max_block_bytes=300)
    blocks = list(read_split(Split(0, (FileRange(str(path), path.stat().st_size),)), settings, "a"))
    assert len(blocks) > 5 and {b.rows.schema.field("x").type for b in blocks} == {pa.float32()}
    _, letters = outcome(path, settings)
    assert {(d["reason"], d["message"]) for d in letters} == {
        ("wrong_type", "column 'x' is 'n/a', expected float32 (contract: range 0..150)"),
        ("out_of_range", "column 'x' is '212', expected float32 (contract: range 0..150)"),
    }
    assert len(letters) == 40


def test_the_next_file_begins_with_the_bad_texts_of_the_last_unless_they_were_too_many():
    columns = contract(n="int64", begins={"dtype": "float32", "range": (0, 150)}).columns
    first = TypedColumns(columns)
    assert first.bad_texts == {} and first.learn("n", "n/a") and first.learn("begins", "-")
    second = TypedColumns(columns)
    assert [*second.bad_texts] == ["n/a", "-"] and not second.learn("n", "n/a") and not second.was_bad
    assert TypedColumns({"n": columns["n"]}).bad_texts == {}  # other columns
    second.give_up("n")
    assert [*second.bad_texts] == ["-"]  # that of a column that is text by now
    third = TypedColumns(columns)
    assert third.bad_texts == {} and third.was_bad and not TypedColumns(columns).was_bad  # it had none itself
    assert second.learn("begins", "none") and TypedColumns(columns).was_bad  # they were not enough


@pytest.fixture
def parsed(monkeypatch) -> list[int]:
    """The length of each text that pyarrow's reader is called with."""
    lengths, read = [], _Parser._read

    def noted(self, text, *rest):
        lengths.append(len(text))
        return read(self, text, *rest)

    monkeypatch.setattr(_Parser, "_read", noted)
    return lengths


def test_bad_texts_of_a_block_are_found_in_its_beginning(tmp_path, parsed):
    rows = [f"{i},{('n/a', 'none', '-', 'null')[i % 4] if i % 5 == 3 else 20}" for i in range(20_000)]
    path = write(tmp_path, "\n".join(["n,unlike", *rows]))
    settings = options(contract(n="int64", unlike={"dtype": "float32", "range": (0, 150)}), max_block_bytes=1 << 20)
    _, letters = outcome(path, settings)
    assert len(letters) == 4000 and {d["reason"] for d in letters} == {"wrong_type"}
    whole = [size for size in parsed if size > 150_000]
    assert len(whole) == 2, parsed  # until the first bad text, and to the end


def test_a_file_after_one_with_many_bad_values_is_read_once(tmp_path, parsed):
    rows = [f"{i},{('n/a', 212, 20)[i % 3]}" for i in range(20_000)]
    settings = options(contract(n="int64", often={"dtype": "float32", "range": (0, 150)}), max_block_bytes=1 << 20)
    paths = [write(tmp_path, "\n".join(["n,often", *rows]), f"{i}.csv") for i in range(2)]
    found = []
    for path in paths:
        parsed.clear()
        _, letters = outcome(path, settings)
        found.append([(d["row"], d["reason"], d["message"], d["payload"]) for d in letters])
    assert len(found[0]) == 13_334 and found[0] == found[1]
    assert len([size for size in parsed if size > 150_000]) == 1, parsed  # as text: its beginning has shown that


def test_a_bad_text_is_bad_in_a_column_beside_one_that_is_read_as_text(tmp_path):
    rows = [f"{('n/a', 1)[i % 2]},{'n/a' if i % 100 == 7 else 2}" for i in range(2000)]
    path = write(tmp_path, "\n".join(["often,seldom", *rows]))
    optional = {"dtype": "float32", "required": False}
    found, letters = outcome(path, options(contract(often=optional, seldom=optional)))
    assert len(found) + len(letters) == 2000 and {d["reason"] for d in letters} == {"wrong_type"}
    columns = [sorted(error["column"] for error in d["errors"]) for d in letters]
    assert sum("often" in c for c in columns) == 1000 and sum("seldom" in c for c in columns) == 20


def test_after_a_ragged_block_the_next_ones_are_read_as_before(tmp_path):
    rows = [f"{i},{i % 7}" + ",x" * (i in (5, 6, 70, 199)) for i in range(200)]
    path = write(tmp_path, "\n".join(["n,x", *rows]))
    settings = options(contract(n="int64", x="int64"), max_block_bytes=100)
    found, letters = outcome(path, settings)
    assert [d["row"] for d in letters] == [5, 6, 70, 199] and {d["reason"] for d in letters} == {"ragged_row"}
    assert [row["n"] for row in found.values()] == [i for i in range(200) if i not in (5, 6, 70, 199)]
