"""Many small files are read into few blocks, and every row is still of its file, with its number there."""

import gzip

import jobs
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import scoring
from reading import read_settings

from beam_score.pipeline.run.launch import run
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.output.dead_letters import dead_letter_rows
from beam_score.transforms.rows.block import ROW, reject_rows
from beam_score.transforms.rows.faults import Fault
from beam_score.transforms.rows.sources import Files, places
from beam_score.transforms.steps.coder import BlockCoder

FILES, ROWS = 12, 7
CONTRACT = Contract(columns={"x": Column(dtype="int64"), "text": Column(dtype="string", required=False)})


def write(folder, format_):
    """Files of a few rows each; some empty, without a last line end, compressed, or with a row or value at fault."""
    ranges = []
    for number in range(FILES):
        (own := folder / f"f{number:02}").mkdir()
        rows = [{"x": 100 * number + i, "text": f"é{i}" if number % 2 else "plain"} for i in range(ROWS)]
        path = scoring.write(own, pa.Table.from_pylist(rows) if format_ == "parquet" else rows, format_)
        content = path.read_bytes()
        if format_ in ("csv", "jsonl"):
            content = {3: content.rstrip(b"\r\n"), 5: gzip.compress(content), 7: content + b'"broken\n'}.get(
                number, content
            )
            if number == 9:
                content = content[: content.index(b"\n") + 1] if format_ == "csv" else b""
        path.write_bytes(content)
        ranges.append(FileRange(str(path), len(content)))
    return Split(3, tuple(ranges))


def read(split, format_, **settings):
    return list(read_split(split, read_settings(format_, CONTRACT, **settings), "a"))


def rows_of(blocks):
    """(file, row, values) of every good row, and the dead letters, in order."""
    good, letters = [], []
    for block in blocks:
        files, numbers = places(block.source, block.rows[ROW].to_numpy())
        columns = [block.rows[name].cast(pa.string()).to_pylist() for name in ("x", "text")]
        good += zip(files.to_pylist(), numbers.tolist(), *columns, strict=True)
        letters += dead_letter_rows(block.rejected, block.source, "run").to_pylist()
    return good, letters


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "tfrecord"])
def test_joined_or_not_the_rows_are_the_same(format_, tmp_path):
    split = write(tmp_path, format_)
    joined, apart = read(split, format_), read(split, format_, max_block_bytes=64)
    assert rows_of(joined) == rows_of(apart)
    assert len(rows_of(joined)[0]) >= ROWS * (FILES - 1)
    assert any(isinstance(block.source, Files) for block in joined)
    assert not any(isinstance(block.source, Files) for block in apart)
    assert len(joined) < FILES < len(apart)
    assert [b.seq for b in joined] == list(range(len(joined))) and joined[-1].total == apart[-1].total


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "tfrecord"])
def test_a_row_refused_later_shows_the_record_of_its_own_file(format_, tmp_path):
    split = write(tmp_path, format_)

    def refused(blocks):
        """Letters of every third row."""
        made = []
        for block in blocks:
            _, numbers = places(block.source, block.rows[ROW].to_numpy())
            fault = Fault(np.flatnonzero(numbers % 3 == 0), "x", "out_of_range", "third")
            made.append(reject_rows(block, [fault], "validate"))
        return sorted(rows_of(made)[1], key=lambda letter: (letter["source"], letter["row"]))

    joined, apart = refused(read(split, format_)), refused(read(split, format_, max_block_bytes=64))
    assert joined == apart and len({letter["payload"] for letter in joined}) > 2 * FILES
    assert all(letter["payload"] for letter in joined)


def test_records_that_are_wide_for_what_is_read_of_them_do_not_make_a_block_of_many_times_its_size(tmp_path):
    ranges = []
    for number in range(40):
        (path := tmp_path / f"{number}.csv").write_text("x,unused\n" + f"{number},{'u' * 10_000}\n" * 3)
        ranges.append(FileRange(str(path), path.stat().st_size))
    contract = Contract(columns={"x": Column(dtype="int64")})
    blocks = list(read_split(Split(0, tuple(ranges)), ReadSettings("csv", contract, max_block_bytes=200_000), "a"))
    sizes = [block.origin.data.size for block in blocks if block.origin is not None]
    assert len(sizes) < 10 and max(sizes) <= 201_000 and sum(block.count for block in blocks) == 120


def test_a_joined_block_is_encoded_and_decoded_as_it_is(tmp_path):
    block = read(write(tmp_path, "csv"), "csv")[0]
    again = BlockCoder().decode(BlockCoder().encode(block))
    assert isinstance(block.source, Files) and again.source == block.source
    assert rows_of([again]) == rows_of([block])


def test_a_job_over_small_files_counts_and_places_each_row_by_its_file(tmp_path, model):
    data = tmp_path / "data"
    data.mkdir()
    for file in range(30):
        rows = [f"r{file}-{i},{'200' if (file, i) in ((4, 2), (9, 0)) else i},1.5,0.5" for i in range(file % 5)]
        (data / f"people-{file:02}.csv").write_text("\n".join(["id,age,income,score", *rows]))
    job = jobs.job(
        tmp_path, model("multiply"), output={"position": True}, rejects={"budget": "10%"},
        engine={"split_bytes": "1MiB", "block_bytes": "1MiB"},
    )  # fmt: skip
    manifest = run(job).manifest
    counts = {i["path"]: (i["read"], i["predicted"], i["rejected"]) for i in manifest["inputs"]}
    for file in range(30):
        bad = file in (4, 9)
        expected = (file % 5, file % 5 - bad, {"out_of_range": 1} if bad else {})
        assert counts[str(data / f"people-{file:02}.csv")] == expected
    found = jobs.predictions(tmp_path / "out").with_columns(pl.col("source").str.extract(r"people-0?(\d+)"))
    assert (found["id"] == "r" + found["source"] + "-" + found["row"].cast(pl.String)).all()
    letters = {
        (letter["source"][-6:-4], letter["row"], letter["payload"]) for letter in jobs.dead_letters(tmp_path / "out")
    }
    assert letters == {("04", 2, "r4-2,200,1.5,0.5"), ("09", 0, "r9-0,200,1.5,0.5")}
