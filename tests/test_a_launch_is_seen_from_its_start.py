"""`status` tells of a launch that is getting ready, and what another job has changed is told by key and value."""

from __future__ import annotations

import json
import os
import signal
import time

import jobs
import pytest
from rich.console import Console
from store_jobs import StoreJob

from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.differences import differing_settings
from beam_score.pipeline.run.launching import Launching, launches
from beam_score.pipeline.run.output_state import Changed
from beam_score.pipeline.run.status import Watcher
from beam_score.pipeline.show.status_view import as_dict, as_line, as_table, exit_code
from beam_score.transforms.ledger.budget import Budget

A, B = "20260101T000000-aaaaaa", "20260101T000001-bbbbbb"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "lake" / "deep" / "out"


def look(output):
    return Watcher(str(output)).look()


def test_a_launch_is_seen_until_it_has_planned(output):
    with Launching(str(output)) as launching:
        status = look(output)
        assert (status.state, status.run, status.published, exit_code(status)) == ("starting", None, None, 4)
        assert "a launch is starting" in as_line(status)
        assert as_dict(status)["state"] == "starting"
        Console(file=open(os.devnull, "w")).print(as_table(status, 0.0))  # noqa: SIM115
        launching.end()
        assert not (output.parent.parent).exists(), "what was made is gone: nothing came of it"
    assert not output.exists()


def test_a_launch_that_replaces_shows_what_is_published(output):
    StoreJob(str(output), "a").launch(A)
    with Launching(str(output)):
        status = look(output)
        assert (status.state, status.published) == ("starting", A)
    assert look(output).state == "done" and not (output / "_staging").exists()


def test_a_launch_over_a_run_that_is_over_budget(output):
    StoreJob(str(output), "a", budget=Budget(rows=0, share=None)).launch(A)
    assert look(output).state == "over budget"
    with Launching(str(output)):
        assert look(output).state == "starting"
    assert look(output).state == "over budget"


def test_a_launch_beside_a_run_that_lives_does_not_hide_it(output):
    seen = []
    with Launching(str(output)):
        StoreJob(str(output), "a").launch(A, between=lambda: seen.append(look(output).state))
    assert set(seen) <= {"running", "publishing"} and seen


def test_a_folder_that_cannot_be_made_is_told_by_others(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "_staging").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for output in (tmp_path / "file" / "out", tmp_path / "linked", "nosuch://x"):
        with Launching(str(output)):
            pass
    assert sorted(tmp_path.rglob("*")) == before


def dead(output):
    """What a launch leaves that was killed."""
    launching = Launching(str(output)).__enter__()
    ((path, _),) = launches(str(output))
    content = path.read_bytes()
    launching.end()
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_a_launch_that_died_is_not_seen_and_is_cleaned_up(output):
    path = dead(output)
    assert look(output).state == "nothing"
    assert [str(x.path) for x in clean(str(output)).leftovers] == [str(path)]
    assert not (output / "_staging").exists()
    dead(output)
    StoreJob(str(output), "a").launch(A)
    assert not (output / "_staging").exists(), "a run that is finished takes it away"


def test_clean_leaves_a_launch_alone(output):
    StoreJob(str(output), "a").launch(A)
    with Launching(str(output)):
        (output / "_staging" / "launches" / "theirs.txt").write_text("mine")
        found = clean(str(output))
        assert found.leftovers == [] and "a launch is getting ready" in found.kept
        assert look(output).state == "starting"
    assert (output / "_staging" / "launches" / "theirs.txt").exists()


WAITS = """
import os, time
here = os.path.dirname(__file__)
open(os.path.join(here, "begun"), "w").close()
while not os.path.exists(os.path.join(here, "goes_on")):
    time.sleep(0.05)
raise ValueError("enough")
"""


def test_the_command_is_seen_while_it_checks_the_job_and_leaves_nothing_where_it_is_refused(tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    job = jobs.write_job(tmp_path, str(tmp_path / "no-model"), preprocess="waits:function")
    running = jobs.start("run", job, PYTHONPATH=str(tmp_path))
    states, until = [], time.monotonic() + 240
    try:
        while not (tmp_path / "begun").exists() and running.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
            states.append(look(tmp_path / "out").state)
        assert look(tmp_path / "out").state == "starting"
        assert set(states) <= {"nothing", "starting"}
        (tmp_path / "goes_on").write_text("")
        assert running.wait(240) == 2
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()


# What has changed.


def column(**rules):
    return {"columns": {"age": rules}}


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (column(range=[0, 150]), column(range=[0, 200]), "columns.age.range was [0, 150] and is [0, 200]"),
        (column(default=1), column(), "columns.age.default was 1 and is not set"),
        ({}, column(dtype="int8"), "columns.age.dtype was not set and is 'int8'"),
        (column(unit="m"), column(unit="km"), ""),
        ({"rejects": {"budget": 1}, "engine": {"workers": 1}}, {"rejects": {"budget": 2}}, ""),
        ({"output": {"path": "a"}}, {"output": {"path": "b"}}, ""),
        ({"columns": {"a.b": {"top": 1}}}, {"columns": {"a.b": {"top": 2}}}, "columns.a.b.top was 1 and is 2"),
        ({"preprocess": "a:b"}, {}, "preprocess was 'a:b' and is not set"),
    ],
)
def test_what_differs_is_told_by_key_and_value(before, now, said):
    assert differing_settings(before, now) == said


def test_very_much_that_differs_is_counted():
    said = differing_settings({"columns": {}}, {"columns": {f"c{n}": {"dtype": "x" * 10_000} for n in range(500)}})
    assert said.endswith(", and 490 more") and len(said) < 6000


def test_a_job_that_has_changed_names_the_one_option_that_goes_on(output):
    over = StoreJob(str(output), "a", budget=Budget(rows=0, share=None))
    over.launch(A)
    with pytest.raises(Changed) as raised:
        StoreJob(str(output), "b").launch(B)
    (said,) = raised.value.problems
    assert "of another job, over its error budget and not published (job changed)" in said
    assert raised.value.flag == "--restart"
    StoreJob(str(output), "a").launch(B)
    with pytest.raises(Changed) as raised:
        StoreJob(str(output), "b").launch(B)
    assert raised.value.flag == "--replace"
    assert json.loads((output / "manifest.json").read_bytes())["run"] == A
