"""Runs that are killed at every step of the protocol, and at any moment: the same command goes on, and in the end
the output is what it would have been."""

import os
import random

import kills
import pytest
from kills import Case, Kill

SEED = int(os.environ.get("BEAM_SCORE_TEST_SEED", "1"))
"""Other kills are drawn with another seed, which is part of the names of the tests."""

rng = random.Random(SEED)
STEPS = [*kills.named_cases(rng, "first"), *kills.named_cases(rng, "replace")]
MOMENTS = [Case(kind, (Kill(round(rng.random(), 3)),)) for kind in ("first", "replace") for _ in range(6)]
AGAIN_AND_AGAIN = [
    Case(kind, tuple(Kill(round(rng.uniform(0.3, 1), 3)) for _ in range(3)))
    for kind in ("first", "replace")
    for _ in range(3)
]


def play(case, stage, tmp_path, record_property):
    try:
        played = kills.play(case, stage, tmp_path)
    except AssertionError as error:
        error.add_note(f"seed {SEED}; {kills.how_to_repeat(case)}")
        raise
    record_property("kills", played.kills)
    record_property("rows", played.rows)
    record_property("undisturbed", stage.rows)
    return played


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_a_run_killed_at_a_step_goes_on(case, stage, tmp_path, record_property):
    assert play(case, stage, tmp_path, record_property).kills


@pytest.mark.parametrize("case", MOMENTS, ids=lambda case: f"{case} of seed {SEED}")
def test_a_run_killed_at_any_moment_goes_on(case, stage, tmp_path, record_property):
    play(case, stage, tmp_path, record_property)


@pytest.mark.parametrize("case", AGAIN_AND_AGAIN, ids=lambda case: f"{case} of seed {SEED}")
def test_a_run_killed_again_and_again_goes_on(case, stage, tmp_path, record_property):
    play(case, stage, tmp_path, record_property)


def steps_of(stage, output, log, *command):
    ended = stage.forks.run(*command, disk={"kind": "Recording", "output": str(output), "log": str(log)})
    assert ended.code == 0, ended.said
    steps = log.read_text().splitlines()
    return {step: steps.count(step) for step in steps}


def test_these_are_all_the_steps_of_a_run(stage, tmp_path):
    output = tmp_path / "out"
    first = steps_of(stage, output, tmp_path / "first", *stage.command("job", output))
    assert first == kills.STEPS["first"]
    replacement = steps_of(stage, output, tmp_path / "second", *stage.command("other", output, "--replace"))
    assert set(replacement) - set(first) <= set(kills.STEPS["replace"]) <= set(replacement)
    assert {step: replacement[step] for step in kills.STEPS["replace"]} == kills.STEPS["replace"]


def test_what_is_expected_is_what_the_input_says(stage):
    from outcomes import true_predictions

    for name, times in (("job", 1), ("other", 2)):
        found = stage.expected[name].predictions
        assert found == [{name: row[name] for name in found[0]} for row in true_predictions(stage.scene, times)]
        assert {letter["reason"] for letter in stage.expected[name].dead_letters} == {"wrong_type", "out_of_range"}
