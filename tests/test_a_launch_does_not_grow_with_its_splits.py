"""What an engine is sent, and what a launch opens, whatever the number of splits and small files."""

import random
import threading
import time

import apache_beam as beam
import jobs
import pytest

from beam_score.pipeline.prepare.chain import build
from beam_score.pipeline.run.begin import freeze
from beam_score.pipeline.run.output_state import OutputState
from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.formats.base import format_named
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import read_plan

LARGEST = 1_000_000
"""Bytes; Dataflow refuses requests of some 10 MB."""


@pytest.fixture(scope="module")
def planned(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("planned")
    jobs.write_people(folder / "data", files=1, rows=10)
    return jobs.plan(jobs.job(folder, model("dense")))


def some_splits(count: int) -> list[Split]:
    """With names that do not shrink: Beam compresses what it pickles into a graph."""
    dice = random.Random(1)
    return [Split(n, (FileRange(f"data/{dice.randbytes(16).hex()}.csv", 4096, bytes=4096),)) for n in range(count)]


def graph_of(planned, output, splits: int) -> tuple[bytes, list[str]]:
    """The graph of a plan of so many splits, as it is submitted; the names of the plan's shards."""
    header = read_plan(planned.folder)
    folder = freeze(OutputState.of(str(output)), {}, some_splits(splits), header, planned.folder.run)
    names = read_plan(folder)["shards"]
    write = WriteSettings(folder, planned.write.schema)
    build(pipeline := beam.Pipeline(), planned.steps, write, names, Budget())
    return pipeline.to_runner_api().SerializeToString(), names


def test_only_the_names_of_the_shards_are_in_the_graph(planned, tmp_path):
    few, few_names = graph_of(planned, tmp_path / "aaa", 100)
    many, many_names = graph_of(planned, tmp_path / "bbb", 20_000)
    assert (len(few_names), len(many_names)) == (1, 40)
    a_name = len(few_names[0])
    # A shard's name takes itself, the element's framing in `Create`, and pickle's, which is then compressed.
    assert len(many) - len(few) <= (40 - 1) * (a_name + 32)


def test_a_hundred_thousand_splits_are_far_from_what_an_engine_refuses(planned, tmp_path):
    graph, names = graph_of(planned, tmp_path / "out", 100_000)
    assert len(names) == 200
    assert len(graph) < LARGEST


def test_a_graph_that_held_every_split_would_be_told(tmp_path):
    """The bound above can be broken: by the splits themselves."""
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create(some_splits(100_000))
    assert len(pipeline.to_runner_api().SerializeToString()) > LARGEST


def test_a_small_parquet_file_is_not_opened_to_be_cut(planned, tmp_path):
    nowhere = str(tmp_path / "not-there.parquet")
    small, large = 10_000, 10_000_000
    settings = planned.steps.read
    (whole,) = format_named("parquet").cut(nowhere, small, 1 << 20, settings)
    assert (whole.start, whole.end, whole.bytes) == (0, -1, small)
    with pytest.raises(OSError, match="not-there"):
        format_named("parquet").cut(nowhere, large, 1 << 20, settings)


def test_of_many_quick_calls_none_needs_a_thread_and_slow_ones_share_some():
    caller = threading.get_ident()
    assert parallel_map(lambda item: (item, threading.get_ident()), range(5000), 8) == [
        (n, caller) for n in range(5000)
    ]
    met = threading.Barrier(2, timeout=60)  # passed only by two at once

    def slow(item):
        if item == 2000:
            time.sleep(0.1)
        elif item in (3000, 4000):
            met.wait()
        return item

    assert parallel_map(slow, range(5000), 8) == list(range(5000))
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda item: 1 // (4999 - item), range(5000), 8)
