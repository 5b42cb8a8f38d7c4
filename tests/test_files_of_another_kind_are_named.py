"""A file of another kind is named as what it is, with what to do; and none that is sound is mistaken."""

import gzip
import io
import lzma
import zipfile
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_csv_is_read_exactly import contract, fates, outcome, write
from test_what_a_checksum_refuses_is_not_published import RECORD, counted
from test_what_a_checksum_refuses_is_not_published import fates as rows_of

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.csv.reader import FORMAT as CSV
from beam_score.transforms.formats.jsonl.reader import FORMAT as JSONL
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.formats.tfrecord.reader import FORMAT as TFRECORD

TEXT = b"x\n1\n2\n"


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.csv", TEXT)
    return out.getvalue()


def parquet():
    out = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), out)
    return out.getvalue()


FOREIGN = [
    (zipped(), "ZIP archive", "unreadable"),
    (lzma.compress(TEXT), "compressed by xz", "unreadable"),
    (b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(40), "7z archive", "unreadable"),
    (parquet(), "Parquet", "unreadable"),
    (TEXT.decode().encode("utf-16"), "UTF-16", "bad_encoding"),
    ("x,yy\n1,2\n".encode("utf-32-le"), "UTF-32LE", "bad_encoding"),
    ("x,yy\n1,2\n".encode("utf-16-be"), "UTF-16BE", "bad_encoding"),
]


@pytest.mark.parametrize("module", [CSV, JSONL, TFRECORD])
@pytest.mark.parametrize(("content", "said", "reason"), FOREIGN)
def test_a_file_of_another_kind_is_named(tmp_path, module, content, said, reason):
    path = tmp_path / "rows"
    for data in (content, gzip.compress(content)):
        path.write_bytes(data)
        settings = ReadSettings(module.name, contract(x="int64"))
        with pytest.raises(UnusableFile, match=said) as error:
            module.check(str(path), settings)
        assert error.value.reason == ("unreadable" if module is TFRECORD else reason)


@pytest.mark.parametrize("first", ["ORCID,x", "PAR1,x", "PK,x", "Obj,x", "x^,x", "7z,x", "Orc\u00e9,x"])
def test_text_that_begins_alike_is_text(tmp_path, first):
    path = write(tmp_path, f"{first}\na,1\n")
    assert fates(path, ReadSettings("csv", contract(x="int64"))) == [{"x": 1}]


def test_a_comment_before_the_header_is_told(tmp_path):
    path = write(tmp_path, "# exported 2026-11-20\nx,y\n1,2\n")
    with pytest.raises(UnusableFile, match=r"missing_column: .*CSV has no comments.*grep -v"):
        CSV.check(str(path), ReadSettings("csv", contract(x="int64")))
    assert fates(write(tmp_path, "#,x\n1,2\n"), ReadSettings("csv", contract(x="int64"))) == [{"x": 2}]


@pytest.mark.parametrize(
    "text", ['[{"x": 1},\n{"x": 2}]\n', '[\n  {"x": 1},\n  {"x": 2}\n]\n', '[{"x": 1}, {"x": 2}]\n']
)
def test_one_json_array_is_told(tmp_path, text):
    path = write(tmp_path, text, "rows.json")
    _, letters = outcome(path, ReadSettings("jsonl", contract(x="int64")))
    assert letters[0]["row"] == 0
    assert "jq -c '.[]'" in letters[0]["message"]


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("block_bytes", [100, 1 << 20])
def test_tfrecord_compressed_by_zlib_is_read(tmp_path, level, block_bytes):
    data = b"".join(map(RECORD["tfrecord"], range(2000)))
    path = tmp_path / "rows.tfrecord"
    settings = ReadSettings("tfrecord", contract(x="int64"), max_block_bytes=block_bytes)
    ranges = (FileRange(str(path), 1),)
    packed = zlib.compress(data, level)
    path.write_bytes(packed)
    TFRECORD.check(str(path), settings)
    assert len(TFRECORD.cut(str(path), len(packed), 100, settings)) == 1
    blocks, void = counted(list(read_split(Split(0, ranges), settings, "a")))
    assert (rows_of(blocks), void) == (([(n, n) for n in range(2000)], []), 0)
    path.write_bytes(packed[: len(packed) // 2])  # cut off: the records before it
    rows, letters = rows_of(counted(list(read_split(Split(0, ranges), settings, "a")))[0])
    assert 0 < len(rows) < 2000 and rows == [(n, n) for n in range(len(rows))]
    assert letters == [("unreadable", len(rows), None)]
    path.write_bytes(packed[:-1] + bytes([packed[-1] ^ 1]))  # the checksum
    rows, letters = rows_of(counted(list(read_split(Split(0, ranges), settings, "a")))[0])
    assert (rows, letters) == ([], [("unreadable", 0, None)])
