"""Programs call the commands as functions: they get what the commands print, and exceptions for their errors."""

from __future__ import annotations

import jobs
import pyarrow as pa
import pytest

import beam_score
from beam_score.pipeline.job.job import load_job


@pytest.fixture
def job(tmp_path, model):
    """A job file over 200 rows, two of them bad."""
    jobs.write_people(tmp_path / "data", 2, 100, bad_every=100)
    return jobs.write_job(tmp_path, model("multiply"), rejects={"budget": "5%"}, engine={"workers": 1})


def test_a_job_is_checked_run_looked_at_and_replayed(job, tmp_path):
    checked = beam_score.check(job)
    assert isinstance(checked.predictions, pa.RecordBatch) and not checked.not_ready
    assert checked.code == beam_score.ExitCode.DONE
    assert beam_score.check(job, overrides=["rejects.budget=0"]).not_ready
    assert not (tmp_path / "out").exists()

    states = set()
    outcome = beam_score.run(job, show_progress=lambda status: states.add(status.state))
    assert outcome.code == beam_score.ExitCode.DONE
    rejected = outcome.manifest["counts"]["rejected"]
    assert outcome.manifest["counts"]["predicted"] + rejected == 200 and rejected
    assert beam_score.RunState.DONE in states
    assert beam_score.run(job).already

    status = beam_score.status(tmp_path / "out")
    assert status.state == beam_score.RunState.DONE and status.counts["read"] == 200

    replayed = beam_score.replay(tmp_path / "out", overrides=["rejects.budget=100%"], rows_from="source")
    assert replayed.manifest["counts"]["read"] == rejected


def test_a_job_may_be_plain_data(job):
    settings = load_job(job).as_json()
    checked = beam_score.check(settings, overrides=["engine.workers=2"])
    assert checked.predictions.num_rows and "2" not in settings["engine"]


def test_errors_are_exceptions_with_all_problems(job, tmp_path):
    with pytest.raises(beam_score.JobError) as error:
        beam_score.run({"model": {"path": "nowhere"}})
    assert len(error.value.problems) > 1
    with pytest.raises(beam_score.JobError, match="does not exist, expected the output folder of a job"):
        beam_score.status(tmp_path / "nowhere")


@pytest.mark.parametrize("option", ["restrat", "parent", "on_planned"])
def test_an_unknown_option_is_an_error(job, tmp_path, option):
    with pytest.raises(TypeError, match=option):
        beam_score.run(job, **{option: True})
    assert not (tmp_path / "out").exists()


def test_every_public_name_is_there():
    assert [getattr(beam_score, name) for name in beam_score.__all__]


def test_a_job_file_is_loaded_for_a_pipeline_of_ones_own(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "input: {files: data.csv}\nmodel: {path: m}\noutput: {path: out}\n"
        "columns: {age: {dtype: float32, range: [0, 150]}}\noutputs: {y: {meaning: probability}}\n"
    )
    job = beam_score.load_job(str(path), ["columns.age.default=1"])
    assert isinstance(job, beam_score.Job)
    assert job.contract.columns["age"].default == 1 and job.outputs["y"].meaning == "probability"
    with pytest.raises(beam_score.JobError, match="colums"):
        beam_score.load_job(str(path), ["colums.age.default=1"])
