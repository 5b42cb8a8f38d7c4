"""The first rows of a job's input, prepared for the model, within its memory limit for waiting rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.draft.padded import padded_columns
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.transforms.arrays.sizes import batch_bytes
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import ReadSettings, UnusableFile, format_named
from beam_score.transforms.formats.reading.blocks import read_range
from beam_score.transforms.rows.block import INPUT, OUTPUT, ROW, Block
from beam_score.transforms.scoring.halving import EveryRowFails
from beam_score.transforms.scoring.preprocess import Preparation, PreprocessError
from beam_score.transforms.scoring.validate import validate
from beam_score.transforms.stores.compression import CorruptStream
from beam_score.transforms.stores.local_file import is_of_the_system

_LEAST_ROWS = 2
"""Applies however large the rows are: the independence check needs a second row in the batch."""

_MOST_BLOCK_BYTES = 1 << 20
"""Of a block that is read for its first rows."""

_MOST_BLOCKS, _MOST_BAD_BLOCKS = 80, 20
"""Blocks to look at; and those among them without a good row."""


@dataclasses.dataclass(frozen=True)
class FirstBlocks:
    """The first blocks of the input.

    Attributes:
      blocks: after Preprocess.
      row_bytes: input bytes per row: in the file as stored if its text is known, else of the used columns in memory.
        None if there are no rows.
      padded: see `pipeline.draft.padded`.
    """

    blocks: Sequence[Block]
    row_bytes: float | None
    padded: Sequence[str] = ()


def first_blocks(prepared: Prepared, rows: int) -> FirstBlocks:
    """Return the first rows of the input: at most `rows`, and no more bytes of model inputs than one call may have.

    Raises:
      JobError: the preprocessing function fails on every row, or breaks its contract.
    """
    steps = prepared.steps
    blocks: list[Block] = []
    row_bytes, left = None, rows
    texts: dict[str, list[str | None]] = {}
    bytes_left = steps.call.bounds.call_bytes
    preparation = Preparation(steps.inputs, steps.call.signature.inputs, steps.read.columns, steps.function)
    for block in _first_blocks(prepared):
        row_bytes = row_bytes or _row_bytes(block)
        block = _first_rows(block, left)
        for name in _unstripped(steps.read, block.rows):
            texts.setdefault(name, []).extend(block.rows[name].to_pylist())
        block = validate(block, steps.read.columns, steps.read.payload)
        try:
            block = preparation(block)
        except (PreprocessError, EveryRowFails) as error:
            raise JobError([str(error)]) from None
        fit = int(bytes_left // max(row_bytes_of([block]), 1))
        least = 0 if any(b.rows.num_rows for b in blocks) else _LEAST_ROWS
        blocks.append(_first_rows(block, max(fit, least)))
        left -= blocks[-1].rows.num_rows
        bytes_left -= _inputs_and_outputs(blocks[-1])
        if left <= 0 or bytes_left <= 0 or fit < block.rows.num_rows:
            break
        if len(blocks) >= _MOST_BLOCKS or sum(not b.rows.num_rows for b in blocks) >= _MOST_BAD_BLOCKS:
            break
    return FirstBlocks(blocks, row_bytes, padded_columns(texts))


def _row_bytes(block: Block) -> float | None:
    if block.origin is not None and isinstance(block.origin.data, pa.Buffer) and block.count:
        return block.origin.data.size / block.count
    rows = block.rows.drop_columns([ROW])
    return batch_bytes(rows) / rows.num_rows if rows.num_rows else None


def _inputs_and_outputs(block: Block) -> int:
    rows = block.rows
    return sum(rows[n].nbytes for n in rows.schema.names if n.startswith((INPUT, OUTPUT)))


def row_bytes_of(blocks: Sequence[Block]) -> float:
    """Return the bytes of inputs and outputs per row."""
    rows = sum(b.rows.num_rows for b in blocks)
    return sum(map(_inputs_and_outputs, blocks)) / rows if rows else 0.0


def head(blocks: Sequence[Block], rows: int) -> list[Block]:
    """Return the first `rows` rows of the blocks."""
    found = []
    for block in blocks:
        found.append(_first_rows(block, rows))
        rows -= found[-1].rows.num_rows
        if not rows:
            break
    return found


def _unstripped(read: ReadSettings, rows: pa.RecordBatch) -> list[str]:
    """Return the text columns from which spaces are not stripped."""
    columns = read.columns.columns
    names = [n for n in rows.schema.names if pa.types.is_string(rows.schema.field(n).type)]
    return [
        n for n in names if (columns[n].dtype == "string" and not columns[n].strip if n in columns else not read.strip)
    ]


def _first_rows(block: Block, most: int) -> Block:
    """Return the first rows of a block, and the dead letters up to the last of them."""
    if block.rows.num_rows <= most:
        return block
    rows, rejected = block.rows.slice(0, most), block.rejected
    before = rejected.filter(pc.less_equal(rejected["row"], rows[ROW][-1])) if most else rejected.slice(0, 0)
    return dataclasses.replace(block, rows=rows, rejected=before)


def _first_blocks(prepared: Prepared) -> Iterator[Block]:
    read = prepared.steps.read
    settings = dataclasses.replace(read, max_block_bytes=min(read.max_block_bytes, _MOST_BLOCK_BYTES))
    format_ = format_named(settings.format)
    for file in prepared.files:
        try:
            for chunk in read_range(format_, FileRange(file.path, file.size, version=file.version), settings):
                yield Block(0, "trial", 0, file.path, chunk.rows, chunk.rejected, chunk.origin)
        except (UnusableFile, OSError, CorruptStream) as error:
            if is_of_the_system(error):
                raise
