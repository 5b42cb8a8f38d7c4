"""The launch calls the model as the run does: halved where it refuses, and as large as memory and the data allow."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing

import models
import numpy as np
import pyarrow as pa
import pytest
from scoring import Counting, score, write

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.batch_choice import choose_batch, default_choice
from beam_score.pipeline.prepare.cost import call_bytes, check_call_fits
from beam_score.pipeline.prepare.first_blocks import first_blocks
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.prepare.trial import Trial, load, try_rows
from beam_score.transforms.common.bounds import Bounds
from beam_score.transforms.common.peak_memory import resident_bytes, with_peak
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.servable import Servable
from beam_score.transforms.model.signature import read_signatures
from beam_score.transforms.rows.block import INPUT, ROW, Block
from beam_score.transforms.steps.infer import BeamScorer

NUMBER = {"x": {"dtype": "float32"}}


def handler(path, batch_rows):
    signature = read_signatures(path)["serving_default"]
    return BeamScorer(ModelCall(path, signature, tuple(signature.outputs), batch_rows=batch_rows))


def prepared(folder, saved_model, rows, columns, **sections):
    path = write(folder, rows, "parquet" if isinstance(rows, pa.Table) else "jsonl")
    job = {
        "input": {"files": str(path)},
        "model": {"path": saved_model} | sections.pop("model", {}),
        "output": {"path": str(folder / "out")},
        "columns": columns,
        "engine": {"workers": 1} | sections.pop("engine", {}),
        **sections,
    }
    return prepare(parse_job(job))


@pytest.mark.parametrize("batch_rows", ["auto", 64])
def test_a_model_that_takes_four_rows_at_once_is_launched_with_four(tmp_path, model, batch_rows):
    rows = [{"x": float(i)} for i in range(50)]
    scored = score(tmp_path, model("at_most_four"), rows, columns=NUMBER, model={"batch_rows": batch_rows})
    assert scored.column("y") == [2.0 * i for i in range(50)] and not scored.rejected
    assert scored.manifest["engine"]["batch_rows"] == 4


def test_a_row_at_fault_does_not_hide_that_four_rows_go_together(tmp_path, model):
    rows = [{"x": 2 * models.POISON if i % 7 == 3 else float(i)} for i in range(50)]
    scored = score(tmp_path, model("at_most_four"), rows, columns=NUMBER)
    assert scored.reasons == {i: "model_error" for i in range(50) if i % 7 == 3}
    assert scored.manifest["engine"]["batch_rows"] in (3, 4)  # 43 rows halve to 3


def test_a_sweep_ends_where_the_model_raises(tmp_path, model):
    job = prepared(tmp_path, model("at_most_four"), [{"x": 1.0}] * 3, NUMBER)
    servable = load(job)
    # Three rows cannot show it: the sweep meets it.
    choice = choose_batch(job, servable, try_rows(job, servable), always=True)
    assert choice.batch_rows <= 8192 and not choice.compiled


def test_a_size_that_a_model_refuses_is_not_tried_again_in_the_run(model):
    servable = Counting(Servable.load(model("at_most_four")))
    x = np.arange(64, dtype=np.float32)
    rows = pa.RecordBatch.from_pydict({ROW: pa.array(np.arange(64)), INPUT + "x": pa.array(x)})
    (block,) = handler(model("at_most_four"), 16).run_inference([Block(0, "a", 0, "f", rows)], servable)
    assert block.rows["output/y"].to_pylist() == [2.0 * i for i in range(64)]
    assert servable.rows == [16, 8, 4, 4, 8, 4, 4] + [4] * 12


def test_the_warm_up_takes_few_rows_whatever_the_batch(model):
    servable = Counting(Servable.load(model("pictures")))
    scorer = handler(model("pictures"), 8192).scorer
    scorer.model = servable
    scorer.warm_up()
    assert servable.rows == [4]  # 8,192 pictures are 4.9 GB before the model takes any


def test_rows_are_read_and_called_by_their_bytes(tmp_path, model):
    # In a new process, like a launch: what earlier work left allocated hides what a call takes.
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        alone.submit(try_pictures, tmp_path, model("pictures")).result()


def try_pictures(folder, saved_model):
    pictures = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(40 * 150528, np.float32)), 150528)
    job = prepared(
        folder,
        saved_model,
        pa.table({"image": pictures}),
        {"image": {"dtype": "float32", "shape": [150528]}},
        inputs={"image": {"reshape": [224, 224, 3]}},
    )
    call = dataclasses.replace(job.steps.call, bounds=Bounds(call_bytes=16 << 20))
    job = dataclasses.replace(job, steps=dataclasses.replace(job.steps, call=call))
    servable = Counting(load(job))
    before = resident_bytes()
    trial, peak = with_peak(lambda: try_rows(job, servable))
    assert peak - before < 400e6  # 1,024 pictures would take 7 GB
    # 0.6 MB a picture as it is fed, and 6.4 MB for what the convolution makes of it.
    assert trial.predictions.num_rows == (16 << 20) // 602112
    assert max(servable.rows) <= 8
    assert 3e6 < trial.call_row_bytes < 40e6
    choice = default_choice(job, trial)
    assert 1 <= choice.batch_rows <= 8 and "MB in a call" in choice.why
    # One picture is the least that a call takes, whatever this processor needs for it (33.7 MB on some).
    assert call_bytes(job, trial, choice.batch_rows) <= max(2 * (16 << 20), trial.call_row_bytes)


@pytest.mark.parametrize("rows", [1, 5])
def test_a_batch_that_is_set_is_the_most_that_the_trial_calls(tmp_path, model, rows):
    job = prepared(tmp_path, model("nan_out"), [{"x": 1.0}] * 20, NUMBER, model={"batch_rows": rows})
    servable = Counting(load(job))
    trial = try_rows(job, servable)
    assert max(servable.rows) == rows == default_choice(job, trial).batch_rows
    assert trial.predictions.num_rows == 20


def test_calls_that_take_more_than_engine_memory_are_refused(tmp_path, model):
    job = prepared(tmp_path, model("nan_out"), [{"x": 1.0}] * 20, NUMBER, engine={"workers": 2, "memory": "2GB"})
    trial = Trial(None, None, 20, None, {}, call_rows=16, call_row_bytes=50e6, fed_row_bytes=4)
    check_call_fits(job, trial, 8)
    with pytest.raises(
        JobError, match=r"a row takes 50\.0 MB .*measured on 16 rows.*32 rows by 2 threads take 3\.2 GB"
    ):
        check_call_fits(job, trial, 32)


def test_the_peak_is_of_what_ran_meanwhile():
    np.ones(30_000_000)  # 240 MB, given back
    before = resident_bytes()
    _, peak = with_peak(lambda: np.ones(10_000_000).sum())
    assert 70e6 < peak - before < 160e6


def test_the_bytes_of_a_row_are_those_of_the_rows_that_were_read(tmp_path, model):
    job = prepared(tmp_path, model("at_most_four"), pa.table({"x": np.random.default_rng(0).random(200_000)}), NUMBER)
    assert first_blocks(job, 100).row_bytes == pytest.approx(4, rel=0.1)  # float32, and no number of the row


def test_rows_larger_than_a_block_of_the_trial_are_tried(tmp_path, model):
    rows = [{"x": float(i), "more": "a" * 40_000} for i in range(300)]
    job = prepared(tmp_path, model("at_most_four"), rows, NUMBER)
    found = first_blocks(job, 200)
    assert sum(b.rows.num_rows for b in found.blocks) == 200 and found.row_bytes == pytest.approx(40_000, rel=0.1)
