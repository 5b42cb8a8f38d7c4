"""`init` writes a job file that is ready to run where model and data fit, and asks where they do not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from models import estimator
from rich.console import Console
from ruamel.yaml import YAML
from typer.testing import CliRunner

from beam_score.pipeline.cli import app
from beam_score.pipeline.draft.draft import draft_job
from beam_score.pipeline.draft.sample import look_at
from beam_score.pipeline.draft.yaml_text import flow, scalar
from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.show.check import check_job
from beam_score.transforms.formats.csv.dialect import guess_header
from beam_score.transforms.formats.first_rows import Hints
from beam_score.transforms.model.servable import import_tensorflow
from beam_score.transforms.model.signature import ModelError

PEOPLE = [{"id": f"p{i}", "age": 18 + i % 70, "income": 250.5 * (i % 90), "score": (i % 11) / 10} for i in range(200)]


def write_csv(path, rows, delimiter=",", header=True):
    lines = [delimiter.join(rows[0])] if header else []
    lines += [delimiter.join("" if v is None else str(v) for v in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_tfrecord(path, rows):
    tf = import_tensorflow()

    def feature(value):
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode() for v in values]))
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            features = tf.train.Features(feature={k: feature(v) for k, v in row.items() if v is not None})
            writer.write(tf.train.Example(features=features).SerializeToString())


WRITE = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet, "tfrecord": write_tfrecord}


def settings_of(text):
    return YAML(typ="safe", pure=True).load(text)


def entry(text, name):
    """An entry of a section, from its line to the next one at the same depth: its comments included."""
    return re.search(rf"^  {re.escape(name)}:.*\n(?:    .*\n)*", text, re.MULTILINE)[0]


def tried(text, tmp_path):
    """What a `check` that finds the job ready says of the rows that it tried."""
    return re.search(r"tried .*", checked(text, tmp_path, 0))[0]


def checked(text, tmp_path, code):
    """What `check` says of the job, off a terminal: it loads the model and scores the first rows."""
    job = parse_job(settings_of(text) | {"output": settings_of(text)["output"] | {"path": str(tmp_path / "out")}})
    said = io.StringIO()
    assert check_job(job, Console(file=said, width=200)).code == code
    return said.getvalue()


@pytest.mark.parametrize("format_", WRITE)
def test_the_common_case_is_ready_to_run_in_every_format(model, tmp_path, format_):
    rows = PEOPLE
    if format_ == "tfrecord":  # a tf.Example's kind must match: floats for a float input
        rows = [row | {"age": float(row["age"])} for row in rows]
    WRITE[format_](tmp_path / f"people-0.{format_}", rows)
    text = draft_job(model("multiply"), str(tmp_path / "people-*"))
    job = settings_of(text)
    assert job["input"]["format"] == format_
    packed = job["inputs"]["inputs"]["pack"]
    assert sorted(packed) == ["age", "income", "score"]
    if format_ != "tfrecord":  # where features have no order
        assert packed == ["age", "income", "score"]
    assert {name: job["columns"][name] for name in packed} == {name: {"dtype": "float32"} for name in packed}
    assert job["output"]["keep"] == ["id"]
    assert job["outputs"] == {"probabilities": {"meaning": "probability"}}
    assert "TODO" not in text
    assert re.fullmatch(r"tried\s+200 rows: 200 predicted, 0 rejected\s*", tried(text, tmp_path))


def test_what_was_guessed_says_so_and_from_what(model, tmp_path):
    write_csv(tmp_path / "people.csv", PEOPLE)
    text = draft_job(model("multiply"), str(tmp_path / "people.csv"))
    assert "guessed: the model takes 3 numbers per row, and the data has 3 columns of numbers" in entry(text, "inputs")
    assert "The model does not record the order" in entry(text, "inputs")
    assert "guessed from the name" in entry(text, "probabilities")
    assert "guessed: it looks like an id" in entry(text, "keep")


def test_columns_by_the_inputs_names_need_no_entry(model, tmp_path):
    write_csv(tmp_path / "people.csv", PEOPLE)
    text = draft_job(model("several_inputs"), [str(tmp_path / "people.csv")])
    job = settings_of(text)
    assert job["inputs"] == {}
    assert list(job["columns"]) == ["age", "income", "score", "id"]
    assert job["columns"]["id"] == {"dtype": "string", "required": False}
    assert "guessed: the model" not in text
    assert "200 predicted, 0 rejected" in tried(text, tmp_path)


def test_what_was_seen_is_told_and_enforced_nowhere(model, tmp_path):
    rows = [dict(row) for row in PEOPLE]
    rows[3]["age"] = rows[4]["age"] = None
    rows[5]["income"], rows[6]["income"], rows[7]["score"] = "n/a", "-", "nan"
    write_csv(tmp_path / "people.csv", rows)
    text = draft_job(model("multiply"), str(tmp_path / "people.csv"))
    assert "# seen: 18 .. 87 in 200 rows, 2 empty (rejected, unless there is a default)" in entry(text, "age")
    assert "income: {dtype: float32}  # seen: 0 .. 22294.5 in 200 rows, 2 not numbers" in entry(text, "income")
    assert 'nulls: ["-", n/a]' in entry(text, "income")
    assert "1 not finite (rejected, unless nan: missing, with a default; or finite: false)" in entry(text, "score")
    assert all(set(settings_of(text)["columns"][name]) == {"dtype"} for name in ("age", "income", "score"))
    said = checked(text, tmp_path, 3)
    assert "200 rows: 195 predicted, 5 rejected" in said
    assert "not ready: of the first rows, 5 of 200 rows are rejected (2.50%), and rejects.budget allows 0.01" in said
    rows = [re.split(r"\s{2,}", line.strip())[:3] for line in said.splitlines()]
    assert ["2", "missing_value", "age"] in rows and ["2", "wrong_type", "income"] in rows
    assert ["1", "not_finite", "score"] in rows
    assert 'columns.income.nulls: ["-", n/a], with a default  # 2 not numbers' in said
    assert "columns.score.nan: missing, with a default; or finite: false  # 1 not finite" in said
    assert "ready in" in checked(text.replace("budget: 1%", "budget: 5"), tmp_path, 0)


@pytest.mark.parametrize(("delimiter", "suffix"), [(";", ".csv"), ("\t", ".csv"), ("|", ".csv"), ("\t", ".tsv")])
def test_the_delimiter_is_found(model, tmp_path, delimiter, suffix):
    write_csv(tmp_path / f"people{suffix}", PEOPLE, delimiter)
    text = draft_job(model("multiply"), str(tmp_path / f"people{suffix}"))
    assert settings_of(text)["input"]["csv"] == {"delimiter": delimiter, "header": True}
    assert "200 predicted" in tried(text, tmp_path)


def test_a_file_without_a_header_has_all_its_columns_named_by_place(model, tmp_path):
    write_csv(tmp_path / "people.csv", PEOPLE, header=False)
    text = draft_job(model("multiply"), str(tmp_path / "people.csv"))
    job = settings_of(text)
    assert job["input"]["csv"]["header"] is False
    assert "guessed: the first line contains numbers" in text
    assert list(job["columns"]) == ["column_1", "column_2", "column_3", "column_4"]
    assert job["inputs"]["inputs"]["pack"] == ["column_2", "column_3", "column_4"]
    assert job["columns"]["column_1"] == {"dtype": "bytes", "required": False}  # nothing is asked of it
    assert "200 predicted, 0 rejected" in tried(text, tmp_path)


def test_quotes_escaped_with_backslashes_are_noticed(model, tmp_path):
    rows = "".join(f'"monitor {i}\\"",{i},{i}.5,0.5\n' for i in range(10))
    (tmp_path / "people.csv").write_text("name,age,income,score\n" + rows)
    job = settings_of(draft_job(model("several_inputs"), str(tmp_path / "people.csv")))
    assert job["input"]["csv"] == {"delimiter": ",", "header": True, "escape": "\\"}
    (tmp_path / "people.csv").write_text("name,age,income,score\n" + rows.replace('\\"', "\\"))  # a path's last one
    assert "escape" not in settings_of(draft_job(model("several_inputs"), str(tmp_path / "people.csv")))["input"]["csv"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_compressed_files_are_looked_into(model, tmp_path, format_, suffix, compress):
    WRITE[format_](tmp_path / "plain", PEOPLE)
    (tmp_path / f"people.{format_}{suffix}").write_bytes(compress((tmp_path / "plain").read_bytes()))
    text = draft_job(model("several_inputs"), str(tmp_path / f"people.{format_}{suffix}"))
    assert settings_of(text)["input"]["format"] == format_
    assert "seen: 18 .. 87 in 200 rows" in entry(text, "age")


@pytest.mark.parametrize("format_", WRITE)
def test_a_name_without_a_suffix_is_told_by_its_bytes_or_refused(model, tmp_path, format_):
    rows = [row | {"age": float(row["age"])} for row in PEOPLE]
    WRITE[format_](tmp_path / "part-00000-of-00001", rows)
    if format_ == "csv":
        with pytest.raises(JobError, match=r"cannot be detected from the suffixes: .*nor from the first bytes"):
            draft_job(model("several_inputs"), str(tmp_path / "part-*"))
        return
    text = draft_job(model("several_inputs"), str(tmp_path / "part-*"))
    assert settings_of(text)["input"]["format"] == format_


def test_unique_rising_integers_are_an_id_by_any_name(model, tmp_path):
    # income is as unique, and no id: it goes up and down.
    rows = [{"n": 1000 + i, "age": r["age"], "income": i ^ 5, "score": r["score"]} for i, r in enumerate(PEOPLE)]
    write_csv(tmp_path / "people.csv", rows)
    text = draft_job(model("multiply"), str(tmp_path / "people.csv"))
    assert settings_of(text)["inputs"]["inputs"]["pack"] == ["age", "income", "score"]
    assert settings_of(text)["output"]["keep"] == ["n"]
    assert "not counting [n]" in entry(text, "inputs").replace('["n"]', "[n]")


def test_with_more_numbers_than_the_model_takes_a_person_chooses(model, tmp_path):
    rows = [row | {"height": 150 + i % 40} for i, row in enumerate(PEOPLE)]
    write_csv(tmp_path / "people.csv", rows)
    text = draft_job(model("multiply"), str(tmp_path / "people.csv"))
    job = settings_of(text)
    assert job["inputs"] == {"inputs": {"pack": []}}
    assert (
        "# TODO: choose 3 columns, in the order that the model was trained with; "
        "columns of numbers: [age, income, score, height]" in entry(text, "inputs")
    )
    with pytest.raises(JobError, match="input"):
        tried(text, tmp_path)
    chosen = text.replace("pack: []", "pack: [age, income, height]")
    assert "200 predicted" in tried(chosen, tmp_path)


@pytest.mark.parametrize("format_", ["jsonl", "parquet", "tfrecord"])
@pytest.mark.parametrize(
    ("name", "column", "shape", "value"),
    [
        ("vectors", "embedding", [4], [0.5, 1.0, 1.5, 2.0]),
        ("nested", "grid", [2, 3], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    ],
)
def test_a_column_of_lists_has_its_shape(model, tmp_path, format_, name, column, shape, value):
    if format_ == "tfrecord" and len(shape) == 2:
        value = [x for row in value for x in row]  # flat, in row-major order
    WRITE[format_](tmp_path / f"rows.{format_}", [{"key": f"k{i}", column: value} for i in range(20)])
    text = draft_job(model(name), str(tmp_path / f"rows.{format_}"))
    job = settings_of(text)
    assert job["columns"][column] == {"dtype": "float32", "shape": shape}
    assert job["inputs"] == {}
    assert job["output"]["keep"] == ["key"]
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_a_flat_list_is_reshaped(model, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"grid": [1, 2, 3, 4, 5, 6.5]}] * 20)
    text = draft_job(model("nested"), str(tmp_path / "rows.jsonl"))
    assert settings_of(text)["columns"]["grid"] == {"dtype": "float32", "shape": [6]}
    assert settings_of(text)["inputs"] == {"grid": {"reshape": [2, 3]}}
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_an_open_dimension_takes_what_the_rows_have(model, tmp_path):
    write_jsonl(tmp_path / "even.jsonl", [{"x": [1.5, 2, 3, 4]}] * 20)
    text = draft_job(model("open_inner"), str(tmp_path / "even.jsonl"))
    assert settings_of(text)["columns"]["x"] == {"dtype": "float32", "shape": [4]}
    assert "the model accepts any length; all rows seen have shape [4]" in entry(text[text.index("inputs:") :], "x")
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)
    write_jsonl(tmp_path / "odd.jsonl", [{"x": [1.5] * (1 + i % 3)} for i in range(20)])
    text = draft_job(model("open_inner"), str(tmp_path / "odd.jsonl"))
    assert settings_of(text)["columns"]["x"] == {"dtype": "float32", "shape": [None]}
    assert "pad: 0 would pad rows" in text
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_bare_values_feed_the_only_input(model, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [[1, 2, 3.5]] * 20)
    text = draft_job(model("multiply"), str(tmp_path / "rows.jsonl"))
    assert settings_of(text)["columns"] == {"inputs": {"dtype": "float32", "shape": [3]}}
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_the_one_column_of_text_feeds_a_model_of_text(model, tmp_path):
    write_csv(tmp_path / "reviews.csv", [{"review_id": i, "stars": i % 5, "body": f"good {i}"} for i in range(30)])
    text = draft_job(model("strings"), str(tmp_path / "reviews.csv"))
    job = settings_of(text)
    assert job["inputs"] == {"text": {"column": "body"}}
    assert job["columns"] == {"body": {"dtype": "string"}, "review_id": {"dtype": "int64", "required": False}}
    assert "guessed: the data has no column text, and this is the only column of text" in entry(text, "text")
    assert "30 predicted, 0 rejected" in tried(text, tmp_path)


def test_serialized_examples_are_fed_as_they_are(model, tmp_path):
    write_tfrecord(tmp_path / "rows.tfrecord", [{"x": [1.0, 2.0, 3.0], "tag": "a"}] * 20)
    text = draft_job(model("examples"), str(tmp_path / "rows.tfrecord"))
    assert settings_of(text)["inputs"] == {"examples": {"record": True}}
    assert "guessed from its name" in entry(text, "examples")
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_a_model_of_examples_over_other_formats_asks_for_the_features(model, tmp_path):
    write_parquet(tmp_path / "rows.parquet", [{"x": [1.0, 2.0, 3.0], "tag": "a"}] * 20)
    text = draft_job(model("examples"), str(tmp_path / "rows.parquet"))
    assert settings_of(text)["inputs"] == {"examples": {"serialize": []}}
    assert "TODO: choose" in entry(text, "examples")


def test_a_name_in_another_case_is_a_guess(model, tmp_path):
    write_csv(tmp_path / "people.csv", [{"Age": 1, "income": 2, "SCORE": 0.5}] * 20)
    text = draft_job(model("several_inputs"), str(tmp_path / "people.csv"))
    assert settings_of(text)["inputs"] == {"age": {"column": "Age"}, "score": {"column": "SCORE"}}
    assert "guessed: the data has no column age, and this name is the most similar" in entry(text, "age")
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_a_column_of_the_wrong_kind_is_pointed_out(model, tmp_path):
    write_csv(tmp_path / "people.csv", [{"age": "old", "income": 2, "score": 0.5}] * 20)
    text = draft_job(model("several_inputs"), str(tmp_path / "people.csv"))
    assert "which is not float32" in entry(text, "age")


def test_odd_names_are_quoted(model, tmp_path):
    odd = "my input:0-x"
    write_csv(tmp_path / "rows.csv", [{odd: 1.5, "2nd": 2, "#": 1, "": 9, "yes": i} for i in range(20)])
    text = draft_job(model("odd_names"), str(tmp_path / "rows.csv"))
    job = settings_of(text)
    assert job["columns"]["2nd"] == job["columns"][odd] == {"dtype": "float32"}
    assert job["columns"]["yes"] == {"dtype": "int64", "required": False}
    assert job["outputs"] == {"out/1: %": {"meaning": "raw"}}
    assert job["output"]["keep"] == ["yes"]
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_an_input_called_id_is_fed_and_kept(model, tmp_path):
    write_csv(tmp_path / "rows.csv", [{"id": i, "a": 1, "b": 2, "c": 3.5} for i in range(20)])
    job = settings_of(text := draft_job(model("echo"), str(tmp_path / "rows.csv")))
    assert job["columns"]["id"] == {"dtype": "int64"}
    assert job["inputs"] == {"x": {"pack": ["a", "b", "c"]}}
    assert job["output"]["keep"] == ["id"]
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_an_output_with_the_name_of_a_kept_column_is_renamed(model, tmp_path):
    write_csv(tmp_path / "rows.csv", [{"key": f"k{i}", "x": i / 7} for i in range(20)])
    text = draft_job(model("nan_out"), str(tmp_path / "rows.csv"))
    assert settings_of(text)["outputs"] == {"y": {"meaning": "raw"}}
    write_csv(tmp_path / "rows.csv", [{"y": i, "x": random.Random(i).random()} for i in range(20)])
    text = draft_job(model("nan_out"), str(tmp_path / "rows.csv"))
    assert settings_of(text)["output"]["keep"] == ["y"]
    assert settings_of(text)["outputs"] == {"y": {"meaning": "raw", "as": "model_y"}}
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_outputs_are_told_by_name_and_shape(model, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"x": [1, 2, 3.5]}] * 20)
    text = draft_job(model("several_outputs"), str(tmp_path / "rows.jsonl"))
    meanings = {name: output["meaning"] for name, output in settings_of(text)["outputs"].items()}
    assert meanings == {"embedding": "raw", "label": "raw", "logits": "logits"}
    assert "(3 labels)" in entry(text, "logits")
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_an_output_without_rows_is_left_out(model, tmp_path):
    write_csv(tmp_path / "rows.csv", [{"x": i / 7} for i in range(20)])
    text = draft_job(model("no_row_dimension"), str(tmp_path / "rows.csv"))
    assert list(settings_of(text)["outputs"]) == ["y"]
    assert "# output 'total' has no row dimension" in text
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_damaged_rows_and_an_empty_file_do_not_stop_it(model, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"")
    write_csv(tmp_path / "b.csv", PEOPLE)
    with open(tmp_path / "b.csv", "a") as file:
        file.write("1,2\n")
    text = draft_job(model("multiply"), str(tmp_path / "*.csv"))
    assert "2 files now; the first 200 rows were inspected, and 1 could not be parsed" in text
    assert settings_of(text)["inputs"]["inputs"]["pack"] == ["age", "income", "score"]


@pytest.mark.parametrize("format_", WRITE)
def test_no_rows_at_all_still_makes_a_file_that_parses(model, tmp_path, format_):
    if format_ == "parquet":
        pq.write_table(pa.table({"age": pa.array([], pa.float32())}), tmp_path / "none.parquet")
    else:
        (tmp_path / f"none.{format_}").write_bytes(b"")
    job = settings_of(draft_job(model("several_inputs"), str(tmp_path / "none.*")))
    assert job["input"]["format"] == format_
    assert parse_job(job).input.format == format_


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("nothing-*.csv", "no file matches"), ("peeple.csv", "did you mean 'people.csv'"), ("utf16.csv", "UTF-16")],
)
def test_data_that_cannot_be_looked_at_is_an_error(model, tmp_path, pattern, said):
    write_csv(tmp_path / "people.csv", PEOPLE)
    (tmp_path / "utf16.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(JobError, match=said):
        draft_job(model("multiply"), str(tmp_path / pattern))


def test_a_model_that_cannot_be_fed_is_an_error(model, tmp_path):
    write_csv(tmp_path / "people.csv", PEOPLE)
    with pytest.raises(ModelError, match="several signatures"):
        draft_job(model("two_signatures"), str(tmp_path / "people.csv"))
    job = settings_of(draft_job(model("two_signatures"), str(tmp_path / "people.csv"), signature="halve"))
    assert job["model"]["signature"] == "halve"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4, unique=True))
def test_any_name_reads_back(names):
    text = "".join(f"{scalar(n)}: {{of: {flow(names)}}}  # {scalar(n)}\n" for n in names)
    assert settings_of(text) == {n: {"of": names} for n in names}


@pytest.mark.parametrize("word", ["yes", "No", "null", "~", "1", "1.5", ".5", "-", "---", "...", "a: b", "a #b", "<<"])
def test_words_that_yaml_reads_as_something_else_are_quoted(word):
    for version in ((1, 1), (1, 2)):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version
        assert yaml.load(f"[{scalar(word)}]") == [word]
        assert list(yaml.load(f"{scalar(word)}: 1")) == [word]


def test_bytes_that_are_not_text_are_declared_as_bytes(model, tmp_path):
    png = b"\x89PNG\r\n\x1a\n"
    pq.write_table(pa.table({"text": [png + bytes([i]) for i in range(20)]}), tmp_path / "a.parquet")
    write_jsonl(tmp_path / "b.jsonl", [{"text": {"b64": "iVBORw0KGgo="}}] * 20)
    tf = import_tensorflow()
    with tf.io.TFRecordWriter(str(tmp_path / "c.tfrecord")) as writer:
        for i in range(20):  # some happen to be UTF-8: they are no less bytes
            value = png if i % 3 else b"GIF89a"
            feature = {"text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    for name in ("a.parquet", "b.jsonl", "c.tfrecord"):
        text = draft_job(model("strings"), str(tmp_path / name))
        assert settings_of(text)["columns"] == {"text": {"dtype": "bytes"}}
        assert "not" not in entry(text, "text")
        text = text.replace("upper: {meaning: raw, dtype: string}", "")  # of bytes that are not UTF-8
        assert "20 predicted, 0 rejected" in tried(text, tmp_path)


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_a_kept_id_may_be_missing_and_has_the_dtype_that_was_seen(model, tmp_path, format_):
    rows = [row | {"id": None if i % 3 == 0 else 2**40 + i} for i, row in enumerate(PEOPLE[:60])]
    WRITE[format_](tmp_path / f"people.{format_}", rows)
    text = draft_job(model("multiply"), str(tmp_path / "people.*"))
    job = settings_of(text)
    assert job["output"]["keep"] == ["id"]
    assert job["columns"]["id"] == {"dtype": "int64", "required": False}
    assert "60 predicted, 0 rejected" in tried(text, tmp_path)


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        (["007", "012"], "string"),  # a code: its zeros matter
        (["7.0", "12.0"], "int64"),  # as pandas writes integers with gaps
        ([str(2**63), "1"], "uint64"),
        ([str(2**70), "1"], "string"),
        (["7", "x9"], "string"),
    ],
)
def test_a_kept_column_of_csv_keeps_its_values(model, tmp_path, ids, dtype):
    write_csv(tmp_path / "people.csv", [r | {"id": ids[i % 2]} for i, r in enumerate(PEOPLE)])
    assert settings_of(draft_job(model("multiply"), str(tmp_path / "people.csv")))["columns"]["id"]["dtype"] == dtype


def test_a_column_to_be_chosen_keeps_its_shape(model, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"a": [1.5, 2], "b": [3, 4.5], "k": f"k{i}"} for i in range(20)])
    text = draft_job(model("vectors"), str(tmp_path / "rows.jsonl"))
    columns = settings_of(text)["columns"]
    assert columns["a"] == columns["b"] == {"dtype": "float32", "shape": [2]}
    assert "20 predicted, 0 rejected" in tried(text.replace("pack: []", "pack: [a, b]"), tmp_path)


def test_outputs_that_cannot_be_predictions_are_comments(model, tmp_path):
    write_csv(tmp_path / "rows.csv", [{"x": i / 7} for i in range(20)])
    text = draft_job(model("odd_outputs"), str(tmp_path / "rows.csv"))
    assert list(settings_of(text)["outputs"]) == ["y"]
    assert "# output 'vocabulary' always has 4 rows" in text
    with pytest.raises(ModelError, match="output 'vocabulary' always has 4 rows"):
        draft_job(model("odd_outputs"), str(tmp_path / "rows.csv"), signature="words")


HEADERS = {
    "counted": ("0,1,2", ["0.5,1.5,3", "2.5,1,7"], True, True),
    "counted integers": ("0,1,2", ["5,1,3", "2,1,7"], True, False),
    "years": ("id,2019,2020", ["p1,5,7", "p2,6,8"], True, False),
    "names": ("a,b,c", ["1,2,3", "4,5,6"], True, True),
    "numbers": ("4.5,1,2", ["1,2,3.5", "4,5,6"], False, True),
    "texts": ("great film", ["I liked it", "bad", "never again"], True, False),
    "a value of the column": ("spam,no", ["ham,yes", "spam,no way", "ham,x"] * 10, False, True),
    "few values": ("kind", ["spam", "ham"] * 20, True, True),
    "the input's name": ("x", ["great film", "bad"], True, True),
    "bad value": ("a,5,7", ["1,2,3", "4,5,6"], False, False),
    "one row": ("7,2,3", [], False, False),
    "phrases": ("The film was great", ["I liked it", "bad", "never again"], True, False),
    "twice": ("a,b,c", ["x,y,z", "a,b,c", "x,y,z"], True, False),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_is_told_or_asked_for(case):
    first, body, is_there, is_sure = HEADERS[case]
    found = guess_header([line.split(",") for line in (first, *body)], expected=["x"])
    assert (found.is_there, found.is_sure) == (is_there, is_sure), found.why


def test_a_header_that_is_not_sure_is_asked_for_and_check_waits(model, tmp_path):
    (tmp_path / "texts.csv").write_text("great film\nI liked it\nbad\nnever again\n")
    path = str(tmp_path / "texts.csv")
    text = draft_job(model("strings"), path)
    assert "# TODO: is the first line a header? Not sure: all columns contain text" in text
    with pytest.raises(JobError, match=r"input\.csv\.header: found None, expected true or false"):
        tried(text, tmp_path)
    text = draft_job(model("strings"), path, known=Hints(header=False))
    assert "TODO" not in text
    assert "4 rows: 4 predicted" in tried(text, tmp_path)
    text = draft_job(model("strings"), path, known=Hints(header=True))
    assert "3 rows: 3 predicted" in tried(text, tmp_path)


def test_a_header_that_counts_its_columns_is_no_row(model, tmp_path):
    rows = [f"{i},{i / 7},{i / 9}" for i in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["0,1,2", *rows]) + "\n")
    text = draft_job(model("multiply"), str(tmp_path / "rows.csv"))
    assert settings_of(text)["input"]["csv"]["header"] is True
    assert settings_of(text)["inputs"]["inputs"] == {"pack": ["0", "1", "2"]}
    assert "40 rows: 40 predicted" in tried(text, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            b"# made on Monday\na,b,c\n1,2,3\n4,5,6\n",
            r"first line, \"# made on Monday\", has 1 field.*comment",
        ),
        ("a.csv", b"sep=;\na;b;c\n1;2;3\n4;5;6\n", "an instruction for Excel"),
        (
            "a.csv",
            "a,b,c\n1,2,3\n".encode("utf-16-le"),
            "is UTF-16LE, expected UTF-8: convert it, as with iconv -f UTF-16LE",
        ),
        ("a.jsonl", '{"x": 1}\n'.encode("utf-16-be"), "is UTF-16BE"),
        ("a.csv", "a,b\n1,2\n".encode("utf-32"), "is UTF-32"),
        ("a.csv", b"PK\x03\x04 and so on", "ZIP archive"),
        ("a.jsonl", b"\xfd7zXZ\0 and so on", "compressed by xz"),
        ("a.json", b'[{"x": 1}, {"x": 2}]', r"is a JSON array, .*jq -c '\.\[\]'"),
        ("a.json", b'[\n{"x": 1},\n{"x": 2}\n]\n', r"jq -c '\.\[\]'"),
        ("a.json", b'{\n "x": 1\n}\n', r"jq -c \. "),
        ("a.jsonl", b"x,y\n1,2\n", "not JSON Lines: expected one object per line"),
    ],
)
def test_files_of_another_kind_say_what_to_do(model, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobError, match=said):
        draft_job(model("multiply"), str(tmp_path / name))


def test_a_file_that_cannot_be_looked_at_is_named_in_the_draft(model, tmp_path):
    write_csv(tmp_path / "a.csv", PEOPLE)
    (tmp_path / "b.csv").write_bytes("id,age\np1,2\n".encode("utf-16"))
    assert "b.csv cannot be read as CSV: the file is UTF-16, expected UTF-8" in draft_job(
        model("multiply"), str(tmp_path / "*.csv")
    )


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_estimators_take_serialized_examples_by_their_method(tmp_path, method):
    estimator(tmp_path / "model", method)
    rows = [{"id": f"p{i}", "age": i, "income": i / 2} for i in range(20)]
    write_tfrecord(tmp_path / "rows.tfrecord", rows)
    text = draft_job(str(tmp_path / "model"), str(tmp_path / "rows.tfrecord"))
    assert settings_of(text)["inputs"] == {"inputs": {"record": True}}
    assert "guessed from the signature's method" in text
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)
    write_csv(tmp_path / "rows.csv", rows)
    text = draft_job(str(tmp_path / "model"), str(tmp_path / "rows.csv"))
    assert settings_of(text)["inputs"] == {"inputs": {"serialize": []}}
    chosen = text.replace("serialize: []", "serialize: [age, income]")
    assert "20 predicted, 0 rejected" in tried(chosen, tmp_path)


def test_unusual_formats_and_signatures_are_told_to_init(model, tmp_path, monkeypatch):
    write_csv(tmp_path / "part-0", [{"x": i / 7} for i in range(20)])
    out = tmp_path / "job.yaml"
    told = ["init", model("two_signatures"), "--data", str(tmp_path / "part-0"), "-o", str(out)]
    done = CliRunner().invoke(app, [*told, "--signature", "halve", "--format", "csv", "--header"])
    assert done.exit_code == 0, done.output
    job = settings_of(out.read_text())
    assert (job["model"]["signature"], job["input"]["format"]) == ("halve", "csv")
    done = CliRunner().invoke(app, [*told, "--force", "--signature", "halve", "--format", "cvs"])
    assert "--format: found 'cvs', expected csv, jsonl" in str(done.exception)


def test_an_output_of_unknown_rank_is_drafted_and_tried(model, tmp_path):
    write_csv(tmp_path / "rows.csv", [{"x": i / 7} for i in range(20)])
    text = draft_job(model("rank_not_told"), str(tmp_path / "rows.csv"))
    assert settings_of(text)["outputs"] == {"y": {"meaning": "raw", "shape": []}}
    assert "guessed: the model does not declare the shape of a row" in text
    assert "20 predicted, 0 rejected" in tried(text, tmp_path)


def test_outputs_that_are_not_dense_are_left_out(model, tmp_path):
    write_csv(tmp_path / "people.csv", PEOPLE)
    text = draft_job(model("composite_outputs"), str(tmp_path / "people.csv"))
    assert settings_of(text)["outputs"] == {"y": {"meaning": "raw"}}
    assert "# output 'few' is sparse" in text and "# output 'lists' is ragged" in text
    assert "200 predicted, 0 rejected" in tried(text, tmp_path)


def test_a_field_of_csv_may_be_long(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("id,inputs,note\n" + "".join(f"{i},{i}.5,{'x' * 200_000}\n" for i in range(3)))
    seen = look_at([str(path)]).columns
    assert (seen["inputs"].high, seen["note"].longest) == (2.5, 200_000)


def test_a_column_that_is_named_twice_is_not_proposed(model, tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("id,inputs,note,note\n" + "".join(f"{i},{i}.5,a,b\n" for i in range(3)))
    assert "note" not in draft_job(model("multiply"), str(path))
