"""Each public name of `beam_score.transforms` refuses an obvious mistake where it is made, in a sentence: what was
found, what is expected, what to do."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from beam_score import transforms
from beam_score.transforms import (
    Block,
    Budget,
    Column,
    Commit,
    Contract,
    Fault,
    Infer,
    Input,
    ModelCall,
    Output,
    OutputPlan,
    Postprocess,
    Preprocess,
    Read,
    ReadSettings,
    RunFolder,
    Scorer,
    Validate,
    WriteParts,
    WriteSettings,
    bind_inputs,
    read_signatures,
    reject_rows,
    signature_as_written,
    split_files,
    version_of,
)
from beam_score.transforms.model.signature import Signature, Tensor
from beam_score.transforms.rows.block import ROW

ROWS = pa.RecordBatch.from_pydict({ROW: pa.array([0, 1, 2]), "age": pa.array([1.0, 2.0, 3.0], pa.float32())})
BLOCK = Block(0, "a", 0, "people.csv", ROWS)
CONTRACT = Contract(columns={"age": Column(dtype="float32")})
SETTINGS = ReadSettings("csv", CONTRACT)
TENSORS = {"x": Tensor("x", "float32", (None, 1))}, {"y": Tensor("y", "float32", (None, 1))}
SIGNATURE = Signature("serving_default", *TENSORS)
SIGNATURES = {"serving_default": SIGNATURE}
CALL = ModelCall("models/people/1", SIGNATURE, ("y",))
FOLDER = RunFolder("out", "")
SCHEMA = pa.schema([("y", pa.float32())])


def logs(rows):
    return rows


MISTAKES = {
    "Block": [
        (lambda: Block(0, "a", 0, "f", pa.table({ROW: [1]})), "Block: rows is of type Table, expected RecordBatch"),
    ],
    "Budget": [
        (lambda: Budget(share=5), "share is 5, expected a number from 0 to 1, for example 0.01 for 1%"),
        (lambda: Budget(share="5%"), "share is '5%', expected a number from 0 to 1"),
        (lambda: Budget(share=None), "share is None, expected a number"),
        (lambda: Budget(rows=0.01), "rows is 0.01, expected a whole number"),
        (lambda: Budget(files=-1), "files is -1, expected a whole number"),
    ],
    "Column": [(lambda: Column(dtype="float"), "Input should be 'float16'")],
    "Commit": [
        (lambda: Commit("out", Budget(), SCHEMA), "folder is of type str, expected RunFolder: pass RunFolder("),
        (lambda: Commit(FOLDER, 0.01, SCHEMA), "budget is of type float, expected Budget: pass for example"),
        (lambda: Commit(FOLDER, Budget(), ["y"]), "schema is of type list, expected Schema: pass the schema of"),
    ],
    "Contract": [(lambda: Contract(columns={"age": "float32"}), "age\n.*Column")],
    "Fault": [
        (lambda: Fault(np.array([True, False]), "age", "wrong_type", "no"), "dtype bool .* pass np.flatnonzero"),
        (lambda: Fault(3, "age", "wrong_type", "no"), "expected the positions of rows"),
        (
            lambda: Fault(np.array([0, 1]), "age", "wrong_type", pa.array(["no"])),
            "1 messages for 2 rows: pass",
        ),
    ],
    "Infer": [(lambda: Infer("models/people/1"), "call is of type str, expected ModelCall: pass ModelCall(")],
    "Input": [(lambda: Input(columns=("age",)), "columns\n.*not permitted")],
    "ModelCall": [
        (lambda: ModelCall("models/1", SIGNATURES, ("y",)), "signature is of type dict, expected Signature"),
        (lambda: ModelCall("models/1", SIGNATURE, "y"), "outputs is the text 'y', expected names: pass ('y',)"),
        (lambda: ModelCall("models/1", SIGNATURE, ("Y",)), "no output 'Y'; did you mean 'y'?; it has y"),
        (lambda: ModelCall("models/1", SIGNATURE, ("y",), batch_rows=0), "batch_rows is 0, expected at least 1"),
        (lambda: ModelCall(None, SIGNATURE, ("y",)), "path is of type NoneType, expected str"),
    ],
    "Output": [(lambda: Output(labels=("no", "yes")), "labels, top and threshold need a meaning")],
    "OutputPlan": [
        (lambda: OutputPlan(("age",), True, {"y": Output()}, TENSORS[1]), "keep is of type str, expected Field: pass"),
        (lambda: OutputPlan((), True, {"y": "raw"}, TENSORS[1]), "outputs['y'] is of type str, expected Output"),
        (lambda: OutputPlan((), True, {"y": Output()}, SIGNATURE), "expected Mapping: pass signature.outputs"),
        (lambda: OutputPlan((), True, {"why": Output()}, TENSORS[1]), "no output 'why'; it has y"),
    ],
    "Postprocess": [(lambda: Postprocess({"y": Output()}), "plan is of type dict, expected OutputPlan: pass")],
    "Preprocess": [
        (lambda: Preprocess(CONTRACT, {}, TENSORS[0]), "inputs is of type Contract, expected Mapping: pass"),
        (lambda: Preprocess({"x": "age"}, TENSORS[0], CONTRACT), "inputs['x'] is of type str, expected Input"),
        (lambda: Preprocess({}, SIGNATURE, CONTRACT), "expected Mapping: pass signature.inputs"),
        (lambda: Preprocess({}, TENSORS[0], {}), "contract is of type dict, expected Contract"),
        (lambda: Preprocess({}, TENSORS[0], CONTRACT, logs), "type function, expected str: .*'features:add_logs'"),
    ],
    "Read": [
        (lambda: Read("csv"), "settings is of type str, expected ReadSettings: pass ReadSettings("),
        (lambda: Read(SETTINGS, {1, 2}), "done is of type set, expected Callable: pass a function"),
    ],
    "RunFolder": [
        (lambda: RunFolder(None, ""), "output is of type NoneType, expected str: pass the path"),
    ],
    "Scorer": [
        (lambda: Scorer("models/people/1"), "call is of type str, expected ModelCall"),
        (lambda: Scorer(CALL).score([BLOCK]), "the model is not loaded: call load() before score()"),
        (lambda: Scorer(CALL).score(BLOCK), "blocks is of type Block, expected Sequence: pass a list of blocks"),
    ],
    "Validate": [(lambda: Validate(CONTRACT.columns), "expected Contract: pass Contract(columns={")],
    "WriteParts": [(lambda: WriteParts("out"), "settings is of type str, expected WriteSettings: pass WriteSettings(")],
    "WriteSettings": [
        (lambda: WriteSettings("out", SCHEMA), "folder is of type str, expected RunFolder: pass RunFolder("),
        (lambda: WriteSettings(FOLDER, ["y"]), "schema is of type list, expected Schema"),
        (lambda: WriteSettings(FOLDER, SCHEMA, "csv"), "format is 'csv', expected parquet or jsonl"),
        (lambda: WriteSettings(FOLDER, SCHEMA, not_finite="nan"), "not_finite is 'nan', expected null or string"),
    ],
    "bind_inputs": [
        (lambda: bind_inputs({"age": Column(dtype="float32")}, {}, SIGNATURE), "contract is of type dict"),
        (lambda: bind_inputs(CONTRACT, {}, SIGNATURES), "signature is of type dict, expected Signature: pass one of"),
        (lambda: bind_inputs(CONTRACT, {"x": "age"}, SIGNATURE), "inputs['x'] is of type str, expected Input"),
    ],
    "read_signatures": [(lambda: read_signatures("no/such/folder"), "cannot be read: No such file")],
    "reject_rows": [
        (lambda: reject_rows(BLOCK, fault(0), "mine"), "faults is of type Fault, expected Sequence: pass a list"),
        (lambda: reject_rows(BLOCK, [fault(3)], "mine"), "positions 3..3 are outside a block of 3 good rows: pass"),
        (lambda: reject_rows(BLOCK, [fault(-1)], "mine"), "positions -1..-1 are outside a block of 3 good rows"),
        (lambda: reject_rows(BLOCK, [fault(0)], None), "stage is of type NoneType, expected str"),
    ],
    "signature_as_written": [
        (lambda: signature_as_written({"y": Output()}, SIGNATURES), "signature is of type dict, expected Signature"),
        (lambda: signature_as_written(["y"], SIGNATURE), "outputs is of type list, expected Mapping: pass {name of"),
    ],
    "split_files": [
        (lambda: split_files(["a.csv"], SETTINGS), "'a.csv' is not (path, size) .* [(path, os.path.getsize(path))]"),
        (lambda: split_files([("a.csv",)], SETTINGS), "('a.csv',) is not (path, size)"),
        (lambda: split_files([("a.csv", "1KB")], SETTINGS), "('a.csv', '1KB') is not (path, size)"),
        (lambda: split_files("a.csv", SETTINGS), "'a' is not (path, size)"),
    ],
    "version_of": [(lambda: version_of(5, 1.5e9, 7), "mtime_ns is a float, expected nanoseconds .* not st_mtime")],
}


def fault(position):
    return Fault(np.array([position]), "age", "wrong_type", "no")


def test_every_public_name_is_tried():
    assert MISTAKES.keys() | {"ReadSettings"} == set(transforms.__all__)


@pytest.mark.parametrize(("make", "says"), [mistake for mistakes in MISTAKES.values() for mistake in mistakes])
def test_an_obvious_mistake_is_refused_in_a_sentence(make, says):
    with pytest.raises((TypeError, ValueError, RuntimeError)) as refused:
        make()
    pattern = ".*".join(re.escape(piece) for piece in says.split(".*"))
    assert re.search(pattern, str(refused.value)), refused.value


def test_sizes_may_be_numpy_integers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("age\n1\n")
    (split,) = split_files([(str(path), np.int64(path.stat().st_size))], SETTINGS)
    assert split.ranges[0].path == str(path)
