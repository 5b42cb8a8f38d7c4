"""JSON Lines: every rule of the semantics, on every way that a line may be parsed."""

import bz2
import dataclasses
import gzip
import json
import math
import random
import time

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read_settings

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.jsonl.arrow import ArrowLines
from beam_score.transforms.formats.jsonl.exact import LineJudge, Refusal, Row
from beam_score.transforms.formats.jsonl.lines import Lines
from beam_score.transforms.formats.jsonl.reader import FORMAT as JSONL
from beam_score.transforms.formats.jsonl.rows import LineParser
from beam_score.transforms.formats.jsonl.template import TemplateLines
from beam_score.transforms.formats.jsonl.top_level import TopLevel
from beam_score.transforms.framing.lines import line_spans
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import FAULTS

WAYS = [(), ("arrow",), ("template",), ("template", "arrow")]
MISSING = object()


def setup(columns, **changes) -> ReadSettings:
    return read_settings("jsonl", Contract(columns={n: Column(**c) for n, c in columns.items()}), **changes)


def outcomes(chunks) -> dict[int, tuple]:
    """What became of each row: ("row", values, {column: reason}) or (reason, column, payload)."""
    fates = {}
    for chunk in chunks:
        chunk.rows.validate(full=True)
        for row in chunk.rows.to_pylist():
            faults = {f["column"]: f["reason"] for f in row.pop(FAULTS, None) or []}
            number = row.pop(ROW)
            assert number not in fates
            fates[number] = ("row", {k: _nan_safe(v) for k, v in row.items()}, faults)
        for dead in chunk.rejected.to_pylist():
            assert dead["row"] not in fates
            fates[dead["row"]] = (dead["reason"], dead["column"], dead["payload"])
    return fates


def _nan_safe(value):
    return repr(value) if isinstance(value, float) and (math.isnan(value) or value == 0) else value


def parse(lines, options, ways, before=()):
    """What becomes of some lines; `before` is a block that the parser has seen already."""
    data = b"\n".join(lines)
    starts, ends = line_spans(data)
    parser = LineParser(options, ways)
    if before:
        parser.parse(b"\n".join(before), *line_spans(b"\n".join(before)), 0, None)
    # Twice, since a parser may know more of a file at its second block.
    first = outcomes([parser.parse(data, starts, ends, 0, None)])
    assert outcomes([parser.parse(data, starts, ends, 0, None)]) == first
    return first


def read_file(path, options, **range_):
    size = path.stat().st_size
    found = outcomes(JSONL.read(FileRange(str(path), size, **range_), options))
    if "end" not in range_:  # a small file goes to the judge; told to be larger, it goes the fast ways first.
        assert outcomes(JSONL.read(FileRange(str(path), size + (1 << 20), **range_), options)) == found
    return found


CASES = [
    # dtype and shape, the value's JSON text, the value or the reason of its fault
    ("float32", "1", 1.0),
    ("float32", "-0.0", "-0.0"),
    ("float32", "1e2", 100.0),
    ("float32", "0.1", float(np.float32(0.1))),
    ("float32", "16777217", 16777216.0),
    ("float32", "1e39", "out_of_range"),
    ("float32", "3.4028235677973366e38", "out_of_range"),
    ("float32", "3.4028235677973e38", 3.4028234663852886e38),
    ("float32", "1e-400", "0.0"),
    ("float32", "1e400", "out_of_range"),
    ("float64", "1e39", 1e39),
    ("float64", "-1e400", "out_of_range"),
    ("float16", "65504", 65504.0),
    ("float16", "65520", "out_of_range"),
    ("float64", '"1"', "wrong_type"),
    ("float64", "true", "wrong_type"),
    ("float64", "[1]", "wrong_shape"),
    ("float64", "{}", "wrong_type"),
    ("float64", "null", None),
    ("int64", "7", 7),
    ("int64", "-0", 0),
    ("int64", "1.0", 1),
    ("int64", "7e2", 700),
    ("int64", "700e-2", 7),
    ("int64", "1.5", "wrong_type"),
    ("int64", "1e-400", "wrong_type"),
    ("int64", "0e999999999999999999999", 0),
    ("int64", "9007199254740993", 9007199254740993),
    ("int64", "9007199254740993.0", 9007199254740993),
    ("int64", "900719925474099.3e1", 9007199254740993),
    ("int64", "9223372036854775807", 9223372036854775807),
    ("int64", "9223372036854775808", "out_of_range"),
    ("int64", "1e400", "out_of_range"),
    ("int64", "1e99999999999999999999", "out_of_range"),
    ("int64", "1" * 5000, "out_of_range"),
    ("int64", "0." + "0" * 5000 + "1", "wrong_type"),
    ("int64", "1." + "0" * 5000, 1),
    ("int64", "true", "wrong_type"),
    ("int64", '"7"', "wrong_type"),
    ("uint8", "255", 255),
    ("uint8", "300", "out_of_range"),
    ("uint8", "-1", "out_of_range"),
    ("int8", "-128", -128),
    ("uint64", "18446744073709551615", 18446744073709551615),
    ("uint64", "18446744073709551616", "out_of_range"),
    ("uint64", "-1", "out_of_range"),
    ("bool", "true", True),
    ("bool", "false", False),
    ("bool", "1", "wrong_type"),
    ("bool", '"true"', "wrong_type"),
    ("string", '""', ""),
    ("string", '"a, b"', "a, b"),
    ("string", '"null"', "null"),
    ("string", r'"\u00e9\n\"\\\u0000"', 'é\n"\\\0'),
    ("string", r'"\ud83d\ude00"', "😀"),
    ("string", r'"\ud800"', "bad_encoding"),
    ("string", r'"\ude00\ud83d"', "bad_encoding"),
    ("string", '"\u2028\x7f é"', "\u2028\x7f é"),
    ("string", "5", "wrong_type"),
    ("string", "true", "wrong_type"),
    ("string", '{"b64": "YQ=="}', "wrong_type"),
    ("bytes", '{"b64": "YQ=="}', b"a"),
    ("bytes", '{"b64": ""}', b""),
    ("bytes", '{"b64": "YQ"}', "wrong_type"),
    ("bytes", '{"b64": "Y*=="}', "wrong_type"),
    ("bytes", '{"b64": "YQ==", "x": 1}', "wrong_type"),
    ("bytes", '{"b64": 5}', "wrong_type"),
    ("bytes", '{"b64": null}', "wrong_type"),
    ("bytes", '"YQ=="', "wrong_type"),
    ("bytes", "null", None),
    (("float32", 2), "[1, 2.5]", [1.0, 2.5]),
    (("float32", 2), "[1]", "wrong_shape"),
    (("float32", 2), "[1, 2, 3]", "wrong_shape"),
    (("float32", 2), "[[1, 2]]", "wrong_shape"),
    (("float32", 1), "1", "wrong_shape"),
    (("float32", 2), "[1, null]", "missing_value"),
    (("float32", 2), '[1, "2"]', "wrong_type"),
    (("float32", 2), "[1, 1e39]", "out_of_range"),
    (("float32", 2), "null", None),
    (("int8", 2), "[1.0, 200]", "out_of_range"),
    (("int8", 2), "[1.0, -2]", [1, -2]),
    (("bool", 2), "[true, false]", [True, False]),
    (("string", 2), '["a", "b"]', ["a", "b"]),
    (("bytes", 1), '[{"b64": "YQ=="}]', [b"a"]),
    (("int64", None), "[]", []),
    (("int64", None), "[1, 2, 3]", [1, 2, 3]),
    (("float32", 2, 3), "[[1,2,3],[4,5,6]]", [[1, 2, 3], [4, 5, 6]]),
    (("float32", 2, 3), "[1, 2, 3, 4, 5, 6]", "wrong_shape"),
    (("float32", 2, 3), "[[1,2,3],[4,5]]", "wrong_shape"),
    (("float32", 2, 3), "[[1,2,3],null]", "missing_value"),
    (("float32", 2, None), "[[1,2,3],[4]]", [[1, 2, 3], [4]]),
    (("float32", None, 2), "[[1,2],[3]]", "wrong_shape"),
]


@pytest.mark.parametrize("ways", WAYS, ids=lambda w: "+".join(w) or "exact")
@pytest.mark.parametrize(("kind", "text", "expected"), CASES)
def test_a_value_is_taken_or_refused_as_the_contract_says(kind, text, expected, ways):
    dtype, *shape = (kind,) if isinstance(kind, str) else kind
    options = setup({"x": {"dtype": dtype, "shape": tuple(shape)}, "after": {"dtype": "int64"}})
    line = f'{{"x": {text}, "after": 5}}'
    fates = parse([line.encode()] * 3, options, ways)
    reason = expected if isinstance(expected, str) and ("_" in expected) else None
    value = None if reason else expected
    value = repr(float(value)) if value in ("-0.0", "0.0") and dtype != "string" else value
    assert fates == {i: ("row", {"x": value, "after": 5}, {"x": reason} if reason else {}) for i in range(3)}


NOT_JSON = [
    "{", "}", '{"x": 1', '{"x": 1}}', '{"x": 1} {"x": 2}', '{"x": 1},', '{"x": 1,}', '{"x" 1}', "{x: 1}", "{'x': 1}",
    '{"x": 01}', '{"x": +1}', '{"x": .5}', '{"x": 5.}', '{"x": 1e}', '{"x": -}', '{"x": 0x10}',
    '{"x": 1_000}', '{"x": -01}', '{"x": -.5}',
    '{"x": 1, "z": 01}', '{"x": 1, "z": 5.}', '{"x": 1, "z": .5}', '{"x": 1, "z": +5}',
    '{"x": 1, "z": inf}', '{"x": 5.e1}',
    '{"x": 1, "z": "a"b"}', '{"x": 1, "z": ""a"}', '{"x": 1, "z": "}', '{"x": 1, "z": "a" "b"}', '{"x": 1, "z": [5.]}',

    '{"x": NaN}', '{"x": Infinity}', '{"x": -Infinity}', '{"x": nan}', '{"x": 1, "z": NaN}', '{"x": 1, "z": -Inf}',
    '{"x": 1, "z": [1,]}', '{"x": 1, "z": tru}', '{"x": 1 /* no */}', '{"x": 1} // no', '{"x": 1, "z": "a\tb"}',
    '{"x": 1, "z": "\\q"}', '{"x": 1, "z": "\\u12"}', '{"x": 1, "z": "open}', '{"x": 1}\x00', '{"x": 1, "z": "\x00"}',
    '\ufeff{"x": 1}', '{"x": 1, "z": [1}', '{"x": 1, "z": {]}', '{"x": ١}', '{"x": 1\u00a0}', '{"x": 1, 5: 2}', "nul",
    '{"x": 1, "z": ' + "[" * 1000 + "]" * 1000 + "}", "[" * 100_000, '{"x":' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("ways", WAYS, ids=lambda w: "+".join(w) or "exact")
@pytest.mark.parametrize("text", NOT_JSON, ids=lambda t: repr(t[:24]))
def test_what_is_not_one_json_text_is_malformed_and_costs_that_line_alone(text, ways):
    options = setup({"x": {"dtype": "float32"}})
    good, bad = ("row", {"x": 1.0}, {}), ("malformed", None, None)
    # Whatever form the lines before had: a wrong line may come in the very same.
    for usual in (b'{"x": 1}', b'{"x": 1, "z": 2}', b'{"x": 1, "z": "a"}', b'{"x": 1, "z": [1]}'):
        lines = [text.encode(), b"", usual, text.encode(), usual]
        assert parse(lines, options, ways, before=[usual] * 10) == {0: bad, 1: good, 2: bad, 3: good}


@pytest.mark.parametrize("ways", WAYS, ids=lambda w: "+".join(w) or "exact")
@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1}', ' {"x": 1} ', '{"x":1,"z":null}', '{"\\u0078": 1}', '{"x": 1, "z": 1, "z": 2}',
        '{"x": 1, "z": 1e999}',
        '{"x": 1, "z": "\\ud800"}', '{"x": 1, "z": "NaN, Infinity"}', '\t{ "x"\t: 1 }', '{"x": 1, "": [[[]], {}]}',
        '{"x": 1, "z": ' + "[" * 999 + "]" * 999 + "}", '{"x": 1, "z": ' + "9" * 5000 + "}", '{"x": 1, "é, ü": "{[,"}',
    ],
    ids=lambda t: repr(t[:30]),
)  # fmt: skip
def test_what_is_not_used_is_not_judged(text, ways):
    assert parse([text.encode()] * 2, setup({"x": {"dtype": "int64"}}), ways) == {
        i: ("row", {"x": 1}, {}) for i in (0, 1)
    }


@pytest.mark.parametrize("ways", WAYS, ids=lambda w: "+".join(w) or "exact")
class TestOnEveryWay:
    def test_a_contract_key_twice_is_refused(self, ways):
        options = setup({"x": {"dtype": "int64"}})
        lines = [b'{"x": 1, "x": 1}', b'{"x": 1, "\\u0078": 2}', b'{"y": 1, "y": 2}']
        fates = parse(lines, options, ways)
        assert [fates[i][:2] for i in range(3)] == [
            ("duplicate_key", "x"),
            ("duplicate_key", "x"),
            ("row", {"x": None}),
        ]

    def test_an_escape_is_read_wherever_it_comes(self, ways):
        options = setup({"s": {"dtype": "string"}, "i": {"dtype": "int64"}}, keep=("k",))
        usual = b'{"s": "a", "i": 1, "k": "b"}'
        lines = [usual, b'{"s": "\\u0061\\n", "i": 2, "k": "\\u0062"}', usual, b'{"s": "a", "i": 3, "k": "\\""}']
        lines += [usual] * 20
        fates = parse(lines, options, ways, before=[usual] * 10)
        assert fates[0] == fates[2] == ("row", {"s": "a", "i": 1, "k": '"b"'}, {})
        assert fates[1] == ("row", {"s": "a\n", "i": 2, "k": r'"\u0062"'}, {})
        assert fates[3] == ("row", {"s": "a", "i": 3, "k": r'"\""'}, {})

    def test_a_line_that_is_no_object(self, ways):
        lines = [b"1", b"[1, 2]", b'"a"', b"null", b'{"x": 1}']
        fates = parse(lines, setup({"x": {"dtype": "int64"}}), ways)
        assert [fates[i][0] for i in range(5)] == ["wrong_type"] * 4 + ["row"]

    def test_a_bare_value(self, ways):
        options = setup({"x": {"dtype": "int64", "shape": (2,)}}, bare_value_column="x")
        fates = parse([b"[1, 2]", b"5", b'{"x": [3, 4]}', b"null"], options, ways)
        assert [f[1]["x"] for f in fates.values()] == [[1, 2], None, [3, 4], None]
        assert fates[1][2] == {"x": "wrong_shape"}

    def test_bytes_that_are_not_utf8(self, ways):
        options = setup({"s": {"dtype": "string"}, "l": {"dtype": "string", "shape": (1,)}, "n": {"dtype": "int64"}})
        lines = [
            b'{"s": "a\xff", "n": 1}',
            b'{"l": ["\xc3"], "n": 1}',
            b'{"z": "\xff", "n": 1}',
            b'{"\xff": 1}',
            b'{"n": 1}',
        ]
        fates = parse(lines, options, ways)
        assert [fates[i][0] for i in range(5)] == ["row", "row", "malformed", "malformed", "row"]
        assert [fates[i][2] for i in range(2)] == [{"s": "bad_encoding"}, {"l": "bad_encoding"}]

    def test_all_faults_of_a_row_are_told(self, ways):
        options = setup({"a": {"dtype": "int8"}, "b": {"dtype": "bool"}, "c": {"dtype": "string"}})
        fates = parse([b'{"c": 5, "b": 1, "a": 1000}', b'{"c": "5", "b": true, "a": 1}'], options, ways)
        assert fates[0][2] == {"a": "out_of_range", "b": "wrong_type", "c": "wrong_type"}
        assert fates[1] == ("row", {"a": 1, "b": True, "c": "5"}, {})

    def test_kept_columns_are_json_text(self, ways):
        options = setup({"x": {"dtype": "int64"}}, keep=("k", "x"))
        values = ["1.50", '"a\\u00e9"', '"plain"', "null", '{"a": [1, 2]}', "true", '"a, b"']
        lines = [b'{"x": 1, "k": %s}' % v.encode() for v in values] + [b'{"x": 1}']
        expected = [None if v == "null" else v for v in values] + [None]
        assert [f[1]["k"] for f in parse(lines, options, ways).values()] == expected

    def test_extra_keys_are_refused_where_asked(self, ways):
        options = setup({"x": {"dtype": "int64"}}, keep=("k",), extra="reject")
        fates = parse([b'{"x": 1, "k": 2}', b'{"x": 1, "z": 2}', b'{"z": 1, "x": }'], options, ways)
        assert [fates[i][:2] for i in range(3)] == [
            ("row", {"x": 1, "k": "2"}),
            ("not_allowed", "z"),
            ("malformed", None),
        ]

    def test_no_columns_at_all(self, ways):
        assert parse([b'{"x": 1}', b"{}", b"{"], setup({}), ways) == {
            0: ("row", {}, {}),
            1: ("row", {}, {}),
            2: ("malformed", None, None),
        }


class TestMessages:
    OPTIONS = setup({"age": {"dtype": "float32", "range": (0, 150)}})

    def message(self, line, **changes):
        parser = LineParser(dataclasses.replace(self.OPTIONS, **changes))
        chunk = parser.parse(line, *line_spans(line), 0, None)
        told = chunk.rejected["message"].to_pylist() or [f["message"] for f in chunk.rows[FAULTS].to_pylist()[0]]
        return told[0]

    def test_tell_what_was_found_and_what_was_expected(self):
        assert self.message(b'{"age": "abc"}') == 'found "abc" (a string), expected float32 (contract: range 0..150)'

    def test_advise_on_a_file_that_is_one_array(self):
        for payload in (True, False):
            assert "jq -c '.[]'" in self.message(b'[{"age": 1}]', payload=payload)
        assert "jq" not in self.message(b'[{"age": 1}]', from_files=False)

    def test_cut_long_values(self):
        assert len(self.message(b'{"age": "%s"}' % (b"a" * 100_000))) < 200

    def test_show_no_values_where_payloads_are_off(self):
        assert (
            self.message(b'{"age": "secret"}', payload=False)
            == "found a string, expected float32 (contract: range 0..150)"
        )
        for line in (b'{"age": 1e999}', b'{"age": secret}', b'"secret"', b'{"age": {"secret": 1}}'):
            assert "secret" not in self.message(line, payload=False)
            assert "999" not in self.message(line, payload=False)


# ---------------------------------------------------------------- files

X = setup({"x": {"dtype": "int64"}})


def xs(fates):
    return [fates[i][1]["x"] if fates[i][0] == "row" else fates[i][0] for i in sorted(fates)]


@pytest.mark.parametrize("block", [4096, 1 << 20])
class TestFiles:
    def read(self, path, block, **changes):
        return read_file(path, dataclasses.replace(X, max_block_bytes=block, **changes))

    def test_line_ends_of_all_kinds_and_blank_lines(self, block, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'\n \t\n{"x": 0}\r\n\r\n{"x": 1}\r{"x": 2}\n\n\r\r \r\n{"x": 3}\t\n {"x": 4}')
        assert xs(self.read(path, block)) == [0, 1, 2, 3, 4]

    def test_a_byte_order_mark_is_dropped_at_the_start_alone(self, block, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'\xef\xbb\xbf{"x": 0}\n\xef\xbb\xbf{"x": 1}\n')
        assert xs(self.read(path, block)) == [0, "malformed"]

    @pytest.mark.parametrize("content", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
    def test_nothing_is_no_rows(self, block, content, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(content)
        assert self.read(path, block) == {}
        JSONL.check(str(path), X)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_utf16_makes_the_file_unusable(self, block, encoding, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes('{"x": 0}\n'.encode(encoding) * 100)
        for start in (0, 500):
            with pytest.raises(UnusableFile, match="bad_encoding"):
                read_file(path, X, start=start)
        with pytest.raises(UnusableFile, match="bad_encoding"):
            JSONL.check(str(path), X)

    def test_a_large_record_is_ordinary(self, block, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"x": 0}\n{"x": 1, "z": "%s"}\n{"x": 2}\n' % (b"a" * 5_000_000))
        assert xs(self.read(path, block)) == [0, 1, 2]

    @pytest.mark.parametrize("size", [2_000, 100_000, 3_000_000])
    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
    def test_a_line_that_is_too_large_costs_itself(self, block, size, end, tmp_path):
        path = tmp_path / "a.jsonl"
        large = b'{"x": 1, "z": "%s"}' % (b"a" * size)
        path.write_bytes(end.join([b'{"x": 0}', large, b'{"x": 2}', b" " * size, large, large, b'{"x": 5}']))
        fates = self.read(path, block, max_row_bytes=1000)
        assert xs(fates) == [0, "too_large", 2, "too_large", "too_large", 5]
        assert fates[1][2] == large[: 64 << 10]
        path.write_bytes(end.join([b'{"x": 0}', large]))
        assert xs(self.read(path, block, max_row_bytes=1000)) == [0, "too_large"]

    def test_blocks_keep_to_the_row_limit(self, block, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"".join(b'{"x": %d}\n' % i for i in range(5000)) + b"{\n")
        options = dataclasses.replace(X, max_block_bytes=block, max_block_rows=100)
        chunks = list(JSONL.read(FileRange(str(path), 1), options))
        assert max(c.rows.num_rows + c.rejected.num_rows for c in chunks) == 100
        assert xs(outcomes(chunks)) == [*range(5000), "malformed"]
        for chunk in chunks:
            rows = chunk.rows[ROW].to_numpy()
            assert [json.loads(p)["x"] for p in chunk.origin.payloads(rows[:3]).to_pylist()] == rows[:3].tolist()

    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, zstandard.ZstdCompressor().compress])
    def test_a_compressed_file_cut_off_gives_its_whole_lines_and_one_dead_letter(self, block, pack, tmp_path):
        rng, path = random.Random(0), tmp_path / "a.jsonl"
        content = b"".join(b'{"x": %d, "z": %d}\n' % (i, rng.getrandbits(64)) for i in range(60_000))
        packed = pack(content)
        path.write_bytes(packed)
        assert xs(self.read(path, block)) == list(range(60_000))
        path.write_bytes(packed[: len(packed) * 3 // 4])
        fates = self.read(path, block)
        *rows, last = xs(fates)
        assert last == "unreadable"
        assert rows == list(range(len(rows)))
        assert pack is bz2.compress or len(rows) > 30_000

    def test_an_empty_gzip_is_unreadable(self, block, tmp_path):
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(b"")
        assert [f[0] for f in self.read(path, block).values()] == ["unreadable"]
        with pytest.raises(UnusableFile, match="unreadable"):
            JSONL.check(str(path), X)


def test_keep_all_is_refused():
    with pytest.raises(ValueError, match="keep: all"):
        dataclasses.replace(X, keep=None)


PIECES = [
    b'{"x": 1}',
    b"{",
    b" ",
    b"\t \t",
    b"\n",
    b"\r\n",
    b"\r",
    b"\r",
    b"\n",
    b"12",
    b'{"x": 2, "z": "aaaaaaaaaaaaaaaaaaaaaaaaaa"}',
    b"\xef\xbb\xbf",
]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join),
    split=st.integers(1, 200),
    most=st.sampled_from([20, 1 << 20]),
)
def test_row_numbers_and_fates_do_not_depend_on_the_split(content, split, most, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    options = dataclasses.replace(X, max_row_bytes=most)
    whole = read_file(path, options)
    ranges = JSONL.cut(str(path), len(content), split, options)
    assert (ranges[0].start, [r.index for r in ranges]) == (0, list(range(len(ranges))))
    assert ranges[-1].end in (-1, len(content))
    chunks = [chunk for range_ in ranges for chunk in JSONL.read(range_, options)]
    assert outcomes(chunks) == whole
    assert sorted(whole) == list(range(len(whole)))


def test_a_large_file_is_cut_into_even_ranges(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b'{"x": %d}\r\n' % i for i in range(100_000)))
    size = path.stat().st_size
    ranges = JSONL.cut(str(path), size, size // 10, X)
    assert len(ranges) == 10
    assert sum(r.bytes for r in ranges) == size
    assert max(r.bytes for r in ranges) < 1.1 * size / 10
    assert [
        next(iter(read_file(path, X, start=r.start, end=r.end, first_row=r.first_row).items()))[1][1]["x"]
        for r in ranges
    ] == [r.first_row for r in ranges]


def test_a_compressed_file_is_one_range(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(b'{"x": 1}\n' * 100_000))
    size = path.stat().st_size
    (only,) = JSONL.cut(str(path), size, 10, X)
    assert (only.start, only.end, only.bytes) == (0, -1, size * 4)


# ---------------------------------------------------------------- the ways agree

SCALARS = st.one_of(
    st.integers(-300, 300).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False, width=16).map(repr),
    st.sampled_from(
        [
            "null",
            "true",
            "false",
            "NaN",
            "-Infinity",
            "Inf",
            "1e39",
            "1e400",
            "1.0",
            "-1.0",
            "01",
            "-01",
            ".5",
            "5.",
            "1.e5",
            "-.5",
            "+1",
            "-",
            "7e2",
            "1E+2",
            "1_0",
            "0x1",
            "{}",
            "[]",
            "[[]]",
            "-",
            "9e99999",
        ]
    ),
    st.text(st.sampled_from('ab,é"\\:{}[]\u2028\x00\x1f\t\x7f 😀'), max_size=6).map(json.dumps),
    st.text(st.sampled_from("abé,:{}[]\u2028\x7f 1."), max_size=6).map(lambda s: f'"{s}"'),
    st.sampled_from(
        [
            '"a"',
            '"b,c"',
            '"\\ud800"',
            '"\\u00e9"',
            '"a\tb"',
            '"',
            '"a',
            'a"',
            '{"b64": "YQ=="}',
            '{"b64":"Y"}',
            '"YQ=="',
            '{"b64": null}',
        ]
    ),
)
LISTS = st.lists(SCALARS, max_size=3).map(lambda v: f"[{', '.join(v)}]")
VALUES = st.one_of(SCALARS, SCALARS, LISTS, st.lists(LISTS, max_size=2).map(lambda v: f"[{','.join(v)}]"))
TYPICAL = {
    "f": "0.5", "i": "7", "u": "200", "s": '"abc"',
    "b": "true", "l": "[1.5, 2]", "y": '{"b64": "YQ=="}', "k": "5", "z": '"ignored"',
}  # fmt: skip
COLUMNS = {
    "f": {"dtype": "float32"},
    "i": {"dtype": "int64"},
    "u": {"dtype": "uint8"},
    "s": {"dtype": "string"},
    "b": {"dtype": "bool"},
    "l": {"dtype": "float32", "shape": (2,)},
}


@st.composite
def spoilt_lines(draw):
    """Lines of one form, of which some are changed in a value, a key or a byte."""
    names = draw(st.sampled_from([list(TYPICAL), list(TYPICAL)[::-1]]))
    colon, comma = draw(st.sampled_from([(": ", ", "), (":", ","), (": ", " ,")]))
    typical = dict(TYPICAL) | draw(st.dictionaries(st.sampled_from(list(TYPICAL)), VALUES, max_size=1))
    usual = ("{" + comma.join(f'"{n}"{colon}{typical[n]}' for n in names) + "}").encode()
    lines = []
    for _ in range(draw(st.integers(1, 14))):
        values = dict(typical)
        for name in draw(st.sets(st.sampled_from(names), max_size=draw(st.sampled_from([0, 0, 1, 2])))):
            values[name] = draw(VALUES)
        members = [f'"{n}"{colon}{values[n]}' for n in names]
        change = draw(st.sampled_from([None] * 12 + ["drop", "double", "swap", "byte", "cut", "open", "tail"]))
        at = draw(st.integers(0, 300))
        if change == "drop":
            del members[at % len(members)]
        elif change == "double":
            members.append(members[at % len(members)])
        elif change == "swap":
            members = members[::-1]
        line = ("{" + comma.join(members) + "}").encode()
        if change == "byte":
            line = (
                line[: at % len(line)]
                + bytes([draw(st.sampled_from(b'\xff\xc3\x00\x1f\t "\\,{}[]:.0-eE/'))])
                + line[at % len(line) + 1 :]
            )
        elif change == "cut":
            line = line[: at % len(line)]
        elif change == "open":
            line = b"[" * draw(st.sampled_from([1, 300, 1001])) + line
        elif change == "tail":
            line += draw(st.sampled_from([b" ", b"\t", b"}", b"{}", b' {"f": 1}', b",", b"\x00", b" \r "]))
        lines.append(line)
    return [usual] * 10, lines


@settings(max_examples=150, deadline=None)
@given(
    drawn=spoilt_lines(),
    with_bytes=st.booleans(),
    keep=st.booleans(),
    extra=st.sampled_from(["ignore", "ignore", "reject"]),
)
def test_the_fast_ways_and_the_exact_judge_agree(drawn, with_bytes, keep, extra):
    columns = COLUMNS | ({"y": {"dtype": "bytes"}} if with_bytes else {})
    options = setup(columns, keep=("k",) if keep else (), extra=extra)
    usual, lines = drawn
    exact = parse(lines, options, ())
    for ways in WAYS[1:]:
        assert parse(lines, options, ways) == exact
        assert parse(lines, options, ways, before=usual) == exact


@settings(max_examples=100, deadline=None)
@given(drawn=spoilt_lines())
def test_the_fate_of_a_line_is_its_own(drawn):
    _, lines = drawn
    options = setup(COLUMNS)
    together = parse(lines, options, ("template", "arrow"))
    alone = [parse([line], options, ()) for line in lines]
    expected = [fates[i] for fates in alone for i in sorted(fates)]
    assert [together[i] for i in sorted(together)] == expected


@settings(max_examples=100, deadline=None)
@given(value=st.recursive(SCALARS, lambda v: st.lists(v, max_size=3).map(lambda x: f"[{','.join(x)}]"), max_leaves=4))
def test_malformed_is_what_a_known_parser_refuses(value):
    line = '{"z": ' + value + "}"
    fate = parse([line.encode()], setup({"x": {"dtype": "int64"}}), ())

    def refuse(constant):
        raise ValueError(constant)

    try:
        json.loads(line, parse_constant=refuse)
        is_json = "\n" not in line and "\r" not in line
    except ValueError:
        is_json = False
    assert (fate[0][0] == "row") == is_json


SEEDS = [
    b'{"id":1,"x":0.5,"name":"a","ok":true,"more":null}',
    b' {"x" : -1.5e3 , "id":\t9223372036854775808, "name":null}',
    b'{"id":18446744073709551616,"x":1e999,"name":"\xc3\xa4 {[,:]}","ok":"true"}',
    b'{"id":-0,"x":-0.0,"other":NaN,"name":1,"ok":0}',
    b'{"id":1.50e1,"x":Infinity,"name":""}',
    b'{"x":[1],"id":{"a":2},"name":"b"}',
    b'{"id":7,"id":8,"x":1,"x2":1,"x2":2}',
    b"{}",
]


@pytest.mark.parametrize("extra", ["ignore", "reject"])
def test_an_object_of_scalars_is_judged_like_any_other(extra):
    """Lines with an escape, here in a key that is not used, are parsed member by member, others by Python's parser."""
    columns = {
        "id": {"dtype": "int64"},
        "x": {"dtype": "float32"},
        "name": {"dtype": "string"},
        "ok": {"dtype": "bool", "required": False},
    }
    declared = columns | {"_": {"dtype": "int8"}}  # whichever way `extra` is
    judge = LineJudge(setup(declared, keep=("more",), extra=extra))
    drawn, rows, quick = random.Random(5), 0, 0
    for seed in SEEDS:
        lines = [seed]
        for _ in range(3000):
            line = bytearray(seed)
            for _ in range(drawn.randrange(1, 3)):
                at, byte = drawn.randrange(len(line)), drawn.choice(b'{}[],:"01.eE+-nt \t\r\0x\xff')
                line[at : at + drawn.randrange(2)] = bytes([byte]) if drawn.random() < 0.7 else b""
                line = line or bytearray(b"{}")
            lines.append(bytes(line))
        for line in lines:
            if b"\\" in line or not line.endswith(b"}"):
                continue
            body = line[:-1].rstrip(b" \t\r")
            comma = b"" if body.lstrip(b" \t\r") == b"{" else b","
            one, other = judge.judge(body + comma + b'"_":0}'), judge.judge(body + comma + b'"\\u005f":0}')
            if isinstance(one, Refusal) and isinstance(other, Refusal):  # their messages show the text
                one, other = ((refusal.reason, refusal.column) for refusal in (one, other))
            assert one == other, line
            rows += isinstance(one, Row)
            quick += isinstance(one, Row) and not one.faults
    assert rows > 1000 and quick > 100


def test_most_lines_of_a_file_go_a_fast_way():
    lines = [b'{"f": %f, "i": %d.0, "s": "u%d", "z": null}' % (i / 7, i, i) for i in range(3000)]
    options = setup({n: COLUMNS[n] for n in "fis"})
    for ways in (("template",), ("arrow",)):
        spoil = 100
        spoilt = [b'{"f": "x"}' if i % spoil == 0 else line.replace(b".0,", b",") for i, line in enumerate(lines)]
        data = b"\n".join(spoilt)
        parser = LineParser(options, ways)
        judged = []
        exact = parser._judge.judge
        parser._judge.judge = lambda line, exact=exact, judged=judged: judged.append(line) or exact(line)
        parser.parse(data, *line_spans(data), 0, None)
        assert len(judged) < 2 * 3000 / spoil


def test_a_form_that_another_file_had_is_taken_with_its_own_kinds():
    options = setup({"x": {"dtype": "float32"}}, keep=("note",))
    for note in (b"1", b'"a"', b"null", b'"a"', b"2"):
        data = b"\n".join([b'{"x":%d,"note":%b}' % (i, note) for i in range(1000)])
        good, rows = TemplateLines(options).take(Lines(data, *line_spans(data)))
        assert len(good) == 1000 and set(rows["note"].to_pylist()) == {None if note == b"null" else note.decode()}


NULLABLE = {
    "float16": ("0.5", 0.5),
    "float32": ("-1e2", -100.0),
    "float64": ("0.25", 0.25),
    "int8": ("-128", -128),
    "int64": ("7.0", 7),
    "uint64": ("18446744073709551615", 2**64 - 1),
    "bool": ("true", True),
    "string": ('"\u00e4\u65e5"', "\u00e4\u65e5"),
    "bytes": ('{"b64": "aGk="}', b"hi"),
}


@pytest.mark.parametrize("dtype", NULLABLE)
def test_a_null_in_place_of_any_scalar_has_the_form(dtype):
    text, value = NULLABLE[dtype]
    texts = ["null" if i % 3 == 2 and dtype != "bytes" else text for i in range(300)]
    lines = [f'{{"x": {text}, "i": {i}}}'.encode() for i, text in enumerate(texts)]
    data = b"\n".join(lines)
    options = setup({"x": {"dtype": dtype, "required": False}, "i": {"dtype": "int64"}})
    good, rows = TemplateLines(options).take(Lines(data, *line_spans(data)))
    assert len(good) == 300 and rows["i"].to_pylist() == list(range(300))
    assert rows["x"].to_pylist() == [None if text == "null" else value for text in texts]


@pytest.mark.parametrize(
    "odd", ["0x1F", "0X1F", "-0x1", "007", "1.", ".5", "+1", "1_0", "1e", "5.e3", "inf", "-inf", "nan", "1 2"]
)
@pytest.mark.parametrize("dtype", ["int64", "uint64", "float32", "float64"])
def test_what_a_cast_takes_and_json_does_not_is_no_number(dtype, odd):
    lines = [f'{{"x": {odd if i == 150 else i}}}'.encode() for i in range(300)]
    options = setup({"x": {"dtype": dtype}})
    exact, template = parse(lines, options, ()), parse(lines, options, ("template",))
    assert template == exact and exact[150] not in (exact[149], exact[151])
    data = b"\n".join(lines)
    good, rows = TemplateLines(options).take(Lines(data, *line_spans(data)))
    assert 150 not in good and rows["x"].to_pylist() == [i for i in range(300) if i != 150]


def test_rows_are_typed_as_the_contract_says():
    options = setup({**COLUMNS, "m": {"dtype": "int8", "shape": (None, 2)}, "h": {"dtype": "float16"}}, keep=("k",))
    chunk = LineParser(options).parse(b"{}\n{", np.array([0, 3]), np.array([2, 4]), 10, None)
    assert {n: chunk.rows.schema.field(n).type for n in chunk.rows.schema.names} == (
        {ROW: pa.int64()} | {n: c.arrow_type for n, c in options.contract_columns.items()} | {"k": pa.string()}
    )
    assert chunk.rows[ROW].to_pylist() == [10]
    assert chunk.rejected["row"].to_pylist() == [11]


# The text of a kept column that the contract does not declare.
KEPT_LINES = [
    b'{"a": 1, "k": "text"}',
    b'{"k": null, "a": 2}',
    b'{"k" :\t-1.50e3 , "a": 3}',
    b'{"a": 4}',
    b'{"a": 5, "k": "null"}',
    b'{"a": 6, "k": [1, 2]}',
    b'{"a": 7, "k": {"x": 1}}',
    b'{"a": 8, "k": 1, "k": 2}',
    b'{"a": 9, "x": {"k": 3}}',
    b'{"a": 10, "x": "k"}',
    b'{"a": 11, "x": "k", "k": true}',
    b'{"a": 12, "\\u006b": 4}',
    b'{"a": 13, "k": "\\"", "x": "\\"k\\": 5"}',
    b'{"a": 14, "k": "\xc3\xa4{}"}',
    b'{"a": 15, "x": ":1"}',
    b'{"a": 16, "x": "y", ":b": 1}',
    b'{"a": 17, "k": ""}',
    b'{"a": 18, "k": 1} {}',
    b'{"a": 19, "k": 01}',
]


@pytest.mark.parametrize("kept", ["k", ":", ",", "x", "", "K", 'k"', "\\", "(", "ä"])
def test_the_text_of_a_kept_column_is_the_same_on_every_way(kept):
    options = setup({"a": {"dtype": "int64"}}, keep=(kept,))
    lines = [line.replace(b'"k"', b'"\xc3\xa4"') for line in KEPT_LINES] if kept == "ä" else KEPT_LINES
    found = [parse(lines, options, ways) for ways in WAYS]
    assert found[0] == found[1] == found[2] == found[3]


def test_keys_in_any_order_keep_a_kept_column_on_the_fast_way():
    options = setup({"a": {"dtype": "int64"}}, keep=("k",))
    lines = [b'{"a": 1, "k": "x"}', b'{"k": 2, "a": 2}', b'{"a": 3}'] * 100
    data = b"\n".join(lines)
    found, _ = ArrowLines(options).take(Lines(data, *line_spans(data)))
    assert len(found) == len(lines)


def test_a_thousand_keys_cost_ten_times_as_much_as_a_hundred():
    def seconds(keys):
        options = setup({f"f{k}": {"dtype": "float32"} for k in range(keys)}, keep=("id",))
        line = json.dumps({"id": 7} | {f"f{k}": k + 0.5 for k in range(keys)}).encode()
        data = b"\n".join([line] * (20_000 // keys))
        starts, ends = line_spans(data)
        began = time.process_time()
        for ways in WAYS:
            LineParser(options, ways).parse(data, starts, ends, 0, None)
        return time.process_time() - began

    seconds(100)
    assert seconds(2000) < 5 * seconds(200)  # as many values; with a cost a key that grows by keys it would be 10


# Text of kept columns that the contract does not declare.


def _any_value(chance, depth=0):
    kind = chance.randrange(8)
    if kind == 0 and depth < 4:
        return [_any_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 1 and depth < 4:
        return {
            chance.choice(["note", "x", "y\\z", 'q"']): _any_value(chance, depth + 1)
            for _ in range(chance.randrange(4))
        }
    return chance.choice([None, 1, -2.5e10, True, "", "t", "\u4e2d\u00e9", "\\", '"', '\\"', 'a"b,c}{][:"note": 1'])


@pytest.mark.parametrize("seed", range(10))
def test_the_text_of_a_value_is_found_whatever_is_around_it(seed):
    chance = random.Random(seed)
    rows = [
        {k: _any_value(chance) for k in chance.sample(["note", "noted", "a", "not"], chance.randrange(5))}
        for _ in range(300)
    ]
    styles = [(",", ":"), (", ", ": "), (" ,\t", " : ")]
    lines = [json.dumps(r, ensure_ascii=chance.random() < 0.5, separators=chance.choice(styles)) for r in rows]
    data = ("\r\n".join(lines) + "\n").encode()
    texts, times = TopLevel(data, line_spans(data)[0]).texts("note")
    assert [None if t is None else json.loads(t) for t in texts.to_pylist()] == [r.get("note") for r in rows]
    assert times.tolist() == ["note" in r for r in rows]


def test_a_key_that_occurs_twice_or_is_escaped_is_left_to_the_exact_parser():
    data = b'{"note": 1, "a": {"note": 2}}\n{"note": 1, "note": 2}\n{"n\\u006fte": 1}\n{"a": "\\u006f"}\n'
    members = TopLevel(data, line_spans(data)[0])
    assert members.texts("note")[1].tolist() == [1, 2, 0, 0]
    assert members.has_escaped_key().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "extra", [{"tags": [{"k": [1, 2]}]}, {"t": 'a "b" \\ c'}, {"o": {"note": {}}}, {"note": [1, {"a": 2}]}]
)
def test_no_shape_of_a_line_is_left_to_the_exact_parser_for_a_kept_column(extra):
    """It takes fifty times as long."""
    chance = random.Random(1)
    rows = [list({"x": i, "note": "n", **extra}.items()) for i in range(200)]
    for row in rows:
        chance.shuffle(row)
    data = "".join(json.dumps(dict(row)) + "\n" for row in rows).encode()
    settings = dataclasses.replace(X, keep=("note",))
    index, batch = ArrowLines(settings).take(Lines(data, *line_spans(data)))
    assert index.tolist() == list(range(200))
    assert [json.loads(t) for t in batch["note"].to_pylist()] == [dict(row)["note"] for row in rows]
