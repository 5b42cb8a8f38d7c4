"""Avro: codecs, logical types, unions with null, and what is refused by the name of the column."""

import datetime
import decimal

import avro_files
import polars as pl
import pytest
from avro_files import CODECS, avro_file, container, encoded, number, record

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.avro.reader import FORMAT as AVRO
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.first_rows import Hints


def reading(columns=None, **changes):
    return ReadSettings("avro", Contract(columns={n: Column(**c) for n, c in (columns or {}).items()}), **changes)


def written(tmp_path, content: bytes) -> str:
    path = tmp_path / "rows.avro"
    path.write_bytes(content)
    return str(path)


def outcome(path: str, settings: ReadSettings) -> tuple[list[dict], list[dict]]:
    chunks = list(AVRO.read(FileRange(path, 0), settings))
    return [r for c in chunks for r in c.rows.to_pylist()], [r for c in chunks for r in c.rejected.to_pylist()]


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_of_the_specification(tmp_path, codec):
    rows = [{"x": i, "s": f"é {i}"} for i in range(1000)]
    path = written(tmp_path, avro_file(record(x="long", s="string"), rows, codec))
    found, letters = outcome(path, reading({"x": {"dtype": "int32"}, "s": {"dtype": "string"}}))
    assert [{"x": r["x"], "s": r["s"]} for r in found] == rows and not letters


def test_a_codec_that_is_not_known(tmp_path):
    content = avro_file(record(x="long"), [{"x": 1}]).replace(b"\x08null", b"\x08nulk")
    with pytest.raises(UnusableFile, match=r"compressed by 'nulk': expected one of bzip2, deflate"):
        AVRO.check(written(tmp_path, content), reading())


DAY = datetime.date(2026, 11, 28)
TIME = datetime.datetime(2026, 11, 28, 9, 59, 22, 123456)
UTC = TIME.replace(tzinfo=datetime.UTC)
SECONDS = int(UTC.timestamp())
KEPT = {
    "enum": ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, "B", "B"),
    "enum or null": (["null", {"type": "enum", "name": "e", "symbols": ["A", "B"]}], "A", "A"),
    "fixed": ({"type": "fixed", "name": "f", "size": 3}, b"abc", b"abc"),
    "fixed or null": ([{"type": "fixed", "name": "f", "size": 3}, "null"], b"abc", b"abc"),
    "date": ({"type": "int", "logicalType": "date"}, (DAY - datetime.date(1970, 1, 1)).days, DAY),
    "time": ({"type": "long", "logicalType": "time-micros"}, 3_600_000_001, datetime.time(1, 0, 0, 1)),
    "timestamp": ({"type": "long", "logicalType": "timestamp-micros"}, SECONDS * 10**6 + 123456, UTC),
    "millis": (
        {"type": "long", "logicalType": "timestamp-millis"},
        SECONDS * 1000 + 123,
        UTC.replace(microsecond=123000),
    ),
    "local": ({"type": "long", "logicalType": "local-timestamp-micros"}, SECONDS * 10**6 + 123456, TIME),
    "numeric": (  # BigQuery's NUMERIC
        {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9},
        (-1_500_000_000).to_bytes(5, "big", signed=True),
        decimal.Decimal("-1.500000000"),
    ),
    "fixed decimal": (
        {"type": "fixed", "name": "d", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 2},
        (12345).to_bytes(4, "big", signed=True),
        decimal.Decimal("123.45"),
    ),
    "datetime": ({"type": "string", "sqlType": "DATETIME"}, "2026-11-28T09:59:22", "2026-11-28T09:59:22"),
    "unknown logical type": ({"type": "string", "logicalType": "uuid"}, "0a", "0a"),
    "list": ({"type": "array", "items": ["null", "long"]}, [1, None, 3], [1, None, 3]),
    "list or null": (["null", {"type": "array", "items": "string"}], ["a", "é"], ["a", "é"]),
    "lists": ({"type": "array", "items": {"type": "array", "items": "int"}}, [[1], [], [2, 3]], [[1], [], [2, 3]]),
    "boolean or null": (["null", "boolean"], True, True),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept_columns_have_their_own_type(tmp_path, name):
    schema, stored, expected = KEPT[name]
    whole = record(x=schema, y="long")
    rows = [{"x": stored, "y": 1}, {"x": stored, "y": 2}]
    if isinstance(schema, list):
        rows.insert(1, {"x": None, "y": 5})
    path = written(tmp_path, avro_file(whole, rows))
    types = AVRO.columns_of(path, reading(keep=("x",)))
    found, letters = outcome(path, reading({"y": {"dtype": "int64"}}, keep=("x",), kept_types={"x": types["x"]}))
    assert [r["x"] for r in found] == [None if r["x"] is None else expected for r in rows] and not letters


def test_values_become_those_of_the_contract(tmp_path):
    schema = record(
        a=["null", "int"],
        b="float",
        c=["null", "double"],
        d="boolean",
        e={"type": "array", "items": "double"},
        f={"type": "enum", "name": "e", "symbols": ["red", "blue"]},
        g={"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
    )
    row = {"a": 7, "b": 1.5, "c": None, "d": True, "e": [1.0, 2.0], "f": "blue", "g": (150).to_bytes(2, "big")}
    path = written(tmp_path, avro_file(schema, [row]))
    columns = {
        "a": {"dtype": "int8"},
        "b": {"dtype": "float64"},
        "c": {"dtype": "float32", "required": False},
        "d": {"dtype": "bool"},
        "e": {"dtype": "float32", "shape": (2,)},
        "f": {"dtype": "string"},
        "g": {"dtype": "float64"},
    }
    ((found,), letters) = outcome(path, reading(columns))
    expected = {"#row": 0, "a": 7, "b": 1.5, "c": None, "d": True, "e": [1.0, 2.0], "f": "blue", "g": 1.5}
    assert found == expected and not letters


def test_a_bad_value_costs_its_row(tmp_path):
    rows = [{"x": 1, "s": "a"}, {"x": 300, "s": "b"}, {"x": 2, "s": b"\xff"}]
    path = written(tmp_path, avro_file(record(x="long", s="string"), rows))
    found, _ = outcome(path, reading({"x": {"dtype": "int8"}, "s": {"dtype": "string"}}))
    assert [[f["reason"] for f in r["#faults"] or ()] for r in found] == [[], ["out_of_range"], ["bad_encoding"]]


def nested(**fields):
    return {"type": "record", "name": "inner", "fields": [{"name": n, "type": t} for n, t in fields.items()]}


UNUSED = {
    "record": (nested(p="long", q=["null", "string"]), {"p": 1, "q": "x"}),
    "record or null": (["null", nested(p={"type": "array", "items": "long"})], {"p": [1, 2]}),
    "map": ({"type": "map", "values": "double"}, {"k": 1.0, "l": 2.0}),
    "map or null": (["null", {"type": "map", "values": "string"}], {"k": "v"}),
    "records in a list": ({"type": "array", "items": nested(p="string")}, [{"p": "a"}, {"p": "b"}]),
    "wide decimal": (
        {"type": "bytes", "logicalType": "decimal", "precision": 77, "scale": 38},
        b"\x01" * 30,
    ),
    "null": ("null", None),
}


@pytest.mark.parametrize("name", UNUSED)
def test_columns_of_other_types_are_passed_over_and_refused_by_name_if_they_are_used(tmp_path, name):
    schema, value = UNUSED[name]
    rows = [{"x": value, "y": i} for i in range(300)]
    path = written(tmp_path, avro_file(record(x=schema, y="long"), rows))
    found, letters = outcome(path, reading({"y": {"dtype": "int64"}}))
    assert [r["y"] for r in found] == list(range(300)) and not letters
    assert [r["y"] for r in AVRO.first_rows(path, 5, Hints()).rows] == list(range(5))
    if name != "null":
        with pytest.raises(UnusableFile, match=r"wrong_type: column 'x' is ") as error:
            AVRO.check(path, reading({"x": {"dtype": "float64"}}))
        assert error.value.column == "x"


REFUSED = {
    "a union of two types": (["int", "string"], r"column 'x' is a union of int and string: .*only those of null and"),
    "a type that contains itself": (
        {"type": "record", "name": "t", "fields": [{"name": "next", "type": ["null", "t"]}]},
        r"column 'x' is of a type that contains itself, t",
    ),
    "an undefined type": ("nobody", r"column 'x' is of a type that the schema does not define, nobody"),
    "a list of null": ({"type": "array", "items": "null"}, "column 'x' is an array of null"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_decoded_is_refused_by_the_name_of_the_column(tmp_path, name):
    schema, said = REFUSED[name]
    path = written(tmp_path, container(record(x=schema, y="long"), []))
    for call in (lambda: AVRO.check(path, reading()), lambda: AVRO.first_rows(path, 3, Hints())):
        with pytest.raises(UnusableFile, match=said):
            call()


def test_a_type_may_be_named_again(tmp_path):
    enum = {"type": "enum", "name": "colour", "namespace": "a.b", "symbols": ["red", "blue"]}
    schema = {
        "type": "record",
        "name": "row",
        "fields": [{"name": "x", "type": enum}, {"name": "y", "type": "a.b.colour"}],
    }
    content = container(schema, [(1, number(1) + number(0))])
    found, _ = outcome(written(tmp_path, content), reading(keep=("x", "y")))
    assert (found[0]["x"], found[0]["y"]) == ("blue", "red")


def test_a_damaged_block_costs_its_rows(tmp_path):
    schema = record(x="long", s="string")
    good = [encoded({"x": i, "s": "ab"}, schema) for i in range(30)]
    blocks = [(10, b"".join(good[:10])), (10, b"".join(good[10:20])[:-1] + b"\xff"), (10, b"".join(good[20:]))]
    blocks[1] = (10, b"".join(good[10:20])[:-2])
    path = written(tmp_path, container(schema, blocks))
    found, (letter,) = outcome(path, reading({"x": {"dtype": "int64"}}))
    assert [r["#row"] for r in found] == [r["x"] for r in found] == [*range(10), *range(20, 30)]
    assert (letter["row"], letter["rows"], letter["reason"]) == (10, 10, "unreadable")


def test_a_wrong_crc_of_snappy_is_found(tmp_path):
    rows = [{"x": i} for i in range(200)]
    content = bytearray(avro_file(record(x="long"), rows, "snappy"))
    content[-17] ^= 1  # the last byte before the last sync marker
    found, (letter,) = outcome(written(tmp_path, bytes(content)), reading({"x": {"dtype": "int64"}}))
    assert len(found) == 100 and letter["rows"] == 100 and "its CRC is wrong" in letter["message"]


def test_more_rows_than_bytes_are_damage(tmp_path):
    for rows in (2, 1 << 40):
        path = written(tmp_path, container(record(x="null", y="long"), [(1, number(7)), (rows, number(1))]))
        (found,), (letter,) = outcome(path, reading({"y": {"dtype": "int64"}}))
        assert found["y"] == 7 and (letter["row"], letter["rows"]) == (1, None)


def test_another_writer_agrees(tmp_path):
    """polars writes what we read."""
    frame = pl.DataFrame(
        {"id": [1, 2, None], "s": ["a", None, "c"], "d": [DAY, None, DAY], "l": [[1.5], [], None], "t": [TIME] * 3}
    )
    frame.write_avro(tmp_path / "p.avro", compression="snappy")
    found, _ = outcome(str(tmp_path / "p.avro"), reading(keep=("id", "s", "d", "l", "t")))
    expected = frame.to_dicts()
    assert [{n: v for n, v in r.items() if n != "#row"} for r in found] == [
        r | {"t": r["t"].replace(tzinfo=found[0]["t"].tzinfo)} for r in expected
    ]
    assert avro_files.SYNC not in (tmp_path / "p.avro").read_bytes()


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, 1 << 65])
def test_a_block_that_claims_more_bytes_than_the_file_has_is_damage(tmp_path, size):
    content = container(record(y="long"), [(1, number(7))]) + wide_number(1) + wide_number(size)
    path = written(tmp_path, content)
    (found,), (letter,) = outcome(path, reading({"y": {"dtype": "int64"}}))
    assert found["y"] == 7 and (letter["row"], letter["rows"], letter["reason"]) == (1, None, "unreadable")
    assert AVRO.cut(path, len(content), 10, reading({"y": {"dtype": "int64"}}))


def wide_number(value: int) -> bytes:
    value, out = value << 1, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_a_name_is_that_of_its_namespace(tmp_path):
    """The specification, "Names": a name without a dot is in the namespace of what encloses it."""
    schema = {
        "type": "record",
        "name": "row",
        "namespace": "a",
        "fields": [
            {"name": "p", "type": {"type": "enum", "name": "Color", "symbols": ["RED", "GREEN"]}},
            {"name": "q", "type": {"type": "enum", "name": "Color", "namespace": "b", "symbols": ["BLUE", "BLACK"]}},
            {"name": "r", "type": "Color"},
            {"name": "s", "type": "a.Color"},
            {"name": "t", "type": "b.Color"},
        ],
    }
    content = container(schema, [(1, number(0) * 5)])
    ((found,), _) = outcome(written(tmp_path, content), reading(keep=("p", "q", "r", "s", "t")))
    assert [found[n] for n in "pqrst"] == ["RED", "BLUE", "RED", "RED", "BLUE"]


def test_a_row_that_contains_itself_and_types_without_end_are_refused(tmp_path):
    whole = record(x="long")
    whole["fields"].append({"name": "next", "type": ["null", "row"]})
    levels = [{"name": f"f{i}", "type": "l0"} for i in range(10)]
    fields = [{"name": "a", "type": {"type": "record", "name": "l0", "fields": [{"name": "x", "type": "long"}]}}]
    for level in range(1, 8):
        inner = [{"name": f["name"], "type": f"l{level - 1}"} for f in levels]
        fields.append({"name": f"a{level}", "type": {"type": "record", "name": f"l{level}", "fields": inner}})
    wide = {"type": "record", "name": "wide", "fields": fields}
    huge = record(x={"type": "fixed", "name": "f", "size": 1 << 62})
    for schema, said in ((whole, "contains itself, row"), (wide, "types within types"), (huge, "is fixed of")):
        with pytest.raises(UnusableFile, match=said):
            AVRO.check(written(tmp_path, container(schema, [])), reading())


@pytest.mark.parametrize("codec", [c for c in CODECS if c != "null"])
@pytest.mark.parametrize("cut_off", [1, 5, 30])
def test_a_block_whose_content_ends_early_costs_its_rows(tmp_path, codec, cut_off):
    schema = record(x="long")
    whole = container(schema, [(100, b"".join(number(i * 7919) for i in range(100)))], codec)
    head = whole[: len(container(schema, [], codec))]
    packed = whole[len(head) :][len(number(100)) :]
    size = packed.index(avro_files.SYNC)
    for prefix in range(1, 3):  # the size before the content
        content = packed[prefix:size]
        if packed[:prefix] == number(len(content)):
            break
    cut = number(100) + avro_files.sized(content[:-cut_off]) + avro_files.SYNC
    good = whole[len(head) :]
    found, letters = outcome(written(tmp_path, head + good + cut + good), reading({"x": {"dtype": "int64"}}))
    assert [r["#row"] for r in found] == [*range(100), *range(200, 300)]
    assert [(r["row"], r["rows"]) for r in letters] == [(100, 100)]


def test_a_decimal_wider_than_any_number_is_refused_by_name(tmp_path):
    wide = {"type": "fixed", "name": "d", "size": 20, "logicalType": "decimal", "precision": 10, "scale": 2}
    path = written(tmp_path, avro_file(record(x=wide, y="long"), [{"x": bytes(20), "y": 1}]))
    assert outcome(path, reading({"y": {"dtype": "int64"}}))[0][0]["y"] == 1
    with pytest.raises(UnusableFile, match="column 'x' is a decimal of 20 bytes"):
        AVRO.check(path, reading({"x": {"dtype": "float64"}}))


def test_lack_of_memory_is_not_the_fault_of_a_file(tmp_path, monkeypatch):
    from beam_score.transforms.formats.avro import container as module

    def fails(data):
        raise MemoryError("no room")

    monkeypatch.setitem(module._DECOMPRESS, "deflate", fails)
    path = written(tmp_path, avro_file(record(y="long"), [{"y": 1}], "deflate"))
    with pytest.raises(MemoryError):
        outcome(path, reading({"y": {"dtype": "int64"}}))


def test_a_chunk_is_bounded_in_bytes(tmp_path):
    rows = [{"s": "x" * 100_000} for _ in range(60)]
    path = written(tmp_path, avro_file(record(s="string"), rows, block_rows=60))
    chunks = list(AVRO.read(FileRange(path, 0), reading({"s": {"dtype": "string"}}, max_block_bytes=1 << 20)))
    assert max(chunk.rows.num_rows for chunk in chunks) <= 11
