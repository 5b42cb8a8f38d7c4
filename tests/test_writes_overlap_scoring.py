"""On a store a split is written while the next is scored; it counts only once all of it stands."""

from __future__ import annotations

import threading

import pytest
from faulty_proxy import Fault
from small_blocks import blocks_of
from store_jobs import SCHEMA

from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.receipts import is_done
from beam_score.transforms.steps.write import WriteParts


@pytest.fixture
def folder(store) -> RunFolder:
    """Of a run that stands."""
    folder = RunFolder(store.url("out"), "20260101T000000-aaaaaa")
    storage.replace(folder.plan, b"a plan")
    return folder


@pytest.fixture
def writer(folder):
    writer = WriteParts(WriteSettings(folder, SCHEMA, "jsonl")).writer()
    writer.start_bundle()
    return writer


def write(writer, split: int) -> list[int]:
    """Gives the ids that the writer gives on."""
    blocks = blocks_of(split, "a file", [f"{split}-{row}" for row in range(3)])
    return [done for block in blocks for done in writer.process(block)]


def ended(writer) -> list[int]:
    return [given.value for given in writer.finish_bundle()]


def test_a_split_is_scored_while_the_one_before_it_is_written(store, folder, writer):
    scored = threading.Event()
    with store.proxy.failing(fault := Fault("before", "PUT|POST", "parts/", call=lambda: scored.wait(60))):
        given = write(writer, 0)
        assert given == [] and not is_done(folder, 0)
        threading.Timer(0.2, scored.set).start()
        given += write(writer, 1)  # which waits for the one before it: no more than one is under way
        given += ended(writer)
    assert fault.done == 1
    assert given == [0, 1]
    assert is_done(folder, 0) and is_done(folder, 1)


def test_a_receipt_is_written_after_all_parts(store, folder, writer):
    with store.proxy.failing(fault := Fault("delay", "PUT|POST", "parts/predictions", seconds=0.5)):
        write(writer, 0)
        assert ended(writer) == [0]
    assert fault.done == 1
    written = [r.target for r in store.proxy.requests if r.method in ("PUT", "POST")]
    assert len(written) == 4 and "receipts" in written[-1]


@pytest.mark.parametrize("name", ["parts/predictions", "parts/rejected", "receipts/"])
def test_a_split_that_cannot_be_written_fails_its_bundle(store, folder, writer, name):
    writes = rf"^(?!.*\?delete).*{name}"
    with store.proxy.failing(Fault("status", "PUT|POST", writes, status=403, times=100)):
        write(writer, 0)
        with pytest.raises(PermissionError, match="denied"):
            ended(writer)
    assert not is_done(folder, 0)
    left = storage.names(folder.parts)
    assert left == [] or name == "receipts/"  # of a receipt nobody knows whether it was written


def test_a_bundle_that_failed_leaves_nothing_to_the_next(store, folder, writer):
    with store.proxy.failing(Fault("status", "PUT|POST", "parts/", status=403, times=100)):
        write(writer, 0)
        with pytest.raises(PermissionError):
            ended(writer)
    writer.start_bundle()
    write(writer, 0)
    assert ended(writer) == [0]
    assert is_done(folder, 0)
