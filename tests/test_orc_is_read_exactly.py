"""ORC: types, compressions, and footers that contradict the stripes."""

import datetime
import io

import pyarrow as pa
import pytest
from pyarrow import orc

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.detect import format_by_content
from beam_score.transforms.formats.orc.reader import FORMAT as ORC


def reading(columns=None, **changes):
    return ReadSettings("orc", Contract(columns={n: Column(**c) for n, c in (columns or {}).items()}), **changes)


def content(table: pa.Table, **options) -> bytes:
    out = io.BytesIO()
    orc.write_table(table, out, **options)
    return out.getvalue()


def outcome(path, settings) -> tuple[list[dict], list[dict]]:
    chunks = list(ORC.read(FileRange(str(path), 0), settings))
    return [r for c in chunks for r in c.rows.to_pylist()], [r for c in chunks for r in c.rejected.to_pylist()]


@pytest.mark.parametrize("codec", ["uncompressed", "zlib", "snappy", "zstd", "lz4"])
@pytest.mark.parametrize("count", [3, 20_000])
def test_every_compression_is_recognised_and_read(tmp_path, codec, count):
    table = pa.table({"x": list(range(count)), "s": [f"t{i}" for i in range(count)]})
    path = tmp_path / "rows"
    path.write_bytes(content(table, compression=codec))
    assert format_by_content(path.read_bytes()[:64]) == "orc"
    found, letters = outcome(path, reading({"x": {"dtype": "int32"}}, keep=("s",)))
    assert [r["x"] for r in found] == table["x"].to_pylist() and found[-1]["s"] == f"t{count - 1}" and not letters


@pytest.mark.parametrize("text", [b"ORCID,x\n1,2\n", b"ORC\nabc\n", b"ORC,a\nb,1\n"])
def test_text_that_begins_alike_is_text(text):
    assert format_by_content(text) is None


def test_columns_of_other_types_are_kept_or_refused_by_name(tmp_path):
    table = pa.table(
        {
            "day": pa.array([datetime.date(2026, 11, 28)]),
            "list": pa.array([[1.5, 2.5]]),
            "inner": pa.array([{"p": 1}]),
            "y": pa.array([7]),
        }
    )
    path = tmp_path / "rows.orc"
    path.write_bytes(content(table))
    columns = {"list": {"dtype": "float32", "shape": (2,)}, "y": {"dtype": "int8"}}
    types = ORC.columns_of(str(path), reading(columns, keep=("day",)))
    ((found,), _) = outcome(path, reading(columns, keep=("day",), kept_types=types))
    assert (found["list"], found["y"], found["day"]) == ([1.5, 2.5], 7, datetime.date(2026, 11, 28))
    with pytest.raises(UnusableFile, match=r"column 'inner' is struct<p: int64>, expected float64"):
        ORC.check(str(path), reading({"inner": {"dtype": "float64"}}))


# Footers that lie. The footer is a protobuf: field 3 is a stripe, whose field 5 is its number of rows; 6 is the total.


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def coded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    found, at = [], 0
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            value, at = data[at : at + value], at + value
        found.append((key >> 3, value))
    return found


def message(content_: list[tuple[int, int | bytes]]) -> bytes:
    parts = []
    for number, value in content_:
        if isinstance(value, int):
            parts.append(coded(number << 3) + coded(value))
        else:
            parts.append(coded(number << 3 | 2) + coded(len(value)) + value)
    return b"".join(parts)


def with_counts(data: bytes, stripe: int, total: int) -> bytes:
    """An uncompressed file of one stripe whose footer claims these numbers of rows."""
    size = data[-1]
    postscript = fields(data[-1 - size : -1])
    length = dict(postscript)[1]
    start = len(data) - 1 - size - length
    footer = []
    for number, value in fields(data[start : start + length]):
        if number == 3:
            value = message([(n, stripe if n == 5 else v) for n, v in fields(value)])
        footer.append((number, total if number == 6 else value))
    packed = message(footer)
    last = message([(n, len(packed) if n == 1 else v) for n, v in postscript])
    return data[:start] + packed + last + bytes([len(last)])


@pytest.fixture(scope="module")
def small() -> bytes:
    return content(pa.table({"x": pa.array([7] * 200)}), compression="uncompressed")


def test_the_footer_is_rewritten_as_it_was(small, tmp_path):
    path = tmp_path / "rows.orc"
    path.write_bytes(with_counts(small, 200, 200))
    assert len(outcome(path, reading({"x": {"dtype": "int64"}}))[0]) == 200


def test_rows_that_the_footer_claims_and_no_stripe_has_are_a_dead_letter(small, tmp_path):
    path = tmp_path / "rows.orc"
    path.write_bytes(with_counts(small, 150, 200))
    found, (letter,) = outcome(path, reading({"x": {"dtype": "int64"}}))
    assert len(found) == 150 and (letter["row"], letter["rows"], letter["reason"]) == (150, None, "unreadable")
    assert letter["message"] == "the footer claims 200 rows, and the stripes contain 150"


def test_more_rows_than_fit_into_memory_are_refused_before_they_are_decoded(small, tmp_path):
    path = tmp_path / "rows.orc"
    path.write_bytes(with_counts(small, 1 << 36, 1 << 36))
    with pytest.raises(UnusableFile, match=r"its footer claims 68,719,476,736 rows in 1 stripes"):
        ORC.check(str(path), reading({"x": {"dtype": "int64"}}))
