"""A wrong value in a job file is told by its key, with what was found and what was expected, in the words
of YAML, not of Python."""

from __future__ import annotations

import importlib
import time

import pytest

from beam_score.pipeline.job.job import load_job, parse_job
from beam_score.pipeline.job.job_text import JobText
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process import errors

BASE = {"input": {"files": "x.csv"}, "model": {"path": "m"}, "output": {"path": "o"}}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"columns": {"#a": {"dtype": "int8"}}}, "column names ['#a']: must not be empty, nor begin with #"),
        ({"columns": {"input/x": {"dtype": "int8"}}}, "column names ['input/x']"),
        ({"columns": {"a": {"dtype": "int8", "shape": 3}}}, "columns.a.shape: found 3, expected a list, in brackets"),
        ({"columns": {"a": {"dtype": "int8", "range": [0]}}}, "columns.a.range: expected two bounds"),
        ({"columns": {"a": "int8"}}, "columns.a: found 'int8', expected keys and values, for example {dtype: float32}"),
        ({"output": {"path": "o", "keep": ["b", "b"]}}, "output.keep: 'b' is named twice"),
        ({"output": {"path": "o", "keep": "id"}}, "output.keep: found 'id', expected a list, in brackets"),
        ({"inputs": {"x": {"pack": []}}}, "inputs.x.pack: the list of columns is empty: choose the columns"),
        ({"engine": {"workers": "many"}}, "engine.workers: found 'many', expected a whole number or 'auto'"),
        ({"engine": {"intra_op_threads": 0}}, "intra_op_threads: expected a positive number, or auto"),
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


JOB = """\
input: {files: x.csv}
model:
  path: m
  batch_rows: -5
columns:
  age: {dtype: float32}
  income:
    dtype: flaot32
    unti: USD
output:
  path: o
rejects: &r
  budget: lots
"""


def told(tmp_path, text, *overrides):
    """What a job file is refused with: sentences, the path left out."""
    path = tmp_path / "job.yaml"
    path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
    with pytest.raises(JobError) as raised:
        load_job(str(path), overrides)
    return [problem.replace(f"{tmp_path}/", "") for problem in raised.value.problems]


def test_each_mistake_has_the_line_of_its_key(tmp_path):
    said = told(tmp_path, JOB, "output.format=xml", "engine.workers=no")
    starts = {problem.partition(": ")[0]: problem for problem in said}
    assert "unknown key 'columns.income.unti'; did you mean 'unit'?" in starts["job.yaml:9"]
    assert "columns.income.dtype: found 'flaot32'" in starts["job.yaml:8"]
    assert "model.batch_rows: expected a positive number" in starts["job.yaml:4"]
    assert "rejects.budget: 'lots'" in starts["job.yaml:13"]
    assert "output.format: found 'xml'" in starts["--set output.format"]
    assert "engine.workers: found 'no'" in starts["--set engine.workers"]
    assert len(said) == 6


def test_a_missing_key_has_the_line_of_what_it_is_missing_in(tmp_path):
    text = JOB.replace("-5", "5").replace("lots", "5").replace("flaot32", "int8").replace("unti", "unit")
    (said,) = told(tmp_path, text.replace("  path: o", "  keep: [a]"))
    assert said == "job.yaml:10: key 'output.path' is missing"


def test_a_column_may_be_named_as_a_type_is():
    with pytest.raises(JobError, match=r"unknown key 'columns\.int\.dtpye'; did you mean 'dtype'"):
        parse_job({**BASE, "columns": {"int": {"dtpye": "int8", "dtype": "int8"}}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 levels deep"),
        ("a: " + "[" * 50_000, "nested more than 50 levels deep"),
        ("\n".join(" " * i + "a:" for i in range(200)), "nested more than 50 levels deep"),
        ("a: 1\nb: " + "9" * 5000, "job.yaml:2: not valid YAML: not a YAML value: a number of 5,000 characters"),
        ("a: &x [*x]", "a value that contains itself"),
        ("a: 2026-13-45", "job.yaml:1: not valid YAML: not a YAML value: month must be in 1..12"),
        ("a: 1\n\nb: !!python/object/apply:os.system [x]", "job.yaml:3: not valid YAML: could not determine"),
        ("a: 1\na: 2", "job.yaml:2: not valid YAML: while constructing a mapping, found duplicate key"),
        ("a: [1\nb: 2", "job.yaml:2: not valid YAML"),
        (b"a: \xff", "job.yaml is not UTF-8"),
        ("a: 1\n---\nb: 2", "job.yaml:2: not valid YAML"),
        ("{}: 1", "job.yaml:1: not valid YAML: while constructing a mapping, found unhashable key"),
        ("1: {}", "job.yaml:1: found the key 1, expected text"),
        ("columns: {1: {dtype: int8}}", "job.yaml:1: columns: found the key 1, expected text"),
        ("columns: {a: {1: int8}}", "job.yaml:1: columns.a: found the key 1, expected text"),
        ("- 1", "job.yaml is not a job file"),
        ("", "job.yaml is not a job file"),
        ("a: " + "x" * 17_000_000, "job.yaml has more than 16 MB"),
    ],
)
def test_yaml_beyond_limits_is_a_sentence(tmp_path, text, problem):
    said = told(tmp_path, text)
    assert any(problem in s for s in said) and all(len(s) < 1000 for s in said)


def test_aliases_do_not_multiply_what_is_read_or_told(tmp_path):
    lines = ["a0: &a0 [" + ", ".join(["x" * 50] * 9) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 7)]
    (said,) = told(tmp_path, "\n".join(lines))
    assert "values, including values repeated by aliases" in said
    said = told(tmp_path, "\n".join([*lines[:4], "columns: *a3", "output: {path: *a3}"]))
    assert all(len(s) < 1000 for s in said)


def test_set_changes_the_one_place_that_it_names(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("input: {files: x}\nmodel: {path: m}\noutput: {path: o}\ncolumns: {a: &c {dtype: int8}, b: *c}\n")
    job = load_job(str(path), ["columns.a.dtype=int16"])
    assert (job.columns["a"].dtype, job.columns["b"].dtype) == ("int16", "int8")


def test_a_value_of_set_is_bounded_too(tmp_path):
    text = "input: {files: x}\nmodel: {path: m}\noutput: {path: o}\n"
    assert "nested more than" in told(tmp_path, text, "columns=" + "[" * 3000)[0]
    assert "a number of 5,000" in told(tmp_path, text, "rejects.budget=" + "9" * 5000)[0]


def test_a_job_of_many_columns_is_read_in_time(tmp_path):
    columns = "".join(f"  c{n}: {{dtype: float32}}\n" for n in range(2000))
    began = time.process_time()
    JobText("job.yaml", "columns:\n" + columns)
    assert time.process_time() - began < 20


def test_each_error_that_has_an_exit_code_exists():
    for name in errors._CODES:
        module, _, kind = name.rpartition(".")
        found = getattr(importlib.import_module(module), kind)
        assert issubclass(found, Exception) and (found.__module__, found.__qualname__) == (module, kind), name
