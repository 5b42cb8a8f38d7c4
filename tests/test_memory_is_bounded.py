"""Memory is bounded by `engine.memory`, whatever the rows, the dead letters and the outputs are like."""

from __future__ import annotations

import dataclasses
import gzip
import os
import subprocess
import sys
from typing import ClassVar

import apache_beam as beam
import numpy as np
import polars as pl
import pyarrow as pa
import pydantic
import pytest
import steps_alone
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from peak import peak

from beam_score.runners.settings.engine import EngineSettings
from beam_score.runners.settings.machine_memory import machine_bytes
from beam_score.transforms.common.bounds import DEFAULT_BOUNDS, Bounds, bounds_of
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import Signature, Tensor
from beam_score.transforms.rows.block import ROW, Block, reject_rows
from beam_score.transforms.rows.faults import Fault
from beam_score.transforms.rows.origin import Origin
from beam_score.transforms.rows.reject_count import RejectCount
from beam_score.transforms.scoring.grouping import Weight, pieces
from beam_score.transforms.scoring.output_sizes import OutputSizes
from beam_score.transforms.steps.infer import BeamScorer
from beam_score.transforms.steps.preprocess import Preprocess

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

LIMITS = {
    "a container, version 2": ({"sys/fs/cgroup/memory.max": "123000000\n"}, 123_000_000),
    "a container, version 1": ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "456000000\n"}, 456_000_000),
    "a service, version 2": (
        {"proc/self/cgroup": "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/memory.max": "7000000\n"},
        7_000_000,
    ),
    "the group above": (
        {
            "proc/self/cgroup": "0::/a.slice/b.service\n",
            "sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
            "sys/fs/cgroup/a.slice/memory.max": "8000000\n",
        },
        8_000_000,
    ),
    "a group, version 1": (
        {
            "proc/self/cgroup": "9:cpu:/c\n8:memory:/docker/x\n",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "9000000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
        9_000_000,
    ),
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, PHYSICAL),
    "no control groups": ({}, PHYSICAL),
    "something else": ({"proc/self/cgroup": "x\n0::/../..\n\n", "sys/fs/cgroup/memory.max": "much"}, PHYSICAL),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_limit_of_a_container_is_found(tmp_path, name):
    files, expected = LIMITS[name]
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert machine_bytes(tmp_path) == expected


def test_memory_is_a_size_or_found():
    assert EngineSettings(memory="4GB").memory_bytes == 4_000_000_000
    assert EngineSettings().memory_bytes == int(0.75 * machine_bytes())
    dataflow = {"runner": "dataflow", "dataflow": {"machine_type": "n2-standard-4"}}
    assert EngineSettings(**dataflow).memory_bytes == 12 << 30
    for wrong in ("much", "512MB", True):
        with pytest.raises(pydantic.ValidationError):
            EngineSettings(memory=wrong)


def test_bounds_follow_from_memory_and_workers():
    assert bounds_of(64 << 30, 2) == DEFAULT_BOUNDS
    less = bounds_of(2 << 30, 4)  # 512 MiB a thread
    assert less == Bounds(8 << 20, 16 << 20, 32 << 20, 32 << 20, 32 << 20, 64 << 20, 131072)
    assert bounds_of(-(1 << 30), 64) == bounds_of(64 << 20, 1)  # small, and still enough to go on with
    assert bounds_of(0, 1).block_rows == 16384
    for free, workers in ((1 << 30, 1), (1 << 30, 16), (8 << 30, 3)):
        own = dataclasses.astuple(bounds_of(free, workers))
        assert sum(own) <= max(free / workers, 64 << 20) / 2  # the rest is for copies


def test_the_model_and_the_libraries_are_part_of_the_memory():
    engine = EngineSettings(memory="4GB", workers=2)
    assert engine.bounds(model_bytes=2_000_000_000) == bounds_of(1_200_000_000, 2)


# --- groups before the model ---


def call_of(outputs: dict[str, Tensor], rows: int = 8192, bounds: Bounds = DEFAULT_BOUNDS) -> ModelCall:
    signature = Signature("serving_default", {"x": Tensor("x", "float32", (None,))}, outputs)
    return ModelCall(
        f"fake/{sorted(outputs)}/{bounds.group_bytes}", signature, tuple(outputs), batch_rows=rows, bounds=bounds
    )


def block_of(rows: int, **fields) -> Block:
    columns = {ROW: np.arange(rows), "x": np.zeros(rows, np.float32), "input/x": np.arange(rows, dtype=np.float32)}
    return Block(
        **{"split": 0, "attempt": "a", "seq": 0, "source": "f", "rows": pa.RecordBatch.from_pydict(columns)} | fields
    )


def refused(rows: int, payload: bytes = b"x;y;z") -> Block:
    """A block of which no row is good."""
    data = b"\n".join([payload] * rows)
    block = block_of(rows, origin=Origin("csv", 0, pa.py_buffer(data), (",", '"', "")))
    return reject_rows(block, [Fault(np.arange(rows), None, "malformed", "not a row")], "read")


@pytest.mark.parametrize("payload", [b"1", b"y" * 2000])
def test_dead_letters_do_not_pile_up_before_the_model(payload):
    call = call_of({"y": Tensor("y", "float32", (None,))}, bounds=bounds_of(1 << 30, 2))
    block = refused(8000, payload)
    weight = Weight(call)
    together = weight.of_group // weight(block) * block.bytes
    assert together <= call.bounds.group_bytes
    assert weight(refused(0)) >= 1


def test_wide_outputs_are_cut_into_pieces_and_weighed():
    wide = call_of({"y": Tensor("y", "float32", (None, 1 << 18))}, bounds=bounds_of(1 << 30, 1))  # 1 MiB a row
    whole = dataclasses.replace(refused(10), rows=block_of(1000).rows, total=1010, tally={"read_s": 1.0})
    cut = list(pieces(whole, wide, OutputSizes(wide)))
    weight = Weight(wide)
    assert len(cut) == 63  # 16 MiB each
    assert sum(b.rows.num_rows for b in cut[:4]) << 20 <= wide.bounds.group_bytes
    assert 4 * weight(cut[1]) <= weight.of_group * 1.1 < 5 * weight(cut[1])
    assert [n for b in cut for n in b.rows[ROW].to_pylist()] == list(range(1000))
    assert [b.rejected.num_rows for b in cut] == [10] + [0] * 62
    assert [b.total for b in cut] == [None] * 62 + [1010]
    assert [(b.piece, b.more) for b in cut] == [(n, n < 62) for n in range(63)]
    assert sum(b.tally.get("read_s", 0) for b in cut) == 1
    narrow = call_of({"y": Tensor("y", "float32", (None,))})
    assert list(pieces(whole, narrow, OutputSizes(narrow))) == [whole]


class Wide:
    """A row of output of open shape: 64 KiB each."""

    outputs: ClassVar = {"y": Tensor("y", "float32", (None, None))}

    def __init__(self):
        self.rows = []

    def call(self, feeds, deadline_s=None):
        self.rows.append(len(feeds["x"]))
        return {"y": np.tile(feeds["x"][:, None], (1, 1 << 14))}


def test_the_size_of_open_outputs_is_learned_from_the_first_calls():
    call = call_of(Wide.outputs, bounds=bounds_of(128 << 20, 1))  # 8 MiB a group, and a call
    model, sizes, handler = Wide(), OutputSizes(call), BeamScorer(call)
    seen = []
    for piece in pieces(block_of(5000), call, sizes):
        (scored,) = handler.run_inference([piece], model)
        assert scored.rows.num_rows << 16 <= call.bounds.group_bytes // 2
        seen += scored.rows[ROW].to_pylist()
    assert seen == list(range(5000))
    assert max(model.rows) * (1 << 16) <= call.bounds.call_bytes


def test_a_call_keeps_to_its_bytes_whatever_batch_rows_says():
    tensors = {"y": Tensor("y", "float32", (None, 1 << 14))}
    call = call_of(tensors, rows=100_000, bounds=bounds_of(128 << 20, 1))
    model = Wide()
    (scored,) = BeamScorer(call).run_inference([block_of(400)], model)
    assert scored.rows.num_rows == 400
    assert max(model.rows) * (1 << 16) <= call.bounds.call_bytes


# --- rows that are rejected ---


def test_stop_after_counts_before_rows_wait_for_the_model():
    step = Preprocess({}, {"x": Tensor("x", "float32", (None,))}, Contract(columns={}), None, RejectCount(1000))
    pipeline = beam.Pipeline(FnApiRunner())
    _ = pipeline | beam.Create([refused(500)] * 3 + [block_of(1)] * 100) | step
    with pytest.raises(Exception, match=r"1,500 rows have been rejected .* rejects.stop_after is 1,000"):
        pipeline.run()


# --- the chain, in one thread ---

FREE_BYTES = 192 << 20
ONE = Contract(columns={"x": {"dtype": "float32"}})

BAD = {
    "a wrong type": b"abcdefghijklmnopqrstuvwxyz\n",
    "a byte": b"a\n",
}


class Echo:
    outputs: ClassVar = {"y": Tensor("y", "float32", (None,))}

    def call(self, feeds, deadline_s=None):
        return {"y": feeds["x"]}


@pytest.mark.parametrize(("name", "compressed"), [("a wrong type", False), ("a byte", True)])
def test_files_of_bad_rows_take_no_more_than_the_bound(tmp_path, name, compressed):
    rows = 700_000
    data = b"x\n" + BAD[name] * rows
    path = tmp_path / ("x.csv.gz" if compressed else "x.csv")
    path.write_bytes(gzip.compress(data, 1) if compressed else data)
    del data
    pl.DataFrame({"x": list(range(100_000))}).write_ndjson()  # the library's own threads and buffers are there before
    call = call_of(Echo.outputs, bounds=bounds_of(FREE_BYTES, 1))
    with peak() as taken:
        counts = steps_alone.score(path, tmp_path / "out", steps_alone.settings("csv", ONE, call), call, Echo())
    assert counts["read"] == rows and counts["predicted"] == 0
    assert taken.bytes <= FREE_BYTES


class MiB:
    """An output of 1 MiB a row."""

    outputs: ClassVar = {"y": Tensor("y", "float32", (None, 1 << 18))}

    def call(self, feeds, deadline_s=None):
        return {"y": np.tile(feeds["x"][:, None], (1, 1 << 18))}


@pytest.mark.parametrize("open_", [False, True])
@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_wide_outputs_take_no_more_than_the_bound(tmp_path, open_, format_):
    rows = 400 if format_ == "parquet" else 40
    path = tmp_path / "x.csv"
    path.write_text("x\n" + "1\n" * rows)
    outputs = {"y": Tensor("y", "float32", (None, None))} if open_ else MiB.outputs
    call = call_of(outputs, bounds=bounds_of(FREE_BYTES, 1))
    with peak() as taken:
        settings = steps_alone.settings("csv", ONE, call)
        counts = steps_alone.score(path, tmp_path / "out", settings, call, MiB(), format_)
    assert counts["predicted"] == rows
    assert taken.bytes <= FREE_BYTES


BLOCKS = """
import resource, sys
import numpy as np
from beam_score.runners.allocator import keep_freed_memory

def block():
    arrays = [np.full(1 << 19, i) for i in range(6)]
    while arrays:
        arrays.pop()

kept = keep_freed_memory()
for _ in range(3):
    block()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_block_takes_the_memory_of_the_last():
    def run(**environment: str) -> list[str]:
        command = [sys.executable, "-c", BLOCKS]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    kept, pages = run()
    chosen, more = run(MALLOC_TRIM_THRESHOLD_="1048576")
    assert (kept, chosen) == ("True", "False")  # what the user chose stands
    assert int(pages) < 100 and int(more) > 1000
