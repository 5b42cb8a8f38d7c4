"""Each rule of docs/semantics on TFRecord and tf.Example: what is accepted, what is refused, and why."""

import gzip
import pathlib
import random
import struct

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from reading import read_settings
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import UnusableFile
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.formats.tfrecord.examples import _parse_one, parse
from beam_score.transforms.formats.tfrecord.reader import FORMAT as TFRECORD
from beam_score.transforms.formats.tfrecord.wire import BYTES, FLOAT, INT64
from beam_score.transforms.framing import crc32c
from beam_score.transforms.framing.tfrecord import PADDING, Records
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import FAULTS

NAN, INF = float("nan"), float("inf")


# The wire format, written by hand: the tests do not lean on the code they judge.


def masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data):
    size = struct.pack("<Q", len(data))
    return size + masked_crc(size) + data + masked_crc(data)


def varint(n):
    n &= 2**64 - 1
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, data):
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def floats(*values):
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)) if values else b"")


def ints(*values):
    return field(3, field(1, b"".join(map(varint, values))) if values else b"")


def texts(*values):
    return field(1, b"".join(field(1, v) for v in values))


def example(**features):
    return example_of(features.items())


def example_of(features):
    """An example of (name, value) pairs; a name may come twice."""
    return field(1, b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in features))


def reading(columns, **more):
    contract = Contract(
        columns={name: Column(**c) if isinstance(c, dict) else Column(dtype=c) for name, c in columns.items()}
    )
    return read_settings("tfrecord", contract, **more)


def written(path, records):
    path.write_bytes(b"".join(map(frame, records)))
    return str(path)


def outcome(path, settings, split_bytes=None):
    """What became of each row: values or (column, reason) pairs; and the stretches."""
    size = len(pathlib.Path(path).read_bytes())
    ranges = TFRECORD.cut(path, size, split_bytes, settings) if split_bytes else [FileRange(path, size)]
    rows, stretches = {}, []
    for range_ in ranges:
        for chunk in TFRECORD.read(range_, settings):
            for name, column in settings.contract_columns.items():
                assert chunk.rows.schema.field(name).type == column.arrow_type
            chunk.rows.validate(full=True)
            assert chunk.rows.num_rows <= settings.max_block_rows
            for row in chunk.rows.to_pylist():
                number, faults = row.pop(ROW), row.pop(FAULTS, None)
                assert number not in rows
                rows[number] = [(f["column"], f["reason"]) for f in faults] if faults else row
            for letter in chunk.rejected.to_pylist():
                if letter["rows"] == 1:
                    assert letter["row"] not in rows
                    rows[letter["row"]] = letter["reason"]
                else:
                    stretches.append((letter["row"], letter["rows"], letter["reason"]))
    return rows, stretches


def same(a, b):
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


CASES = [
    # Kinds must match.
    ("float32", [floats(0.5), ints(1), texts(b"1"), floats(2)], [0.5, 1.0, "wrong_type", 2.0]),
    ("float64", [ints(2**53 + 1), ints(-7)], [float(2**53 + 1), -7.0]),
    ("float16", [ints(65504), ints(70_000), floats(1.0)], [65504.0, "out_of_range", 1.0]),
    (
        "int64",
        [ints(-5), floats(5.0), texts(b"5"), ints(2**63 - 1), ints(-(2**63))],
        [-5, "wrong_type", "wrong_type", 2**63 - 1, -(2**63)],
    ),
    (
        "string",
        [texts("é".encode()), ints(1), floats(1.0), texts(b"\xff"), texts(b"")],
        ["é", "wrong_type", "wrong_type", "bad_encoding", ""],
    ),
    ("bytes", [texts(b"\xff\0"), ints(1)], [b"\xff\0", "wrong_type"]),
    (
        "bool",
        [ints(1), ints(0), ints(2), ints(-1), texts(b"true")],
        [True, False, "wrong_type", "wrong_type", "wrong_type"],
    ),
    # Outside the dtype.
    ("int8", [ints(127), ints(128), ints(-128), ints(-129)], [127, "out_of_range", -128, "out_of_range"]),
    ("uint64", [ints(2**63 - 1), ints(-1)], [2**63 - 1, "out_of_range"]),
    ("float64", [floats(0.1), floats(NAN), floats(INF)], [float(np.float32(0.1)), NAN, INF]),
    ("float16", [floats(0.5), floats(1e5), floats(-INF)], [0.5, "out_of_range", -INF]),
    # Absent or empty is missing; a scalar has one value.
    (
        "float32",
        [b"", floats(), None, floats(1.0, 2.0), floats(1.0), ints()],
        [None, None, None, "wrong_shape", 1.0, None],
    ),
    (
        "string",
        [texts(), texts(b"a", b"b"), texts(b"a" * 300), texts(b"b" * 70_000)],
        [None, "wrong_shape", "a" * 300, "b" * 70_000],
    ),
    # Shapes, flat in row-major order.
    (
        {"dtype": "float32", "shape": (2, 2)},
        [floats(1, 2, 3, 4), floats(1, 2, 3), None, floats(), ints(1, 2, 3, 4)],
        [[[1.0, 2.0], [3.0, 4.0]], "wrong_shape", None, None, [[1.0, 2.0], [3.0, 4.0]]],
    ),
    (
        {"dtype": "int8", "shape": (2,)},
        [ints(1, 2), ints(1, 300), ints(1), ints(-1, -2)],
        [[1, 2], "out_of_range", "wrong_shape", [-1, -2]],
    ),
    (
        {"dtype": "string", "shape": (2,)},
        [texts(b"a", b"bb"), texts(b"a", b"\xff"), texts(b"a")],
        [["a", "bb"], "bad_encoding", "wrong_shape"],
    ),
    ({"dtype": "bool", "shape": (2,)}, [ints(1, 0), ints(1, 2)], [[True, False], "wrong_type"]),
    (
        {"dtype": "int64", "shape": (None,)},
        [ints(1, 2, 3), None, ints(), ints(1), b""],
        [[1, 2, 3], None, [], [1], None],
    ),
    ({"dtype": "string", "shape": (None,)}, [texts(b"a", b"b"), texts(), texts(b"c")], [["a", "b"], [], ["c"]]),
    (
        {"dtype": "float32", "shape": (2, None)},
        [floats(1, 2, 3, 4), floats(1, 2, 3), floats(1, 2)],
        [[[1.0, 2.0], [3.0, 4.0]], "wrong_shape", [[1.0], [2.0]]],
    ),
    (
        {"dtype": "float32", "shape": (None, 2)},
        [floats(1, 2, 3, 4), floats(1, 2, 3)],
        [[[1.0, 2.0], [3.0, 4.0]], "wrong_shape"],
    ),
    # Other spellings of the same message: not packed; the list in two parts; a last feature that wins.
    ("float32", [field(2, b"\x0d" + struct.pack("<f", 2.5))], [2.5]),
    (
        "int64",
        [field(3, b"\x08\x05"), field(3, field(1, b"\x85\x00")), field(3, field(1, b"\x01") + field(1, b""))],
        [5, 5, 1],
    ),
    ("int64", [floats(1.0) + ints(7), ints(7) + floats(1.0)], [7, "wrong_type"]),
    ({"dtype": "int64", "shape": (2,)}, [field(3, field(1, b"\x01") + field(1, b"\x02"))], [[1, 2]]),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("times", [1, 40])  # many rows take the fast way, few the exact one
def test_a_value_is_exact_or_a_fault(tmp_path, case, times):
    column, features, expected = CASES[case]
    records = [
        example(**({"other": ints(3)} if f is None else {"x": f, "other": texts(b"z")})) for f in features
    ] * times
    path = written(tmp_path / "a.tfrecord", records)
    for more in ({}, {"max_block_rows": 17}, {"max_block_bytes": 1}):
        rows, stretches = outcome(path, reading({"x": column}, **more))
        assert not stretches
        found = [rows[i][0][1] if isinstance(rows[i], list) else rows[i]["x"] for i in range(len(records))]
        assert same(found, expected * times), found


BROKEN = [
    b"not a tf.Example",
    example(x=ints(1))[:-1],
    example(x=ints(1)) + b"\x0a",
    field(1, field(1, field(1, b"\xff") + field(2, ints(1)))),  # a name that is not UTF-8
    field(1, field(1, field(1, b"a long name that is \xff") + field(2, ints(1)))),
    example(x=field(2, field(1, b"123"))),  # three bytes of a float
    example(y=field(3, field(1, b"\x80"))),  # half an integer, in a feature that nobody asked for
    example(y=field(3, field(1, b"\x80" * 10 + b"\x01"))),
    example(y=field(1, b"\x0a\x05abc")),
]


@pytest.mark.parametrize("times", [1, 40])
def test_what_is_not_a_tf_example_costs_its_record(tmp_path, times):
    good = example(x=ints(1), y=ints(300))
    records = [r for broken in BROKEN for r in (broken, good)] * times + [b""]
    path = written(tmp_path / "a.tfrecord", records)
    rows, stretches = outcome(path, reading({"x": "int64"}))
    assert not stretches and len(rows) == len(records)
    for i, record in enumerate(records):
        assert rows[i] == ({"x": 1} if record == good else {"x": None} if record == b"" else "malformed"), record
    letters = [r for c in TFRECORD.read(FileRange(path, 0), reading({"x": "int64"})) for r in c.rejected.to_pylist()]
    assert [r["payload"] for r in letters] == [r for r in records if r not in (good, b"")]
    assert not any(
        letter["payload"]
        for c in TFRECORD.read(FileRange(path, 0), reading({"x": "int64"}, payload=False))
        for letter in c.rejected.to_pylist()
    )


@pytest.mark.parametrize("times", [1, 40])
def test_the_last_of_two_equal_features_counts(tmp_path, times):
    records = [
        example_of([("x", ints(1)), ("x", ints(2))]),
        example_of([("x", ints(3)), ("y", ints(4)), ("x", floats(5))]),
        example_of([("x", ints(6))]),
    ]
    rows, _ = outcome(written(tmp_path / "a.tfrecord", records * times), reading({"x": "int64"}))
    assert [rows[i] for i in range(3 * times)] == [{"x": 2}, [("x", "wrong_type")], {"x": 6}] * times


def test_messages_say_what_was_found_and_expected(tmp_path):
    path = written(tmp_path / "a.tfrecord", [example(a=ints(300), b=texts(b"2"), c=floats(1, 2))])
    columns = {"a": {"dtype": "int8", "range": (0, 9)}, "b": "float32", "c": {"dtype": "float32", "shape": (3,)}}
    (chunk,) = TFRECORD.read(FileRange(path, 0), reading(columns))
    assert [f["message"] for f in chunk.rows[FAULTS][0].as_py()] == [
        "column 'a' is 300, expected int8 (contract: range 0..9)",
        "column 'b' is a bytes_list, expected a float_list or an int64_list for float32",
        "column 'c' has values: 2, expected float32[3]",
    ]
    (chunk,) = TFRECORD.read(FileRange(path, 0), reading(columns, payload=False))
    assert chunk.origin is None and "300" not in str(chunk.rows[FAULTS])


@pytest.mark.parametrize("times", [1, 40])
def test_kept_features_are_text(tmp_path, times):
    features = [
        floats(-INF),
        texts(b"a"),
        texts(b"\xff"),
        texts(b'q"', b"\xff"),
        ints(-7),
        ints(1, 2),
        floats(0.1),
        floats(0.5, NAN),
        texts(),
        None,
    ]
    expected = ["-Infinity", "a", "/w==", '["q\\"","/w=="]', "-7", "[1,2]", "0.1", '[0.5,"NaN"]', None, None]
    records = [example(x=ints(1), **({} if f is None else {"k": f})) for f in features] * times
    path = written(tmp_path / "a.tfrecord", records)
    rows, _ = outcome(path, reading({"x": "int64"}, keep=("k", "x")))
    assert [rows[i]["k"] for i in range(len(rows))] == expected * times


@pytest.mark.parametrize("times", [1, 40])
def test_extra_features_are_refused_if_asked(tmp_path, times):
    records = [
        example(x=ints(1), k=ints(2)),
        example(x=ints(300), z=ints(1), y=floats(1)),
        example(x=ints(2), y=b""),
    ] * times
    path = written(tmp_path / "a.tfrecord", records)
    rows, _ = outcome(path, reading({"x": "int8"}, keep=("k",), extra="reject"))
    refused = [("x", "out_of_range"), ("z", "not_allowed"), ("y", "not_allowed")]
    for i in range(0, len(records), 3):
        assert rows[i] == {"x": 1, "k": "2"}
        assert rows[i + 1][0] == refused[0] and sorted(rows[i + 1]) == sorted(refused)
        assert rows[i + 2] == [("y", "not_allowed")]


def test_the_whole_record_can_be_a_column(tmp_path):
    records = [example(x=ints(i)) for i in range(50)] + [b"\xff"]
    path = written(tmp_path / "a.tfrecord", records)
    rows, _ = outcome(path, reading({}, record_column="serialized"))
    assert rows == {i: {"serialized": r} for i, r in enumerate(records[:-1])} | {50: "malformed"}
    rows, _ = outcome(path, reading({"x": "int8"}, record_column="serialized"))
    assert rows[3] == {"x": 3, "serialized": records[3]}
    with pytest.raises(ValueError, match="x: this is the name of the column for the whole record"):
        reading({"x": "int8"}, record_column="x")


def test_settings_that_the_format_cannot_meet_are_errors():
    with pytest.raises(ValueError, match="keep"):
        reading({"x": "int8"}, keep=None)
    with pytest.raises(ValueError, match="at most one dimension"):
        reading({"x": {"dtype": "int8", "shape": (None, None)}})


# Framing.


def many(n, seed=0):
    draw = random.Random(seed)
    return [example(x=ints(i), s=texts(b"s" * draw.randrange(40)), f=floats(i / 2)) for i in range(n)]


ALL = {"x": "int64", "s": "string", "f": "float64"}


def test_rows_do_not_depend_on_blocks_or_splits(tmp_path):
    records = many(3000)
    records[100] = b"broken"
    records[200] = example(x=floats(1))
    path = written(tmp_path / "a.tfrecord", records)
    whole = outcome(path, reading(ALL))
    assert len(whole[0]) == 3000 and whole[0][100] == "malformed" and whole[0][200] == [("x", "wrong_type")]
    for more in ({"max_block_rows": 7}, {"max_block_bytes": 100}, {"max_block_bytes": 10_000, "max_block_rows": 100}):
        assert outcome(path, reading(ALL, **more)) == whole
    for split_bytes in (100, 5000, 60_000, 10**9):
        assert outcome(path, reading(ALL), split_bytes) == whole
    size = len(pathlib.Path(path).read_bytes())
    ranges = TFRECORD.cut(path, size, 50_000, reading(ALL))
    assert len(ranges) > 2 and [r.index for r in ranges] == list(range(len(ranges)))
    assert sum(r.bytes for r in ranges) == size and max(r.bytes for r in ranges) < 80_000


def test_cutting_passes_over_large_records_and_stops_at_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("beam_score.transforms.formats.tfrecord.reader._WALK_BYTES", 500)
    records = many(200)
    records[50] = b"\0" * 5000
    path = written(tmp_path / "a.tfrecord", records)
    whole = outcome(path, reading(ALL))
    assert whole[0][50] == "malformed" and whole[0][51]["x"] == 51
    assert outcome(path, reading(ALL), 2000) == whole
    data = bytearray(pathlib.Path(path).read_bytes())
    data[sum(len(r) + 16 for r in records[:120])] ^= 1
    pathlib.Path(path).write_bytes(data)
    whole = outcome(path, reading(ALL))
    assert len(whole[0]) == 120 and whole[1] == [(120, None, "unreadable")]
    assert outcome(path, reading(ALL), 2000) == whole


def test_a_wrong_data_crc_costs_its_record(tmp_path):
    records = many(100)
    path = tmp_path / "a.tfrecord"
    data = bytearray(written(path, records) and path.read_bytes())
    at = sum(len(r) + 16 for r in records[:40]) + 12
    data[at + 20] ^= 4
    path.write_bytes(data)
    rows, stretches = outcome(str(path), reading(ALL))
    assert rows[40] == "corrupt_record" and len(rows) == 100 and not stretches and rows[41]["x"] == 41
    (letter,) = [r for c in TFRECORD.read(FileRange(str(path), 0), reading(ALL)) for r in c.rejected.to_pylist()]
    assert letter["payload"] == bytes(data[at : at + len(records[40])])


@settings(max_examples=200, deadline=None)
@given(
    sizes=strategies.lists(strategies.integers(0, 12) | strategies.integers(0, 9_000), max_size=40),
    wrong=strategies.dictionaries(
        strategies.integers(0, 39),
        strategies.sampled_from([1 << k for k in range(32)]) | strategies.integers(1, 2**32 - 1),
    ),
    start=strategies.integers(0, 2),
)
def test_crcs_of_many_records_are_those_of_each(sizes, wrong, start):
    records = [random.Random(size).randbytes(size) for size in sizes]
    stored = np.array([google_crc32c.value(record) ^ wrong.get(i, 0) for i, record in enumerate(records)], np.uint32)
    found = crc32c.hold(pa.array(records, pa.binary()).slice(start), stored[start:])
    assert found.tolist() == [i not in wrong for i in range(len(records))][start:]


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 10_000])
@pytest.mark.parametrize("right_crc", [True, False])
def test_a_length_beyond_the_file_costs_the_rest(tmp_path, length, right_crc):
    size = struct.pack("<Q", length)
    crc = masked_crc(size) if right_crc else b"\0\0\0\0"
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(map(frame, many(20))) + size + crc + b"some bytes")
    rows, stretches = outcome(str(path), reading(ALL))
    assert len(rows) == 20 and stretches == [(20, None, "unreadable")]


def test_a_file_that_ends_early_keeps_its_whole_records(tmp_path):
    records = many(20)
    data = b"".join(map(frame, records))
    path = tmp_path / "a.tfrecord"
    for missing in (1, 5, 10, len(records[-1]) + 5, len(records[-1]) + 15):
        path.write_bytes(data[:-missing])
        rows, stretches = outcome(str(path), reading(ALL))
        assert len(rows) == 19 and stretches == [(19, None, "unreadable")]


def test_a_record_over_the_limit_is_passed_over(tmp_path):
    records = many(40)
    records[3] = b"x" * 200_000
    records[7] = b"y" * 1001
    path = written(tmp_path / "a.tfrecord", records)
    for more in ({}, {"max_block_bytes": 500}):
        settings_ = reading(ALL, max_row_bytes=1000, **more)
        rows, stretches = outcome(path, settings_)
        assert [i for i, r in rows.items() if r == "too_large"] == [3, 7] and len(rows) == 40 and not stretches
        letters = [r for c in TFRECORD.read(FileRange(path, 0), settings_) for r in c.rejected.to_pylist()]
        assert [(len(r["payload"]), r["payload_cut"]) for r in letters] == [(65536, True), (1001, False)]


def test_compressed_files(tmp_path):
    data = b"".join(map(frame, many(2000)))
    path = tmp_path / "a.tfrecord"  # told by the bytes, not by the name
    path.write_bytes(gzip.compress(data[:50_000]) + gzip.compress(data[50_000:]))
    whole = outcome(str(path), reading(ALL))
    assert len(whole[0]) == 2000 and not whole[1]
    assert outcome(str(path), reading(ALL), 1000) == whole
    TFRECORD.check(str(path), reading(ALL))
    path.write_bytes(gzip.compress(data)[:-2000])
    rows, stretches = outcome(str(path), reading(ALL))
    assert 0 < len(rows) < 2000 and stretches == [(len(rows), None, "unreadable")]
    assert all(whole[0][i] == row for i, row in rows.items())
    path = tmp_path / "empty.gz"
    path.write_bytes(b"")
    with pytest.raises(UnusableFile, match="unreadable"):
        TFRECORD.check(str(path), reading(ALL))
    assert outcome(str(path), reading(ALL)) == ({}, [(0, None, "unreadable")])


def test_a_length_that_looks_like_gzip_is_a_length(tmp_path):
    record = example(x=ints(1), s=texts(b"s" * (0x8B1F - 35)))
    record = example(x=ints(1), s=texts(b"s" * (0x8B1F - 35 + 0x8B1F - len(record))))
    assert struct.pack("<Q", len(record))[:2] == b"\x1f\x8b"
    path = written(tmp_path / "a.tfrecord", [record])
    assert outcome(path, reading({"x": "int64"})) == ({0: {"x": 1}}, [])


def test_zero_bytes_are_zero_rows_and_other_files_unreadable(tmp_path):
    path = written(tmp_path / "a.tfrecord", [])
    TFRECORD.check(path, reading(ALL))
    assert outcome(path, reading(ALL)) == ({}, [])
    path = tmp_path / "b.tfrecord"
    path.write_bytes(b"x,y\n1,2\n" * 10)
    with pytest.raises(UnusableFile, match="unreadable: not a TFRecord file"):
        TFRECORD.check(str(path), reading(ALL))
    assert outcome(str(path), reading(ALL)) == ({}, [(0, None, "unreadable")])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=strategies.data())
def test_bit_flips_cost_what_they_must_and_nothing_else(tmp_path_factory, data):
    draw = data.draw
    records = draw(strategies.lists(strategies.sampled_from(many(30)), min_size=1, max_size=60))
    content = bytearray(b"".join(map(frame, records)))
    flips = draw(strategies.lists(strategies.integers(0, 8 * len(content) - 1), max_size=4, unique=True))
    for bit in flips:
        content[bit // 8] ^= 1 << bit % 8
    content = content[: draw(strategies.just(len(content)) | strategies.integers(0, len(content)))]
    path = tmp_path_factory.mktemp("flip") / "a.tfrecord"
    path.write_bytes(content)
    # An independent reading of the same bytes.
    expected, at, stopped = [], 0, False
    while at < len(content):
        size = content[at : at + 8]
        end = at + 16 + int.from_bytes(size, "little")
        if len(content) < at + 12 or masked_crc(bytes(size)) != content[at + 8 : at + 12] or end > len(content):
            stopped = True
            break
        body = bytes(content[at + 12 : end - 4])
        expected.append(body if masked_crc(body) == content[end - 4 : end] else None)
        at = end
    more = draw(strategies.sampled_from([{}, {"max_block_bytes": 64}, {"max_block_rows": 5}]))
    rows, stretches = outcome(str(path), reading({}, record_column="r", **more))
    assert [rows[i] if isinstance(rows[i], str) else rows[i]["r"] for i in range(len(rows))] == [
        "corrupt_record" if e is None else e for e in expected
    ]
    assert stretches == ([(len(expected), None, "unreadable")] if stopped else [])


# Parsing.

values = strategies.one_of(
    strategies.lists(strategies.floats(width=32, allow_nan=False), max_size=4).map(lambda v: floats(*v)),
    strategies.lists(strategies.integers(-(2**63), 2**63 - 1), max_size=4).map(lambda v: ints(*v)),
    strategies.lists(strategies.binary(max_size=200), max_size=4).map(lambda v: texts(*v)),
    strategies.just(b""),
)
names = strategies.sampled_from(
    ["a", "b", "ab", "a name of more than eight bytes", "a name of more than eight bytez", "é"]
)
messages = strategies.lists(strategies.tuples(names, values), max_size=5).map(example_of)


def packed(records):
    lengths = np.array([len(r) for r in records])
    ends = np.cumsum(lengths + 4)  # as far apart as in a file
    return Records(b"".join(r + b"\xff" * 4 for r in records) + PADDING, ends - 4 - lengths, ends - 4)


def as_dicts(examples, count):
    rows = [{} for _ in range(count)]
    for (name, kind), lists in examples.features.items():
        at = 0
        for row, size in zip(lists.rows.tolist(), lists.counts.tolist(), strict=True):
            assert name not in rows[row]
            rows[row][name] = (kind, lists.values.slice(at, size).to_pylist())
            at += size
    return [None if i in set(examples.malformed.tolist()) else row for i, row in enumerate(rows)]


WANTED = ["a", "ab", "a name of more than eight bytes", "é"]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=strategies.data())
def test_the_fast_and_the_exact_parse_agree(data):
    draw = data.draw
    records = draw(strategies.lists(messages, min_size=1, max_size=8)) * 8
    for i in draw(strategies.lists(strategies.integers(0, len(records) - 1), max_size=40)):
        broken = bytearray(records[i])
        if broken:
            broken[draw(strategies.integers(0, len(broken) - 1))] = draw(strategies.integers(0, 255))
            records[i] = bytes(broken)
    exact = [_parse_one(r) for r in records]
    expected = [None if e is None else {n: v for n, v in e.items() if n in WANTED and v[0]} for e in exact]
    found = parse(packed(records), WANTED, want_others=True)
    assert all(map(same_row, as_dicts(found, len(records)), expected))
    others = {(i, n) for i, e in enumerate(exact) for n in e or () if n not in WANTED}
    assert set(found.others) == others


def same_row(a, b):
    return (a is None and b is None) or (
        a is not None
        and b is not None
        and a.keys() == b.keys()
        and all(a[n][0] == b[n][0] and same(a[n][1], b[n][1]) for n in a)
    )


def test_most_records_take_the_fast_way(monkeypatch):
    def refuse(record):
        raise AssertionError("a plain record was left to protobuf")

    monkeypatch.setattr("beam_score.transforms.formats.tfrecord.examples._parse_one", refuse)
    draw = random.Random(1)
    features = {
        "x": ints(5, -1),
        "s": texts(b"s" * 200, b"t"),
        "f": floats(*range(300)),
        "e": b"",
        "z": floats(),
        "o": texts(b"u"),
    }
    records = []
    for _ in range(500):  # each in its own order
        order = draw.sample(sorted(features), len(features))
        records.append(example(**{name: features[name] for name in order}))
    found = parse(packed(records), ["x", "s", "f", "e", "z"])
    assert not len(found.malformed)
    assert found.features["x", INT64].values.to_pylist() == [5, -1] * 500
    assert found.features["s", BYTES].values.to_pylist() == [b"s" * 200, b"t"] * 500
    assert found.features["f", FLOAT].counts.tolist() == [300] * 500


def test_the_decoder_of_tfx_reads_the_same():
    draw = random.Random(2)
    records = [
        example(
            x=ints(draw.randrange(-(2**63), 2**63)), f=floats(draw.random(), draw.random()), s=texts(draw.randbytes(9))
        )
        for _ in range(100)
    ]
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(records)
    found = parse(packed(records), ["x", "f", "s"]).features
    for name, kind in (("x", INT64), ("f", FLOAT), ("s", BYTES)):
        assert found[name, kind].values.to_pylist() == pa.array(batch[name].flatten()).to_pylist()


def test_reading_does_not_raise_through_the_block_loop(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(random.Random(3).randbytes(1000))
    blocks = list(read_split(Split(0, (FileRange(str(path), 1000),)), reading(ALL), "attempt"))
    assert [r["reason"] for b in blocks for r in b.rejected.to_pylist()] == ["unreadable"]
