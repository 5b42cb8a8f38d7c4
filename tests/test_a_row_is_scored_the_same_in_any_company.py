"""A model is a function of its row, or the job says that it is not. Rows are scored alone and in company at launch."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scoring import score

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.independence import _same
from beam_score.pipeline.prepare.preflight import fingerprint, prepare

NUMBER = {"x": {"dtype": "float32"}}
VECTOR = {"x": {"dtype": "float32", "shape": [3]}}
ROWS = 40


def numbers(count: int = ROWS) -> list[dict]:
    return [{"x": float(i)} for i in np.random.default_rng(1).permutation(count)]


def vectors() -> list[dict]:
    return [{"x": row.tolist()} for row in np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)]


@pytest.mark.parametrize(
    ("name", "rows", "columns", "said"),
    [
        (
            "centers_on_its_batch",
            vectors(),
            VECTOR,
            r"output 'y' depends on the rows that it is scored with: 16 of 16 rows .* model\.independent: false",
        ),
        ("ranks_in_its_batch", numbers(), NUMBER, r"output 'half' depends on the rows .*\n.*output 'rank' depends on"),
        ("noise_by_position", numbers(), NUMBER, r"output 'y' depends on the rows that it is scored with"),
        (
            "refuses_company",
            [{"x": -1.0}] * 5,
            NUMBER,
            r"output 'y' depends on the rows that it is scored with: 5 of 5",
        ),
        ("dropout_left_on", vectors(), VECTOR, r"draws random numbers \(RandomUniform\).*model\.independent: false"),
        ("counts_calls", numbers(), NUMBER, r"keeps state between calls \(AssignAddVariableOp\)"),
        ("writes_a_file", numbers(), NUMBER, r"writes files \(WriteFile\)"),
    ],
)
def test_a_model_whose_rows_depend_on_more_than_the_row_is_refused(tmp_path, model, name, rows, columns, said):
    outputs = {"outputs": {"y": {}, "call": {}}} if name == "counts_calls" else {}
    with pytest.raises(JobError) as refused:
        score(tmp_path, model(name), rows, columns=columns, **outputs)
    assert re.search(said, "\n".join(refused.value.problems), re.DOTALL), refused.value
    if name == "centers_on_its_batch":
        assert "'id'" not in str(refused.value)


@pytest.mark.parametrize("name", ["centers_on_its_batch", "dropout_left_on"])
def test_a_job_may_say_that_rows_depend_on_each_other_and_the_manifest_shows_it(tmp_path, model, name):
    scored = score(tmp_path, model(name), vectors(), columns=VECTOR, model={"independent": False})
    assert len(scored.column("y")) == ROWS
    assert scored.manifest["model"]["independent"] is False
    assert scored.manifest["job"]["model"]["independent"] is False


def test_independence_is_part_of_what_makes_a_job_this_one(tmp_path, model):
    (tmp_path / "x.jsonl").write_text('{"x": 1.0}\n')
    prints = []
    for section in ({}, {"independent": True}, {"independent": False}):
        job = {
            "input": {"files": str(tmp_path / "x.jsonl")},
            "model": {"path": model("at_most_four"), **section},
            "columns": NUMBER,
            "output": {"path": str(tmp_path / "out")},
        }
        prepared = prepare(parse_job(job))
        prints.append(fingerprint(prepared.job, prepared.files, prepared.model_hash, "serving_default"))
    assert prints[0] == prints[1]
    assert {name for name in prints[0] if prints[0][name] != prints[2][name]} == {"model"}


def test_a_padded_row_may_not_depend_on_how_far_it_is_padded(tmp_path, model):
    rows = [{"x": [1.0] * (1 + i % 4)} for i in range(ROWS)]
    section = {"columns": {"x": {"dtype": "float32", "shape": [None]}}, "inputs": {"x": {"pad": 0}}}
    scored = score(tmp_path / "totals", model("totals"), rows, **section)
    assert scored.column("total") == [1 + i % 4 for i in range(ROWS)]
    with pytest.raises(JobError, match=r"output 'mean' depends on the rows that it is scored with"):
        score(tmp_path / "means", model("open_inner"), rows, **section)


def test_rows_that_the_model_refuses_are_no_sign_of_dependence(tmp_path, model):
    rows = [{"x": [2e6 if i % 3 else 1.0, 0.0, 0.0]} for i in range(ROWS)]
    scored = score(tmp_path, model("poison"), rows, columns=VECTOR)
    assert scored.reasons == {i: "model_error" for i in range(ROWS) if i % 3}


@pytest.mark.parametrize(
    ("x", "y", "same"),
    [
        ([1.0, 1e-6], [1.0 + 1e-5, 1.1e-6], True),
        ([1.0, 0.5], [1.0, 0.51], False),
        ([math.nan, math.inf], [math.nan, math.inf], True),
        ([math.nan], [0.0], False),
        ([math.inf], [-math.inf], False),
        ([3, 4], [3, 5], False),
        ([3, 4], [3, 4], True),
        ([b"a"], [b"b"], False),
        ([1.0], [1.0, 2.0], False),
    ],
)
def test_floats_are_compared_within_noise_and_all_else_exactly(x, y, same):
    x, y = np.array(x), np.array(y)
    scale = float(np.abs(x[np.isfinite(x)]).max(initial=0)) if x.dtype.kind == "f" else 0.0
    assert _same(x, y, 1e-3, scale) == same
