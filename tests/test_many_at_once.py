"""Runs into one folder at the same time, and runs that come back from the dead: one complete output, and every
process says in the end what became of it."""

import os
import random
import signal
import threading
import time

import pytest
from outcomes import assert_all_listed_is_there, assert_complete, assert_told, read_manifest

SEED = int(os.environ.get("BEAM_SCORE_TEST_SEED", "1"))


def start_staggered(stage, rng, *commands):
    """Starts them one after the other, at moments that are drawn."""
    running = []
    for command in commands:
        running.append(stage.forks.start(*command))
        time.sleep(rng.random() * stage.seconds / 2)
    return running


def assert_all_say_which_run_stands(output, ended):
    run = read_manifest(output)["run"]
    for process in ended:
        assert_told(process.code, process.said)
        assert process.code == 0 and run in process.said, process.said


def stopping_at(step, output, marker, **at):
    return {"kind": "SignalAt", "output": str(output), "step": step, "marker": str(marker), "number": 19, **at}


def content(output):
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.mark.parametrize("round_", range(12))
def test_runs_started_together_make_one_output(round_, stage, tmp_path):
    rng, output = random.Random(f"{SEED} {round_}"), tmp_path / "out"
    running = start_staggered(stage, rng, *[stage.command("job", output)] * rng.choice((2, 3)))
    ended = [process.wait() for process in running]
    assert_complete(output, stage.expected["job"])
    assert_all_say_which_run_stands(output, ended)


@pytest.mark.parametrize("round_", range(4))
def test_one_of_them_killed_is_no_harm(round_, stage, tmp_path):
    rng, output = random.Random(f"{SEED} {round_}"), tmp_path / "out"
    running = start_staggered(stage, rng, *[stage.command("job", output)] * 3)
    running.pop(rng.randrange(3)).kill()
    ended = [process.wait() for process in running]
    assert_complete(output, stage.expected["job"])
    assert_all_say_which_run_stands(output, ended)


@pytest.mark.parametrize("round_", range(3))
def test_two_replacements_at_once_replace_once(round_, stage, tmp_path):
    rng, output = random.Random(f"{SEED} {round_}"), tmp_path / "out"
    assert stage.forks.run(*stage.command("job", output)).code == 0
    running = start_staggered(stage, rng, *[stage.command("other", output, "--replace")] * 2)
    ended = [process.wait() for process in running]
    assert_complete(output, stage.expected["other"])
    for process in ended:
        assert_told(process.code, process.said)
        assert process.code == 0, process.said


@pytest.mark.parametrize("round_", range(4))
def test_of_two_different_jobs_in_one_folder_one_wins_and_the_other_is_told(round_, stage, tmp_path):
    rng, output = random.Random(f"{SEED} {round_}"), tmp_path / "out"
    names = rng.sample(["job", "other"], 2)
    running = start_staggered(stage, rng, *[stage.command(name, output) for name in names])
    ended = dict(zip(names, [process.wait() for process in running], strict=True))
    (winner,) = [name for name, process in ended.items() if process.code == 0]
    (loser,) = [process for process in ended.values() if process.code != 0]
    assert loser.code in (1, 6) and "Traceback" not in loser.said
    assert loser.said.count("error:") == 1 and str(output) in loser.said
    assert_complete(output, stage.expected[winner])


def test_a_run_that_is_discarded_while_it_lives_says_so(stage, tmp_path):
    output = tmp_path / "out"
    stops = stopping_at("receipt.link", output, tmp_path / "first")
    discarded = stage.forks.start(*stage.command("job", output), disk=stops)
    discarded.wait_stopped()
    stops = stopping_at("receipt.link", output, tmp_path / "second")
    anew = stage.forks.start(*stage.command("job", output, "--restart"), disk=stops)
    anew.wait_stopped()
    discarded.go_on()
    ended = discarded.wait()
    assert ended.code == 1
    assert_told(ended.code, ended.said)
    assert ended.said.count("error:") == 1 and "discarded by another launch" in ended.said
    anew.go_on()
    assert anew.wait().code == 0
    assert_complete(output, stage.expected["job"])


@pytest.mark.parametrize("round_", range(3))
def test_a_restart_beside_a_run_that_lives_makes_one_output(round_, stage, tmp_path):
    rng, output = random.Random(f"{SEED} {round_}"), tmp_path / "out"
    commands = [stage.command("job", output), stage.command("job", output, "--restart")]
    ended = [process.wait() for process in start_staggered(stage, rng, *commands)]
    for process in ended:
        assert_told(process.code, process.said)
    assert ended[1].code == 0
    assert_complete(output, stage.expected["job"])


ZOMBIES = ["current", "plan", "receipt", "verdict", "predictions", "manifest"]
"""What a process is about to give its name when it stops."""


@pytest.mark.parametrize("replaced", [False, True], ids=["finished", "replaced"])
@pytest.mark.parametrize("name", ZOMBIES)
def test_a_zombie_changes_nothing(name, replaced, stage, tmp_path):
    output = tmp_path / "out"
    stops = stopping_at(f"{name}.link", output, tmp_path / "stopped")
    zombie = stage.forks.start(*stage.command("job", output), disk=stops)
    zombie.wait_stopped()
    ended = stage.forks.run(*stage.command("job", output))
    assert ended.code == 0, ended.said
    assert_complete(output, stage.expected["job"])
    if replaced:
        assert stage.forks.run(*stage.command("other", output, "--replace")).code == 0
        assert_complete(output, stage.expected["other"])
    before = content(output)
    zombie.go_on()
    ended = zombie.wait()
    assert content(output) == before
    assert_complete(output, stage.expected["other" if replaced else "job"])
    assert "Traceback" not in ended.said and "unexpected error" not in ended.said
    if replaced:
        # What stands is another job's result.
        assert ended.code in (1, 6) and ended.said.count("error:") == 1, ended.said
    else:
        assert_all_say_which_run_stands(output, [ended])


def test_a_zombie_of_a_discarded_run_publishes_nothing(stage, tmp_path):
    output = tmp_path / "out"
    stops = stopping_at("manifest.link", output, tmp_path / "first")
    zombie = stage.forks.start(*stage.command("job", output), disk=stops)
    zombie.wait_stopped()
    stops = stopping_at("part.open", output, tmp_path / "second")
    anew = stage.forks.start(*stage.command("job", output, "--restart"), disk=stops)
    anew.wait_stopped()
    zombie.go_on()
    ended = zombie.wait()
    assert ended.code == 1 and "discarded" in ended.said, ended.said
    assert read_manifest(output) is None
    anew.go_on()
    assert anew.wait().code == 0
    assert_complete(output, stage.expected["job"])


def test_who_waits_for_a_stopped_process_goes_on_once_it_is_dead(stage, tmp_path):
    output = tmp_path / "out"
    assert stage.forks.run(*stage.command("job", output)).code == 0
    replacement = stage.command("other", output, "--replace")
    # While it swaps one manifest for the other it is the only one that may.
    holder = stage.forks.start(*replacement, disk=stopping_at("manifest.rename", output, tmp_path / "stopped"))
    holder.wait_stopped()
    waiting = stage.forks.start(*replacement)
    time.sleep(2 * stage.seconds)
    assert waiting.lives()
    assert_all_listed_is_there(output)
    holder.signal(signal.SIGKILL)
    holder.wait()
    ended = waiting.wait()
    assert ended.code == 0, ended.said
    assert_complete(output, stage.expected["other"])


def test_a_reader_that_goes_by_the_manifest_always_finds_its_files(stage, tmp_path):
    output, over, looks, wrong = tmp_path / "out", threading.Event(), [], []

    def read():
        while not over.is_set():
            try:
                assert_all_listed_is_there(output)
            except AssertionError as error:
                wrong.append(error)
                return
            if (manifest := read_manifest(output)) is not None:
                looks.append(manifest["run"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for name in ("job", "other", "job", "other"):
            both = [stage.forks.start(*stage.command(name, output, "--replace")) for _ in range(2)]
            assert [process.wait().code for process in both] == [0, 0]
            assert_complete(output, stage.expected[name])
    finally:
        over.set()
        reader.join()
    assert not wrong
    assert len(set(looks)) >= 4 and len(looks) > 20
