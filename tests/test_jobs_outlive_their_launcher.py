"""A job on a Flink cluster whose launcher was killed goes on, and publishes; and everyone who asks is told that it is
at work, or that nobody can tell."""

from __future__ import annotations

import json
import signal
import socket
import threading

import dirty
import faults
import jobs
import pytest

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.chain import build
from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.run.remote_jobs import note, noted
from beam_score.pipeline.run.status import Watcher
from beam_score.pipeline.show.status_view import as_dict, as_line, exit_code
from beam_score.runners.choose import engine_of, find
from beam_score.runners.elsewhere import Elsewhere
from beam_score.transforms.ledger.folder import RunFolder, read_plan

_WITHIN_S = 120


def on(flink_cluster, flink_jars) -> dict:
    jar = str(flink_jars / "job-server-for-cluster.jar")
    return {"master": flink_cluster.master, "worker_pool": flink_cluster.pool, "job_server_jar": jar}


def test_a_job_whose_launcher_was_killed_goes_on_and_publishes(caplog, model, flink_jars, flink_cluster, tmp_path):
    data, out, folder = tmp_path / "data", tmp_path / "out", flink_cluster.folder.parent
    data.mkdir()
    dirty.write_plenty(data)
    engine = dirty.PLENTY | {"runner": "flink", "workers": 2, "flink": on(flink_cluster, flink_jars)}
    settings = dirty.plenty_job(data, model("echo_and_multiply"), out, preprocess="faults:trip", engine=engine)
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(settings))
    faults.order(folder, "hold", out)
    killed = jobs.start("run", str(path))
    faults.wait_until(lambda: (folder / "held").exists() or killed.poll() is not None)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    job = flink_cluster.jobs()[-1]
    at_work = f"job {job['jid']} on {flink_cluster.master} is still RUNNING"

    status = Watcher(str(out)).look()
    assert (status.state, exit_code(status)) == ("running", 4)
    assert as_line(status).endswith(f"no launch is running, {at_work}")
    for unfinished in (False, True):
        found = clean(str(out), unfinished=unfinished)
        assert found.leftovers == [] and at_work in found.kept[0]
    with pytest.raises(JobError, match=rf"--restart would discard run .* {at_work}: cancel it first \(curl -X PATCH"):
        run(parse_job(settings), restart=True)

    # On whatever engine the command is given again, it waits.
    outcomes = []
    local = parse_job(settings | {"engine": dirty.PLENTY})
    again = threading.Thread(target=lambda: outcomes.append(run(local)))
    again.start()
    faults.wait_until(lambda: "waiting for it" in caplog.text or not again.is_alive())
    assert at_work in caplog.text
    (folder / "go on").touch()
    again.join(_WITHIN_S)
    assert [(outcome.code, outcome.by_another) for outcome in outcomes] == [(0, True)]
    counts = jobs.manifest(out)["counts"]
    rows = dirty.PLENTY_FILES * dirty.PLENTY_ROWS
    assert (counts["read"], counts["rejected"]) == (rows, rows / 1000)
    assert Watcher(str(out)).look().state == "done"


@pytest.fixture
def begun(model, tmp_path) -> RunFolder:
    """A run that is planned, and no more."""
    jobs.write_people(tmp_path / "data", files=1, rows=10)
    return jobs.plan(jobs.job(tmp_path, model("dense"))).folder


def test_where_no_engine_answers_that_is_said_and_nothing_is_taken_away(begun):
    (begun.parts / "predictions-000000-dead-0.parquet").write_bytes(b"what an attempt has left")
    with socket.socket() as silent:  # bound, and nobody listens
        silent.bind(("localhost", 0))
        note(begun, Elsewhere("flink", "beam-score-lost", {"address": f"localhost:{silent.getsockname()[1]}"}))
        status = Watcher(begun.output).look()
        assert (status.state, exit_code(status)) == ("planned", 1)
        (told,) = as_dict(status)["jobs"]
        assert (told["name"], told["id"], told["state"]) == ("beam-score-lost", None, None)
        assert "no Flink cluster answers at this address" in told["why_not_known"]
        for unfinished in (False, True):
            found = clean(begun.output, unfinished=unfinished)
            assert found.leftovers == [] and "--lost-jobs takes it for ended" in found.kept[0]
        assert [left.why for left in clean(begun.output, lost_jobs=True).leftovers] == ["part of an attempt that died"]
        clean(begun.output, unfinished=True, lost_jobs=True)
    assert not begun.path.exists()


@pytest.mark.parametrize(
    "answer",
    [b"\x00\x00\x12 no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n[]"],
)
def test_what_answers_and_is_no_cluster_is_told_in_a_sentence(begun, answer):
    def serve():
        other, _ = server.accept()
        with other:
            other.recv(1000)
            other.sendall(answer)

    with socket.create_server(("localhost", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        note(begun, Elsewhere("flink", "beam-score-lost", {"address": f"localhost:{server.getsockname()[1]}"}))
        (told,) = Watcher(begun.output).look().jobs
    assert told.alive is None and told.why


def test_an_address_that_is_none_is_told_in_a_sentence():
    for address in ("localhost:port", "http://[x:1", "a b:1"):
        assert find(Elsewhere("flink", "job", {"address": address})).alive is None


def test_a_job_of_any_name_is_noted(begun):
    note(begun, job := Elsewhere("flink", "nightly/scores é", {"address": "flink:8081"}))
    assert noted(begun) == [job]


def test_a_login_is_not_noted(tmp_path):
    section = {"master": "flink:1", "worker_command": "/opt/worker"}
    settings = jobs.settings(tmp_path, "model", engine={"runner": "flink", "workers": 2, "flink": section})
    engine = engine_of(parse_job(settings).engine, ["--flink_master=https://me:secret@flink.example:8081"])
    assert engine.elsewhere("RUN").place == {"address": "https://flink.example:8081"}


def test_a_job_that_is_started_again_once_it_has_published_ends_well(model, tmp_path):
    """A step that fails after the commit makes an engine start the whole job again."""
    jobs.write_people(tmp_path / "data", files=1, rows=10)
    planned = jobs.plan(job := jobs.job(tmp_path, model("dense")))
    shards = read_plan(planned.folder)["shards"]
    for _ in range(2):
        jobs.run_locally(lambda p: build(p, planned.steps, planned.write, shards, job.rejects.as_budget()), 1)
        assert jobs.manifest(tmp_path / "out")["counts"]["predicted"] == 10
    assert not planned.folder.path.exists()


def test_a_job_whose_run_was_discarded_fails(model, tmp_path):
    jobs.write_people(tmp_path / "data", files=1, rows=10)
    planned = jobs.plan(job := jobs.job(tmp_path, model("dense")))
    shards = read_plan(planned.folder)["shards"]
    clean(planned.folder.output, unfinished=True)
    with pytest.raises(Exception, match="there is no such file"):
        jobs.run_locally(lambda p: build(p, planned.steps, planned.write, shards, job.rejects.as_budget()), 1)
