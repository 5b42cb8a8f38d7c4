"""What a model does besides computing outputs is read from its file, without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from beam_score.transforms.model.ops import EFFECTS, ModelOps, ops_of
from beam_score.transforms.model.signature import ModelError


@pytest.mark.parametrize(
    ("name", "effects"),
    [
        ("dropout_left_on", {"random": ("RandomUniform",)}),
        ("counts_calls", {"state": ("AssignAddVariableOp",)}),
        ("writes_a_file", {"writes": ("WriteFile",)}),
        ("reads_a_file", {"reads": ("ReadFile",)}),
        ("calls_python", {"python": ("EagerPyFunc",)}),
        ("random_in_a_branch", {"random": ("RandomStandardNormal",)}),
        ("shuffles_in_tf1", {"random": ("RandomShuffle",)}),
    ],
)
def test_an_op_with_an_effect_is_named_wherever_it_is(model, name, effects):
    assert ops_of(model(name), "serving_default").effects() == effects


@pytest.mark.parametrize(
    "name", ["multiply", "poison", "odd_names", "looks_up", "asset", "hangs", "examples", "open_inner"]
)
def test_variables_tables_assertions_and_loops_are_no_effects(model, name):
    # Registered as stateful, all of them.
    ops = ops_of(model(name), "serving_default")
    assert ops.effects() == {} and ops.describe() == [] and ops.dependent == []
    assert ops.called


def test_ops_that_only_another_signature_runs_are_not_counted(model):
    assert ops_of(model("random_in_another_signature"), "serving_default").effects() == {}
    assert ops_of(model("random_in_another_signature"), "noisy").effects() == {"random": ("RandomUniform",)}


def test_what_loading_runs_is_counted_apart(model):
    ops = ops_of(model("writes_at_load"), "serving_default")
    assert ops.effects() == {"writes": ("WriteFile",)}
    assert ops.effects(at_load=False) == {} and ops.dependent == []


def test_effects_are_said_in_a_phrase(model):
    assert ops_of(model("dropout_left_on"), "serving_default").describe() == ["draws random numbers (RandomUniform)"]


def test_reading_a_file_does_not_make_a_row_depend_on_others(model):
    assert ops_of(model("reads_a_file"), "serving_default").dependent == []


def test_every_stateful_op_of_this_tensorflow_is_of_some_kind_or_known_to_be_harmless():
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    registered = op_def_pb2.OpList()
    registered.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    stateful = frozenset(op.name for op in registered.op if op.is_stateful)
    ops = ModelOps(frozenset(op.name for op in registered.op), frozenset(), stateful)
    kind = {op: kind for kind, names in ops.effects().items() for op in names}
    assert set(kind.values()) == set(EFFECTS)
    expected = {
        "ReadFile": "reads",
        "TextLineDataset": "reads",
        "WriteFile": "writes",
        "SaveV2": "writes",
        "PyFuncStateless": "python",
        "RandomUniform": "random",
        "StatefulUniform": "random",
        "StatelessRandomUniformV2": None,
        "RandomIndexShuffle": None,
        "Assign": "state",
        "AssignSubVariableOp": "state",
        "QueueDequeueV2": "state",
        "Timestamp": "state",
        "LookupTableFindV2": None,
        "ReadVariableOp": None,
        "CheckNumerics": None,
        "While": None,
    }
    assert {op: kind.get(op) for op in expected} == expected


def test_a_signature_that_is_not_there_and_a_damaged_graph_are_told(model, tmp_path):
    with pytest.raises(ModelError, match="no signature 'other'"):
        ops_of(model("multiply"), "other")
    data = Path(model("multiply"), "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(data.replace(b"StatefulPartitionedCall", b"StatefulPartitionedCal\xff"))
    with pytest.raises(ModelError, match="damaged"):
        ops_of(tmp_path, "serving_default")


def test_reading_ops_does_not_import_tensorflow(model):
    code = (
        "import sys; from beam_score.transforms.model.ops import ops_of; "
        f"assert ops_of({model('multiply')!r}, 'serving_default').called; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
