"""A model gives the same answers through TensorFlow's C API as through Python's TensorFlow, which a job then does not
import."""

import gc
import importlib.metadata
import io
import logging
import os
import shutil
import subprocess
import sys
import threading

import jobs
import models
import numpy as np
import pyarrow as pa
import pytest

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.printing.terminal import Console
from beam_score.pipeline.show.check import check_job
from beam_score.transforms.arrays.texts import Texts
from beam_score.transforms.common.peak_memory import resident_bytes
from beam_score.transforms.ledger.folder import read_plan
from beam_score.transforms.model.loading import load_once
from beam_score.transforms.model.model import C_API, PYTHON, is_exhausted
from beam_score.transforms.model.native import tensors
from beam_score.transforms.model.native.errors import NotNative, OpError
from beam_score.transforms.model.native.session import NativeModel
from beam_score.transforms.model.servable import Servable, import_tensorflow
from beam_score.transforms.model.signature import (
    ModelError,
    choose_signature,
    numpy_dtype,
    read_signatures,
    unsupported,
)
from beam_score.transforms.rows.redact import model_error
from beam_score.transforms.scoring.feeds import dense_array

TEXTS = [b"", b"a", b"b", b"x" * 21, b"y" * 22, b"z" * 23, b"w" * 24, b"\0", b"a\0b\0", b"\xff\xfe" * 20, b"\0" * 30]
"""The first 22 bytes of a text have their place in TensorFlow's own 24."""

RANDOM = {"dropout_left_on", "noise_by_position", "shuffles_in_tf1"}
"""Models whose answers differ from one call to the next."""

LEFT_OUT = {"hangs", "aborts", "calls_python", "prints"} | RANDOM

MODELS = sorted(
    name
    for name, made in vars(models).items()
    if getattr(made, "__module__", "") == "models" and not name.startswith("_") and name not in LEFT_OUT
)


@pytest.fixture(scope="module")
def both(model):
    """`both(NAME)` is a model, loaded both ways."""
    loaded = {}

    def load(name, signature=None):
        if (name, signature) not in loaded:
            path = model(name)
            loaded[name, signature] = (
                NativeModel(path, choose_signature(read_signatures(path), signature)),
                Servable.load(path, signature),
            )
        return loaded[name, signature]

    return load


def feed(tensor, rows, random):
    shape = [rows if at == 0 else d or 3 for at, d in enumerate(tensor.shape or (None, 3))]
    shape[0] = tensor.shape[0] if tensor.shape and tensor.shape[0] else rows
    if tensor.dtype == "string":
        texts = np.empty(len(TEXTS), object)
        texts[:] = TEXTS
        return texts[random.integers(0, len(texts), shape)]
    dtype = numpy_dtype(tensor)
    if dtype.kind == "f":
        return random.normal(0, 3, shape).astype(dtype)
    return random.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)


def outcome(model, feeds):
    try:
        return model.call(feeds)
    except Exception as error:
        return error


def assert_same(ours, theirs):
    assert isinstance(ours, Exception) == isinstance(theirs, Exception), (ours, theirs)
    if isinstance(theirs, UnicodeDecodeError):  # Python's TensorFlow fails on messages that quote other bytes
        assert type(ours).__name__ == "InvalidArgumentError"
        return
    if isinstance(ours, Exception):
        assert (type(ours).__name__, ours.error_code) == (type(theirs).__name__, theirs.error_code)
        return
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert (array.dtype, array.shape) == (theirs[name].dtype, theirs[name].shape)
        if array.dtype == object:
            same = array.tolist() == theirs[name].tolist()
        else:
            same = array.tobytes() == theirs[name].tobytes()
        assert same, name  # not the values, which pytest would compare for minutes


_ROWS = {
    "pictures": (0, 1, 5),
    "reads_a_file": (0, 1),  # its rows are read in parallel: of several that fail, any may be the first
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_the_same_bits(both, model, name):
    for signature, described in read_signatures(model(name)).items():
        if signature == "noisy" or unsupported(described):
            continue
        native, python = both(name, signature)
        random = np.random.default_rng(1)
        for rows in _ROWS.get(name, (0, 1, 5, 300, 2000)):
            feeds = {n: feed(t, rows, random) for n, t in native.signature.inputs.items()}
            assert_same(outcome(native, feeds), outcome(python, feeds))


def test_bfloat16_is_rounded_as_tensorflow_rounds(both):
    native, python = both("bfloat16_in")
    bits = np.random.default_rng(2).integers(0, 2**32, 100_000, np.uint32)
    for x in (bits.view(np.float32), (bits | 0x7F800000).view(np.float32)):
        ours, theirs = (m.call({"x": x})["y"] for m in (native, python))
        # A NaN has the sign of its input here; in TensorFlow only in the last few values of an array.
        assert (np.abs(ours).view(np.uint32) == np.abs(theirs).view(np.uint32)).all()
        assert (np.isnan(ours) | (ours == theirs)).all()


@pytest.mark.parametrize(
    "texts",
    [TEXTS, TEXTS[:5], [b"long" * 2_500_000, b"", b"short"], ["as text", "\xe9"], []],
    ids=["every length", "short", "10 MB", "str", "none"],
)
def test_texts_of_every_length(both, texts):
    native, python = both("strings")
    array = np.empty(len(texts), object)
    array[:] = texts
    assert_same(native.call({"text": array}), python.call({"text": array}))


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
@pytest.mark.parametrize("rows", [slice(0, 12), slice(3, 9), slice(5, 5), slice(-1, None)])
def test_texts_in_arrows_memory_are_those_of_an_array(both, kind, rows):
    native, python = both("strings")
    column = pa.array([text for text in TEXTS if b"\xff" not in text] * 2, kind)[1:]
    texts = dense_array(column)[rows]
    array = np.asarray(texts)
    assert isinstance(texts, Texts) and len(texts) == len(array) and array.dtype == object
    assert_same(native.call({"text": texts}), python.call({"text": array}))


def test_tokens_in_arrows_memory(both):
    native, python = both("tokens")
    column = pa.array([["a", "b" * 30], ["", "c"], ["d", "e"]], pa.list_(pa.string(), 2))
    texts = dense_array(column)
    assert texts.shape == (3, 2)
    for some in (texts, texts[1:3], texts[2:], texts.take(np.array([2, 0, 0, 1]), axis=0)):
        assert_same(native.call({"tokens": some}), python.call({"tokens": np.asarray(some)}))
    assert np.asarray(some).tolist() == [[b"d", b"e"], *[[b"a", b"b" * 30]] * 2, [b"", b"c"]]


@pytest.mark.parametrize("wrong", [None, 1.5, [b"a"]])
def test_what_is_not_a_text_is_refused(both, wrong):
    texts = np.empty(2, object)
    texts[:] = [b"a", wrong]
    with pytest.raises(TypeError, match="expected bytes"):
        both("strings")[0].call({"text": texts})


def _unaligned(array):
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64 + 4
    made = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def _aligned(array):
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    made = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


@pytest.mark.parametrize(
    "laid_out",
    [_aligned, _unaligned, np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2], lambda x: x[::-1]],
    ids=["aligned", "unaligned", "by columns", "every second", "backwards"],
)
@pytest.mark.parametrize("name", ["dense", "echo"])
def test_arrays_however_they_lie_in_memory(both, name, laid_out):
    native, python = both(name)
    x = laid_out(np.random.default_rng(3).normal(size=(100, 3)).astype(np.float32))
    feeds = {"inputs": x} if name == "dense" else {"id": np.arange(100), "x": x}
    assert_same(native.call(feeds), python.call(feeds))


@pytest.mark.parametrize("laid_out", [_aligned, _unaligned])
@pytest.mark.parametrize("name", ["echo", "counts_calls"])
def test_what_is_fed_may_change_after_the_call(model, name, laid_out):
    native = NativeModel(model(name), read_signatures(model(name))["serving_default"])
    x = laid_out(np.ones((4, 3) if name == "echo" else 4, np.float32))
    y = native.call({"id": np.arange(4), "x": x})["y"]
    x[:] = 7
    assert (y == 1).all()


def test_outputs_outlive_the_model_and_cannot_be_written(model):
    native = NativeModel(model("dense"), read_signatures(model("dense"))["serving_default"])
    x = np.ones((1000, 3), np.float32)
    first = native.call({"inputs": x})["probabilities"]
    kept = first.copy()
    for _ in range(20):
        native.call({"inputs": 2 * x})
    del native
    gc.collect()
    assert (first == kept).all() and not first.flags.writeable


def test_an_array_of_another_dtype_is_refused(both):
    with pytest.raises(TypeError, match="float64, expected float32"):
        both("vectors")[0].call({"embedding": np.zeros((1, 4), np.float64)})


def test_an_input_that_is_missing_is_an_error(both):
    with pytest.raises(KeyError, match="x"):
        both("echo")[0].call({"id": np.array([1])})


def test_errors_are_those_of_tensorflow(both):
    x = np.full((1, 3), 2 * models.POISON, np.float32)
    with pytest.raises(OpError, match="poisoned") as raised:
        both("poison")[0].call({"x": x})
    assert (type(raised.value).__name__, raised.value.error_code) == ("InvalidArgumentError", 3)
    text, theirs = (model_error(outcome(m, {"x": x}), m.nodes()) for m in both("poison"))
    assert text == theirs == "InvalidArgumentError in op Assert (node Assert/AssertGuard/Assert)"
    full, theirs = (model_error(outcome(m, {"x": x}), m.nodes(), full=True) for m in both("poison"))
    assert full == theirs
    with pytest.raises(OpError) as raised:
        both("oom")[0].call({"x": np.ones(models.OOM_ROWS + 1, np.float32)})
    assert is_exhausted(raised.value)


def test_a_call_has_a_deadline(model):
    path = model("hangs")
    native = NativeModel(path, read_signatures(path)["serving_default"])
    assert native.call({"inputs": np.zeros((1, 3), np.float32)}, 5)["probabilities"].shape == (1, 1)
    code = (
        "import sys, numpy as np\n"
        "from beam_score.transforms.model.loading import load_once\n"
        "from beam_score.transforms.model.deadline import ModelHangs\n"
        "model = load_once(sys.argv[1], 'serving_default', 1)\n"
        "model.call({'inputs': np.zeros((1, 3), np.float32)})\n"
        "try: model.call({'inputs': np.full((1, 3), 2e6, np.float32)}, 0.2)\n"
        "except ModelHangs: print(model.runtime, model.call({'inputs': np.zeros((1, 3), np.float32)}, 5).keys())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "c_api dict_keys(['probabilities'])\n"), done.stderr


@pytest.mark.parametrize("name", ["dense", "looks_up", "strings"])
def test_any_number_of_threads_calls_one_model(both, name):
    native, _ = both(name)
    random = np.random.default_rng(4)
    given = [{n: feed(t, 200, random) for n, t in native.signature.inputs.items()} for _ in range(8)]
    expected = [native.call(feeds) for feeds in given]
    failed = []

    def work(at):
        for _ in range(50):
            try:
                assert_same(native.call(given[at]), expected[at])
            except BaseException as error:
                failed.append(error)
                raise

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("name", ["echo", "strings", "several_outputs"])
def test_ten_thousand_calls_leave_no_memory_behind(both, name):
    native, _ = both(name)
    feeds = {n: feed(t, 500, np.random.default_rng(5)) for n, t in native.signature.inputs.items()}
    for _ in range(1000):
        native.call(feeds)
    # What other tests left in this process may take memory of its own, once; a leak takes it in every round.
    grown = []
    while min(grown, default=6e7) >= 5e6 and len(grown) < 4:  # one tensor of each call would be 60 MB
        before = resident_bytes()
        for _ in range(10_000):
            native.call(feeds)
        grown.append(resident_bytes() - before)
    assert min(grown) < 5e6, grown
    assert not tensors._fed


def test_a_model_that_is_no_longer_used_is_closed(model):
    path = model("pictures")
    signature = read_signatures(path)["serving_default"]
    taken = []
    for _ in range(30):
        NativeModel(path, signature).call({"image": np.zeros((1, 224, 224, 3), np.float32)})
        gc.collect()
        taken.append(resident_bytes())
    assert taken[-1] - taken[10] < 20e6


# Which way is taken.


def test_models_that_need_python_get_it(model, caplog):
    caplog.set_level(logging.INFO)
    loaded = load_once(model("calls_python"), "serving_default", 1)
    assert loaded.runtime == PYTHON and loaded.why == "it calls Python (EagerPyFunc)"
    assert "loaded by Python's TensorFlow" in caplog.text and "EagerPyFunc" in caplog.text


def test_a_run_goes_on_the_way_it_began(model):
    path = model("dense")
    first = load_once(path, "serving_default", 1)
    assert first.runtime == C_API and load_once(path, "serving_default", 1, runtime=C_API) is first
    other = load_once(path, "serving_default", 1, runtime=PYTHON)
    assert other.runtime == PYTHON and load_once(path, "serving_default", 1) is first
    with pytest.raises(ModelError, match=r"by which this run calls it: it calls Python \(EagerPyFunc\); run on"):
        load_once(model("calls_python"), "serving_default", 1, runtime=C_API)


def test_a_model_that_loads_neither_way_is_told_as_by_python(model, tmp_path):
    shutil.copytree(model("multiply"), tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "variables")
    with pytest.raises(NotNative):
        NativeModel(tmp_path / "m", read_signatures(tmp_path / "m")["serving_default"])
    with pytest.raises(ModelError, match=r"does not load in TensorFlow 2.*variables"):
        load_once(str(tmp_path / "m"), "serving_default", 1)


def test_an_input_that_is_an_output_needs_python(tmp_path):
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": x, "z": 2 * x})
        builder = v1.saved_model.Builder(str(tmp_path / "m"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    loaded = load_once(str(tmp_path / "m"), "serving_default", 1)
    assert (loaded.runtime, loaded.why) == (PYTHON, "an input is an output, or another input")
    assert loaded.call({"x": np.ones(2, np.float32)})["z"].tolist() == [2, 2]


@pytest.mark.parametrize("order", ["native, tensorflow", "tensorflow, native"])
def test_both_live_in_one_process_in_either_order(model, order):
    code = (
        "import sys, numpy as np\n"
        "from beam_score.transforms.model.loading import load_once\n"
        "x = {'inputs': np.random.normal(size=(100, 3)).astype(np.float32)}\n"
        "ways = ['c_api', 'python'][:: 1 if sys.argv[2].startswith('native') else -1]\n"
        "first, second = (load_once(sys.argv[1], 'serving_default', 1, runtime=way) for way in ways)\n"
        "for _ in range(3):\n"
        "    a, b = (model.call(x)['probabilities'] for model in (first, second))\n"
        "    assert (a == b).all()\n"
        "print('tensorflow' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code, model("dense"), order], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize(("xla", "runtime"), [("off", C_API), ("on", PYTHON)])
def test_a_job_says_how_its_model_is_called(tmp_path, model, xla, runtime):
    jobs.write_people(tmp_path / "data", 1, 100)
    settings = jobs.settings(tmp_path, model("multiply"), engine={"xla": xla})
    said = Console(file=io.StringIO(), width=200)
    check_job(parse_job(settings), said)
    assert ("by Python's TensorFlow" in said.file.getvalue()) == (runtime == PYTHON)
    planned = jobs.plan(parse_job(settings))
    assert planned.steps.call.runtime == runtime
    assert read_plan(planned.folder)["engine"]["runtime"] == runtime


def test_a_job_does_not_import_tensorflow(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, 500)
    job = jobs.write_job(tmp_path, model("multiply"))
    stub = tmp_path / "stub" / "tensorflow"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('nothing of a job imports TensorFlow')")
    path = os.pathsep.join([str(stub.parent), jobs.environment()["PYTHONPATH"]])
    for command in ("check", "run"):
        done = jobs.anew(command, job, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
    manifest = jobs.manifest(tmp_path / "out")
    assert manifest["engine"]["runtime"] == C_API and manifest["counts"]["predicted"] == 1000
    assert manifest["versions"]["tensorflow"] == importlib.metadata.version("tensorflow")
    (tmp_path / "out" / "manifest.json").unlink()
    done = jobs.anew("check", jobs.write_job(tmp_path, model("multiply"), engine={"xla": "on"}), PYTHONPATH=path)
    assert "nothing of a job imports TensorFlow" in done.stderr + done.stdout  # the stub is effective
