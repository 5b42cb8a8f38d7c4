"""A checksum at the end of what it covers: the rows of a member that it refuses are taken back, and those of the
members before stand; in every format and compression, and however the file is read."""

import bz2
import dataclasses
import gzip

import jobs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from beam_score.pipeline.run.launch import run
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.durable import storage
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.framing.tfrecord import frame
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.receipts import collect
from beam_score.transforms.listing.files import list_files
from beam_score.transforms.replay.dead_letter import DeadLetter
from beam_score.transforms.replay.from_source import from_source
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.reject_count import RejectCount
from beam_score.transforms.steps.coder import BlockCoder
from beam_score.transforms.steps.write import WriteParts

MEMBER = 300  # rows
CONTRACT = Contract(columns={"x": Column(dtype="int64")})
REFUSED = "it and everything after it are ignored"


def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def varint(n):
    return bytes([n & 127 | 128, n >> 7 & 127 | 128, n >> 14])


def example(x):
    return field(1, field(1, field(1, b"x") + field(2, field(3, field(1, varint(x))))))


RECORD = {
    "csv": lambda x: b"%d\n" % x,
    "jsonl": lambda x: b'{"x": %d}\n' % x,
    "tfrecord": lambda x: frame(example(x)),
}


def altered(kind, content, other):
    """A member that holds `content` under the checksum of `other`."""
    if kind == "gzip":
        return gzip.compress(content)[:-8] + gzip.compress(other)[-8:]
    if kind == "zstd":
        pack = zstandard.ZstdCompressor(write_checksum=True).compress
        return pack(content)[:-4] + pack(other)[-4:]
    packed = bytearray(bz2.compress(content))
    packed[10] ^= 1  # of the first block's checksum, which stands before it
    return bytes(packed)


PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}


def damaged(tmp_path, format_, kind, name="rows"):
    """Two sound members, one of which a row is altered, one sound member."""
    record = RECORD[format_]
    rows = [b"".join(map(record, range(m * MEMBER, (m + 1) * MEMBER))) for m in range(4)]
    if format_ == "csv":
        rows[0] = b"x\n" + rows[0]
    pack = PACK[kind]
    bad = altered(kind, rows[2][: -len(record(0))] + record(7), rows[2])
    path = tmp_path / name
    path.write_bytes(pack(rows[0]) + pack(rows[1]) + bad + pack(rows[3]))
    return path


def counted(blocks):
    """The blocks of the one attempt that counts, and how many attempts were void."""
    void = {b.attempt for b in blocks if b.void}
    (last,) = {b.attempt for b in blocks} - void
    assert blocks[-1].attempt == last and blocks[-1].total is not None
    for attempt in [*void, last]:
        own = [b for b in blocks if b.attempt == attempt]
        assert [b.seq for b in own] == list(range(len(own)))
        assert [b for b in own if b.void or b.total is not None] == own[-1:]
    return [b for b in blocks if b.attempt == last], len(void)


def fates(blocks):
    rows = [
        (r[ROW], int(r["x"] if isinstance(r["x"], (int, str)) else r["x"][0]))
        for b in blocks
        for r in b.rows.to_pylist()
    ]
    return rows, [(d["reason"], d["row"], d["rows"]) for b in blocks for d in b.rejected.to_pylist()]


@pytest.mark.parametrize("format_", RECORD)
@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("block_bytes", [100, 3_000, 1 << 20])
def test_rows_of_the_members_before_stand_and_none_of_the_refused(tmp_path, format_, kind, block_bytes):
    paths = [damaged(tmp_path, format_, kind, f"rows{n}") for n in range(2)]
    ranges = tuple(FileRange(str(p), p.stat().st_size) for p in paths)
    settings = ReadSettings(format_, CONTRACT, max_block_bytes=block_bytes)
    blocks, void = counted(list(read_split(Split(0, ranges), settings, "a")))
    rows, letters = fates(blocks)
    assert rows == [(n, n) for n in range(2 * MEMBER)] * 2
    assert letters == [("unreadable", 2 * MEMBER, None)] * 2
    assert all(REFUSED in d["message"] for b in blocks for d in b.rejected.to_pylist())
    # One more reading, however many files are damaged; none where a frame so small comes out at once.
    assert void == (block_bytes < 1 << 20 and kind != "zstd")


def test_the_first_member_refused_leaves_no_row(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(altered("gzip", b"x\n" + b"1\n" * 100_000, b"x\n" + b"2\n" * 100_000))
    for size in (1000, 4 << 20):
        settings = ReadSettings("csv", CONTRACT, max_block_bytes=size)
        blocks, _ = counted(list(read_split(Split(0, (FileRange(str(path), 1),)), settings, "a")))
        assert fates(blocks) == ([], [("unreadable", 0, None)])


def test_the_writer_forgets_an_attempt_that_is_void(tmp_path):
    path = damaged(tmp_path, "csv", "gzip")
    settings = ReadSettings("csv", CONTRACT, max_block_bytes=100)
    folder = RunFolder(str(tmp_path / "out"), "20260101T000000-abcdef")
    for place in (folder.parts, folder.receipts):
        storage.make_folder(place)
    schema = pa.schema([("x", pa.string())])
    writer = WriteParts(WriteSettings(folder, schema, rejects=RejectCount(0))).writer()
    writer.start_bundle()
    done = []
    for block in read_split(Split(0, (FileRange(str(path), 1),)), settings, "a"):
        block = BlockCoder().decode(BlockCoder().encode(block))
        rows = block.rows.select(["x"])
        rows = pa.RecordBatch.from_arrays([rows["x"].cast(pa.string())], ["x"])
        done += writer.process(dataclasses.replace(block, rows=rows))
    done += [value.value for value in writer.finish_bundle()]
    assert done == [0]
    (receipt,) = collect(folder, 1)
    assert receipt.attempt != "a"
    names = sorted(p.name for p in folder.parts.iterdir())
    assert names == [part.name for part in sorted(receipt.parts, key=lambda p: p.name)]
    assert pq.read_table(folder.parts / names[0])["x"].to_pylist() == [str(n) for n in range(2 * MEMBER)]
    (file,) = receipt.files.values()
    assert (file["read"], file["predicted"], file["stretches"]) == (600, 600, {"unreadable": 1})


def test_a_replay_reads_up_to_what_is_refused(tmp_path):
    """Once: its rows were not all read by the parent, so the number of the first is known and that of the last not."""
    path = damaged(tmp_path, "csv", "gzip")
    settings = ReadSettings("csv", CONTRACT, max_block_bytes=100)
    (now,), _ = list_files([str(path)])
    letters = [
        DeadLetter(str(path), 5, 1, "validate", "out_of_range", "x", None, False, "text"),
        DeadLetter(str(path), 600, None, "read", "unreadable", None, None, False, "text"),
    ]
    chunks = list(from_source(dataclasses.asdict(now), letters, settings))
    assert fates(chunks) == ([(5, 5)], [("unreadable", 600, None)])


def test_a_whole_run_publishes_the_rows_of_the_sound_members_only(tmp_path, model):
    jobs.write_people(tmp_path / "data", 3, 900)
    path = tmp_path / "data/people-1.csv"
    header, *lines = path.read_text().splitlines(keepends=True)
    good, bad = "".join([header, *lines[:400]]).encode(), "".join(lines[400:]).encode()
    path.write_bytes(gzip.compress(good) + altered("gzip", bad.replace(b",3.5,", b",9.5,"), bad))
    job = jobs.job(
        tmp_path,
        model("multiply"),
        engine={"workers": 2, "block_bytes": 2000, "split_bytes": "1MB"},
        rejects={"files": 1, "budget": "0%", "stop_after": 0},
    )
    assert run(job).manifest["counts"]["predicted"] == 2200
    (letter,) = jobs.dead_letters(tmp_path / "out")
    assert (letter["source"], letter["row"], letter["rows"], letter["reason"]) == (str(path), 400, None, "unreadable")
    assert sorted(jobs.predictions(tmp_path / "out")["id"].to_list()) == sorted(
        f"r{file}-{row}" for file in range(3) for row in range(400 if file == 1 else 900)
    )
