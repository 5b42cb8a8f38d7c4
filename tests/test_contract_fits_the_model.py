"""A contract that does not fit the model is refused before launch: every mismatch at once, each with
what was found, what was expected, and what to do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scoring import score, write

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.transforms.contract.binding import bind_inputs
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.inputs import Input
from beam_score.transforms.contract.outputs import (
    Output,
    as_written,
    bind_outputs,
    signature_as_written,
    wanted_outputs,
)
from beam_score.transforms.model.signature import Signature, Tensor

F32 = {"dtype": "float32"}


def vector(*shape, dtype="float32"):
    return {"dtype": dtype, "shape": list(shape)}


def signature(inputs, outputs=("y: float32 [?]",)):
    """From texts such as `x: float32 [?, 3]`."""

    def tensors(texts):
        found = {}
        for text in texts:
            name, kind = text.split(": ")
            dtype, _, shape = kind.partition(" ")
            sizes = [s.strip() for s in shape.strip("[]").split(",") if s.strip()]
            dims = None if sizes == ["..."] else tuple(None if s == "?" else int(s) for s in sizes)
            found[name] = Tensor(name, dtype, dims)
        return found

    return Signature("serving_default", tensors(inputs), tensors(outputs))


def problems(columns, inputs, model_inputs, free=False):
    contract = Contract.model_validate({"columns": columns})
    how = {name: Input.model_validate(i) for name, i in inputs.items()}
    return bind_inputs(contract, how, signature(model_inputs), free)


# columns, inputs, the model's inputs, what is said (nothing: it fits)
CASES = {
    "fits": ({"x": F32}, {}, ["x: float32 [?]"], []),
    "wider fits": ({"x": {"dtype": "int16"}}, {}, ["x: float32 [?]"], []),
    "float16 into bfloat16": ({"x": {"dtype": "float16"}}, {}, ["x: bfloat16 [?]"], []),
    "pack of any numbers": (
        {"a": {"dtype": "float64"}, "b": {"dtype": "int64"}, "c": {"dtype": "bool"}},
        {"x": {"pack": ["a", "b", "c"]}},
        ["x: float32 [?, 3]"],
        [],
    ),
    "pack of vectors": ({"a": vector(2), "b": F32}, {"x": {"pack": ["a", "b"]}}, ["x: float32 [?, 3]"], []),
    "pack of text": (
        {"a": {"dtype": "string"}, "b": {"dtype": "bytes"}},
        {"x": {"pack": ["a", "b"]}},
        ["x: string [?, 2]"],
        [],
    ),
    "unknown rank": ({"x": vector(2, None)}, {}, ["x: float32 [...]"], []),
    "open dimension": ({"x": vector(None, 3)}, {"x": {"pad": 0}}, ["x: float32 [?, ?, 3]"], []),
    "fixed rows": ({"x": F32}, {}, ["x: float32 [16]"], []),
    "missing input": (
        {"ege": F32},
        {},
        ["age: float32 [?]"],
        ["input 'age' has no column: declare a column 'age'; did you mean 'ege'?, or set in inputs.age what"],
    ),
    "missing column": (
        {"a": F32},
        {"x": {"pack": ["a", "bb"]}},
        ["x: float32 [?, 2]"],
        ["inputs.x: column 'bb' is not declared in columns"],
    ),
    "unknown input": (
        {"x": F32},
        {"y": {"column": "x"}},
        ["x: float32 [?]"],
        ["inputs.y: the model has no such input; it has x float32[?]"],
    ),
    "float64 into float32": (
        {"x": {"dtype": "float64"}},
        {},
        ["x: float32 [?]"],
        ["input 'x' is float32, but column 'x' is float64: declare it as float32, or use cast: float32"],
    ),
    "cast": ({"x": {"dtype": "float64"}}, {"x": {"cast": "float32"}}, ["x: float32 [?]"], []),
    "cast to something else": (
        {"x": {"dtype": "float64"}},
        {"x": {"cast": "float64"}},
        ["x: float32 [?]"],
        ["inputs.x: its steps return float64, but the model takes float32: use cast: float32"],
    ),
    "int64 into int32": (
        {"x": {"dtype": "int64"}},
        {},
        ["x: int32 [?]"],
        ["column 'x' is int64: declare it as int32, or use cast: int32"],
    ),
    "floats packed into integers": (
        {"x": F32},
        {"x": {"pack": ["x"]}},
        ["x: int64 [?, 1]"],
        ["column 'x' is float32: declare it as int64, or use cast: int64"],
    ),
    "number into bool": (
        {"x": {"dtype": "int8"}},
        {},
        ["x: bool [?]"],
        ["input 'x' is bool, but column 'x' is int8: declare it as bool"],
    ),
    "string into float": (
        {"x": {"dtype": "string"}},
        {},
        ["x: float32 [?]"],
        ["input 'x' is float32, but column 'x' is string: declare it as float32"],
    ),
    "float into string": (
        {"x": F32},
        {},
        ["x: string [?]"],
        ["input 'x' is string, but column 'x' is float32: declare it as string or bytes"],
    ),
    "cast of text": (
        {"x": {"dtype": "string"}},
        {"x": {"cast": "int64"}},
        ["x: string [?]"],
        ["inputs.x: cast: int64 of string: numbers and text cannot be converted to each other"],
    ),
    "standardize of text": (
        {"x": {"dtype": "string"}},
        {"x": {"standardize": {"mean": 0, "std": 1}}},
        ["x: string [?]"],
        ["inputs.x: standardize is for numbers"],
    ),
    "pack too narrow": (
        {"a": F32, "b": F32},
        {"x": {"pack": ["a", "b"]}},
        ["x: float32 [?, 3]"],
        ["input 'x' is float32[?, 3], but its rows have shape [2]: pack 3 values, a, b have 2"],
    ),
    "scalar for one value": (
        {"x": F32},
        {},
        ["x: float32 [?, 1]"],
        ["input 'x' is float32[?, 1], but its rows have shape []: use reshape: [1]"],
    ),
    "one value for a scalar": (
        {"x": vector(1)},
        {},
        ["x: float32 [?]"],
        ["input 'x' is float32[?], but its rows have shape [1]: use reshape: []"],
    ),
    "reshape": ({"x": F32}, {"x": {"reshape": [1]}}, ["x: float32 [?, 1]"], []),
    "reshape to a scalar": ({"x": vector(1)}, {"x": {"reshape": []}}, ["x: float32 [?]"], []),
    "reshape that does not fit": (
        {"x": vector(4)},
        {"x": {"reshape": [2, 3]}},
        ["x: float32 [?, 2, 3]"],
        ["inputs.x: reshape [2, 3] has 6 values, but the columns have 4 per row"],
    ),
    "another shape": (
        {"x": vector(3, 2)},
        {},
        ["x: float32 [?, 2, 4]"],
        ["its rows have shape [3, 2]: declare the column with shape [2, 4], or pack columns"],
    ),
    "open column for a fixed dimension": (
        {"x": vector(None)},
        {},
        ["x: float32 [?, 3]"],
        ["its rows have shape [null]: declare the column with shape [3]"],
    ),
    "pad of rows that are alike": (
        {"x": vector(3)},
        {"x": {"pad": 0}},
        ["x: float32 [?, ?]"],
        ["inputs.x: pad is for rows of different lengths, but all rows have shape [3]: leave it out"],
    ),
    "pad of another kind": (
        {"x": vector(None)},
        {"x": {"pad": "-"}},
        ["x: float32 [?, ?]"],
        ["inputs.x: pad '-' is not of dtype float32"],
    ),
    "standardize by too many": (
        {"a": F32, "b": F32},
        {"x": {"pack": ["a", "b"], "standardize": {"mean": [1, 2, 3], "std": 1}}},
        ["x: float32 [?, 2]"],
        ["inputs.x: standardize: mean has 3 values, but the rows are float32[2]"],
    ),
    "standardize of a scalar by a list": (
        {"x": F32},
        {"x": {"standardize": {"mean": 1, "std": [1, 2]}}},
        ["x: float32 [?]"],
        ["inputs.x: standardize: std has 2 values, but the rows are float32: give one number"],
    ),
    "standardized integers": (
        {"x": {"dtype": "int64"}},
        {"x": {"standardize": {"mean": 1, "std": 2}}},
        ["x: float32 [?]"],
        [],
    ),
    "open column packed": (
        {"x": vector(None)},
        {"x": {"pack": ["x"]}},
        ["x: float32 [?, ?]"],
        ["inputs.x: a column of open shape cannot be packed"],
    ),
    "optional without a default": (
        {"x": {"dtype": "float32", "required": False}},
        {},
        ["x: float32 [?]"],
        ["columns.x: it feeds the model and is required: false, so it needs a default"],
    ),
    "optional and not fed": ({"x": F32, "n": {"dtype": "float32", "required": False}}, {}, ["x: float32 [?]"], []),
    "no row dimension": (
        {"x": F32},
        {},
        ["x: float32"],
        ["input 'x' has no row dimension (float32): export a signature that takes batches"],
    ),
    "different fixed rows": (
        {"x": F32, "y": F32},
        {},
        ["x: float32 [8]", "y: float32 [16]"],
        ["signature 'serving_default' fixes different numbers of rows for its inputs"],
    ),
    "serialize into floats": (
        {"a": F32},
        {"x": {"serialize": ["a"]}},
        ["x: float32 [?]"],
        ["inputs.x: the model takes float32[?], but serialized tf.Examples are string[?]"],
    ),
    "serialize of uint64": (
        {"a": {"dtype": "uint64"}},
        {"x": {"serialize": ["a"]}},
        ["x: string [?]"],
        ["inputs.x: column 'a' is uint64, but a tf.Example has int64: declare it as int64"],
    ),
    "several at once": (
        {"a": {"dtype": "float64"}, "b": {"dtype": "string"}},
        {"q": {"column": "a"}},
        ["a: float32 [?]", "b: int64 [?]", "c: float32 [?]"],
        ["inputs.q: the model has", "column 'a' is float64", "column 'b' is string", "input 'c' has no column"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_inputs(case):
    columns, inputs, model_inputs, expected = CASES[case]
    found = problems(columns, inputs, model_inputs)
    assert len(found) == len(expected), found
    for text, part in zip(found, expected, strict=True):
        assert part in text


def test_what_a_function_makes_is_not_judged_before_it_runs():
    assert problems({"raw": {"dtype": "string"}}, {"x": {"pack": ["made"]}}, ["x: float32 [?, 3]"], free=True) == []
    assert problems({}, {"z": {"pack": ["made"]}}, ["x: float32 [?, 3]"], free=True)


OUTPUT_CASES = {
    "fits": ({"y": {"meaning": "probabilities", "labels": ["a", "b", "c"]}}, ["y: float32 [?, 3]"], []),
    "two labels of one probability": ({"y": {"meaning": "logits", "labels": ["n", "y"]}}, ["y: float16 [?, 1]"], []),
    "unknown": (
        {"yy": {}},
        ["y: float32 [?]"],
        ["outputs.yy: the model has no such output; did you mean 'y'?; it has y"],
    ),
    "labels": (
        {"y": {"meaning": "probabilities", "labels": ["a", "b"]}},
        ["y: float32 [?, 3]"],
        ["outputs.y: 2 labels for 3 classes (float32[?, 3])"],
    ),
    "top": ({"y": {"meaning": "logits", "top": 4}}, ["y: float32 [?, 3]"], ["outputs.y: top 4 of 3 classes"]),
    "top and threshold of one probability": (
        {"y": {"meaning": "logits", "top": 2, "threshold": 0.5}},
        ["y: float32 [?]"],
        ["outputs.y: threshold chooses one of the two classes"],
    ),
    "meaning of integers": (
        {"y": {"meaning": "logits"}},
        ["y: int64 [?, 3]"],
        ["outputs.y: meaning logits needs floats of shape [rows] or [rows, classes], but the output is int64[?, 3]"],
    ),
    "meaning of an open dimension": ({"y": {"meaning": "logits"}}, ["y: float32 [?, ?]"], ["needs floats of shape"]),
    "meaning of a matrix": ({"y": {"meaning": "logits"}}, ["y: float32 [?, 2, 2]"], ["needs floats of shape"]),
    "finite integers": ({"y": {"finite": True}}, ["y: int64 [?]"], ["outputs.y: finite is for floats"]),
    "unknown rank": (
        {},
        ["y: float32 [...]"],
        ["output 'y' is of unknown rank: set the shape of one row, as in outputs: {y: {shape: []}}"],
    ),
    "no rows": ({}, ["y: float32"], ["output 'y' has no row dimension (float32)"]),
    "a fixed number of rows": (
        {},
        ["y: float32 [4]"],
        ["output 'y' always has 4 rows (float32[4]): list the outputs"],
    ),
    "an unknown rank that is declared": ({"y": {"shape": [2, None]}}, ["y: float32 [...]"], []),
    "a shape that the signature has": ({"y": {"shape": [1]}}, ["y: float32 [?, 1]"], []),
    "a shape without its ones": ({"y": {"shape": []}}, ["y: float32 [?, 1, 1]"], []),
    "a shape for open dimensions": ({"y": {"shape": [4, None]}}, ["y: float32 [?, ?, ?]"], []),
    "another shape": (
        {"y": {"shape": [2]}},
        ["y: float32 [?, 3, 1]"],
        ["outputs.y: shape [2], but the output is float32[?, 3, 1]: expected [3], or leave shape out"],
    ),
    "a shape that drops what is not one": ({"y": {"shape": []}}, ["y: float32 [?, 3]"], ["expected [3], or leave"]),
    "a shape that opens what is fixed": ({"y": {"shape": [None]}}, ["y: float32 [?, 3]"], ["expected [3], or leave"]),
    "a rank too many": ({"y": {"shape": [3, 1]}}, ["y: float32 [?, 3]"], ["expected [3], or leave"]),
    "width 0": ({}, ["y: float32 [?, 2, 0]"], ["output 'y' never has a value (float32[?, 2, 0]): list the outputs"]),
    "complex numbers": ({}, ["y: complex64 [?]"], ["output 'y' is complex64: only numbers, bool and string"]),
    "complex numbers that are not asked for": ({"z": {}}, ["y: complex64 [?]", "z: int8 [?]"], []),
    "text of numbers": ({"y": {"dtype": "string"}}, ["y: int8 [?]"], ["outputs.y: dtype is for string outputs"]),
    "text": ({"y": {"dtype": "string"}}, ["y: string [?, 2]"], []),
    "a probability": ({"y": {"meaning": "probability", "labels": ["n", "y"]}}, ["y: float32 [?, 1]"], []),
    "a probability of several": (
        {"y": {"meaning": "probability"}},
        ["y: float32 [?, 3]"],
        ["outputs.y: meaning probability is for a single number per row, but the output is float32[?, 3]: use"],
    ),
    "a column of scores that a probability does not have": (
        {"y": {"meaning": "probability"}, "y_score": {}},
        ["y: float32 [?]", "y_score: float32 [?]"],
        [],
    ),
    "two outputs of one name": (
        {"y": {"as": "z"}, "z": {}},
        ["y: float32 [?]", "z: float32 [?]"],
        ["outputs.z: its column 'z' has the name of a column of output 'y': rename it with as: NAME"],
    ),
    "a name that meaning makes": (
        {"y": {"meaning": "logits"}, "y_class": {}},
        ["y: float32 [?, 3]", "y_class: float32 [?]"],
        ["outputs.y_class: its column 'y_class' has the name of a column of output 'y'"],
    ),
    "a kept column": (
        {},
        ["id: float32 [?]"],
        ["outputs.id: its column 'id' has the name of a kept column: rename it with as:"],
    ),
    "renamed": ({"id": {"as": "out"}}, ["id: float32 [?]"], []),
}


@pytest.mark.parametrize("case", OUTPUT_CASES)
def test_outputs(case):
    outputs, model_outputs, expected = OUTPUT_CASES[case]
    how = {name: Output.model_validate(o) for name, o in outputs.items()}
    model = signature(["x: float32 [?]"], model_outputs)
    found = bind_outputs(wanted_outputs(how, model), model, {"id": "a kept column"})
    assert len(found) == len(expected), found
    for text, part in zip(found, expected, strict=True):
        assert part in text


WRITTEN = {
    "a number a row": ("y: float32 [?, 1]", {}, [None]),
    "ones at the end": ("y: float32 [?, 3, 1, 1]", {}, [None, 3]),
    "ones elsewhere": ("y: float32 [?, 1, 3]", {}, [None, 1, 3]),
    "ones of a fixed batch of one": ("y: float32 [1, 1]", {}, [1]),
    "an open dimension": ("y: float32 [?, ?, 1]", {}, [None, None]),
    "as it is": ("y: float32 [?, 1]", {"shape": [1]}, [None, 1]),
    "declared": ("y: float32 [...]", {"shape": [2, None]}, [None, 2, None]),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_outputs_are_written_without_dimensions_of_one_at_the_end(case):
    output, how, expected = WRITTEN[case]
    model = signature(["x: float32 [?]"], [output])
    found = signature_as_written({"y": Output.model_validate(how)}, model)
    assert list(found.outputs["y"].shape) == expected and found.inputs == model.inputs
    assert as_written(model.outputs["y"], Output.model_validate(how)) == found.outputs["y"]


SETTINGS = {
    "two ways at once": ({"column": "a", "pack": ["b"]}, "an input has only one source, choose one"),
    "steps of a serialized one": ({"serialize": ["a"], "cast": "int8"}, "are passed unchanged, leave it out"),
    "pad of a record": ({"record": True, "pad": 0}, "are passed unchanged, leave it out"),
    "std of zero": ({"standardize": {"mean": 0, "std": [1, 0]}}, "std must be positive"),
    "std that is none": ({"standardize": {"mean": 0, "std": float("nan")}}, "std must be positive"),
    "endless mean": ({"standardize": {"mean": float("inf"), "std": 1}}, "mean must be finite"),
    "shape of nothing": ({"reshape": [0]}, "greater than 0"),
    "no columns": ({"pack": []}, "at least 1 item"),
    "labels without meaning": (None, "labels, top and threshold need a meaning"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_contradict_themselves(case):
    setting, expected = SETTINGS[case]
    with pytest.raises(ValueError, match=expected):
        Input.model_validate(setting) if setting is not None else Output.model_validate({"labels": ["a"]})


def test_the_launch_tells_everything_at_once(tmp_path, model):
    path = write(tmp_path, [{"id": 1, "x": [1, 2]}], "jsonl")
    job = {
        "input": {"files": str(path)},
        "model": {"path": model("echo")},
        "columns": {"id": {"dtype": "float64"}, "x": vector(2)},
        "inputs": {"z": {"column": "id"}, "x": {"record": True}},
        "outputs": {"out": {"as": "id"}, "nothing": {}},
        "output": {"path": str(tmp_path / "out"), "keep": ["id"]},
        "preprocess": "nowhere:f",
    }
    with pytest.raises(JobError) as found:
        prepare(parse_job(job))
    text = str(found.value)
    for part in (
        "inputs.z: the model has no such input",
        "inputs.x.record: the format is jsonl",
        "serialized tf.Examples are string[?]",
        "outputs.out: its column 'id' has the name of a kept column",
        "outputs.nothing: the model has no such output",
        "preprocess 'nowhere:f' cannot be imported",
    ):
        assert part in text
    assert len(found.value.problems) == 6, found.value.problems
    job |= {"inputs": {}, "outputs": {}, "preprocess": None}
    with pytest.raises(JobError) as found:
        prepare(parse_job(job))
    assert [p.split(":")[0] for p in found.value.problems] == [
        "input 'id' is int64, but column 'id' is float64",
        "input 'x' is float32[?, 3], but its rows have shape [2]",
    ]


def test_a_function_gives_what_fits_in_any_plain_form(tmp_path, model, monkeypatch):
    (tmp_path / "large_types.py").write_text(
        "import pyarrow as pa\n"
        "def f(rows):\n"
        "    return pa.record_batch({'text': rows['text'].cast(pa.large_string()).dictionary_encode()})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"text": t} for t in ("a", "bb", "a")]
    scored = score(tmp_path, model("strings"), rows, columns={"text": {"dtype": "string"}}, preprocess="large_types:f")
    assert scored.column("length") == [1, 2, 1]


@pytest.mark.parametrize(("workers", "threads", "expected"), [(1, "auto", None), (4096, "auto", 1), (2, 3, 3)])
def test_threads_of_an_op_are_the_cores_that_no_worker_has(tmp_path, model, workers, threads, expected):
    from beam_score.runners.settings.layout import available_cores

    path = write(tmp_path, [{"x": 1.0}], "jsonl")
    job = parse_job(
        {
            "input": {"files": str(path)},
            "model": {"path": model("nan_out")},
            "columns": {"x": F32},
            "output": {"path": str(tmp_path / "out")},
            "engine": {"workers": workers, "intra_op_threads": threads},
        }
    )
    assert prepare(job).steps.call.intra_op_threads == (expected or available_cores())


def test_parts_of_a_job_travel_to_workers(model):
    """What the chain is told is pickled by Beam."""
    from apache_beam.internal import pickler

    from beam_score.transforms.contract.outputs import OutputPlan
    from beam_score.transforms.model.call import ModelCall
    from beam_score.transforms.model.signature import read_signatures
    from beam_score.transforms.steps.infer import BeamScorer

    found = read_signatures(model("several_outputs"))["serving_default"]
    plan = OutputPlan((pa.field("id", pa.int64()),), True, {"label": Output.model_validate({"as": "l"})}, found.outputs)
    call = ModelCall("p", found, ("label",), pads={"x": 0})
    for thing in (plan, call):
        assert pickler.loads(pickler.dumps(thing)) == thing
    assert pickler.loads(pickler.dumps(BeamScorer(call))).scorer.call == call
    assert pickler.loads(pickler.dumps(plan)).schema == plan.schema
    assert np.dtype(plan.schema.field("l").type.to_pandas_dtype()) == object
