"""Small real SavedModels, one function each: `NAME(folder)` writes the model and returns the folder.

TensorFlow is imported on the first call. Weights are seeded: the same model every time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beam_score.transforms.model.servable import import_tensorflow

POISON = 1e6
"""`poison` raises on a batch that contains a value above this."""

OOM_ROWS = 1024
"""`oom` runs out of memory on a batch with more rows than this."""


def echo(folder: Path) -> Path:
    """Id int64[?] -> out; x float32[?, 3] -> y: the inputs under other names."""
    tf = import_tensorflow()

    def call(id, x):
        return {"out": tf.identity(id), "y": tf.identity(x)}

    return _save(folder, {"serving_default": (call, {"id": _spec([None], "int64"), "x": _spec([None, 3])})})


def doubled(folder: Path) -> Path:
    """Id int64[?] -> out; x float32[?, 3] -> y: the inputs doubled."""

    def call(id, x):
        return {"out": 2 * id, "y": 2.0 * x}

    return _save(folder, {"serving_default": (call, {"id": _spec([None], "int64"), "x": _spec([None, 3])})})


def scaled(folder: Path, factor: float = 1.0) -> Path:
    """X float32[?] -> y float32[?]: the input times a variable."""
    tf = import_tensorflow()
    weight = tf.Variable(factor)

    def call(x):
        return {"y": weight * x}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})}, [weight])


def scaled_but_fails(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same: raises on any value above zero."""
    tf = import_tensorflow()
    weight = tf.Variable(1.0)

    def call(x):
        with tf.control_dependencies([tf.debugging.assert_non_positive(x)]):
            return {"y": weight * x}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})}, [weight])


def multiply(folder: Path) -> Path:
    """Inputs float32[?, 3] -> probabilities float32[?, 1]: a fixed linear layer and a sigmoid."""
    tf = import_tensorflow()
    weights, bias = tf.Variable([[0.8], [-0.5], [1.2]]), tf.Variable([0.1])

    def call(inputs):
        return {"probabilities": tf.sigmoid(inputs @ weights + bias)}

    return _save(folder, {"serving_default": (call, {"inputs": _spec([None, 3])})}, [weights, bias])


def dense(folder: Path) -> Path:
    """Inputs float32[?, 3] -> probabilities float32[?, 1]: layers of 64, 32 and 1; 4.5 kFLOP per row."""
    return _dense(folder, (3, 64, 32, 1))


def heavy(folder: Path) -> Path:
    """As `dense`, with a hundred times the work per row: layers of 512, 440 and 1."""
    return _dense(folder, (3, 512, 440, 1))


def several_inputs(folder: Path) -> Path:
    """age, income, score float32[?] each -> risk float32[?] in 0..1."""
    tf = import_tensorflow()

    def call(age, income, score):
        return {"risk": tf.sigmoid(0.05 * (age - 40.0) - 2e-5 * (income - 5e4) + 3.0 * (score - 0.5))}

    names = ("age", "income", "score")
    return _save(folder, {"serving_default": (call, {name: _spec([None]) for name in names})})


def strings(folder: Path) -> Path:
    """Text string[?] -> length int64[?] in bytes, upper string[?]."""
    tf = import_tensorflow()

    def call(text):
        return {"length": tf.cast(tf.strings.length(text), tf.int64), "upper": tf.strings.upper(text)}

    return _save(folder, {"serving_default": (call, {"text": _spec([None], "string")})})


def vectors(folder: Path) -> Path:
    """Embedding float32[?, 4] -> logits float32[?, 2]."""
    tf = import_tensorflow()
    weights = tf.Variable([[1.0, -1.0], [0.5, 0.25], [-2.0, 1.5], [0.0, 3.0]])

    def call(embedding):
        return {"logits": embedding @ weights}

    return _save(folder, {"serving_default": (call, {"embedding": _spec([None, 4])})}, [weights])


def nested(folder: Path) -> Path:
    """Grid float32[?, 2, 3] -> total float32[?]: a weighted sum with a different weight for every position."""
    tf = import_tensorflow()

    def call(grid):
        return {"total": tf.reduce_sum(grid * [[1.0, 10.0, 100.0], [1e3, 1e4, 1e5]], axis=[1, 2])}

    return _save(folder, {"serving_default": (call, {"grid": _spec([None, 2, 3])})})


def several_outputs(folder: Path) -> Path:
    """X float32[?, 3] -> logits float32[?, 3], label string[?], embedding float32[?, 8]."""
    tf = import_tensorflow()
    weights = tf.Variable(_weights(1, 3, 8))

    def call(x):
        label = tf.gather(["red", "green", "blue"], tf.argmax(x, axis=1))
        return {"logits": x * 2.0, "label": label, "embedding": x @ weights}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, 3])})}, [weights])


def odd_names(folder: Path) -> Path:
    """'my input:0-x', '2nd' float32[?] -> 'out/1: %' = 2 * first + second: a TensorFlow 1 model."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        first, second = (v1.placeholder(tf.float32, [None], name=n) for n in ("first", "second"))
        weight = v1.get_variable("weight", initializer=2.0)
        output = first * weight + second
        session.run(v1.global_variables_initializer())

        def info(tensor):
            return v1.saved_model.build_tensor_info(tensor)

        signature = v1.saved_model.build_signature_def(
            {"my input:0-x": info(first), "2nd": info(second)}, {"out/1: %": info(output)}, "tensorflow/serving/predict"
        )
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    return folder


def poison(folder: Path) -> Path:
    """X float32[?, 3] -> y float32[?], their sum; raises when any value is above POISON."""
    tf = import_tensorflow()

    def call(x):
        above = tf.reduce_any(x > POISON)
        with tf.control_dependencies([tf.debugging.Assert(~above, ["poisoned", tf.reduce_max(x)])]):
            return {"y": tf.reduce_sum(x, axis=1)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, 3])})})


def echo_and_multiply(folder: Path) -> Path:
    """Id int64[?] -> out; x float32[?, 3] -> y: the inputs; -> p float32[?]: a product and a sigmoid. Raises if any
    value is above POISON."""
    tf = import_tensorflow()
    weights = tf.Variable(_weights(1, 3, 1))

    def call(id, x):
        above = tf.reduce_any(x > POISON)
        with tf.control_dependencies([tf.debugging.Assert(~above, ["poisoned"])]):
            return {"out": tf.identity(id), "y": tf.identity(x), "p": tf.sigmoid(0.01 * x @ weights)[:, 0]}

    specs = {"id": _spec([None], "int64"), "x": _spec([None, 3])}
    return _save(folder, {"serving_default": (call, specs)}, [weights])


def hangs(folder: Path) -> Path:
    """Inputs float32[?, 3] -> probabilities float32[?, 1]; never answers when any value is above POISON."""
    tf = import_tensorflow()

    def call(inputs):
        above = tf.reduce_any(inputs > POISON)
        rounds = tf.while_loop(lambda i: above | (i < 1), lambda i: (tf.where(above, i, i + 1),), [tf.constant(0)])[0]
        return {"probabilities": tf.sigmoid(inputs[:, :1]) * tf.cast(rounds, tf.float32)}

    return _save(folder, {"serving_default": (call, {"inputs": _spec([None, 3])})})


def aborts(folder: Path) -> Path:
    """Inputs float32[?, 3] -> probabilities float32[?, 1]; ends the process by SIGABRT when any value is above POISON,
    and by exit(0) when any is below -POISON."""
    tf = import_tensorflow()

    def end(quietly):
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="on purpose", exit_without_error=quietly)]):
            return tf.constant(0.0)

    def call(inputs):
        zero = tf.cond(tf.reduce_any(inputs > POISON), lambda: end(False), lambda: tf.constant(0.0))
        zero += tf.cond(tf.reduce_any(inputs < -POISON), lambda: end(True), lambda: tf.constant(0.0))
        return {"probabilities": tf.sigmoid(inputs[:, :1]) + zero}

    return _save(folder, {"serving_default": (call, {"inputs": _spec([None, 3])})})


def short(folder: Path) -> Path:
    """X float32[?] -> y float32[?], twice x, only for the rows with x >= 0: the other rows are missing."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.boolean_mask(x, x >= 0) * 2.0}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def fixed_batch(folder: Path) -> Path:
    """X float32[16, 3] -> y float32[16], their sum: takes exactly 16 rows."""
    tf = import_tensorflow()

    # A product with a 16 by 16 matrix: TensorFlow does not check static shapes at the call.
    identity = tf.Variable(np.eye(16, dtype=np.float32))

    def call(x):
        return {"y": tf.reduce_sum(identity @ x, axis=1)}

    return _save(folder, {"serving_default": (call, {"x": _spec([16, 3])})}, [identity])


def open_inner(folder: Path) -> Path:
    """X float32[?, ?] -> mean float32[?] over any number of values per row."""
    tf = import_tensorflow()

    def call(x):
        return {"mean": tf.reduce_mean(x, axis=1)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, None])})})


def unknown_rank(folder: Path) -> Path:
    """X float32 of unknown rank -> total float32[?]: the sum of each row, for any shape."""
    tf = import_tensorflow()

    def call(x):
        return {"total": tf.reduce_sum(tf.reshape(x, [tf.shape(x)[0], -1]), axis=1)}

    return _save(folder, {"serving_default": (call, {"x": _spec(None)})})


def no_row_dimension(folder: Path) -> Path:
    """X float32[?] -> y float32[?], and total float32: one number for the whole batch."""
    tf = import_tensorflow()

    def call(x):
        return {"y": x + 1.0, "total": tf.reduce_sum(x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def bfloat16_out(folder: Path) -> Path:
    """X float32[?, 3] -> y bfloat16[?, 3]: x rounded to 8 bits of mantissa."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.cast(x, tf.bfloat16)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, 3])})})


def bfloat16_in(folder: Path) -> Path:
    """X bfloat16[?] -> y float32[?], the same."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.cast(x, tf.float32)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None], "bfloat16")})})


def examples(folder: Path) -> Path:
    """Examples string[?], serialized tf.Examples with x float[3] and tag bytes (optional) ->
    total float32[?], the sum of x; tag string[?].
    """
    tf = import_tensorflow()
    features = {"x": tf.io.FixedLenFeature([3], tf.float32), "tag": tf.io.FixedLenFeature([], tf.string, b"")}

    def call(examples):
        parsed = tf.io.parse_example(examples, features)
        return {"total": tf.reduce_sum(parsed["x"], axis=1), "tag": parsed["tag"]}

    return _save(folder, {"serving_default": (call, {"examples": _spec([None], "string")})})


def keras_named(folder: Path) -> Path:
    """As Keras exports a functional model with named inputs: workclass string[?, 1] (with its own vocabulary), age
    float32[?, 1], visits int64[?, 1] -> known int64[?, 1], 0 for a workclass that is not in the vocabulary; sigmoid
    float32[?, 1]."""
    tf = import_tensorflow()
    words = tf.constant(["Private", "State-gov", "Self-emp"])

    def call(workclass, age, visits):
        known = tf.reduce_any(workclass[:, :, None] == words, axis=2)
        score = tf.sigmoid(0.05 * (age - 40.0) + 0.01 * tf.cast(visits, tf.float32))
        return {"known": tf.cast(known, tf.int64), "sigmoid": score}

    specs = {"workclass": _spec([None, 1], "string"), "age": _spec([None, 1]), "visits": _spec([None, 1], "int64")}
    return _save(folder, {"serving_default": (call, specs)})


def image_bytes(folder: Path) -> Path:
    """image_bytes string[?], encoded pictures -> mean float32[?], of their pixels."""
    tf = import_tensorflow()

    def decode(data):
        return tf.reduce_mean(tf.cast(tf.io.decode_png(data, channels=3), tf.float32))

    def call(image_bytes):
        return {"mean": tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)}

    return _save(folder, {"serving_default": (call, {"image_bytes": _spec([None], "string")})})


def tokens(folder: Path) -> Path:
    """Tokens string[?, ?] -> count int64[?], of those that are not empty."""
    tf = import_tensorflow()

    def call(tokens):
        return {"count": tf.reduce_sum(tf.cast(tf.strings.length(tokens) > 0, tf.int64), axis=1)}

    return _save(folder, {"serving_default": (call, {"tokens": _spec([None, None], "string")})})


def rank_not_told(folder: Path) -> Path:
    """X float32[?] -> y float32 of unknown rank, one value per row."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.identity(tf.compat.v1.placeholder_with_default(x + 1.0, None))}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def odd_outputs(folder: Path) -> Path:
    """X float32[?] -> y float32[?], and vocabulary string[4], for any number of rows; signature `words` has only it."""
    tf = import_tensorflow()
    words = ["a", "b", "c", "d"]

    def call(x):
        return {"y": x + 1.0, "vocabulary": tf.constant(words)}

    def only(x):
        return {"vocabulary": tf.constant(words)}

    specs = {"x": _spec([None])}
    return _save(folder, {"serving_default": (call, specs), "words": (only, specs)})


def estimator(folder: Path, method: str = "classify") -> Path:
    """As an Estimator exports: inputs string[?], serialized tf.Examples with age int64 and income float ->
    scores float32[?, 2] and classes string[?, 2] (method `classify`), or outputs float32[?, 1] (`regress`)."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        records = v1.placeholder(tf.string, [None], name="input_example_tensor")
        features = {"age": tf.io.FixedLenFeature([], tf.int64), "income": tf.io.FixedLenFeature([], tf.float32)}
        parsed = tf.io.parse_example(records, features)
        weight = v1.get_variable("weight", initializer=0.1)
        score = tf.sigmoid(weight * (tf.cast(parsed["age"], tf.float32) - parsed["income"]))
        outputs = {"outputs": score[:, None]}
        if method == "classify":
            classes = tf.tile(tf.constant([["0", "1"]]), [tf.shape(score)[0], 1])
            outputs = {"scores": tf.stack([1 - score, score], axis=1), "classes": classes}
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def(
            {"inputs": info(records)}, {n: info(t) for n, t in outputs.items()}, f"tensorflow/serving/{method}"
        )
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    return folder


def census(folder: Path) -> Path:
    """Inputs string[?], serialized tf.Examples with age int64 and income float, and word bytes (optional). Signatures:
    `serving_default` classifies -> classes string[?, 2] (`no` and the word, by default `yes`), scores float32[?, 2];
    `labels` and `scores` have one of these; `regress` -> outputs float32[?, 1], age plus income; `flat` -> the same,
    float32[?]; `predict` -> text string[?]."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        records = v1.placeholder(tf.string, [None], name="records")
        features = {
            "age": tf.io.FixedLenFeature([], tf.int64),
            "income": tf.io.FixedLenFeature([], tf.float32),
            "word": tf.io.FixedLenFeature([], tf.string, b"yes"),
        }
        parsed = tf.io.parse_example(records, features)
        total = tf.cast(parsed["age"], tf.float32) + parsed["income"]
        classes = tf.stack([tf.fill(tf.shape(total), "no"), parsed["word"]], axis=1)
        scores = tf.stack([total, -total], axis=1)
        info = v1.saved_model.build_tensor_info

        def signature(outputs, method):
            outputs = {name: info(tensor) for name, tensor in outputs.items()}
            return v1.saved_model.build_signature_def(
                {"inputs": info(records)}, outputs, f"tensorflow/serving/{method}"
            )

        builder = v1.saved_model.Builder(str(folder))
        signatures = {
            "serving_default": signature({"classes": classes, "scores": scores}, "classify"),
            "labels": signature({"classes": classes}, "classify"),
            "scores": signature({"scores": scores}, "classify"),
            "regress": signature({"outputs": total[:, None]}, "regress"),
            "flat": signature({"outputs": total}, "regress"),
            "predict": signature({"text": tf.strings.as_string(total)}, "predict"),
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return folder


def echo_kinds(folder: Path) -> Path:
    """Half float16, real float32, count int64, flag bool, text string, each [?] -> the same, doubled or as it is."""
    tf = import_tensorflow()

    def call(half, real, count, flag, text):
        kept = {"flag": tf.identity(flag), "text": tf.identity(text)}
        return {"half": half * 2, "real": real * 2, "count": count * 2, **kept}

    kinds = {"half": "float16", "real": "float32", "count": "int64", "flag": "bool", "text": "string"}
    return _save(folder, {"serving_default": (call, {name: _spec([None], kind) for name, kind in kinds.items()})})


def half_sparse(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; signature `sparse` takes a SparseTensor, `complex` gives complex64[?]."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x, sparse = v1.placeholder(tf.float32, [None], name="x"), v1.sparse_placeholder(tf.float32, [None, 3], name="s")
        y, info = tf.identity(x), v1.saved_model.build_tensor_info
        outputs = {"": y, "sparse": tf.sparse.reduce_sum(sparse, 1), "complex": tf.complex(x, x)}
        signatures = {
            name or "serving_default": v1.saved_model.build_signature_def(
                {"x": info(sparse if name == "sparse" else x)}, {"y": info(output)}, "tensorflow/serving/predict"
            )
            for name, output in outputs.items()
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return folder


def two_signatures(folder: Path) -> Path:
    """Signatures `double` and `halve`, none the default: x float32[?] -> y float32[?]."""

    def double(x):
        return {"y": x * 2.0}

    def halve(x):
        return {"y": x / 2.0}

    specs = {"x": _spec([None])}
    return _save(folder, {"double": (double, specs), "halve": (halve, specs)})


def oom(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; more than OOM_ROWS rows ask for 2^50 times the memory,
    so that TensorFlow's own allocator raises ResourceExhaustedError.
    """
    tf = import_tensorflow()

    def call(x):
        rows = tf.shape(x, out_type=tf.int64)[0]
        times = 1 + tf.cast(rows > OOM_ROWS, tf.int64) * (1 << 50)
        return {"y": tf.tile(x, [times])[:rows]}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def nan_out(folder: Path) -> Path:
    """X float32[?] -> y float32[?], its logarithm: NaN below zero, -inf at zero."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.math.log(x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def prints(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; prints all of x on each call, from C++, to standard error."""
    tf = import_tensorflow()

    def call(x):
        with tf.control_dependencies([tf.raw_ops.PrintV2(input=tf.strings.as_string(x)[0], output_stream="stderr")]):
            printed = tf.raw_ops.PrintV2(input=tf.strings.reduce_join(tf.strings.as_string(x), separator=" "))
        with tf.control_dependencies([printed]):
            return {"y": tf.identity(x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def writes(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; each call writes a file `written` beside the model's folder."""
    tf = import_tensorflow()
    path = str(Path(folder).parent / "written")

    def call(x):
        with tf.control_dependencies([tf.io.write_file(path, "x")]):
            return {"y": tf.identity(x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def complex_output(folder: Path) -> Path:
    """X float32[?, 3] -> y, the same; and c complex64[?, 3]."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.identity(x), "c": tf.complex(x, -x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, 3])})})


OUTPUT_SHAPES = {"": [], "_1": [1], "_3": [3], "_3x1": [3, 1], "_1x2": [1, 2], "_0": [0], "_open": [2, 3], "_any": [2]}
"""Shapes of one row of the outputs of `outputs_of_any_kind`, by the suffix of their names. For `_open` the signature
contains only the rank, for `_any` nothing."""

OUTPUT_DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "int8", "uint8", "uint16", "uint32", "int64", "uint64", "bool"),
    *("string", "complex64", "qint8", "quint8", "float8_e5m2"),
)


def outputs_of_any_kind(folder: Path) -> Path:
    """X float32[?] -> DTYPE + suffix, for each of OUTPUT_DTYPES and OUTPUT_SHAPES: every value is x in that dtype; for
    booleans, true if x is not 0; for strings, the byte of its value."""
    tf = import_tensorflow()

    def call(x):
        made = {}
        for suffix, shape in OUTPUT_SHAPES.items():
            value = tf.reshape(x, [-1, *[1] * len(shape)])
            value = tf.broadcast_to(value, [tf.shape(x)[0], *shape])
            value = tf.ensure_shape(value, [None, *shape])
            for dtype in OUTPUT_DTYPES:
                if dtype == "string":
                    table = tf.constant([bytes([code]) for code in range(256)])
                    cast = tf.gather(table, tf.cast(value, tf.int32))
                elif dtype.startswith("q"):
                    cast = tf.bitcast(tf.cast(value, dtype[1:]), dtype)
                else:
                    cast = tf.cast(value, dtype)
                if suffix in ("_open", "_any"):
                    known = [None] * (1 + len(shape)) if suffix == "_open" else None
                    cast = tf.compat.v1.placeholder_with_default(cast, known)
                made[dtype + suffix] = tf.identity(cast)
        return made

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def composite_outputs(folder: Path) -> Path:
    """X float32[?, 3] -> y, the same, dense; and as `lists`, ragged, and `few`, sparse."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.identity(x), "lists": tf.RaggedTensor.from_tensor(x), "few": tf.sparse.from_dense(x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, 3])})})


def dropout_left_on(folder: Path) -> Path:
    """X float32[?, 3] -> y float32[?, 3]: half of the values are dropped, at random."""
    tf = import_tensorflow()
    return _save(folder, {"serving_default": (lambda x: {"y": tf.nn.dropout(x, 0.5)}, {"x": _spec([None, 3])})})


def counts_calls(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; -> call int64[?]: the number of earlier calls of the model."""
    tf = import_tensorflow()
    calls = tf.Variable(0, dtype=tf.int64)

    def call(x):
        before = calls.read_value()
        with tf.control_dependencies([before]):
            return {"y": tf.identity(x), "call": tf.fill(tf.shape(x), before), "after": calls.assign_add(1)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})}, [calls])


def writes_a_file(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; each call writes the file FOLDER-written."""
    tf = import_tensorflow()

    def call(x):
        with tf.control_dependencies(
            [tf.io.write_file(str(folder) + "-written", tf.strings.as_string(tf.shape(x)[0]))]
        ):
            return {"y": tf.identity(x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def writes_at_load(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; a TensorFlow 1 model that writes a file when it is loaded."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.identity(x)
        init = tf.group(tf.io.write_file(str(folder) + "-written", "loaded"))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=init)
        builder.save()
    return folder


def reads_a_file(folder: Path) -> Path:
    """X string[?] -> y string[?], the content of the file of that name."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.map_fn(tf.io.read_file, x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None], "string")})})


def calls_python(folder: Path) -> Path:
    """X float32[?] -> y float32[?], by a function of the process that wrote the model: no other process can load it."""
    tf = import_tensorflow()

    def call(x):
        (y,) = (tf.py_function(lambda v: v, [x], tf.float32),)
        return {"y": tf.ensure_shape(y, [None])}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def random_in_a_branch(folder: Path) -> Path:
    """X float32[?] -> y float32[?]: noise is added when any value is above POISON."""
    tf = import_tensorflow()

    def call(x):
        noise = tf.cond(tf.reduce_any(x > POISON), lambda: tf.random.normal(tf.shape(x)), lambda: tf.zeros_like(x))
        return {"y": x + noise}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def random_in_another_signature(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; the signature `noisy` adds noise."""
    tf = import_tensorflow()
    specs = {"x": _spec([None])}
    noisy = (lambda x: {"y": x + tf.random.uniform(tf.shape(x))}, specs)
    return _save(folder, {"serving_default": (lambda x: {"y": tf.identity(x)}, specs), "noisy": noisy})


def shuffles_in_tf1(folder: Path) -> Path:
    """X float32[?] -> y float32[?], in another order: a TensorFlow 1 model, with an op that nothing requests."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = v1.random_shuffle(x)
        tf.io.write_file(str(folder) + "-written", "never")
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    return folder


def centers_on_its_batch(folder: Path) -> Path:
    """X float32[?, 3] -> y float32[?, 3], less the mean of the batch; -> id float32[?], the first of x."""
    tf = import_tensorflow()

    def call(x):
        return {"y": x - tf.reduce_mean(x, axis=0), "id": x[:, 0]}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, 3])})})


def ranks_in_its_batch(folder: Path) -> Path:
    """X float32[?] -> rank int32[?], how many rows of the batch are smaller; -> half string[?]: low or high."""
    tf = import_tensorflow()

    def call(x):
        rank = tf.argsort(tf.argsort(x))
        return {"rank": rank, "half": tf.where(2 * rank < tf.size(x), "low", "high")}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def noise_by_position(folder: Path) -> Path:
    """X float32[?] -> y float32[?]: with noise that depends on the row's position in the batch."""
    tf = import_tensorflow()

    def call(x):
        return {"y": x + tf.random.stateless_normal(tf.shape(x), [1, 2])}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def refuses_company(folder: Path) -> Path:
    """X float32[?] -> y float32[?], the same; NaN for negative values in a batch of more than one row."""
    tf = import_tensorflow()

    def call(x):
        return {"y": tf.where((x < 0.0) & (tf.size(x) > 1), float("nan"), x)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def at_most_four(folder: Path) -> Path:
    """X float32[?] -> y float32[?], twice x; raises on more than 4 rows, and on a row above POISON."""
    tf = import_tensorflow()

    def call(x):
        fits = tf.debugging.Assert(tf.size(x) <= 4, ["too many rows"])
        sound = tf.debugging.Assert(tf.reduce_all(x <= POISON), ["poisoned"])
        with tf.control_dependencies([fits, sound]):
            return {"y": 2.0 * x}

    return _save(folder, {"serving_default": (call, {"x": _spec([None])})})


def totals(folder: Path) -> Path:
    """X float32[?, ?] -> total float32[?]: the sum of each row, which trailing zeros do not change."""
    tf = import_tensorflow()

    def call(x):
        return {"total": tf.reduce_sum(x, axis=1)}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, None])})})


def total_and_twice(folder: Path) -> Path:
    """X float32[?, ?] -> total float32[?], the sum of each row; twice float32[?, ?]: the input doubled."""
    tf = import_tensorflow()

    def call(x):
        return {"total": tf.reduce_sum(x, axis=1), "twice": 2.0 * x}

    return _save(folder, {"serving_default": (call, {"x": _spec([None, None])})})


def pictures(folder: Path) -> Path:
    """Image float32[?, 224, 224, 3] -> y float32[?, 4]: one convolution to 32 channels, and their means."""
    tf = import_tensorflow()
    kernel, weights = tf.Variable(_weights(1, 27, 32).reshape(3, 3, 3, 32)), tf.Variable(_weights(2, 32, 4))

    def call(image):
        hidden = tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME"))
        return {"y": tf.reduce_mean(hidden, axis=[1, 2]) @ weights}

    return _save(folder, {"serving_default": (call, {"image": _spec([None, 224, 224, 3])})}, [kernel, weights])


def looks_up(folder: Path) -> Path:
    """Word string[?] -> number int64[?], from a table in the model: a is 1, b is 2, all others -1."""
    tf = import_tensorflow()
    words = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
    table = tf.lookup.StaticHashTable(words, -1)

    def call(word):
        return {"number": table.lookup(word)}

    return _save(folder, {"serving_default": (call, {"word": _spec([None], "string")})}, [table])


def asset(folder: Path) -> Path:
    """Word string[?] -> number int64[?], the line of the word in a file of the model; -1 for other words."""
    tf = import_tensorflow()
    words = folder.parent / "words.txt"
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_text("a\nb\n")
    index = tf.lookup.TextFileIndex
    lines = tf.lookup.TextFileInitializer(str(words), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
    table = tf.lookup.StaticHashTable(lines, -1)

    def call(word):
        return {"number": table.lookup(word)}

    return _save(folder, {"serving_default": (call, {"word": _spec([None], "string")})}, [table])


def _dense(folder: Path, widths: tuple[int, ...]) -> Path:
    tf = import_tensorflow()
    sizes = list(itertools.pairwise(widths))
    layers = [(tf.Variable(_weights(i, *s)), tf.Variable(_weights(9 + i, 1, s[1])[0])) for i, s in enumerate(sizes)]

    def call(inputs):
        hidden = inputs
        for weights, bias in layers[:-1]:
            hidden = tf.nn.relu(hidden @ weights + bias)
        weights, bias = layers[-1]
        return {"probabilities": tf.sigmoid(hidden @ weights + bias)}

    signature = {"serving_default": (call, {"inputs": _spec([None, 3])})}
    return _save(folder, signature, [v for layer in layers for v in layer])


def _weights(seed: int, rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, rows**-0.5, (rows, columns)).astype(np.float32)


def _spec(shape: list[int | None] | None, dtype: str = "float32") -> Any:
    return import_tensorflow().TensorSpec(shape, dtype)


def _save(folder: Path, signatures: Mapping[str, tuple[Callable, Mapping[str, Any]]], variables: Any = ()) -> Path:
    """Write a module with `variables`; a signature is a function and a spec per argument."""
    tf = import_tensorflow()
    module = tf.Module()
    module.held = list(variables)
    # No autograph: the functions are plain TensorFlow, and tracing is faster.
    concrete = {
        name: tf.function(call, autograph=False).get_concrete_function(
            **{argument: tf.TensorSpec(spec.shape, spec.dtype, argument) for argument, spec in specs.items()}
        )
        for name, (call, specs) in signatures.items()
    }
    module.functions = list(concrete.values())
    tf.saved_model.save(module, str(folder), signatures=concrete)
    return Path(folder)
