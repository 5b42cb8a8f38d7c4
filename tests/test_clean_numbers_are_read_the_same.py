"""A row of CSV meets the same fate, to the last bit and word, whether its columns went through pyarrow's own
number parser, as those of clean blocks do, through that of polars, as after one bad value, or were read as text and
judged, as in a block with quotes after one bad value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.scoring.validate import validate

SPELLINGS = [
    *(
        "0",
        "-0",
        "+0",
        "7",
        "+7",
        "007",
        "7.0",
        "7.",
        ".5",
        "-.5",
        "7e2",
        "7E+2",
        "1e-3",
        " 7",
        "7\t",
        '"7"',
        "9007199254740993",
    ),
    *(
        "0.1",
        "16777217",
        "3.4028236e38",
        "1e39",
        "1e400",
        "-1e400",
        "1e-400",
        "1e-46",
        "65504",
        "65520",
        "nan",
        "-nan",
        "inf",
    ),
    *(
        "Infinity",
        "-INF",
        "nan(1)",
        "",
        '""',
        " ",
        "-",
        ".",
        "0x10",
        "0X1F",
        "1_000",
        "1,5",
        "1d3",
        "1.5f",
        "n/a",
        "true",
        "\u0661",
    ),
    *(
        "127",
        "128",
        "-129",
        "255",
        "256",
        "-1",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
    ),
    *("1\x00", "7 7", "\u00a07", "1e", "e5", "--1", "1.0000000000000000001", "2.5"),
]
DTYPES = ["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint64"]


WAYS = ["clean", "dirty", "text"]


def fates(folder, contract, lines, way, end="\n"):
    """What becomes of each line; lines before them cause the way in which they are read."""
    names = list(contract.columns)
    path = folder / "a.csv"
    first = []
    if way != "clean":
        first.append(",".join("spoilt" if way == "dirty" else '"spoilt"' for _ in names))
    if way == "dirty":  # enough good lines that most of the block is good: a small block is left to pyarrow
        first += [",".join("1" for _ in names)] * 1_200
    path.write_text(end.join([",".join(names), *first, *lines]) + end, encoding="utf-8", newline="")
    shift = len(first)
    found = {}
    for block in read_split(Split(0, (FileRange(str(path), 0),)), ReadSettings("csv", contract), "a"):
        block = validate(block, contract)
        values = {n: block.rows[n].to_pylist() for n in names}
        for at, row in enumerate(block.rows["#row"].to_pylist()):
            if row >= shift:
                found[row - shift] = [np.array(values[n][at], contract.columns[n].dtype).tobytes() for n in names]
        for letter in block.rejected.to_pylist():
            if letter["row"] >= shift:
                found[letter["row"] - shift] = {n: letter[n] for n in letter if n != "row"}
    return found


def contract_of(**columns):
    return Contract(columns=columns)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limits", [None, [0, 100]])
def test_each_spelling_alone_among_clean_rows(dtype, limits, tmp_path):
    contract = contract_of(a={"dtype": dtype, "range": limits}, b={"dtype": "float32"})
    for text in SPELLINGS:
        lines = ["1,1", f"{text if ',' not in text else chr(34) + text + chr(34)},2", "3,3"]
        for end in ("\n", "\r\n"):
            clean, dirty, as_text = (fates(tmp_path, contract, lines, way, end) for way in WAYS)
            assert clean == dirty == as_text, text
            assert len(clean) == 3


def test_allowed_values_are_told_as_they_are_written(tmp_path):
    contract = contract_of(a={"dtype": "int16", "allowed": [1, 7]}, b={"dtype": "float32"})
    lines = [f"{text},{number}" for number, text in enumerate(["1", "007", "07.0", "5", "005", "300000", "x", "+1"])]
    clean, dirty, as_text = (fates(tmp_path, contract, lines, way) for way in WAYS)
    assert clean == dirty == as_text
    assert sorted(n for n, fate in clean.items() if isinstance(fate, dict)) == [3, 4, 5, 6]


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    texts=st.lists(
        st.one_of(
            st.sampled_from([s for s in SPELLINGS if "," not in s]),
            st.floats(width=64).map(repr),
            st.integers(-(2**65), 2**65).map(str),
            st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_any_numbers(dtype, texts, tmp_path_factory):
    contract = contract_of(a={"dtype": dtype}, b={"dtype": "int64"})
    lines = [f"{text},{number}" for number, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("numbers")
    clean, dirty, as_text = (fates(folder, contract, lines, way) for way in WAYS)
    assert clean == dirty == as_text
    assert len(clean) == len(lines)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.sampled_from(["1", "2.5", "", "x", "7.0", "200", "nan", "NA", " 3", "4 ", "a b"]), max_size=5),
        min_size=1,
        max_size=30,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_any_table(rows, end, last, tmp_path_factory):
    """Ragged rows, blank lines, missing values, and columns that are not used, in any order."""
    columns = {
        "n": {"dtype": "int32", "range": [0, 100], "nulls": ["NA"], "default": 5},
        "t": {"dtype": "string", "required": False, "default": "-"},
        "x": {"dtype": "float64", "nan": "missing", "default": 0.5},
    }
    contract = contract_of(**(columns if last else {n: c for n, c in columns.items() if n != "x"}))
    folder = tmp_path_factory.mktemp("table")
    lines = [",".join(row) for row in rows]
    clean, dirty, as_text = (table_fates(folder, contract, lines, way, end) for way in WAYS)
    assert clean == dirty == as_text
    assert len(clean) == sum(map(bool, lines))


def table_fates(folder, contract, lines, way, end):
    path = folder / f"{way}.csv"
    first = []
    if way != "clean":
        first.append('spoilt,"",spoilt' if way == "text" else "spoilt,,spoilt")
    if way == "dirty":
        first += ["1,a,1"] * 1_200
    path.write_text(end.join(["n,t,x", *first, *lines]), newline="")
    found = {}
    for block in read_split(Split(0, (FileRange(str(path), 0),)), ReadSettings("csv", contract), "a"):
        block = validate(block, contract)
        for row in (*block.rows.to_pylist(), *block.rejected.to_pylist()):
            number = row.pop("#row", None)
            number = row.pop("row") if number is None else number
            if number >= len(first):
                found[number - len(first)] = str(row)
    return found
