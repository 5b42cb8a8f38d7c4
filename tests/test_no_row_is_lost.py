"""Rows read = rows predicted + rows rejected, over exactly the splits of the plan; or nothing is published."""

import dataclasses
import functools
import pickle

import apache_beam as beam
import jobs
import numpy as np
import pyarrow as pa
import pytest

from beam_score.pipeline.prepare.chain import build
from beam_score.pipeline.run.launch import run
from beam_score.transforms.arrays.plain import concat
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.attempt import LostBlocks, WriteSettings
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder, read_plan
from beam_score.transforms.ledger.receipts import is_done
from beam_score.transforms.ledger.verdict import CommitError, decide
from beam_score.transforms.rows.block import ROW, Block, reject_rows
from beam_score.transforms.rows.faults import NO_REJECTED, Fault, stretch
from beam_score.transforms.rows.origin import Origin
from beam_score.transforms.steps.coder import BlockCoder
from beam_score.transforms.steps.commit import Commit
from beam_score.transforms.steps.infer import Infer
from beam_score.transforms.steps.plan import PlannedSplits
from beam_score.transforms.steps.postprocess import Postprocess
from beam_score.transforms.steps.preprocess import Preprocess
from beam_score.transforms.steps.read import Read
from beam_score.transforms.steps.validate import Validate
from beam_score.transforms.steps.write import WriteParts

FILES, ROWS = 6, 1500


@pytest.fixture
def people(tmp_path):
    bad = jobs.write_people(tmp_path / "data", FILES, ROWS, bad_every=100)
    return tmp_path, FILES * ROWS, bad


class CutByHint(beam.PTransform):
    """The handler's stage in another environment than its neighbours."""

    def __init__(self, infer):
        super().__init__()
        self.infer = infer

    def expand(self, blocks):
        return blocks | self.infer.with_resource_hints(min_ram="1GB")


def chain(pipeline, planned, after_read=(), infer=None, before_write=()):
    """The chain of `pipeline.prepare.chain`, with steps of a test between."""
    steps, contract = planned.steps, planned.steps.read.columns
    blocks = (
        pipeline
        | "Plan" >> PlannedSplits(planned.folder, read_plan(planned.folder)["shards"])
        | "Read" >> Read(steps.read, functools.partial(is_done, planned.folder))
    )
    for number, step in enumerate(after_read):
        blocks |= f"AfterRead{number}" >> step
    blocks = (
        blocks
        | "Validate" >> Validate(contract, steps.read.payload)
        | "Preprocess" >> Preprocess(steps.inputs, steps.call.signature.inputs, contract, steps.function)
        | "Infer" >> (infer or Infer(steps.call))
        | "Postprocess" >> Postprocess(steps.outputs)
    )
    for number, step in enumerate(before_write):
        blocks |= f"BeforeWrite{number}" >> step
    return (
        blocks
        | "WriteParts" >> WriteParts(planned.write)
        | "Commit" >> Commit(planned.folder, planned.job.rejects.as_budget(), planned.write.schema)
    )


def launch(planned, workers=2, **between):
    return jobs.run_locally(lambda pipeline: chain(pipeline, planned, **between), workers)


@pytest.mark.parametrize("round_", range(2))
def test_no_split_of_very_many_is_lost_on_its_way_to_a_worker(round_, tmp_path):
    # Some 10 MB, over more than a second: what Beam's own buffers lose.
    count, seen = 100_000, tmp_path / "seen"

    def note(found):
        seen.write_text(f"{len(found)} {len(set(found))}")

    def build(pipeline):
        shards = pipeline | beam.Create([f"{n:05d}-0123abcd.jsonl" for n in range(count // 500)], reshuffle=False)
        splits = shards | beam.FlatMap(lambda shard: ((shard, n) for n in range(500)))
        return splits | beam.Reshuffle() | beam.combiners.ToList() | beam.Map(note)

    jobs.run_locally(build, 2)
    assert seen.read_text() == f"{count} {count}"


def published(output):
    return sorted(p.name for p in output.glob("[pr]*/*")) if output.exists() else []


@pytest.mark.parametrize("chains", [1, 3])
def test_every_row_is_predicted_or_rejected_in_every_split_and_in_the_run(people, model, chains):
    tmp_path, rows, bad = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply"), rejects={"budget": "5%"}))
    assert planned.splits > 4
    none, shards = Budget(rows=0, share=None), read_plan(planned.folder)["shards"]
    jobs.run_locally(lambda p: build(p, planned.steps, planned.write, shards, none, chains=chains), 2)
    receipts = jobs.receipts(planned.folder)  # over budget: staging stays to be looked at
    assert [r.split for r in receipts] == list(range(planned.splits))
    for receipt in receipts:
        files = receipt.files.values()
        predicted = sum(f["predicted"] for f in files)
        rejected = sum(sum(f["rejected"].values()) for f in files)
        assert sum(f["read"] for f in files) == predicted + rejected
        assert predicted == sum(p.rows for p in receipt.parts if p.kind == "predictions")
        assert rejected == sum(p.rows for p in receipt.parts if p.kind == "rejected")
    outcome = run(planned.job)
    assert outcome.code == 0
    output = tmp_path / "out"
    counts = jobs.manifest(output)["counts"]
    assert (counts["read"], counts["rejected"]) == (rows, bad)
    predictions, letters = jobs.predictions(output), jobs.dead_letters(output)
    ids = {f"r{f}-{r}" for f in range(FILES) for r in range(ROWS)}
    rejected = {letter["payload"].partition(",")[0] for letter in letters}
    assert set(predictions["id"]) | rejected == ids
    assert len(predictions) + len(letters) == rows and len(letters) == bad
    for file in jobs.manifest(output)["inputs"]:
        assert file["read"] == ROWS == file["predicted"] + sum(file["rejected"].values())


@pytest.mark.parametrize("cut", ["hint", "reshuffle after read", "reshuffle before write"])
def test_a_chain_that_is_cut_fails_loudly_or_comes_out_right(people, model, cut):
    tmp_path, rows, bad = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply"), rejects={"budget": "5%"}))
    between = {
        "hint": {"infer": CutByHint(Infer(planned.steps.call))},
        "reshuffle after read": {"after_read": [beam.Reshuffle()]},
        "reshuffle before write": {"before_write": [beam.Reshuffle()]},
    }[cut]
    failed = None
    try:
        launch(planned, **between)
    except Exception as error:
        failed = error
    if failed is not None:
        assert "LostBlocks" in str(failed) or isinstance(failed, LostBlocks), failed
        assert published(tmp_path / "out") == []
        assert not (tmp_path / "out" / "manifest.json").exists()
        # The very same run then goes on, whole, with the right chain.
        assert run(planned.job).code == 0
    counts = jobs.manifest(tmp_path / "out")["counts"]
    assert (counts["read"], counts["rejected"]) == (rows, bad)
    assert len(jobs.predictions(tmp_path / "out")) == rows - bad


def test_the_writer_is_what_makes_a_cut_chain_fail(people, model):
    # Else the test above could pass because nothing was cut.
    tmp_path, _, _ = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply")))
    with pytest.raises(Exception, match=r"LostBlocks|were cut|not complete"):
        launch(planned, before_write=[beam.Map(lambda b: ((b.seq), b)), beam.Reshuffle(), beam.Values()])


def drop_a_row(block):
    return dataclasses.replace(block, rows=block.rows.slice(1)) if block.seq == 1 else block


def double_a_row(block):
    return dataclasses.replace(block, rows=concat([block.rows, block.rows.slice(0, 1)])) if block.seq == 1 else block


def drop_a_dead_letter(block):
    return dataclasses.replace(block, rejected=NO_REJECTED)


def drop_a_block(block):
    return [] if block.seq == 1 else [block]


def drop_the_last_block(block):
    return [] if block.total is not None else [block]


def double_a_block(block):
    return [block, block] if block.seq == 1 else [block]


@pytest.mark.parametrize(
    "spoil",
    [
        beam.Map(drop_a_row),
        beam.Map(double_a_row),
        beam.Map(drop_a_dead_letter),
        beam.FlatMap(drop_a_block),
        beam.FlatMap(drop_the_last_block),
        beam.FlatMap(double_a_block),
    ],
    ids=lambda t: t.fn.__class__.__name__ if not hasattr(t.fn, "_fn") else t.fn._fn.__name__,
)
def test_a_step_that_loses_or_doubles_rows_is_caught(people, model, spoil):
    tmp_path, _, _ = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply"), rejects={"budget": "5%"}))
    with pytest.raises(Exception, match=r"LostBlocks|reached the writer|arrived instead of|not complete"):
        launch(planned, workers=1, before_write=[spoil])
    assert published(tmp_path / "out") == []


def test_a_split_that_no_one_read_is_missed_though_all_that_arrived_is_whole(people, model):
    tmp_path, _, _ = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply"), rejects={"budget": "5%"}))
    with pytest.raises(Exception, match=r"1 of \d+ splits have no receipt"):
        launch(planned, workers=1, after_read=[beam.Filter(lambda block: block.split != 3)])
    assert published(tmp_path / "out") == []
    assert run(planned.job).code == 0  # reads just that one


def test_no_receipt_at_all_is_no_proof(people, model):
    tmp_path, _, _ = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply")))
    with pytest.raises(CommitError, match="have no receipt"):
        decide(planned.folder, planned.job.rejects.as_budget(), planned.write.schema)
    assert not planned.folder.verdict(1).exists()


@pytest.mark.parametrize("spoil", ["predicted", "read"])
def test_receipts_that_disagree_with_themselves_publish_nothing(people, model, spoil):
    tmp_path, _, _ = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply"), rejects={"budget": 0}))
    launch(planned)
    receipt = jobs.receipts(planned.folder)[0]
    source, counts = next(iter(receipt.files.items()))
    more = 1 if spoil == "read" else -1
    counts = (
        counts
        | {"read": counts["read"] + more}
        | ({"predicted": counts["predicted"] - 1} if spoil == "predicted" else {})
    )
    storage.replace(
        planned.folder.receipt(0), dataclasses.replace(receipt, files=receipt.files | {source: counts}).to_json()
    )
    planned.folder.verdict(1).unlink()
    with pytest.raises(CommitError, match="nothing is published"):
        decide(planned.folder, planned.job.rejects.as_budget(), planned.write.schema)


# The writer alone.


def block(seq, total=None, rows=2, attempt="a", split=0):
    batch = pa.RecordBatch.from_pydict({"x": pa.array(range(rows), pa.int64())})
    return Block(split, attempt, seq, "f.csv", batch, total=total)


def write(folder, blocks):
    schema = pa.schema([("x", pa.int64())])
    folder = RunFolder(str(folder), "20260101T000000-abcdef")
    for path in (folder.parts, folder.receipts):
        storage.make_folder(path)
    with beam.Pipeline("FnApiRunner") as p:
        p | beam.Create(blocks, reshuffle=False) | WriteParts(WriteSettings(folder, schema))
    return folder


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([block(1), block(2, 4)], "block 1 arrived instead of block 0"),
        ([block(0), block(2, 4)], "block 2 arrived instead of block 1"),
        ([block(0), block(0), block(1, 4)], "block 0 arrived instead of block 1"),
        ([block(0), block(1)], "not complete at the end of the bundle"),
        ([block(0), block(1, 5)], "5 rows were read and 4 reached the writer"),
        ([block(0), block(1, 3)], "3 rows were read and 4 reached the writer"),
        ([block(0, attempt="a"), block(1, 4, attempt="b")], "block 1 arrived instead of block 0"),
    ],
)
def test_the_writer_wants_every_block_of_an_attempt_in_order(tmp_path, blocks, said):
    with pytest.raises(Exception, match=said):
        write(tmp_path, blocks)
    assert list(tmp_path.glob("**/0*.json")) == []


def test_attempts_and_splits_may_be_interleaved(tmp_path):
    a, b, c = (
        [block(n, 4 if n == 2 else None, rows=0 if n == 2 else 2, attempt=attempt, split=split) for n in range(3)]
        for attempt, split in (("a", 0), ("b", 0), ("c", 1))
    )
    folder = write(tmp_path, [x for three in zip(a, b, c, strict=True) for x in three])
    assert [(r.split, r.attempt) for r in jobs.receipts(folder)] == [(0, "a"), (1, "c")]
    # The attempt that came second took its part away again.
    assert sorted(p.name for p in folder.parts.iterdir()) == [
        "predictions-000000-a-0.parquet",
        "predictions-000001-c-0.parquet",
    ]


# The coder.


def full_block():
    count = 50_000
    rows = pa.RecordBatch.from_pydict(
        {
            ROW: pa.array(range(count), pa.int64()),
            "text": pa.array([f"row {i} é" for i in range(count)]),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(3 * count, dtype=np.float32)), 3),
            "lists": pa.array([[i % 100] * (i % 3) for i in range(count)], pa.list_(pa.int16())),
            "bytes": pa.array([None if i % 2 else b"\xff" for i in range(count)], pa.binary()),
        }
    )
    origin = Origin("lines", 0, pa.py_buffer(b"{}\n" * count))
    whole = Block(7, "abc", 3, "some/é.jsonl", rows, origin=origin, tally={"read_s": 0.25, "n": 2}, began=12.5)
    return reject_rows(whole, [Fault(np.array([1, 5]), "text", "wrong_type", "no")], "validate")


def same(a, b):
    plain = [f.name for f in dataclasses.fields(Block) if f.name not in ("rows", "rejected", "origin")]
    return (
        all(getattr(a, f) == getattr(b, f) for f in plain)
        and a.rows.equals(b.rows)
        and a.rejected.equals(b.rejected)
        and (a.origin is None) == (b.origin is None)
    )


def test_a_block_comes_back_from_its_coder_as_it_went_in():
    coder = BlockCoder()
    whole = full_block()
    columns = dataclasses.replace(whole, origin=Origin("columns", 4, whole.rows.select(["text"])), total=9)
    bare = dataclasses.replace(
        whole, origin=None, rows=whole.rows.slice(0, 0), rejected=stretch(3, None, "unreadable", "gone")
    )
    for some in (whole, columns, bare):
        back = coder.decode(coder.encode(some))
        assert same(some, back)
    back = coder.decode(coder.encode(whole))
    assert back.origin.payloads(np.array([3])).to_pylist() == whole.origin.payloads(np.array([3])).to_pylist()
    assert coder.decode(coder.encode(columns)).origin.data.equals(columns.origin.data)


def test_a_slice_is_encoded_without_its_parent():
    whole = dataclasses.replace(full_block(), origin=None)
    small = dataclasses.replace(whole, rows=whole.rows.slice(20_000, 10), rejected=NO_REJECTED)
    assert len(BlockCoder().encode(small)) < 20_000
    assert len(pickle.dumps(small)) < 20_000


def test_the_size_of_a_block_is_told_without_encoding_it():
    whole = full_block()
    coder = beam.coders.registry.get_coder(Block)
    estimate = coder.get_impl().estimate_size(whole)
    assert 0.5 < estimate / len(coder.encode(dataclasses.replace(whole, origin=None))) < 2
    assert coder.get_impl().estimate_size(dataclasses.replace(whole, rows=whole.rows.slice(0, 10))) < 10_000


def test_blocks_never_meet_pickle_between_the_reader_and_the_writer(people, model):
    tmp_path, _, _ = people
    planned = jobs.plan(jobs.job(tmp_path, model("multiply")))
    pipeline = beam.Pipeline()
    build(pipeline, planned.steps, planned.write, read_plan(planned.folder)["shards"], planned.job.rejects.as_budget())
    components = pipeline.to_runner_api(use_fake_coders=False).components
    coders = {}
    for collection in components.pcollections.values():
        step = collection.unique_name.lstrip("0123456789").partition("/")[0]
        if step in ("Read", "Validate", "Preprocess", "Infer", "Postprocess"):
            coder = components.coders[collection.coder_id]
            coders[collection.unique_name] = beam.coders.Coder.from_runner_api(coder, _context(components))
    assert len(coders) >= 6
    for name, coder in coders.items():
        inner = coder.value_coder() if isinstance(coder, beam.coders.coders.ListCoder) else coder
        assert isinstance(inner, BlockCoder), f"{name}: {coder}"


def _context(components):
    from apache_beam.runners.pipeline_context import PipelineContext

    return PipelineContext(components)
