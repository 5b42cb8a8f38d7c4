"""`inspect` tells all there is to know of a model, to people and to programs."""

from __future__ import annotations

import io
import json
import shutil

import jobs
import models
import pytest
from rich.console import Console

from beam_score.pipeline.job.job import Model
from beam_score.pipeline.show.check import check_job
from beam_score.pipeline.show.inspect import inspect_model, print_inspection
from beam_score.transforms.model.signature import ModelError
from beam_score.transforms.model.versions import hash_model


def printed(info):
    out = io.StringIO()
    print_inspection(info, Console(file=out, width=100, force_terminal=False))
    return out.getvalue()


def test_a_program_reads_it_as_json(model, tmp_path):
    for version in ("2", "10"):
        shutil.copytree(model("echo"), tmp_path / "people" / version)
    info = json.loads(json.dumps(inspect_model(str(tmp_path / "people"))))
    assert info.pop("tensorflow").startswith("2.")
    assert info == {
        "path": str(tmp_path / "people" / "10"),
        "version": "10",
        "versions": ["2", "10"],
        "sha256": hash_model(model("echo")),
        "signatures": {
            "serving_default": {
                "method": "tensorflow/serving/predict",
                "inputs": {
                    "id": {"dtype": "int64", "shape": [None], "kind": "dense"},
                    "x": {"dtype": "float32", "shape": [None, 3], "kind": "dense"},
                },
                "outputs": {
                    "out": {"dtype": "int64", "shape": [None], "kind": "dense"},
                    "y": {"dtype": "float32", "shape": [None, 3], "kind": "dense"},
                },
                "problems": [],
                "effects": [],
            }
        },
    }


def test_a_person_reads_a_table(model, tmp_path):
    for version in ("2", "10"):
        shutil.copytree(model("several_outputs"), tmp_path / "people" / version)
    text = printed(inspect_model(str(tmp_path / "people"), 2))
    assert "2 (others: 10)" in text
    assert "signature serving_default (the default; see model.signature)" in text
    assert hash_model(model("several_outputs")) in text
    rows = [tuple(cell.strip() for cell in line.strip("│┃|").split("│")) for line in text.splitlines() if "│" in line]
    assert rows == [
        ("input", "x", "float32", "[?, 3]"),
        ("output", "embedding", "float32", "[?, 8]"),
        ("output", "label", "string", "[?]"),
        ("output", "logits", "float32", "[?, 3]"),
    ]


def test_what_cannot_be_used_is_said(model):
    text = printed(inspect_model(model("composite_outputs")))
    assert "cannot be used: output 'few' is sparse: only dense tensors can be written" in " ".join(text.split())


def test_what_a_model_does_besides_computing_is_said_before_it_is_run(tmp_path, model):
    writes = models.writes(tmp_path / "writes")
    info = inspect_model(str(writes))
    assert info["signatures"]["serving_default"]["effects"] == ["writes files (WriteFile)"]
    text = " ".join(printed(info).split())
    assert "does more than compute: writes files (WriteFile)" in text and "A model is a program" in text
    assert not list(tmp_path.glob("written*"))
    clean = inspect_model(model("multiply"))
    assert clean["signatures"]["serving_default"]["effects"] == [] and "A model is" not in printed(clean)


def test_check_says_it_before_the_model_is_loaded(tmp_path, monkeypatch):
    writes = models.writes(tmp_path / "writes")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id,x\na,1\n")
    job = jobs.settings(tmp_path, str(writes), columns={"x": {"dtype": "float32"}}) | {"inputs": {}}
    job["model"] |= {"independent": False} if "independent" in Model.model_fields else {}
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()

    class Seen(Exception):
        pass

    def load(prepared):
        raise Seen

    monkeypatch.setattr("beam_score.pipeline.show.check.load", load)
    with pytest.raises(Seen):
        check_job(jobs.parse_job(job), Console(file=out, width=200, force_terminal=False))
    assert (
        "writes files (WriteFile)" in out.getvalue() and "a model that you do not trust in isolation" in out.getvalue()
    )


def test_names_are_printed_as_they_are(model):
    info = inspect_model(model("odd_names"))
    info["signatures"]["[bold]"] = info["signatures"].pop("serving_default")
    assert "signature [bold]" in printed(info)
    assert "out/1: %" in printed(info)


def test_no_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        inspect_model(str(tmp_path / "none"))
