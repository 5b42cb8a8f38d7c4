"""A block goes through contract, model and outputs in a process that has no Apache Beam."""

from __future__ import annotations

import subprocess
import sys

import jobs

SCORE = """
import sys

class NoBeam:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "apache_beam":
            raise ModuleNotFoundError("there is no apache_beam here")

sys.meta_path.insert(0, NoBeam())

import pyarrow as pa

from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.outputs import Output, OutputPlan
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import read_signatures
from beam_score.transforms.rows.block import ROW, Block
from beam_score.transforms.scoring.postprocess import postprocess
from beam_score.transforms.scoring.preprocess import Preparation
from beam_score.transforms.scoring.score import Scorer
from beam_score.transforms.scoring.validate import validate

path = sys.argv[1]
signature = read_signatures(path)["serving_default"]
contract = Contract(columns={"x": {"dtype": "float32", "range": [0, 10]}})
rows = pa.RecordBatch.from_pydict({ROW: pa.array([0, 1, 2], pa.int64()), "x": ["1", "99", "2.5"]})
plan = OutputPlan((), True, {name: Output() for name in signature.outputs}, dict(signature.outputs))

scorer = Scorer(ModelCall(path, signature, tuple(signature.outputs)))
scorer.load()
block = Preparation({}, signature.inputs, contract)(validate(Block(0, "a", 0, "table", rows), contract))
(scored,) = scorer.score([block])
scorer.close()
done = postprocess(scored, plan)
print(done.rows.to_pylist(), done.rejected["reason"].to_pylist(), "apache_beam" in sys.modules)
"""


def test_a_table_is_scored_where_beam_cannot_be_imported(model):
    done = subprocess.run(
        [sys.executable, "-c", SCORE, model("at_most_four")], capture_output=True, text=True, env=jobs.environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "[{'source': 'table', 'row': 0, 'y': 2.0}, {'source': 'table', 'row': 2, 'y': 5.0}] ['out_of_range'] False"
    )
