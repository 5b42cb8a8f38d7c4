"""Whatever is wrong with a model, it is a sentence, or it works."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from damaged_models import DATA, INDEX, PB, damaged_bytes, damaged_folders, odd_signature

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.show.inspect import inspect_model
from beam_score.transforms.model.ops import ops_of
from beam_score.transforms.model.servable import Servable
from beam_score.transforms.model.signature import ModelError, choose_signature, read_signatures

SEED = int(os.environ.get("FUZZ_SEED", "20261127"))
FAULTS = int(os.environ.get("FUZZ_FAULTS", "400"))
LOADED = int(os.environ.get("FUZZ_LOADED", "6"))


@pytest.mark.parametrize("name", ["multiply", "looks_up", "composite_outputs", "odd_names"])
def test_a_file_with_any_fault_is_described_or_told(model, tmp_path, name):
    data, told, described = Path(model(name), PB).read_bytes(), 0, 0
    for number in range(FAULTS // 4):
        rng = random.Random(f"{SEED} {name} {number}")
        make = odd_signature if number % 3 == 0 else damaged_bytes
        (tmp_path / PB).write_bytes(make(data, rng))
        try:
            signature = choose_signature(read_signatures(tmp_path))
            ops_of(tmp_path, signature.name).describe()
            assert signature.describe() and inspect_model(str(tmp_path))["signatures"]
            described += 1
        except ModelError:
            told += 1
    assert told > FAULTS // 40 and described > FAULTS // 40


def job_of(folder: Path, model: str) -> dict:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"x": [1.0, 2.0, 3.0]}) + "\n" for _ in range(4)))
    return {
        "input": {"files": str(rows)},
        "model": {"path": model},
        "columns": {"x": {"dtype": "float32", "shape": [3]}},
        "inputs": {"inputs": {"pack": ["x"]}},
        "output": {"path": str(folder / "out")},
    }


def test_a_job_with_any_odd_signature_is_prepared_or_refused(model, tmp_path):
    data, refused = Path(model("multiply"), PB).read_bytes(), 0
    shutil.copytree(model("multiply"), tmp_path / "m")
    for number in range(FAULTS // 6):
        (tmp_path / "m" / PB).write_bytes(odd_signature(data, random.Random(f"{SEED} job {number}")))
        try:
            prepare(parse_job(job_of(tmp_path, str(tmp_path / "m"))))
        except JobError:
            refused += 1
    assert refused > FAULTS // 12


def test_a_model_with_any_fault_is_checked_or_told(model, tmp_path, forks):
    for what, path in damaged_folders(model("multiply"), tmp_path, LOADED, SEED):
        (tmp_path / "job.yaml").write_text(json.dumps(job_of(tmp_path, str(path))))
        ended = forks.run("check", str(tmp_path / "job.yaml"))
        assert ended.code in (0, 1, 2), (what, ended)
        for word in ("unexpected error", "Traceback", "was ended by"):
            assert word not in ended.said, (what, ended)
        assert ended.code == 0 or ended.said.strip(), what


def without(name):
    def damage(folder):
        (folder / name).unlink()

    return damage


def cut(name, size):
    def damage(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return damage


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (
            "multiply",
            cut(DATA, 5),
            r"variables\.data-00000-of-00001 cannot be read, .*: copy or export the model again",
        ),
        ("multiply", cut(DATA, 0), r"variables\.data-00000-of-00001"),
        ("multiply", cut(INDEX, 40), r"variables\.index"),
        ("multiply", without(INDEX), r"variables\.index"),
        ("multiply", without(DATA), r"variables\.data-00000-of-00001"),
        ("multiply", cut(PB, 700), r"saved_model\.pb is damaged"),
        ("asset", without("assets/words.txt"), r"assets/words\.txt"),
    ],
)
def test_a_model_that_was_not_copied_whole_is_told_by_the_file(model, tmp_path, name, damage, said):
    shutil.copytree(model(name), tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(ModelError, match=said) as told:
        Servable.load(tmp_path / "m")
    code, sentences = explain(told.value)
    assert code == 2 and str(tmp_path / "m") in sentences[0] and len(str(told.value)) < 700
