"""Whatever a SavedModel takes and gives back, the job feeds it right and writes what it says.

Real jobs over small files; what is expected is computed here with numpy alone.
"""

from __future__ import annotations

import base64
import json

import numpy as np
import pyarrow as pa
import pytest
from scoring import example, score

from beam_score.pipeline.job.mistakes import JobError

FLOAT = {"dtype": "float32"}
RNG = np.random.default_rng(5)
N = 50


def floats(*shape):
    return RNG.normal(0, 1, shape).astype(np.float32)


def columns(**shapes):
    return {name: {"dtype": "float32", "shape": list(shape)} for name, shape in shapes.items()}


def rows_of(**arrays):
    rows = zip(*(a.tolist() for a in arrays.values()), strict=True)
    return [dict(zip(arrays, row, strict=True)) for row in rows]


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(np.array(found), expected, rtol=rtol, atol=1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


# --- inputs ---


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "tfrecord"])
def test_columns_packed_into_one_input(tmp_path, model, format):
    x = floats(N, 3)
    scored = score(
        tmp_path,
        model("multiply"),
        rows_of(a=x[:, 0], b=x[:, 1], c=x[:, 2]),
        format,
        columns={"a": FLOAT, "b": FLOAT, "c": FLOAT},
        inputs={"inputs": {"pack": ["a", "b", "c"]}},
    )
    expected = sigmoid(x @ np.array([0.8, -0.5, 1.2]) + 0.1)
    assert scored.predictions["probabilities"].type == pa.float32()
    close(scored.column("probabilities"), expected)


def test_packed_columns_standardized_each_by_its_own_numbers(tmp_path, model):
    x = floats(N, 3) * [1, 1e4, 1e-3] + [3, 5e4, 0.1]
    x = x.astype(np.float32)
    mean, std = [3, 5e4, 0.1], [1, 1e4, 1e-3]
    scored = score(
        tmp_path,
        model("multiply"),
        rows_of(a=x[:, 0], b=x[:, 1], c=x[:, 2]),
        "csv",
        columns={"a": FLOAT, "b": FLOAT, "c": FLOAT},
        inputs={"inputs": {"pack": ["a", "b", "c"], "standardize": {"mean": mean, "std": std}}},
    )
    close(scored.column("probabilities"), sigmoid((x - mean) / std @ np.array([0.8, -0.5, 1.2]) + 0.1), 1e-3)


def test_columns_of_several_dtypes_and_shapes_packed(tmp_path, model):
    rows = [{"flag": bool(i % 2), "pair": [i, -i]} for i in range(N)]
    scored = score(
        tmp_path,
        model("echo"),
        [{"id": i, **row} for i, row in enumerate(rows)],
        columns={"id": {"dtype": "int64"}, "flag": {"dtype": "bool"}, "pair": {"dtype": "int32", "shape": [2]}},
        inputs={"x": {"pack": ["flag", "pair"]}},
    )
    assert scored.column("y") == [[float(i % 2), i, -i] for i in range(N)]
    assert scored.column("out") == list(range(N))


def test_several_named_inputs(tmp_path, model):
    age, income, value = floats(N) * 10 + 40, floats(N) * 1e4 + 5e4, floats(N)
    scored = score(
        tmp_path,
        model("several_inputs"),
        rows_of(years=age, income=income, score=value),
        "csv",
        columns={"years": FLOAT, "income": FLOAT, "score": FLOAT},
        inputs={"age": {"column": "years"}},
    )
    close(scored.column("risk"), sigmoid(0.05 * (age - 40) - 2e-5 * (income - 5e4) + 3 * (value - 0.5)), 1e-4)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "tfrecord"])
def test_strings_of_any_characters(tmp_path, model, format):
    texts = ["plain", "Grüße", "日本", "a,b", 'q"q', "tab\tx", "x" * 5000, "-"]
    scored = score(
        tmp_path, model("strings"), [{"text": t} for t in texts], format, columns={"text": {"dtype": "string"}}
    )
    assert scored.column("length") == [len(t.encode()) for t in texts]
    # TensorFlow's upper works on ASCII.
    ascii_upper = [bytes(b - 32 if 97 <= b <= 122 else b for b in t.encode()) for t in texts]
    assert scored.column("upper") == ascii_upper
    assert scored.predictions["upper"].type == pa.binary()


def test_bytes_that_are_no_text(tmp_path, model):
    values = [bytes([i, 255, 0, 128]) for i in range(N)]
    scored = score(tmp_path, model("strings"), [{"text": v} for v in values], columns={"text": {"dtype": "bytes"}})
    assert scored.column("length") == [4] * N
    assert scored.column("upper") == [bytes(b - 32 if 97 <= b <= 122 else b for b in v) for v in values]


def test_string_outputs_in_json_lines_are_base64_where_they_are_no_text(tmp_path, model):
    values = [b"plain", bytes([255, 254])]
    score(
        tmp_path,
        model("strings"),
        [{"text": v} for v in values],
        columns={"text": {"dtype": "bytes"}},
        output={"path": str(tmp_path / "out"), "format": "jsonl"},
    )
    (part,) = (tmp_path / "out" / "predictions").glob("*.jsonl")
    rows = [json.loads(line) for line in part.read_text().splitlines()]
    assert [row["upper"] for row in rows] == ["PLAIN", {"b64": base64.b64encode(values[1]).decode()}]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "tfrecord"])
def test_vectors(tmp_path, model, format):
    x = floats(N, 4)
    scored = score(tmp_path, model("vectors"), rows_of(embedding=x), format, columns=columns(embedding=[4]))
    close(scored.column("logits"), x @ [[1.0, -1.0], [0.5, 0.25], [-2.0, 1.5], [0.0, 3.0]], 1e-4)


@pytest.mark.parametrize("format", ["jsonl", "parquet", "tfrecord"])
def test_nested_shapes_keep_every_value_in_its_place(tmp_path, model, format):
    x = RNG.integers(0, 9, (N, 2, 3)).astype(np.float32)
    rows = rows_of(grid=x.reshape(N, 6) if format == "tfrecord" else x)
    scored = score(tmp_path, model("nested"), rows, format, columns=columns(grid=[2, 3]))
    close(scored.column("total"), (x * [[1, 10, 100], [1e3, 1e4, 1e5]]).sum(axis=(1, 2)))


def test_a_flat_column_reshaped(tmp_path, model):
    x = RNG.integers(0, 9, (N, 6)).astype(np.float32)
    names = list("abcdef")
    scored = score(
        tmp_path,
        model("nested"),
        rows_of(**{n: x[:, i] for i, n in enumerate(names)}),
        "csv",
        columns=dict.fromkeys(names, FLOAT),
        inputs={"grid": {"pack": names, "reshape": [2, 3]}},
    )
    close(scored.column("total"), (x.reshape(N, 2, 3) * [[1, 10, 100], [1e3, 1e4, 1e5]]).sum(axis=(1, 2)))


def test_names_that_are_no_identifiers(tmp_path, model):
    first, second = floats(N), floats(N)
    scored = score(
        tmp_path,
        model("odd_names"),
        rows_of(**{"my input:0-x": first, "2nd": second}),
        "csv",
        columns={"my input:0-x": FLOAT, "2nd": FLOAT},
    )
    close(scored.column("out/1: %"), 2 * first + second)


def test_a_missing_value_takes_the_default_whatever_its_shape(tmp_path, model):
    rows = [{"grid": [[1, 1, 1], [1, 1, 1]]}, {}, {"grid": None}, {"grid": [[0, 0, 0], [0, 0, 2]]}]
    default = [[1, 2, 3], [4, 5, 6]]
    spec = {"grid": {"dtype": "float32", "shape": [2, 3], "required": False, "default": default}}
    scored = score(tmp_path, model("nested"), rows, columns=spec)
    assert scored.column("total") == [111111, 654321, 654321, 200000]
    assert not scored.rejected


def test_a_cast_keeps_values_or_refuses_the_row(tmp_path, model):
    values = [0.0, 7.0, -3.0, 7.5, 1e30, 9e15]
    scored = score(
        tmp_path,
        model("echo"),
        [{"id": v, "x": [1, 2, 3]} for v in values],
        columns={"id": {"dtype": "float64"}, **columns(x=[3])},
        inputs={"id": {"cast": "int64"}},
    )
    assert scored.column("out") == [0, 7, -3, 9 * 10**15]
    assert scored.reasons == {3: "out_of_range", 4: "out_of_range"}


def test_wide_integers_are_standardized_before_they_are_rounded(tmp_path, model):
    seconds = np.arange(N) + 1_700_000_000
    scored = score(
        tmp_path,
        model("echo"),
        [{"id": 0, "t": int(t), "u": 0, "v": 0} for t in seconds],
        columns={"id": {"dtype": "int64"}, **{n: {"dtype": "int64"} for n in "tuv"}},
        inputs={"x": {"pack": ["t", "u", "v"], "standardize": {"mean": [1.7e9, 0, 0], "std": [10, 1, 1]}}},
    )
    close([y[0] for y in scored.column("y")], np.arange(N) / 10)


def test_bfloat16_in_and_out_is_float32_outside(tmp_path, model):
    x = floats(N)
    scored = score(tmp_path / "in", model("bfloat16_in"), rows_of(x=x), columns={"x": FLOAT})
    assert scored.predictions["y"].type == pa.float32()
    close(scored.column("y"), x, 1e-2)
    y = floats(N, 3)
    scored = score(tmp_path / "out", model("bfloat16_out"), rows_of(x=y), columns=columns(x=[3]))
    assert scored.predictions["y"].type.value_type == pa.float32()
    # Rounded to the nearest with 8 bits of mantissa, ties to even.
    bits = y.view(np.uint32)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(np.array(scored.column("y"), np.float32), expected)


# --- rows of fixed number, or of open shape ---


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 50])
def test_a_fixed_batch_is_filled_up_and_the_surplus_dropped(tmp_path, model, rows):
    x = floats(rows, 3)
    scored = score(tmp_path, model("fixed_batch"), rows_of(x=x), columns=columns(x=[3]))
    close(scored.column("y"), x.sum(axis=1), 1e-4)
    assert scored.column("row") == list(range(rows))
    assert scored.manifest["engine"]["batch_rows"] == 16


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_rows_of_different_lengths_go_together_by_length(tmp_path, model, format):
    rows = [{"x": floats(1 + i % 4).tolist()} for i in range(N)]
    scored = score(tmp_path, model("open_inner"), rows, format, columns=columns(x=[None]), model={"batch_rows": 8})
    assert scored.column("row") == list(range(N))
    close(scored.column("mean"), [np.mean(r["x"]) for r in rows])


def test_steps_reach_the_values_of_rows_of_different_lengths(tmp_path, model):
    rows = [{"x": list(range(1, 2 + i % 4))} for i in range(N)]
    scored = score(
        tmp_path,
        model("open_inner"),
        rows,
        columns={"x": {"dtype": "int64", "shape": [None]}},
        inputs={"x": {"standardize": {"mean": 1, "std": 2}}},
    )
    close(scored.column("mean"), [np.mean((np.array(r["x"]) - 1) / 2) for r in rows])


def test_rows_of_different_lengths_padded(tmp_path, model):
    rows = [{"x": [1.0] * (1 + i % 4)} for i in range(N)]
    section = {"columns": columns(x=[None]), "inputs": {"x": {"pad": 3}}, "model": {"independent": False}}
    scored = score(tmp_path, model("open_inner"), rows, **section)
    close(scored.column("mean"), [((1 + i % 4) + 3 * (3 - i % 4)) / 4 for i in range(N)])


def test_an_empty_row_is_a_row(tmp_path, model):
    scored = score(tmp_path, model("open_inner"), [{"x": []}, {"x": [2.0, 4.0]}], columns=columns(x=[None]))
    mean = scored.column("mean")
    assert np.isnan(mean[0]) and mean[1] == 3
    assert scored.manifest["counts"]["predicted"] == 2


# --- outputs ---


def test_several_outputs_all_or_some(tmp_path, model):
    x = floats(N, 3)
    scored = score(tmp_path / "all", model("several_outputs"), rows_of(x=x), columns=columns(x=[3]))
    assert set(scored.predictions.column_names) == {"source", "row", "logits", "label", "embedding"}
    close(scored.column("logits"), 2 * x)
    assert scored.column("label") == [[b"red", b"green", b"blue"][i] for i in x.argmax(axis=1)]
    some = score(
        tmp_path / "some",
        model("several_outputs"),
        rows_of(x=x),
        columns=columns(x=[3]),
        outputs={"label": {"as": "colour"}, "logits": {"meaning": "logits", "labels": ["r", "g", "b"], "top": 2}},
    )
    assert some.predictions.column_names[2:] == ["colour", "logits", "logits_class", "logits_label", "logits_score"]
    best = np.argsort(-x, axis=1)[:, :2]
    odds = np.exp(2 * x) / np.exp(2 * x).sum(axis=1, keepdims=True)
    assert some.column("logits_class") == best.tolist()
    assert some.column("logits_label") == [[["r", "g", "b"][c] for c in b] for b in best]
    close(some.column("logits_score"), np.take_along_axis(odds, best, axis=1))


def test_a_probability_as_class_and_label(tmp_path, model):
    x = floats(N, 3)
    scored = score(
        tmp_path,
        model("multiply"),
        rows_of(a=x[:, 0], b=x[:, 1], c=x[:, 2]),
        "csv",
        columns={"a": FLOAT, "b": FLOAT, "c": FLOAT},
        inputs={"inputs": {"pack": ["a", "b", "c"]}},
        outputs={"probabilities": {"meaning": "probabilities", "labels": ["no", "yes"], "threshold": 0.6, "as": "p"}},
    )
    p = sigmoid(x @ np.array([0.8, -0.5, 1.2]) + 0.1)
    assert scored.column("p_class") == (p >= 0.6).astype(int).tolist()
    assert scored.column("p_label") == ["yes" if v >= 0.6 else "no" for v in p]
    close(scored.column("p_score"), np.where(p >= 0.6, p, 1 - p))


def test_an_output_without_a_row_dimension_is_refused_unless_it_is_not_asked_for(tmp_path, model):
    with pytest.raises(JobError, match=r"'total' has no row dimension .float32.: list the outputs you want"):
        score(tmp_path / "a", model("no_row_dimension"), rows_of(x=floats(N)), columns={"x": FLOAT})
    x = floats(N)
    scored = score(tmp_path / "b", model("no_row_dimension"), rows_of(x=x), columns={"x": FLOAT}, outputs=["y"])
    close(scored.column("y"), x + 1)


def test_outputs_that_are_not_finite_are_predictions_and_counted(tmp_path, model):
    rows = rows_of(x=np.array([1, 0, -1, np.e, -2], np.float32))
    scored = score(tmp_path, model("nan_out"), rows, columns={"x": FLOAT})
    np.testing.assert_allclose(scored.column("y"), [0, -np.inf, np.nan, 1, np.nan], atol=1e-6)
    assert scored.manifest["counts"]["predicted"] == 5
    assert scored.manifest["not_finite_outputs"] == {"y": 3}


def test_outputs_that_have_to_be_finite_cost_the_row(tmp_path, model):
    rows = rows_of(x=np.array([1, 0, -1, np.e, -2], np.float32))
    scored = score(tmp_path, model("nan_out"), rows, columns={"x": FLOAT}, outputs={"y": {"finite": True}})
    assert scored.reasons == dict.fromkeys([1, 2, 4], "not_finite_output")
    assert scored.column("row") == [0, 3]
    assert scored.rejected[0]["stage"] == "postprocess" and scored.rejected[0]["column"] == "y"


def test_two_signatures(tmp_path, model):
    with pytest.raises(JobError, match=r"several signatures.*double, halve"):
        score(tmp_path / "a", model("two_signatures"), rows_of(x=floats(3)), columns={"x": FLOAT})
    x = floats(N)
    for name, factor in (("double", 2), ("halve", 0.5)):
        scored = score(
            tmp_path / name, model("two_signatures"), rows_of(x=x), columns={"x": FLOAT}, model={"signature": name}
        )
        close(scored.column("y"), x * factor)


# --- serialized tf.Examples ---


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_rows_of_other_formats_become_serialized_examples(tmp_path, model, format):
    x = floats(N, 3)
    rows = [{"x": v, "tag": f"tag {i}"} for i, v in enumerate(x.tolist())]
    scored = score(
        tmp_path,
        model("examples"),
        rows,
        format,
        columns={**columns(x=[3]), "tag": {"dtype": "string"}},
        inputs={"examples": {"serialize": ["x", "tag"]}},
    )
    close(scored.column("total"), x.sum(axis=1), 1e-4)
    assert scored.column("tag") == [f"tag {i}".encode() for i in range(N)]


def test_a_float64_that_no_example_can_hold_costs_its_row(tmp_path, model):
    rows = [{"x": [1.0, 2.0, 3.0]}, {"x": [1e300, 0.0, 0.0]}]
    scored = score(
        tmp_path,
        model("examples"),
        rows,
        columns={"x": {"dtype": "float64", "shape": [3]}},
        inputs={"examples": {"serialize": ["x"]}},
    )
    assert scored.column("total") == [6] and scored.reasons == {1: "out_of_range"}


def test_records_go_to_the_model_as_they_are(tmp_path, model):
    x = floats(N, 3)
    rows = [{"x": v, "tag": f"tag {i}"} for i, v in enumerate(x.tolist())]
    scored = score(tmp_path, model("examples"), rows, "tfrecord", inputs={"examples": {"record": True}})
    close(scored.column("total"), x.sum(axis=1), 1e-4)
    assert scored.column("tag") == [r["tag"].encode() for r in rows]


def test_records_are_validated_before_they_go_to_the_model(tmp_path, model):
    rows = [{"x": [float(i), 0.0, 0.0], "age": 10 * i} for i in range(5)]
    scored = score(
        tmp_path,
        model("examples"),
        rows,
        "tfrecord",
        columns={"age": {"dtype": "int64", "range": [0, 25]}},
        inputs={"examples": {"record": True}},
        outputs=["total"],
    )
    assert scored.column("total") == [0, 1, 2]
    assert scored.reasons == {3: "out_of_range", 4: "out_of_range"}


def test_a_record_that_the_model_cannot_parse_costs_itself(tmp_path, model):
    rows = [{"x": [1.0, 2.0, 3.0]}, {"x": [1.0]}, {"x": [4.0, 5.0, 6.0]}]
    scored = score(tmp_path, model("examples"), rows, "tfrecord", inputs={"examples": {"record": True}})
    assert scored.column("total") == [6, 15]
    assert scored.reasons == {1: "model_error"}


def test_the_helper_writes_what_the_parser_reads():
    parsed = example({"x": [1.0, 2.0], "n": 3, "s": "a"}).features.feature
    assert list(parsed["x"].float_list.value) == [1, 2] and parsed["n"].int64_list.value[0] == 3
