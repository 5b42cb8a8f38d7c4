"""A Flink cluster that loses a worker, a machine or a bundle starts the job again: every row once, counts exact."""

from __future__ import annotations

import threading
from pathlib import Path

import dirty
import faults
import jobs
import pytest
from dirty import Published

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.run.launch import run

_WITHIN_S = 120


@pytest.fixture(scope="session")
def plenty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plenty")
    return dirty.write_plenty(folder)


@pytest.fixture(scope="session")
def expected(plenty, model, tmp_path_factory):
    """What comes of it where nothing goes wrong."""
    output = tmp_path_factory.mktemp("expected") / "out"
    run(parse_job(settings(plenty, model, output, {"runner": "local"})))
    return Published.of(output)


def settings(data: Path, model, output: Path, engine: dict) -> dict:
    engine = dirty.PLENTY | {"workers": 2} | engine
    return dirty.plenty_job(data, model("echo_and_multiply"), output, preprocess="faults:trip", engine=engine)


def on(cluster, jars: Path) -> dict:
    jar = str(jars / "job-server-for-cluster.jar")
    section = {"master": cluster.master, "worker_pool": cluster.pool, "job_server_jar": jar}
    return {"runner": "flink", "flink": section}


def faulty(cluster) -> Path:
    """The folder where the cluster's workers look for faults."""
    return cluster.folder.parent


@pytest.mark.parametrize("fault", ["kill", "fail"])
def test_a_worker_that_dies_and_a_bundle_that_fails_cost_no_row(
    fault, plenty, expected, model, flink_jars, flink_cluster, tmp_path
):
    faults.order(faulty(flink_cluster), fault, tmp_path / "out")
    outcome = run(parse_job(settings(plenty, model, tmp_path / "out", on(flink_cluster, flink_jars))))
    assert outcome.code == 0
    assert not (faulty(flink_cluster) / fault).exists(), "nothing went wrong"
    dirty.assert_same(tmp_path / "out", expected)


def test_a_machine_that_is_lost_costs_no_row(plenty, expected, model, flink_jars, flink_cluster, tmp_path):
    folder = faulty(flink_cluster)
    faults.order(folder, "hold", tmp_path / "out")
    outcomes = []
    job = parse_job(settings(plenty, model, tmp_path / "out", on(flink_cluster, flink_jars)))
    launched = threading.Thread(target=lambda: outcomes.append(run(job)))
    launched.start()
    faults.wait_until(lambda: (folder / "held").exists() or not launched.is_alive())
    before = len(jobs.staged(tmp_path / "out"))
    flink_cluster.kill_task_manager()
    flink_cluster.start_task_manager()
    # What is left of the lost machine's worker goes on, beside those of the new one.
    (folder / "go on").touch()
    launched.join(_WITHIN_S)
    assert [outcome.code for outcome in outcomes] == [0]
    assert before > 0
    dirty.assert_same(tmp_path / "out", expected)
