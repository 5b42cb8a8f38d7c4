"""A row that the model or the user's function cannot take is refused alone, whatever its neighbours;
and what no row gets through fails the job, soon and with a reason."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap

import models
import numpy as np
import pyarrow as pa
import pytest
from scoring import Counting, score

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process.errors import explain
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.servable import Servable, import_tensorflow
from beam_score.transforms.model.signature import read_signatures
from beam_score.transforms.rows.block import INPUT, ROW, Block
from beam_score.transforms.rows.redact import model_error, raised_at, without_values
from beam_score.transforms.scoring.halving import MAX_FIRST_FAILURES, Attempts, EveryRowFails, halve
from beam_score.transforms.steps.infer import BeamScorer

VECTOR = {"x": {"dtype": "float32", "shape": [3]}}
NUMBER = {"x": {"dtype": "float32"}}
BATCH = 256
POISONED = "InvalidArgumentError in op Assert (node Assert/AssertGuard/Assert)"


def vectors(count, poisoned=()):
    return [{"x": [2 * models.POISON if i in poisoned else 1.0, float(i), 0.5]} for i in range(count)]


# --- the model ---


@pytest.mark.parametrize("poisoned", [[100], [0], [BATCH - 1]])
def test_a_poison_row_in_a_full_batch(tmp_path, model, poisoned):
    scored = score(tmp_path, model("poison"), vectors(BATCH, poisoned), columns=VECTOR, model={"batch_rows": BATCH})
    assert scored.reasons == {poisoned[0]: "model_error"}
    good = [i for i in range(BATCH) if i not in poisoned]
    assert scored.column("row") == good
    np.testing.assert_allclose(scored.column("y"), [1.5 + i for i in good])
    assert scored.manifest["timings"]["model_calls"] == 1 + 2 * math.log2(BATCH)


def test_several_poison_rows_in_several_batches(tmp_path, model):
    poisoned = [3, 4, 255, 256, 700, 999]
    scored = score(tmp_path, model("poison"), vectors(1000, poisoned), columns=VECTOR, model={"batch_rows": BATCH})
    assert scored.reasons == dict.fromkeys(poisoned, "model_error")
    assert scored.column("row") == [i for i in range(1000) if i not in poisoned]
    np.testing.assert_allclose(scored.column("y"), [1.5 + i for i in scored.column("row")])


def test_a_dead_letter_names_the_op_that_raised_and_no_word_of_the_model(tmp_path, model):
    scored = score(tmp_path / "none", model("poison"), vectors(10, [7]), columns=VECTOR)
    (letter,) = scored.rejected
    assert letter["stage"] == "infer" and letter["reason"] == "model_error"
    assert letter["message"] == f"the model failed on this row: {POISONED}"
    assert "2000000" in str(letter["payload"])
    full = score(
        tmp_path / "full", model("poison"), vectors(10, [7]), columns=VECTOR, rejects={"model_messages": "full"}
    )
    assert full.rejected[0]["message"] == letter["message"] + ", it said: assertion failed: [poisoned] [2e+06]"
    assert full.manifest["fingerprint"]["payload"] != scored.manifest["fingerprint"]["payload"]


def test_what_xla_would_let_pass_is_not_given_to_xla(tmp_path, model):
    # XLA drops assertions: the poison row would be predicted.
    servable = Servable.load(model("poison"))
    x = np.full((4, 3), 2 * models.POISON, np.float32)
    with pytest.raises(import_tensorflow().errors.InvalidArgumentError):
        servable.call({"x": x})
    assert len(servable.call_compiled({"x": x})["y"]) == 4
    rows = vectors(BATCH, [9])
    with pytest.raises(JobError, match=r"engine.xla is on, and it never raises on a bad row, as Assert"):
        score(tmp_path / "on", model("poison"), rows, columns=VECTOR, engine={"xla": "on"})
    for xla in ("auto", "off"):  # what was the default once is off
        scored = score(tmp_path / xla, model("poison"), rows, columns=VECTOR, engine={"xla": xla})
        assert scored.reasons == {9: "model_error"} and scored.manifest["engine"]["xla"] is False


def test_xla_and_tensorflow_refuse_the_same_rows_and_predict_the_rest_alike(tmp_path, model):
    rows = [{"x": v} for v in [1.0, 2.0, "bad", 4.0] * 100]
    found = {}
    for xla in ("on", "off"):
        scored = score(
            tmp_path / xla, model("nan_out"), rows, columns=NUMBER, model={"batch_rows": 64}, engine={"xla": xla}
        )
        assert scored.manifest["engine"]["xla"] == (xla == "on")
        found[xla] = scored
    assert found["on"].reasons == found["off"].reasons
    np.testing.assert_allclose(found["on"].column("y"), found["off"].column("y"), rtol=1e-6)


def test_rows_that_the_model_does_not_answer(tmp_path, model):
    values = [float(i) if i % 10 else -1.0 for i in range(BATCH)]
    scored = score(tmp_path, model("short"), [{"x": v} for v in values], columns=NUMBER, model={"batch_rows": 64})
    assert scored.reasons == {i: "model_error" for i, v in enumerate(values) if v < 0}
    assert scored.column("y") == [2 * v for v in values if v >= 0]
    assert "output 'y' has 0 rows, but the batch has 1" in scored.rejected[0]["message"]


def test_a_model_that_no_row_gets_through_is_found_at_launch(tmp_path, model):
    expected = f"fails on every row .* first: the model failed on this row: {re.escape(POISONED)}$"
    with pytest.raises(JobError, match=expected):
        score(tmp_path, model("poison"), vectors(1000, range(1000)), columns=VECTOR)
    assert not list(tmp_path.glob("out/predictions/*"))


def test_a_model_that_no_row_of_a_few_gets_through_is_found_at_launch(tmp_path, model):
    with pytest.raises(JobError, match=r"fails on all 3 rows that it was tried on; first: the model failed"):
        score(tmp_path, model("poison"), vectors(3, range(3)), columns=VECTOR)


def test_no_row_getting_through_later_fails_the_job_after_a_bounded_number_of_tries(tmp_path, model):
    # The launch tries the first rows; these are refused before they reach the model.
    handler, blocks = handled(model("poison"), np.full((4096, 3), 2 * models.POISON, np.float32), 1024)
    servable = Counting(handler.load_model())
    with pytest.raises(
        EveryRowFails, match=rf"{MAX_FIRST_FAILURES} single rows failed .* first: .*{re.escape(POISONED)}$"
    ):
        handler.run_inference(blocks, servable)
    assert len(servable.rows) < 4 * MAX_FIRST_FAILURES
    code, sentences = explain(EveryRowFails("32 single rows failed"))
    assert code == 1 and sentences == ["32 single rows failed"]


def test_a_batch_too_large_for_memory_is_halved_and_the_size_that_fits_is_remembered(model):
    class Small:
        """A model with memory for 1,024 rows."""

        rows: list[int] = []  # noqa: RUF012

        def call(self, feeds, deadline_s=None):
            self.rows.append(len(feeds["x"]))
            if len(feeds["x"]) > 1024:
                raise import_tensorflow().errors.ResourceExhaustedError(None, None, "OOM")
            return {"y": feeds["x"]}

    x = np.arange(20_000, dtype=np.float32)
    handler, blocks = handled(model("oom"), x, 8192)
    (block,) = handler.run_inference(blocks, Small())
    assert block.rows["output/y"].to_numpy().tolist() == x.tolist()
    # 8192, 4096, 2048 do not fit; 1024 does, and is what it goes on with.
    assert Small.rows[:4] == [8192, 4096, 2048, 1024]
    assert max(Small.rows[15:]) == 1024
    assert len(Small.rows) <= 15 + math.ceil(20_000 / 1024)


def test_a_job_with_too_large_batches_runs(tmp_path, model):
    # TensorFlow waits 10 s for memory before it gives up: once here, at the warm-up.
    rows = pa.table({"x": np.arange(6000, dtype=np.float32)})
    batch = {"batch_rows": 2 * models.OOM_ROWS}
    scored = score(tmp_path, model("oom"), rows, "parquet", columns=NUMBER, model=batch)
    assert scored.column("y") == list(range(6000)) and not scored.rejected


def test_a_single_row_too_large_for_memory_is_that_rows_fault_and_slows_no_other(model):
    class Greedy:
        """A model that runs out of memory on one value, however few rows."""

        rows: list[int] = []  # noqa: RUF012

        def call(self, feeds, deadline_s=None):
            self.rows.append(len(feeds["x"]))
            if (feeds["x"] == 77).any():
                raise import_tensorflow().errors.ResourceExhaustedError(None, None, "OOM when allocating tensor 12345")
            return {"y": feeds["x"]}

        def nodes(self):
            return {}

    handler, blocks = handled(model("oom"), np.arange(4096, dtype=np.float32), 1024)
    (block,) = handler.run_inference(blocks, Greedy())
    assert block.rejected["row"].to_pylist() == [77]
    assert block.rejected["message"].to_pylist() == ["the model failed on this row: ResourceExhaustedError"]
    assert block.rows["output/y"].to_numpy().tolist() == [v for v in range(4096) if v != 77]
    assert Greedy.rows[-1] >= 512


def test_a_model_that_answers_in_another_dtype_or_shape_is_no_rows_fault(model):
    for answer in (np.zeros(4, np.float64), np.zeros((4, 2), np.float32), np.float32(1)):

        class Odd:
            def call(self, feeds, deadline_s=None, answer=answer):
                return {"y": answer[: len(feeds["x"])] if answer.ndim else answer}

        handler, blocks = handled(model("oom"), np.zeros(64, np.float32), 64)
        with pytest.raises(EveryRowFails, match="output 'y'"):
            handler.run_inference(blocks, Odd())


def test_what_xla_raises_on_is_asked_of_tensorflow(model):
    class Halfway:
        """A model that XLA cannot run, and that has one bad row."""

        compiled: list[int] = []  # noqa: RUF012
        plain: list[int] = []  # noqa: RUF012

        def call_compiled(self, feeds, deadline_s=None):
            self.compiled.append(len(feeds["x"]))
            raise import_tensorflow().errors.InvalidArgumentError(None, None, "XLA cannot")

        def call(self, feeds, deadline_s=None):
            self.plain.append(len(feeds["x"]))
            if (feeds["x"] == 5).any():
                raise ValueError("bad")
            return {"y": feeds["x"]}

    handler, blocks = handled(model("oom"), np.arange(100, dtype=np.float32), 64, compiled=True)
    (block,) = handler.run_inference(blocks, Halfway())
    assert block.rejected["row"].to_pylist() == [5]
    assert block.rows["output/y"].to_pylist() == [v for v in range(100) if v != 5]
    # Two shapes only are ever compiled; halves are not.
    assert Halfway.compiled == [64, 8, 8, 8, 8, 8]
    assert Halfway.plain[:3] == [64, 32, 16]


def handled(path, x, batch_rows, blocks=1, compiled=False):
    """A handler, and blocks with the feeds `x`."""
    signature = read_signatures(path)["serving_default"]
    call = ModelCall(path, signature, tuple(signature.outputs), batch_rows=batch_rows, compiled=compiled)
    handler = BeamScorer(call)
    column = pa.array(x) if x.ndim == 1 else pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    rows = pa.RecordBatch.from_pydict({ROW: pa.array(np.arange(len(x))), INPUT + "x": column})
    size = -(-len(x) // blocks)
    return handler, [Block(0, "a", i, "f", rows.slice(i * size, size)) for i in range(blocks)]


def test_blocks_of_one_group_get_their_own_rows_back(model):
    x = np.zeros((1000, 3), np.float32)
    x[:, 1] = np.arange(1000)
    x[[5, 400, 401, 999], 0] = 2 * models.POISON
    handler, blocks = handled(model("poison"), x, 256, blocks=4)
    empty = dataclasses.replace(blocks[0], rows=blocks[0].rows.slice(0, 0).append_column("other", pa.nulls(0)), seq=9)
    done = handler.run_inference([*blocks[:2], empty, *blocks[2:]], handler.load_model())
    assert [b.seq for b in done] == [0, 1, 9, 2, 3]
    assert [b.rejected["row"].to_pylist() for b in done] == [[5], [400, 401], [], [], [999]]
    for block in done:
        assert block.rows["output/y"].to_pylist() == block.rows[ROW].to_pylist()
    assert handler.run_inference([], None) == []


# --- the user's function ---


@pytest.fixture
def function(tmp_path, monkeypatch, request):
    """`function(text)` makes a module of it; returns `module:f`."""

    def write(text):
        name = "own_" + request.node.name.replace("[", "_").replace("]", "_").replace("-", "_")
        (tmp_path / f"{name}.py").write_text("import pyarrow as pa\nimport numpy as np\n" + textwrap.dedent(text))
        monkeypatch.syspath_prepend(str(tmp_path))
        return f"{name}:f"

    return write


TEXT = {"x": {"dtype": "string"}, "id": {"dtype": "int64"}}


def test_a_row_that_the_function_raises_on(tmp_path, model, function):
    name = function("""
        def f(rows):
            x = [float(v.as_py()) for v in rows["x"]]
            return pa.RecordBatch.from_pydict({"x": pa.array(x, pa.float32())})
    """)
    rows = [{"id": i, "x": "sec ret" if i in (3, 150) else str(i + 1)} for i in range(200)]
    scored = score(
        tmp_path,
        model("nan_out"),
        rows,
        columns=TEXT,
        preprocess=name,
        output={"path": str(tmp_path / "out"), "keep": ["id", "x"], "position": True},
    )
    assert scored.reasons == {3: "preprocess_error", 150: "preprocess_error"}
    np.testing.assert_allclose(scored.column("y"), np.log([i + 1 for i in range(200) if i not in (3, 150)]), atol=1e-6)
    # What the function dropped or changed is kept as it was read.
    assert scored.column("id") == [i for i in range(200) if i not in (3, 150)]
    assert scored.column("x")[0] == "1"
    message = scored.rejected[0]["message"]
    assert "raised ValueError on this row at" in message and "sec" not in message and message.endswith(".py:5")


def test_columns_that_the_function_makes_feed_the_model(tmp_path, model, function):
    name = function("""
        def f(rows):
            t = rows["t"].to_numpy()
            wave = np.stack([np.sin(t), np.cos(t), t], axis=1).astype("float32")
            return rows.append_column("wave", pa.FixedSizeListArray.from_arrays(pa.array(wave.reshape(-1)), 3))
    """)
    t = np.arange(30) / 7
    scored = score(
        tmp_path,
        model("echo"),
        [{"id": i, "t": v} for i, v in enumerate(t.tolist())],
        columns={"id": {"dtype": "int64"}, "t": {"dtype": "float64"}},
        preprocess=name,
        inputs={"x": {"column": "wave"}},
    )
    np.testing.assert_allclose(scored.column("y"), np.stack([np.sin(t), np.cos(t), t], axis=1), rtol=1e-6)


def test_a_function_sees_columns_and_nothing_of_the_machinery(tmp_path, model, function):
    name = function("""
        def f(rows):
            assert rows.schema.names == ["age"], rows.schema.names
            return rows
    """)
    rows = [{"x": [1.0, 2.0, 3.0], "age": i} for i in range(5)]
    scored = score(
        tmp_path,
        model("examples"),
        rows,
        "tfrecord",
        columns={"age": {"dtype": "int64"}},
        preprocess=name,
        inputs={"examples": {"record": True}},
    )
    assert scored.column("total") == [6] * 5


def test_a_function_that_raises_on_every_row_is_found_at_launch(tmp_path, model, function):
    name = function("""
        def f(rows):
            raise RuntimeError("password 123")
    """)
    with pytest.raises(JobError) as found:
        score(tmp_path, model("nan_out"), [{"x": "1", "id": 1}] * 100, columns=TEXT, preprocess=name)
    assert "raised RuntimeError" in str(found.value) and "password" not in str(found.value)


BROKEN = {
    "fewer rows": ("return rows.slice(1)", "was given 20 rows and returned 19: it must return one row for each row"),
    "more rows": ("return pa.concat_batches([rows, rows])", "was given 20 rows and returned 40"),
    "a dict": ("return rows.to_pydict()", "returned dict, expected a pyarrow.RecordBatch"),
    "a table": ("return pa.table(rows)", "returned Table, expected a pyarrow.RecordBatch"),
    "a dropped column": ("return rows.select(['id'])", "it does not return column 'x', which input 'x' is made from"),
    "another dtype": (
        "return pa.record_batch({'x': pa.array([1.0] * len(rows))})",
        "column 'x' is float64: return it as float32, or use cast: float32",
    ),
    "another shape": (
        "return pa.record_batch({'x': pa.array([[1.0]] * len(rows), pa.list_(pa.float32(), 1))})",
        "rows have shape [1]",
    ),
    "a date": (
        "return pa.record_batch({'x': pa.array([0] * len(rows), pa.date32())})",
        "column 'x' is date32[day]: return numbers",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_function_that_breaks_its_promise_is_found_at_launch(tmp_path, model, function, case):
    body, expected = BROKEN[case]
    name = function(f"""
        def f(rows):
            {body}
    """)
    with pytest.raises(JobError) as found:
        score(tmp_path, model("nan_out"), [{"x": "1", "id": i} for i in range(20)], columns=TEXT, preprocess=name)
    assert expected in str(found.value)


def test_a_function_that_breaks_its_promise_later_fails_the_job(tmp_path, model, function):
    name = function("""
        def f(rows):
            rows = rows.slice(0, rows.num_rows - (rows["id"][0].as_py() >= 1500))
            return pa.record_batch({"x": pa.array(np.ones(len(rows), "float32"))})
    """)
    rows = [{"x": "1", "id": i} for i in range(4000)]
    with pytest.raises(Exception, match="it must return one row for each row") as found:
        score(tmp_path, model("nan_out"), rows, columns=TEXT, preprocess=name, engine={"block_bytes": 4096})
    code, sentences = explain(found.value)
    assert code == 1 and "it must return one row for each row" in sentences[0]
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_what_the_function_leaves_null_or_not_finite_costs_that_row(tmp_path, model, function):
    name = function("""
        @np.errstate(all="ignore")
        def f(rows):
            x = np.log(rows["x"].to_numpy())
            x = pa.array(x.astype("float32"), mask=rows["id"].to_numpy() == 2)
            return rows.set_column(0, "x", x)
    """)
    rows = [{"x": v, "id": i} for i, v in enumerate([1.0, 0.0, 3.0, -1.0, 5.0])]
    scored = score(
        tmp_path,
        model("nan_out"),
        rows,
        columns={"x": {"dtype": "float64"}, "id": {"dtype": "int64"}},
        preprocess=name,
    )
    assert scored.reasons == {1: "not_finite", 2: "missing_value", 3: "not_finite"}
    assert {r["stage"] for r in scored.rejected} == {"preprocess"}
    np.testing.assert_allclose(scored.column("y"), [-np.inf, np.log(np.log(5.0))], rtol=1e-5)


def test_blocks_without_a_good_row_pass_through_a_function(tmp_path, model, function):
    name = function("""
        def f(rows):
            assert rows.num_rows
            return pa.record_batch({"made": rows["x"]})
    """)
    rows = [{"x": 1.0}] + [{"x": "bad"}] * 500 + [{"x": 2.0}]
    scored = score(
        tmp_path,
        model("nan_out"),
        rows,
        columns=NUMBER,
        preprocess=name,
        inputs={"x": {"column": "made"}},
        engine={"block_bytes": 1024},
    )
    assert scored.column("row") == [0, 501] and len(scored.rejected) == 500


@pytest.mark.parametrize("name", ["nowhere", "no_such_module:f", "math:no_such_function", "math:pi"])
def test_a_function_that_is_not_there_is_found_at_launch(tmp_path, model, name):
    with pytest.raises(JobError, match="preprocess '"):
        score(tmp_path, model("nan_out"), [{"x": 1.0}], columns=NUMBER, preprocess=name)


def test_steps_that_leave_the_floats_cost_the_row(tmp_path, model):
    rows = [{"x": [1e38, 0, 0]}, {"x": [1, 2, 3]}]
    scored = score(
        tmp_path, model("poison"), rows, columns=VECTOR, inputs={"x": {"standardize": {"mean": 0, "std": [1e-3, 1, 1]}}}
    )
    assert scored.reasons == {0: "not_finite"}
    assert "check its steps" in scored.rejected[0]["message"]


def test_lists_of_different_lengths_inside_a_row(tmp_path, model):
    rows = [{"x": [[1, 2], [3, 4]]}, {"x": [[1, 2], [3]]}, {"x": [[5, 6, 7]]}]
    spec = {"x": {"dtype": "float32", "shape": [None, None]}}
    scored = score(tmp_path / "dense", model("unknown_rank"), rows, columns=spec)
    assert scored.reasons == {1: "wrong_shape"} and scored.column("total") == [10, 18]
    padded = score(tmp_path / "padded", model("unknown_rank"), rows, columns=spec, inputs={"x": {"pad": 0}})
    assert padded.column("total") == [10, 6, 18]


# --- messages ---


# What models say of a row, and what must not be repeated of it.
SAID = {
    "customer_8812345": "StringToNumberOp could not correctly convert string: customer_8812345",
    "id8812345": "key id8812345 is not in the table",
    "CH93 0076 2011 6238 5295 7": "no account CH93 0076 2011 6238 5295 7",
    "8812345": "assertion failed: [x is above] [8.81e+06]",
    "jane": "shouted JANE, or [[{{node JANE}}]], or {{node 8812345}}",
    "": "'' is empty",
}
FRAME = (
    "Graph execution error:\n\nDetected at node cond/Assert defined at\n{}\n\t [[{{{{node cond/Assert}}}}]] [Op:f_1]"
)


@pytest.mark.parametrize("value", SAID)
def test_of_a_models_error_only_code_and_op_are_repeated(value):
    tf = import_tensorflow()
    nodes = {"cond/Assert": "Assert", "Assert": "Other", "x": "Placeholder"}
    framed = tf.errors.InvalidArgumentError(None, None, FRAME.format(SAID[value]))
    assert model_error(framed, nodes) == "InvalidArgumentError in op Assert (node cond/Assert)"
    assert model_error(tf.errors.OutOfRangeError(None, None, SAID[value]), nodes) == "OutOfRangeError"
    assert model_error(ValueError(SAID[value]), nodes) == "ValueError"
    said = model_error(framed, nodes, full=True)
    begin, _, text = said.partition(", it said: ")
    assert begin == "InvalidArgumentError in op Assert (node cond/Assert)" and text and text[:12] in SAID[value]
    assert without_values(f"the model failed on this row: {said}") == (
        "the model failed on this row: InvalidArgumentError in op Assert (node cond/Assert)"
    )
    assert len(model_error(ValueError(1000 * "long "), nodes, full=True)) < 600


def test_a_node_inside_of_functions_is_found_by_its_own_name():
    error = import_tensorflow().errors.InvalidArgumentError(None, None, "bad [[{{node call/while/body/Sqrt_1}}]]")
    assert model_error(error, {"Sqrt_1": "Sqrt", "while": "While"}) == "InvalidArgumentError in op Sqrt (node Sqrt_1)"


def test_an_exception_of_a_function_is_placed_in_the_users_own_module():
    def own(value):
        return textwrap.dedent(value)  # raises inside of a library

    with pytest.raises(TypeError) as raised:
        own(8812345)
    line = own.__code__.co_firstlineno + 1
    assert raised_at(raised.value, __name__) == f"{__file__}:{line}"
    assert raised_at(raised.value, "elsewhere").startswith(textwrap.__file__)
    assert raised_at(ValueError("never raised"), __name__) is None


# --- halving ---


@pytest.mark.parametrize("bad", [[], [0], [7], [0, 7], [3, 4], list(range(1, 8))])
@pytest.mark.parametrize("size", [8, 9, 13])
def test_halving_finds_exactly_the_bad_rows(bad, size):
    seen = []

    def call(start, stop):
        if any(start <= b < stop for b in bad):
            raise ValueError(start, stop)
        seen.append((start, stop))
        return list(range(start, stop))

    good, failed = halve(size, call, Attempts(), lambda row, error: f"{row} {error.args}")
    assert [row for row, _ in failed] == bad
    assert all(text == f"{row} ({row}, {row + 1})" for row, text in failed)
    assert [r for *_, rows in good for r in rows] == [r for r in range(size) if r not in bad]
    assert halve(0, call, Attempts(), str) == ([], [])
