"""What a SavedModel is, is told exactly, before and after it is loaded; and what is none, is told plainly."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import weakref

import models
import numpy as np
import pytest

from beam_score.transforms.model import signature as saved_model
from beam_score.transforms.model.servable import Servable, import_tensorflow
from beam_score.transforms.model.signature import ModelError, Signature, Tensor, choose_signature, read_signatures
from beam_score.transforms.model.versions import find_version, hash_model


def folder_of(tmp_path, *names):
    """A folder with empty files (or SavedModels in name only) of these names."""
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


# --- versions


def test_a_saved_model_folder_is_itself(model):
    found = find_version(model("multiply"))
    assert (found.path, found.version, found.versions) == (model("multiply"), None, ())


def test_latest_is_the_numerically_largest_and_what_is_no_version_is_not_counted(tmp_path):
    folder_of(
        tmp_path,
        "9/saved_model.pb",
        "10/saved_model.pb",
        "007/saved_model.pb",
        "11/half_copied",
        "backup/saved_model.pb",
        "12.tmp/saved_model.pb",
    )
    found = find_version(tmp_path)
    assert found.path == str(tmp_path / "10")
    assert found.version == "10"
    assert found.versions == ("007", "9", "10")


@pytest.mark.parametrize(("asked", "version"), [("9", "9"), (9, "9"), ("7", "007"), ("007", "007"), ("latest", "10")])
def test_a_version_is_found_by_number(tmp_path, asked, version):
    folder_of(tmp_path, "9/saved_model.pb", "10/saved_model.pb", "007/saved_model.pb")
    assert find_version(tmp_path, asked).version == version


@pytest.mark.parametrize("asked", ["3", 3, "latest"])
def test_one_version_folder_named_outright_tells_its_number(tmp_path, asked):
    folder_of(tmp_path, "3/saved_model.pb")
    assert find_version(tmp_path / "3", asked).version == "3"


@pytest.mark.parametrize(
    ("files", "path", "version", "said"),
    [
        (
            ["people/1/saved_model.pb"],
            "poeple",
            "latest",
            r"poeple does not exist: .* does not contain 'poeple'; did you mean 'people'\?",
        ),
        (["a"], "x/y/z", "latest", r"x/y/z does not exist: .* does not contain 'x'$"),
        (["m/1/saved_model.pb", "m/20/saved_model.pb"], "m", "3", r"has no version 3; it has 1, 20"),
        (["m/1/saved_model.pb"], "m", "newest", r"version 'newest': expected 'latest' or a number; .* has versions 1"),
        (["m/saved_model.pb"], "m", "3", r"is a SavedModel itself, but version 3 was requested: leave out the version"),
        (["m.keras"], "m.keras", "latest", r"m.keras is a Keras file: .*model\.export\(path\)"),
        (["m.h5"], "m.h5", "latest", r"m.h5 is a Keras HDF5 file: .*model\.export\(path\)"),
        (["m/config.json", "m/model.weights.h5"], "m", "latest", r"unpacked Keras file.*model\.export\(path\)"),
        (["m/weights.h5"], "m", "latest", r"it contains weights.h5, a Keras HDF5 file: .*model\.export\(path\)"),
        (["m/best.keras"], "m", "latest", r"it contains best.keras, a Keras file: .*model\.export\(path\)"),
        (["m.tflite"], "m.tflite", "latest", r"TensorFlow Lite model"),
        (["graph.pb"], "graph.pb", "latest", r"a frozen graph, without signatures"),
        (["m/graph.pb"], "m", "latest", r"graph.pb in it is not named saved_model.pb"),
        (["m/saved_model.pb"], "m/saved_model.pb", "latest", r"is a file inside a SavedModel: give its folder, .*m$"),
        (["m/tfhub_module.pb", "m/saved_model.pb.txt"], "m", "latest", r"TF1 Hub module"),
        (["m/saved_model.cpb"], "m", "latest", r"saved_model.cpb.* not supported"),
        (["m/checkpoint", "m/ckpt-1.index"], "m", "latest", r"checkpoint, which is weights without a graph"),
        (["m/prod/saved_model.pb"], "m", "latest", r"names are not numbers: give one of them, prod"),
        (
            ["m/readme.md"],
            "m",
            "latest",
            r"not a SavedModel, nor a folder of numbered versions of one: it has no saved_model.pb",
        ),
        (["m.tar.gz"], "m.tar.gz", "latest", r"an archive: unpack it"),
        (["m.bin"], "m.bin", "latest", r"a file: give a SavedModel folder"),
    ],
)
def test_what_is_no_model_is_told_with_the_way_on(tmp_path, files, path, version, said):
    folder_of(tmp_path, *files)
    with pytest.raises(ModelError, match=said):
        find_version(tmp_path / path, version)


# --- hash


def test_the_hash_goes_by_names_and_contents_and_nothing_else(model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model("multiply"), copy)
    before = hash_model(copy)
    assert before == hash_model(model("multiply"))
    assert re.fullmatch("[0-9a-f]{64}", before)
    os.utime(copy / "saved_model.pb", (1, 1))
    (copy / ".DS_Store").write_text("left by a file manager")
    assert hash_model(copy) == before
    (copy / "variables" / "variables.index").rename(copy / "variables" / "variables.renamed")
    renamed = hash_model(copy)
    assert renamed != before
    (copy / "variables" / "variables.renamed").rename(copy / "variables" / "variables.index")
    with open(next((copy / "variables").glob("*.data*")), "r+b") as data:
        first = data.read(1)
        data.seek(0)
        data.write(bytes([first[0] ^ 1]))
    assert hash_model(copy) not in (before, renamed)


def test_contents_cannot_move_between_files_unseen(tmp_path):
    for name, parts in {"a": ("xy", "z"), "b": ("x", "yz")}.items():
        (tmp_path / name).mkdir()
        for file, part in zip(("1", "2"), parts, strict=True):
            (tmp_path / name / file).write_text(part)
    assert hash_model(tmp_path / "a") != hash_model(tmp_path / "b")


# --- signatures


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("echo", "serving_default(id: int64[?], x: float32[?, 3]) -> out: int64[?], y: float32[?, 3]"),
        ("strings", "serving_default(text: string[?]) -> length: int64[?], upper: string[?]"),
        ("nested", "serving_default(grid: float32[?, 2, 3]) -> total: float32[?]"),
        ("fixed_batch", "serving_default(x: float32[16, 3]) -> y: float32[16]"),
        ("open_inner", "serving_default(x: float32[?, ?]) -> mean: float32[?]"),
        ("no_row_dimension", "serving_default(x: float32[?]) -> total: float32, y: float32[?]"),
        ("bfloat16_out", "serving_default(x: float32[?, 3]) -> y: bfloat16[?, 3]"),
        ("odd_names", "serving_default(2nd: float32[?], my input:0-x: float32[?]) -> out/1: %: float32[?]"),
        (
            "composite_outputs",
            "serving_default(x: float32[?, 3]) -> few: sparse float32[?, 3], lists: ragged float32[...], "
            "y: float32[?, 3]",
        ),
    ],
)
def test_a_signature_is_read_as_declared(model, name, described):
    assert choose_signature(read_signatures(model(name))).describe() == described


def test_signatures_are_read_as_tensorflow_reads_them(model):
    import_tensorflow()
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import dtypes

    for name in ("several_outputs", "two_signatures", "odd_names"):
        theirs = saved_model_pb2.SavedModel()
        with open(os.path.join(model(name), "saved_model.pb"), "rb") as file:
            theirs.ParseFromString(file.read())
        (graph,) = theirs.meta_graphs
        ours = read_signatures(model(name))
        assert set(ours) == set(graph.signature_def) - {"__saved_model_init_op"}
        for signature in ours.values():
            declared = graph.signature_def[signature.name]
            assert signature.method_name == declared.method_name
            for mine, info in ((signature.inputs, declared.inputs), (signature.outputs, declared.outputs)):
                assert list(mine) == sorted(info)
                for tensor in mine.values():
                    assert tensor.dtype == dtypes.as_dtype(info[tensor.name].dtype).name
                    assert tensor.shape == tuple(
                        None if d.size < 0 else d.size for d in info[tensor.name].tensor_shape.dim
                    )
        assert saved_model.tensorflow_version(model(name)) == graph.meta_info_def.tensorflow_version
    for value in types_pb2.DataType.values()[1:]:
        if value < len(saved_model.DTYPES):
            assert saved_model.DTYPES[value] == dtypes.as_dtype(value).name


def test_reading_signatures_does_not_import_tensorflow(model):
    script = (
        "import sys; from beam_score.transforms.model import signature, versions;"
        "s = signature.read_signatures(sys.argv[1]); versions.hash_model(sys.argv[1]);"
        "assert 'serving_default' in s; print('tensorflow' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, model("multiply")], capture_output=True, text=True, cwd=os.getcwd()
    )
    assert (run.returncode, run.stdout.strip()) == (0, "False"), run.stderr


@pytest.mark.parametrize(
    ("shape", "kind", "text"),
    [
        ((None, 3), "dense", "float32[?, 3]"),
        ((16,), "dense", "float32[16]"),
        ((), "dense", "float32"),
        (None, "dense", "float32[...]"),
        ((None, 3), "sparse", "sparse float32[?, 3]"),
    ],
)
def test_a_tensor_is_described_in_a_word(shape, kind, text):
    assert Tensor("x", "float32", shape, kind).describe() == text


def test_a_graph_that_is_not_for_serving_is_told_by_its_tags(model, tmp_path):
    import_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(model("multiply"), tmp_path / "m")
    file = tmp_path / "m" / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    del proto.meta_graphs[0].meta_info_def.tags[:]
    proto.meta_graphs[0].meta_info_def.tags.extend(["train", "tpu"])
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"no graph tagged \{serve\}, only \{tpu, train\}"):
        read_signatures(tmp_path / "m")


@pytest.mark.parametrize("content", [b"\xff\xff\xff not a protobuf", b""])
def test_a_damaged_file_is_told(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged|no graph at all"):
        read_signatures(tmp_path)


def signatures(*names):
    return {name: Signature(name, {}, {}) for name in names}


@pytest.mark.parametrize(
    ("names", "asked", "chosen"),
    [
        (["predict", "serving_default"], None, "serving_default"),
        (["predict", "serving_default"], "predict", "predict"),
        (["only"], None, "only"),
    ],
)
def test_the_signature_is_chosen(names, asked, chosen):
    assert choose_signature(signatures(*names), asked).name == chosen


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        (["double", "halve"], None, "several signatures, none called serving_default: name one of double, halve"),
        (["double", "halve"], "hlave", r"no signature 'hlave'; it has double, halve; did you mean 'halve'\?"),
        ([], None, "no signatures: export it"),
        ([], "x", "no signatures: export it"),
    ],
)
def test_a_signature_that_cannot_be_chosen_is_told_with_the_list(names, asked, said):
    with pytest.raises(ModelError, match=said):
        choose_signature(signatures(*names), asked)


# --- loaded models


@pytest.fixture(scope="module")
def servable(model):
    loaded = {}

    def load(name, signature=None):
        if (name, signature) not in loaded:
            loaded[name, signature] = Servable.load(model(name), signature)
        return loaded[name, signature]

    return load


def f32(*values):
    return np.array(values, np.float32)


X = f32([1, 2, 3], [4, 5, 7])

CALLS = [
    ("echo", {"id": np.array([2**53 + 1, -1]), "x": X}, {"out": np.array([2**53 + 1, -1]), "y": X}),
    ("several_inputs", {"age": f32(40), "income": f32(5e4), "score": f32(0.5)}, {"risk": f32(0.5)}),
    ("vectors", {"embedding": f32([1, 2, 3, 4])}, {"logits": f32([-4, 16])}),
    ("nested", {"grid": f32([[1, 2, 3], [4, 5, 6]])}, {"total": f32(654321)}),
    ("open_inner", {"x": f32([1, 2, 3, 6])}, {"mean": f32(3)}),
    ("odd_names", {"my input:0-x": f32(1, 2), "2nd": f32(10, 20)}, {"out/1: %": f32(12, 24)}),
    ("bfloat16_out", {"x": f32([1, 257, 0.5])}, {"y": f32([1, 256, 0.5])}),
    ("bfloat16_in", {"x": f32(1, 257)}, {"y": f32(1, 256)}),
    ("no_row_dimension", {"x": f32(1, 2)}, {"y": f32(2, 3), "total": f32(3)[0]}),
    (
        "echo",
        {"id": np.zeros(0, np.int64), "x": np.zeros((0, 3), np.float32)},
        {"out": np.zeros(0, np.int64), "y": np.zeros((0, 3), np.float32)},
    ),
]


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize(("name", "feeds", "expected"), CALLS)
def test_a_call_gives_arrays_by_name(servable, name, feeds, expected, compiled):
    served = servable(name)
    outputs = (served.call_compiled if compiled else served.call)(feeds)
    assert list(outputs) == sorted(expected)
    for output, array in expected.items():
        np.testing.assert_array_equal(outputs[output], array)
        assert outputs[output].dtype == array.dtype


def test_strings_go_in_and_come_out_as_bytes(servable):
    text = np.array([b"ab", "caf\u00e9".encode(), b"", b"\xff\x00z"], object)
    outputs = servable("strings").call({"text": text})
    assert outputs["length"].tolist() == [2, 5, 0, 3]
    assert outputs["upper"].tolist() == [b"AB", "CAF\u00e9".encode(), b"", b"\xff\x00Z"]
    none = servable("strings").call({"text": np.array([], object)})
    assert none["upper"].shape == (0,)


def test_the_signature_named_is_the_one_called(servable):
    assert servable("two_signatures", "halve").call({"x": f32(8)})["y"].tolist() == [4]
    assert servable("two_signatures", "double").call({"x": f32(8)})["y"].tolist() == [16]


def test_compiled_answers_close_to_plain_at_several_sizes(servable):
    for rows in (1, 7, 64, 7):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        plain, compiled = (
            f({"inputs": x})["probabilities"] for f in (servable("dense").call, servable("dense").call_compiled)
        )
        np.testing.assert_allclose(plain, compiled, rtol=1e-5)


def test_a_model_that_xla_cannot_compile_says_so_and_can_still_be_called(servable):
    tf = import_tensorflow()
    with pytest.raises(tf.errors.InvalidArgumentError):
        servable("strings").call_compiled({"text": np.array([b"a"], object)})
    assert servable("strings").call({"text": np.array([b"a"], object)})["length"].tolist() == [1]


def test_an_input_that_is_missing_is_an_error(servable):
    with pytest.raises(KeyError, match="x"):
        servable("echo").call({"id": np.array([1])})


def test_a_float64_array_is_not_silently_narrowed(servable):
    tf = import_tensorflow()
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
        servable("vectors").call({"embedding": np.zeros((1, 4), np.float64)})


def test_outputs_outlive_the_call_and_the_model(model):
    served = Servable.load(model("echo"))
    kept = [served.call({"id": np.arange(n), "x": np.full((n, 3), n, np.float32)}) for n in range(1, 40)]
    gone = weakref.ref(served)
    del served
    gc.collect()
    assert gone() is None
    for n, outputs in enumerate(kept, start=1):
        np.testing.assert_array_equal(outputs["out"], np.arange(n))
        np.testing.assert_array_equal(outputs["y"], np.full((n, 3), n))


def test_what_is_fed_may_change_after_the_call(servable):
    x = np.ones((4, 3), np.float32)
    y = servable("echo").call({"id": np.arange(4), "x": x})["y"]
    x[:] = 7
    assert (y == 1).all()


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_threads_share_one_model(model, compiled):
    served = Servable.load(model("dense"))
    call = served.call_compiled if compiled else served.call
    feeds = [np.random.default_rng(i).normal(size=(256, 3)).astype(np.float32) for i in range(8)]
    results, start = [None] * 8, threading.Barrier(8)

    def work(i):
        start.wait()
        results[i] = [call({"inputs": feeds[i]})["probabilities"] for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, answers in enumerate(results):
        expected = served.call({"inputs": feeds[i]})["probabilities"]
        for answer in answers:
            np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_sparse_and_ragged_outputs_do_not_keep_a_model_from_being_loaded(model):
    """They are refused where a job asks for them (`tests/test_outputs_of_any_kind.py`)."""
    Servable.load(model("composite_outputs"))
    read = read_signatures(model("composite_outputs"))["serving_default"]
    assert {name for name, output in read.outputs.items() if output.kind != "dense"} == {"few", "lists"}


def test_a_model_whose_variables_are_lost_is_told(model, tmp_path):
    shutil.copytree(model("multiply"), tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "variables")
    with pytest.raises(ModelError, match="does not load in TensorFlow 2"):
        Servable.load(tmp_path / "m")


def test_one_op_takes_one_thread_and_tensorflow_does_not_chatter(model):
    script = (
        "import sys, json, numpy as np; from beam_score.transforms.model.servable import Servable\n"
        "s = Servable.load(sys.argv[1]); t = Servable.load(sys.argv[1], intra_op_threads=5)\n"
        "y = s.call({'inputs': np.zeros((1, 3), np.float32)})['probabilities']\n"
        "print(json.dumps([s.intra_op_threads, t.intra_op_threads, y.shape]))"
    )
    quiet = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    run = subprocess.run([sys.executable, "-c", script, model("multiply")], capture_output=True, text=True, env=quiet)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [1, 1, [1, 1]]
    assert run.stderr == ""


def test_what_others_write_to_standard_error_meanwhile_is_passed_on(model):
    script = (
        "import os, sys, threading; from beam_score.transforms.model.native.quiet import quiet\n"
        "with quiet():\n"
        "    os.write(2, b'I0000 port.cc:153] oneDNN custom operations are on. You may see\\nsomething else\\n')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stderr == "something else\n"


# --- the models that the other tests lean on do what they say


def test_poison_raises_on_the_poisoned_batch_only(servable):
    tf = import_tensorflow()
    assert servable("poison").call({"x": X})["y"].tolist() == [6, 16]
    with pytest.raises(tf.errors.InvalidArgumentError, match="poisoned"):
        servable("poison").call({"x": np.vstack([X, f32([0, 2 * models.POISON, 0])])})


def test_short_loses_rows(servable):
    assert servable("short").call({"x": f32(1, -1, 2)})["y"].tolist() == [2, 4]


def test_fixed_batch_takes_sixteen_rows(servable):
    tf = import_tensorflow()
    assert servable("fixed_batch").call({"x": np.ones((16, 3), np.float32)})["y"].tolist() == [3] * 16
    with pytest.raises(tf.errors.InvalidArgumentError):
        servable("fixed_batch").call({"x": np.ones((15, 3), np.float32)})


def test_oom_is_tensorflows_own(servable):
    tf = import_tensorflow()
    assert len(servable("oom").call({"x": np.ones(models.OOM_ROWS, np.float32)})["y"]) == models.OOM_ROWS
    with pytest.raises(tf.errors.ResourceExhaustedError):
        servable("oom").call({"x": np.ones(models.OOM_ROWS + 1, np.float32)})


def test_nan_out_is_not_finite(servable):
    y = servable("nan_out").call({"x": f32(1, 0, -1)})["y"]
    assert y[0] == 0
    assert y[1] == -np.inf
    assert np.isnan(y[2])


def test_examples_parses_examples(servable):
    tf = import_tensorflow()
    feature = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2, 3]))}
    example = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    outputs = servable("examples").call({"examples": np.array([example], object)})
    assert (outputs["total"].tolist(), outputs["tag"].tolist()) == ([6], [b""])


def test_several_outputs_keep_their_names(servable):
    outputs = servable("several_outputs").call({"x": X})
    assert {name: (array.shape, array.dtype.name) for name, array in outputs.items()} == {
        "embedding": ((2, 8), "float32"),
        "label": ((2,), "object"),
        "logits": ((2, 3), "float32"),
    }
    assert outputs["label"].tolist() == [b"blue", b"blue"]


def test_heavy_is_a_hundred_times_dense(model):
    tf = import_tensorflow()

    def flops(name):
        shapes = [shape for _, shape in tf.train.list_variables(os.path.join(model(name), "variables", "variables"))]
        return 2 * sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)

    assert flops("dense") == 4544
    assert 95 < flops("heavy") / flops("dense") < 105
