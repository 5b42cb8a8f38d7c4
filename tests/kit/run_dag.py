"""Runs a DAG for some days, in the environment that contains Airflow and not this project.

    python run_dag.py DAG_FILE < runs.json

Reads a list of {"day": "2026-11-20", "environment": {...}}; prints, as its last line, a list of the state, the number
of tries, and the return value of the task for each.
"""

import contextlib
import datetime
import importlib.util
import json
import os
import sqlite3
import sys


def load(path):
    spec = importlib.util.spec_from_file_location("dag_file", path)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def main():
    dag = load(sys.argv[1]).a_day
    for task in dag.tasks:
        task.retry_delay = datetime.timedelta(0)
    found = []
    for run in json.load(sys.stdin):
        os.environ.update(run["environment"])
        date = datetime.datetime.fromisoformat(run["day"]).replace(tzinfo=datetime.UTC)
        with contextlib.redirect_stdout(sys.stderr):
            ended = dag.test(logical_date=date)
        database = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(database)) as tables:
            select = "select state, try_number from task_instance where run_id = ?"
            state, tries = tables.execute(select, [ended.run_id]).fetchone()
            select = "select value from xcom where key = 'return_value' and run_id = ?"
            returned = tables.execute(select, [ended.run_id]).fetchone()
        found.append({"state": state, "tries": tries, "returned": returned and json.loads(returned[0])})
    print(json.dumps(found))


main()
