"""A replay runs the model and the function that a record names: of a run that this user has not launched only if
that is asked for."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare import own_runs
from beam_score.pipeline.prepare.replay import load_replay
from beam_score.transforms.durable.sealed import to_json

RUN = "20260101T000000-aaaaaa"
JOB = {
    "input": {"files": ["x.csv"], "format": "csv"},
    "model": {"path": "models/evil"},
    "output": {"path": "out"},
    "preprocess": "evil:function",
    "engine": {"flink": {"job_server_jar": "evil.jar"}},
    "columns": {"a": {"dtype": "float64", "default": float("nan"), "range": [0, 10**30]}},
}


@pytest.fixture
def output(tmp_path, monkeypatch):
    """A run with a dead letter, launched by this user."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    counts = {"read": 1, "predicted": 0, "rejected": 1, "stretches": 0}
    letters = f"rejected/{RUN}-00000.jsonl"
    record = {
        "run": RUN, "verdict": "over budget", "over_budget": ["1 row"], "counts": counts | {
            "rejected_by_reason": {"malformed": 1}, "stretches_by_reason": {}},
        "defaults_used": {}, "not_finite_outputs": {},
        "timings": {"rows_per_s": None, "first_read_to_last_receipt_s": 0},
        "versions": {}, "headers": [], "replaces": [],
        "model": {"path": "models/evil", "version": None, "sha256": "00", "signature": "s"},
        "engine": {"workers": 1, "batch_rows": 1, "xla": False, "intra_op_threads": 1},
        "fingerprint": {"contract": "00"}, "job": JOB, "parent": None,
        "files": [{"path": letters, "kind": "rejected", "rows": 1, "bytes": 3, "crc32c": "00"}],
        "inputs": [{"path": "x.csv", "size": 1, "header": None, "predicted_before": 0, "read": 1, "predicted": 0,
                    "rejected": {"malformed": 1}, "stretches": {}}],
    }  # fmt: skip
    folder = tmp_path / "out"
    (folder / "rejected").mkdir(parents=True)
    (folder / letters).write_text("{}\n")
    (folder / "failed.json").write_bytes(to_json(record | {"mark": own_runs.mark(record)}, indent=True))
    return folder


def change(output: Path, **fields) -> None:
    path = output / "failed.json"
    path.write_bytes(to_json(json.loads(path.read_bytes()) | fields))


def refused(output: Path) -> str:
    with pytest.raises(JobError) as raised:
        load_replay(str(output))
    (said,) = raised.value.problems
    assert "was not launched by this user on this machine" in said and "add --trust" in said
    return said


def test_ones_own_run_is_replayed_at_once(output):
    job, parent = load_replay(str(output))
    assert job.preprocess == "evil:function" and parent.record["run"] == RUN


def test_a_run_of_another_user_or_machine_is_refused_with_what_it_would_run(output, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    said = refused(output)
    for named in ("model.path models/evil", "preprocess evil:function", "engine.flink.job_server_jar evil.jar"):
        assert named in said
    assert load_replay(str(output), trust=True)[0].preprocess == "evil:function"


@pytest.mark.parametrize(
    "fields",
    [
        {"mark": None},
        {"mark": ""},
        {"mark": "é"},
        {"job": JOB | {"preprocess": "os:system"}},
        {"job": JOB | {"model": {"path": "elsewhere"}}},
        {"model": {"path": "models/evil", "version": None, "sha256": "11", "signature": "s"}},
        {"fingerprint": {"contract": "11"}},
    ],
)
def test_a_record_that_was_changed_is_refused(output, fields):
    change(output, **fields)
    refused(output)


def test_a_record_from_before_there_were_marks_is_refused(output):
    path = output / "failed.json"
    fields = json.loads(path.read_bytes())
    del fields["mark"]
    path.write_text(json.dumps(fields))
    refused(output)


def test_the_key_is_this_users_alone_and_is_made_once(output, tmp_path):
    key = tmp_path / "state" / "beam-score" / "key"
    content = key.read_text()
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    load_replay(str(output))
    assert key.read_text() == content and os.listdir(key.parent) == ["key"]


def test_without_a_folder_for_a_key_a_run_has_no_mark(output, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert own_runs.mark({"job": {}, "model": {}, "fingerprint": {}}) is None
    refused(output)


def test_a_record_with_numbers_beyond_64_bits_and_nan_can_be_read_again():
    assert json.loads(to_json({"a": [10**30, float("nan"), -float("inf"), 1.5]})) == {"a": [10**30, None, None, 1.5]}
