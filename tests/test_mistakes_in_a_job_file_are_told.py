"""A wrong value in a job file is told by its key, with what was found and what was expected, in the words
of YAML, not of Python."""

from __future__ import annotations

import pytest

from pipeline.job import parse_job
from pipeline.mistakes import JobError

BASE = {"input": {"files": "x.csv"}, "model": {"path": "m"}, "output": {"path": "o"}}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"columns": {"#a": {"dtype": "int8"}}}, "column names ['#a']: must not be empty, nor begin with #"),
        ({"columns": {"input/x": {"dtype": "int8"}}}, "column names ['input/x']"),
        ({"columns": {"a": {"dtype": "int8", "shape": 3}}}, "columns.a.shape: found 3, expected a list, in brackets"),
        ({"columns": {"a": {"dtype": "int8", "range": [0]}}}, "columns.a.range: expected two ends, as [0, 150]"),
        ({"columns": {"a": "int8"}}, "columns.a: found 'int8', expected keys and values, as {dtype: float32}"),
        ({"output": {"path": "o", "keep": ["b", "b"]}}, "output.keep: 'b' is named twice"),
        ({"output": {"path": "o", "keep": "id"}}, "output.keep: found 'id', expected a list, in brackets"),
        ({"inputs": {"x": {"pack": []}}}, "inputs.x.pack: nothing is named yet: choose the columns"),
        ({"engine": {"workers": "many"}}, "engine.workers: found 'many', expected a whole number or 'auto'"),
        ({"engine": {"intra_op_threads": 0}}, "intra_op_threads: a positive number, or auto"),
        ({"colums": {}}, "unknown key 'colums'; did you mean 'columns'?"),
        ({"model": {}}, "key 'model.path' is missing"),
    ],
)
def test_one_mistake_one_sentence(settings, problem):
    with pytest.raises(JobError) as raised:
        parse_job({**BASE, **settings}, "job.yaml")
    (told,) = raised.value.problems
    assert told.startswith("job.yaml: ")
    assert problem in told
