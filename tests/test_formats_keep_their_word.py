"""What every format promises (`transforms.formats.base.Format`), of each of them alike."""

import io
import json
import pickle
import random
from pathlib import Path

import avro_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring
from pyarrow import orc

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings, UnusableFile, format_named, formats
from beam_score.transforms.formats.detect import format_by_content, format_of
from beam_score.transforms.formats.first_rows import Hints
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.formats.registry import FORMATS
from beam_score.transforms.framing.tfrecord import frame
from beam_score.transforms.listing.files import InputFile
from beam_score.transforms.rows.faults import known_rows

COUNT = 5000
ROWS = [{"id": i, "x": i / 4, "s": f"text {i}"} for i in range(COUNT)]
CONTRACT = Contract(columns={"id": Column(dtype="int64"), "x": Column(dtype="float64"), "s": Column(dtype="string")})


def _text(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _csv(rows: list[dict]) -> bytes:
    return b"id,x,s\n" + b"".join(b"%d,%r,%s\n" % (r["id"], r["x"], _text(r["s"])) for r in rows)


def _jsonl(rows: list[dict]) -> bytes:
    return b"".join(b'{"id": %d, "x": %r, "s": "%s"}\n' % (r["id"], r["x"], _text(r["s"])) for r in rows)


def _table(rows: list[dict]) -> pa.Table:
    texts = pa.array([_text(r["s"]) for r in rows], pa.binary()).view(pa.string())  # unchecked
    return pa.table({"id": [r["id"] for r in rows], "x": [r["x"] for r in rows], "s": texts})


def _parquet(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    pq.write_table(_table(rows), out, row_group_size=500, write_page_checksum=True)
    return out.getvalue()


def _orc(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    table = _table(rows)
    with orc.ORCWriter(out, stripe_size=16 << 10, batch_size=100, compression="uncompressed") as writer:
        for at in range(0, len(rows), 100):
            writer.write(table.slice(at, 100))
    return out.getvalue()


WRITE = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "tfrecord": lambda rows: b"".join(frame(scoring.example(r).SerializeToString()) for r in rows),
    "avro": lambda rows: avro_files.avro_file(avro_files.record(id="long", x="double", s="string"), rows, "deflate"),
    "orc": _orc,
}
"""The content of a file; a new format needs a line here."""

each_format = pytest.mark.parametrize("format_", [format_named(name) for name in FORMATS], ids=FORMATS)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("formats")
    paths = {}
    for name in FORMATS:
        paths[name] = folder / f"rows.{name}"
        paths[name].write_bytes(WRITE[name](ROWS))
    return paths


def settings(name: str, **changes) -> ReadSettings:
    return ReadSettings(name, changes.pop("columns", CONTRACT), **changes)


def values(name: str, chunks) -> list[dict]:
    """The rows of some chunks, typed: CSV may leave numbers as text."""
    found = []
    for chunk in chunks:
        for row in chunk.rows.to_pylist():
            assert not row.get("#faults"), row
            found.append({"row": row["#row"], "id": int(row["id"]), "x": float(row["x"]), "s": row["s"]})
    return found


EXPECTED = [{"row": i} | row for i, row in enumerate(ROWS)]


def test_formats_do_not_claim_the_same_files():
    suffixes = [suffix for format_ in formats() for suffix in format_.suffixes]
    assert len(suffixes) == len(set(suffixes)) and all(s.startswith(".") and s == s.lower() for s in suffixes)
    assert [format_.name for format_ in formats()] == list(FORMATS) == list(WRITE)
    assert len({format_.title for format_ in formats()}) == len(FORMATS)


@each_format
def test_files_are_recognised(format_, files):
    for suffix in format_.suffixes:
        assert format_of([InputFile(f"a{suffix}", 1), InputFile(f"b{suffix.upper()}.gz", 1)]) == (format_.name, "")
    head = files[format_.name].read_bytes()[:64]
    assert format_by_content(head) == (None if format_.magic is None else format_.name)


@each_format
def test_all_rows_are_read_in_order(format_, files):
    path = files[format_.name]
    assert values(format_.name, format_.read(FileRange(str(path), path.stat().st_size), settings(format_.name))) == (
        EXPECTED
    )


@each_format
@pytest.mark.parametrize("parts", [2, 5, 9])
def test_ranges_are_read_on_their_own(format_, files, parts):
    path = files[format_.name]
    size = path.stat().st_size
    ranges = format_.cut(str(path), size, size // parts, settings(format_.name))
    assert len(ranges) > 1 and [r.index for r in ranges] == list(range(len(ranges)))
    found = {r.first_row: values(format_.name, format_.read(r, settings(format_.name))) for r in reversed(ranges)}
    assert all(rows[0]["row"] == first for first, rows in found.items())
    assert [row for first in sorted(found) for row in found[first]] == EXPECTED


@each_format
def test_a_small_file_is_one_range(format_, files):
    path = files[format_.name]
    size = path.stat().st_size
    assert len(format_.cut(str(path), size, 10 * size, settings(format_.name))) == 1


@each_format
def test_chunks_are_bounded_and_the_same_at_every_reading(format_, files):
    path = files[format_.name]
    small = settings(format_.name, max_block_rows=70, max_block_bytes=4096)
    first, again = (list(format_.read(FileRange(str(path), path.stat().st_size), small)) for _ in range(2))
    assert max(chunk.rows.num_rows for chunk in first) <= 70
    assert [c.rows.num_rows for c in first] == [c.rows.num_rows for c in again]
    assert values(format_.name, first) == EXPECTED


@each_format
def test_no_row_depends_on_payloads(format_, files):
    path = files[format_.name]
    chunks = list(format_.read(FileRange(str(path), path.stat().st_size), settings(format_.name, payload=False)))
    assert all(chunk.origin is None for chunk in chunks) and values(format_.name, chunks) == EXPECTED


@each_format
def test_a_payload_can_be_read_again(format_, files, tmp_path):
    path = files[format_.name]
    own = settings(format_.name)
    chunks = list(format_.read(FileRange(str(path), path.stat().st_size), own))
    assert {chunk.origin.kind for chunk in chunks} == {format_.payload_kind}
    payload = chunks[0].origin.payloads([3, 7]).to_pylist()
    if format_.payload_kind == "json":
        assert [json.loads(p) for p in payload] == [ROWS[3], ROWS[7]]
        return
    header = format_.header_of(str(path), own)
    assert (header is not None) == own.options.header
    (tmp_path / "again").write_bytes(format_.file_of(payload, header))
    again = values(format_.name, format_.read(FileRange(str(tmp_path / "again"), 0), own))
    assert again == [{"row": i} | ROWS[n] for i, n in enumerate([3, 7])]
    if format_.payload_kind == "text":
        starts, ends = format_.record_spans(b"\n".join(payload), own)
        assert [(b"\n".join(payload))[s:e] for s, e in zip(starts, ends, strict=True)] == payload


@each_format
def test_columns_and_kept_columns(format_, files):
    path = str(files[format_.name])
    own = settings(format_.name, columns=Contract(columns={"id": Column(dtype="int64")}), keep=("s",))
    found = format_.columns_of(path, own)
    if found is not None:
        assert list(found) == ["id", "x", "s"] and pa.types.is_string(found["s"])
    rows = [r for chunk in format_.read(FileRange(path, 0), own) for r in chunk.rows.to_pylist()]
    assert [json.loads(r["s"]) if format_.name == "jsonl" else r["s"] for r in rows] == [r["s"] for r in ROWS]


@each_format
def test_a_row_without_used_columns_is_a_row(format_, files):
    path = files[format_.name]
    own = settings(format_.name, columns=Contract(columns={}))
    chunks = list(format_.read(FileRange(str(path), path.stat().st_size), own))
    assert sum(chunk.rows.num_rows for chunk in chunks) == COUNT


@each_format
@pytest.mark.parametrize("max_block_rows", [64, 65536])
def test_one_text_that_is_not_utf8_costs_one_row(format_, tmp_path, max_block_rows):
    """However many rows are decoded together."""
    rows = [{**row, "s": b"a\xffb"} if row["id"] in (0, 1234, 3999) else row for row in ROWS]
    path = tmp_path / "rows"
    path.write_bytes(WRITE[format_.name](rows))
    own = settings(format_.name, max_block_rows=max_block_rows)
    chunks = list(format_.read(FileRange(str(path), path.stat().st_size), own))
    assert sum(known_rows(chunk.rejected) for chunk in chunks) == 0
    found = [row for chunk in chunks for row in chunk.rows.to_pylist()]
    faults = {row["#row"]: [f["reason"] for f in row["#faults"]] for row in found if row.get("#faults")}
    assert faults == {row: ["bad_encoding"] for row in (0, 1234, 3999)}
    assert [row["s"] for row in found if row["#row"] not in faults] == [r["s"] for r in rows if isinstance(r["s"], str)]


@each_format
def test_a_missing_column_is_named_where_the_file_names_its_columns(format_, files):
    path = str(files[format_.name])
    more = Contract(columns={**CONTRACT.columns, "idd": Column(dtype="int64")})
    if format_.columns_of(path, settings(format_.name)) is None:
        assert format_.check(path, settings(format_.name, columns=more)) is None
        return
    with pytest.raises(UnusableFile, match=r"idd.*did you mean 'id'") as error:
        format_.check(path, settings(format_.name, columns=more))
    assert (error.value.reason, error.value.column) == ("missing_column", "idd")
    optional = Contract(columns={**CONTRACT.columns, "idd": Column(dtype="int64", required=False)})
    (first, *_) = format_.read(FileRange(path, 0), settings(format_.name, columns=optional))
    assert first.rows["idd"].null_count == first.rows.num_rows


@each_format
def test_the_first_rows_are_values(format_, files):
    found = format_.first_rows(str(files[format_.name]), 20, Hints())
    assert len(found.rows) == 20 and found.unreadable == 0
    if format_.values == "text":
        assert found.rows[5] == {name: str(value) for name, value in ROWS[5].items()}
    else:
        assert found.rows[5] == ROWS[5]
    assert set(found.names) in (set(), {"id", "x", "s"})


@each_format
def test_a_file_that_is_not_there(format_, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    for call in (
        lambda: format_.check(nowhere, settings(format_.name)),
        lambda: list(format_.read(FileRange(nowhere, 0), settings(format_.name))),
        lambda: format_.first_rows(nowhere, 10, Hints()),
    ):
        with pytest.raises(FileNotFoundError):
            call()


@each_format
def test_settings_travel_to_workers(format_):
    own = settings(format_.name)
    assert pickle.loads(pickle.dumps(own)) == own and type(own.options) is format_.options_type
    hash(own.options)
    with pytest.raises(TypeError, match="expected"):
        settings(format_.name, options=object())


def _accounted(path: Path, name: str) -> tuple[int, bool, list[str]]:
    """Rows read and rejected; whether a stretch of unknown length is among them; the reasons."""
    split = Split(0, (FileRange(str(path), path.stat().st_size),))
    known, open_end, reasons = 0, False, []
    for block in read_split(split, settings(name), "a"):
        if block.void:
            known, open_end, reasons = 0, False, []
            continue
        known += block.rows.num_rows + known_rows(block.rejected)
        open_end |= bool(block.rejected["rows"].null_count)
        reasons += block.rejected["reason"].to_pylist()
    return known, open_end, reasons


@each_format
@pytest.mark.parametrize("cut_at", [0, 1, 3, 17, 100, -1, -20, -400])
def test_a_file_that_breaks_off_is_accounted_for(format_, files, tmp_path, cut_at):
    """No exception, no row that was not written, and a dead letter unless the file may end there."""
    content = files[format_.name].read_bytes()[:cut_at]
    path = tmp_path / "cut"
    path.write_bytes(content)
    known, open_end, reasons = _accounted(path, format_.name)
    assert known <= COUNT and (known < COUNT) <= (open_end or not content or format_.values == "text" or bool(reasons))


@each_format
@pytest.mark.parametrize("seed", range(25))
def test_damage_is_dead_letters_and_never_an_exception(format_, files, tmp_path, seed):
    chance = random.Random(f"{format_.name} {seed}")
    content = bytearray(files[format_.name].read_bytes())
    for _ in range(chance.choice((1, 1, 3, 40))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path = tmp_path / "damaged"
    path.write_bytes(content)
    known, _, _ = _accounted(path, format_.name)
    assert known <= COUNT + 100  # damage may join or part lines


@each_format
def test_garbage_is_refused(format_, tmp_path):
    path = tmp_path / "garbage"
    path.write_bytes(random.Random(7).randbytes(3000))
    _, open_end, reasons = _accounted(path, format_.name)
    assert open_end or reasons
    if format_.values == "text":
        assert format_.first_rows(str(path), 10, Hints()).unreadable
    else:
        with pytest.raises(UnusableFile):
            format_.first_rows(str(path), 10, Hints())
