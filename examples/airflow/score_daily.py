"""A daily job: a DAG for Airflow 3 (run with 3.3), whose task is the command `beam-score run`.

Put it into Airflow's DAGs folder, and set these variables there:

    beam_score_job        the job file; the next two variables override its input and output
    beam_score_input      the input of a day, such as /data/events/{day}/*.parquet
    beam_score_output     the folder for a day's results, such as /data/scores/{day}
    beam_score_command    optional: the command, if it is not on the worker's path, such as
                          /opt/beam-score/bin/beam-score

beam-score has its own environment: it and Airflow need different versions of the same libraries.

Idempotent: the logical date determines the folder of a day's results, so a task that is retried, cleared or backfilled
is the same job. A finished job reports that and succeeds; an interrupted job continues from the splits that are done.
docs/schedulers.md lists the meaning of each exit code, and what to alert on.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess

from airflow.sdk import Variable, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

WRONG_JOB, OVER_BUDGET, NOT_THERE, CHANGED = 2, 3, 5, 6


@dag(
    schedule="@daily",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=2,  # each day is a separate job; the machine limits how many can run at once
    tags=["beam-score"],
)
def score_daily():
    @task(retries=3, retry_delay=datetime.timedelta(minutes=5))
    def score() -> dict[str, object]:
        """Score a day. Returns the path of the manifest and its counts, for the tasks that follow."""
        day = f"{get_current_context()['logical_date']:%Y-%m-%d}"
        output = Variable.get("beam_score_output").format(day=day)
        files = Variable.get("beam_score_input").format(day=day)
        command = [Variable.get("beam_score_command", default="beam-score"), "run", Variable.get("beam_score_job")]
        command += ["--set", f"input.files={files}", "--set", f"output.path={output}", "--json"]
        # The entries that Airflow adds to Python's path are not for the command. Its log, on stderr, becomes the task's
        # log.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode == WRONG_JOB:
            raise AirflowFailException("the job file or the command line is wrong: the log above says what; no retry")
        if done.returncode == OVER_BUDGET:
            if not done.stdout:
                raise AirflowFailException("rejects.stop_after was reached: the log above has examples; no retry")
            why = "; ".join(json.loads(done.stdout)["over_budget"])
            raise AirflowFailException(f"{why}: no retry; see {output}/failed.json and the dead letters in rejected/")
        if done.returncode == CHANGED:
            raise AirflowFailException(
                "the input, the model or the job has changed since this day was scored: no retry; add "
                "--replace-if-changed to the command to have the day scored again"
            )
        if done.returncode == NOT_THERE:
            raise AirflowException(f"nothing matches {files} (yet): a retry looks again")
        if done.returncode != 0:
            raise AirflowException(f"exit code {done.returncode}: a retry goes on from the splits that are done")
        manifest = json.loads(done.stdout)
        return {"manifest": f"{output}/manifest.json", "run": manifest["run"], "counts": manifest["counts"]}

    score()


a_day = score_daily()
