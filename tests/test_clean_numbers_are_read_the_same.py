"""A row of CSV meets the same fate, to the last bit and word, whether its columns went through pyarrow's own
number parser, as those of clean blocks do, or were read as text and judged, as after one bad value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.csv import reader
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


def fates(folder, contract, lines, spoil):
    """What becomes of each line; `spoil` puts lines before them with so many bad texts that each column is text."""
    names = list(contract.columns)
    path = folder / "a.csv"
    first = [",".join(f"spoilt {i}" for _ in names) for i in range(12)] if spoil else []
    path.write_text("\n".join([",".join(names), *first, *lines]) + "\n", encoding="utf-8")
    shift = len(first)
    found = {}
    for block in read_split(Split(0, (FileRange(str(path), 0),)), ReadSettings("csv", contract), "a"):
        block = validate(block, contract)
        values = {n: block.rows[n].to_pylist() for n in names}
        for at, row in enumerate(block.rows["#row"].to_pylist()):
            row_values = {n: values[n][at] for n in names}
            found[row - shift] = [
                None if value is None else np.array(value, contract.columns[n].dtype).tobytes()
                for n, value in row_values.items()
            ]
        for letter in block.rejected.to_pylist():
            found[letter["row"] - shift] = (letter["reason"], letter["column"], letter["message"], letter["errors"])
    found = {row: fate for row, fate in found.items() if row >= 0}
    assert len(found) == len(lines)
    return found


def contract_of(**columns):
    return Contract(columns=columns)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limits", [None, [0, 100]])
def test_each_spelling_alone_among_clean_rows(dtype, limits, tmp_path):
    contract = contract_of(a={"dtype": dtype, "range": limits}, b={"dtype": "float32"})
    for text in SPELLINGS:
        lines = ["1,1", f"{text if ',' not in text else chr(34) + text + chr(34)},2", "3,3"]
        assert fates(tmp_path, contract, lines, False) == fates(tmp_path, contract, lines, True), text


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
    assert fates(folder, contract, lines, False) == fates(folder, contract, lines, True)


def test_many_bad_texts_make_a_column_text(tmp_path):
    reads = []

    class Noting(reader._Parser):
        def _read(self, text, nulls, types, is_utf8):
            reads.append(set(types.values()))
            return super()._read(text, nulls, types, is_utf8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_Parser", Noting)
        fates(tmp_path, contract_of(a={"dtype": "float32"}, b={"dtype": "int64"}), ["1,2"] * 9, True)
    assert reads[-1] == {pa.string()}  # what the tests of this file compare with


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.integers(1, 8),
    shares=st.tuples(*[st.sampled_from([0, 0.01, 0.1, 0.3, 1])] * 3),
    required=st.booleans(),
)
def test_bad_texts_at_any_density_in_several_columns(seed, kinds, shares, required, tmp_path_factory):
    rng = np.random.default_rng(seed)
    bad = ["n/a", "", "-", "212", "nan", "x" * 50, "7.5", "1e400"][:kinds]
    lines = [
        ",".join(bad[rng.integers(len(bad))] if rng.random() < share else str(rng.integers(100)) for share in shares)
        for _ in range(300)
    ]
    common = {"range": (0, 150), "required": required}
    contract = contract_of(
        a={"dtype": "float32", **common}, b={"dtype": "int64", **common}, c={"dtype": "float64", **common}
    )
    folder = tmp_path_factory.mktemp("density")
    assert fates(folder, contract, lines, False) == fates(folder, contract, lines, True)
