"""What a launch on Flink finds wrong before it starts anything, and what it leaves behind: nothing."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import dirty
import faults
import jobs
import pytest
from dirty import Published

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.run.launch import run


def settings(data: Path, model, output: Path, flink: dict, **engine) -> dict:
    engine = dirty.PLENTY | {"runner": "flink", "workers": 2, "flink": flink} | engine
    return dirty.plenty_job(data, model("echo_and_multiply"), output, preprocess="faults:trip", engine=engine)


def on(cluster, jars: Path) -> dict:
    jar = str(jars / "job-server-for-cluster.jar")
    return {"master": cluster.master, "worker_pool": cluster.pool, "job_server_jar": jar}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return dirty.write_plenty(tmp_path_factory.mktemp("plenty"))


def started(tmp_path: Path, job: dict):
    """The command, at the moment when one of its workers holds still with some splits done."""
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job))
    (tmp_path / "tmp").mkdir()
    return jobs.start("run", str(path), TMPDIR=str(tmp_path / "tmp"), **{faults.FOLDER: str(tmp_path)})


def processes_with(text: str) -> list[str]:
    """Command lines of living processes that hold a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def assert_nothing_left(tmp_path: Path) -> None:
    assert processes_with(str(tmp_path / "tmp")) == []
    assert list((tmp_path / "tmp").glob("beam-score-*")) == []


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"flink": {"master": "flink.example"}}, "found 'flink.example', expected [local], or HOST:PORT"),
        ({"flink": {"master": "h:1"}, "workers": 2}, "set worker_pool to its HOST:PORT"),
        ({"flink": {"master": "h:1", "worker_pool": "h:2"}}, "set the number of slots that the job may use"),
        ({"flink": {"environment": "PROCESS"}}, "set worker_command"),
        ({"flink": {"worker_pool": "h:2", "environment": "LOOPBACK"}}, "requires the environment EXTERNAL"),
        ({"flink": {"job_server": "h:1", "job_server_jar": "x.jar"}}, "remove one of them"),
        ({"flink": {"restarts": -1}}, "flink.restarts"),
        ({"flink": {"masster": "[local]"}}, "masster"),
    ],
)
def test_wrong_settings_are_refused(engine, told, tmp_path):
    job = jobs.settings(tmp_path, "model", engine={"runner": "flink"} | engine)
    job["engine"].pop("workers") if "workers" not in engine else None
    with pytest.raises(JobError) as wrong:
        parse_job(job)
    assert told in str(wrong.value.problems)


def test_all_that_is_not_there_is_told_at_once(model, data, tmp_path):
    with socket.socket() as one, socket.socket() as other:  # bound, and nobody listens
        one.bind(("localhost", 0))
        other.bind(("localhost", 0))
        flink = {
            "master": f"localhost:{one.getsockname()[1]}",
            "worker_pool": f"localhost:{other.getsockname()[1]}",
            "job_server_jar": str(tmp_path / "none.jar"),
            "restarts": 3,
        }
        job = settings(data, model, tmp_path / "out", flink)
        job["input"]["files"] = str(tmp_path / "none-*.csv")
        with pytest.raises(JobError) as wrong:
            run(parse_job(job))
    told = "\n".join(wrong.value.problems)
    for problem in (
        "no Flink cluster answers",
        "worker_pool: nothing answers",
        "there is no file",
        "none-*.csv",
        "restarts only applies",
    ):
        assert problem in told


def test_more_workers_than_slots_are_refused(model, data, flink_jars, flink_cluster, tmp_path):
    job = settings(data, model, tmp_path / "out", on(flink_cluster, flink_jars), workers=64)
    with pytest.raises(JobError, match=r"engine.workers is 64, and the Flink cluster at .* has 2 slots"):
        run(parse_job(job))


def test_beams_own_options_win_and_a_conflict_is_said(caplog, model, data, flink_jars, tmp_path):
    flink = {"job_server_jar": str(flink_jars / "job-server.jar")}
    run(parse_job(settings(data, model, tmp_path / "out", flink)), beam_options=["--parallelism=1"])
    assert "--parallelism after -- overrides engine.workers of the job file, which is 2" in caplog.text


def test_a_jvm_starts_again_what_failed_as_often_as_it_is_told(monkeypatch, model, data, flink_jars, tmp_path):
    monkeypatch.setenv(faults.FOLDER, str(tmp_path))
    flink = {"job_server_jar": str(flink_jars / "job-server.jar"), "restarts": 1}
    faults.order(tmp_path, "fail", tmp_path / "out")
    outcome = run(parse_job(settings(data, model, tmp_path / "out", flink)))
    assert outcome.code == 0
    assert not (tmp_path / "fail").exists(), "nothing went wrong"
    local = settings(data, model, tmp_path / "whole", {}, runner="local")
    run(parse_job(local))
    dirty.assert_same(tmp_path / "out", Published.of(tmp_path / "whole"))


def test_the_first_interrupt_finishes_what_is_in_hand(model, data, flink_jars, tmp_path):
    flink = {"job_server_jar": str(flink_jars / "job-server.jar")}
    faults.order(tmp_path, "hold", tmp_path / "out")
    process = started(tmp_path, settings(data, model, tmp_path / "out", flink))
    faults.wait_until(lambda: (tmp_path / "held").exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    said = ""
    while "finishing the splits in hand" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    (tmp_path / "go on").touch()
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "splits are done; the same command continues from here" in rest
    assert_nothing_left(tmp_path)


def test_an_interrupt_cancels_the_job_on_a_cluster(model, data, flink_jars, flink_cluster, tmp_path):
    folder = flink_cluster.folder.parent
    faults.order(folder, "hold", tmp_path / "out")
    process = started(tmp_path, settings(data, model, tmp_path / "out", on(flink_cluster, flink_jars)))
    faults.wait_until(lambda: (folder / "held").exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted; the same command continues from here" in said
    assert flink_cluster.jobs()[-1]["state"] in ("CANCELLING", "CANCELED")
    (folder / "go on").touch()
    assert_nothing_left(tmp_path)
    flink_cluster.wait_for_slots(flink_cluster.slots)
