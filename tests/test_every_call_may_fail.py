"""Every file-system call of the protocol fails, one after the other: what failed is told in a sentence, and the same
command again comes to the right end, and leaves nothing over.

BEAM_SCORE_TEST_EVERY_CALL=1 takes all calls with all errors; else each kind of call has its turn once.
"""

import errno
import itertools
import os
import shutil

import jobs
import pytest
import time_machine
from disks import FailingAt, Watched
from outcomes import Result, assert_complete, assert_told, make_scene

from beam_score.pipeline.job.job import load_job
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.launch import run
from beam_score.transforms.durable.disk import Disk, use

ALL = os.environ.get("BEAM_SCORE_TEST_EVERY_CALL") == "1"
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
DAY_S = 86_400


class Noting(Watched):
    """Notes the steps of all calls, and which of them change something."""

    def __init__(self, output):
        super().__init__(output)
        self.steps, self.changing = [], set()

    def before(self, step, changes, path):
        self.steps.append(step)
        self.changing |= {step} if changes else set()


@pytest.fixture(scope="module")
def scene(tmp_path_factory, model):
    """A job of three splits, one worker, in this process."""
    folder = tmp_path_factory.mktemp("calls")
    return make_scene(folder, model("echo"), model("doubled"), workers=1, split_bytes="3KiB")


def attempt(scene, name, output, disk=None, *settings):
    """Runs a job in this process; `other` over what stands. Returns the exit code, and what is said."""
    use(disk or Disk())
    try:
        job = load_job(scene.jobs[name], [f"output.path={output}", *settings])
        return run(job, replace=name == "other").code, ""
    except Exception as error:
        code, problems = explain(error)
        return code, "\n".join(f"error: {problem}" for problem in problems)
    finally:
        use(Disk())


@pytest.fixture(scope="module")
def undisturbed(scene):
    """Of each job: what comes out, the steps to it, and the kinds of steps that are to fail."""
    found, output = {}, scene.folder / "finished"
    for name in ("job", "other"):
        disk = Noting(str(output))
        assert attempt(scene, name, output, disk)[0] == 0
        # Both look in the same way.
        kinds = [kind for kind in dict.fromkeys(disk.steps) if name == "job" or kind in disk.changing]
        found[name] = (Result.of(output), disk.steps, kinds)
        if name == "job":
            shutil.copytree(output, scene.folder / "template")
    return found


def calls_to_fail(steps, kinds, turn):
    """Numbers of calls, from 1: of all, or of those whose kind has its turn with this error."""
    if ALL:
        return range(1, len(steps) + 1)
    # Not always the first of its kind.
    places = {kind: [n for n, step in enumerate(steps, 1) if step == kind] for kind in kinds}
    return [places[kind][at % len(places[kind])] for at, kind in enumerate(kinds) if at % len(ERRORS) == turn]


def problems_of(scene, name, expected, folder, disk):
    """What is wrong after an attempt on a disk that fails, and another one; empty if nothing is."""
    output = folder / "out"
    if name == "other":
        shutil.copytree(scene.folder / "template", output)
    try:
        code, said = attempt(scene, name, output, disk)
        assert_told(code, said)
        assert disk.failed is not None, "nothing failed"
        if code:
            assert len(said.splitlines()) == 1 and os.strerror(disk.errno) in said and str(folder) in said, said
        code, said = attempt(scene, name, output)
        assert code == 0, f"again: exit code {code}: {said}"
        assert_complete(output, expected)
    except AssertionError as error:
        return f"call {disk.call}, {disk.failed}, {errno.errorcode[disk.errno]}: {error}"
    shutil.rmtree(folder)
    return ""


@pytest.mark.parametrize("name", ["job", "other"], ids=["first", "replacement"])
@pytest.mark.parametrize("turn", range(len(ERRORS)), ids=lambda turn: errno.errorcode[ERRORS[turn]])
def test_a_call_that_fails_once_is_told_and_gone_on_from(name, turn, scene, undisturbed, tmp_path):
    expected, steps, kinds = undisturbed[name]
    wrong = []
    for call in calls_to_fail(steps, kinds, turn):
        folder = tmp_path / f"call-{call}"
        folder.mkdir()
        disk = FailingAt(str(folder / "out"), call, ERRORS[turn])
        wrong += filter(None, [problems_of(scene, name, expected, folder, disk)])
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)


@pytest.mark.parametrize("name", ["job", "other"], ids=["first", "replacement"])
def test_a_disk_that_is_full_from_some_call_on_is_told_and_gone_on_from(name, scene, undisturbed, tmp_path):
    expected, steps, _ = undisturbed[name]
    wrong = []
    for call in range(1, len(steps), 1 if ALL else len(steps) // 8):
        folder = tmp_path / f"call-{call}"
        folder.mkdir()
        disk = FailingAt(str(folder / "out"), call, errno.ENOSPC, for_ever=True)
        wrong += filter(None, [problems_of(scene, name, expected, folder, disk)])
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)


def test_an_output_that_becomes_read_only_is_told_and_gone_on_from(scene, undisturbed, tmp_path):
    expected, steps, _ = undisturbed["job"]
    with jobs.small_disk(tmp_path / "small", "size=9m") as remount:
        output = tmp_path / "small" / "out"
        begun = FailingAt(str(output), steps.index("receipt.link") + 1, errno.EIO)
        assert attempt(scene, "job", output, begun)[0] == 1
        remount("ro")
        code, said = attempt(scene, "job", output)
        assert code in (1, 2, 6) and len(said.splitlines()) == 1 and str(output) in said, said
        remount("rw")
        assert attempt(scene, "job", output)[0] == 0
        assert_complete(output, expected)


class JumpingClock(Watched):
    """Moves the clock at every call, by so many days, one after the other, over and over."""

    def __init__(self, output, traveller, days):
        super().__init__(output)
        self._traveller, self._jumps = traveller, itertools.cycle([DAY_S * d for d in days])

    def before(self, step, changes, path):
        self._traveller.shift(next(self._jumps))


@pytest.mark.parametrize("days", [(0, -1, 1), (0, 1, -1), (-1, -2, -3)])
def test_a_clock_that_jumps_does_no_harm(days, scene, undisturbed, tmp_path):
    expected, steps, _ = undisturbed["job"]
    output = tmp_path / "out"
    begun = FailingAt(str(output), steps.index("verdict.link") - 20, errno.EIO)
    now = 1_800_000_000
    with time_machine.travel(now + days[0] * DAY_S):
        assert attempt(scene, "job", output, begun)[0] == 1
    with time_machine.travel(now + days[1] * DAY_S) as traveller:
        code, said = attempt(scene, "job", output, JumpingClock(str(output), traveller, (-1, 2, -1)))
        assert code == 0, said
    assert_complete(output, expected)
    with time_machine.travel(now + days[2] * DAY_S):
        code, said = attempt(scene, "other", output)
        assert code == 0, said
    assert_complete(output, undisturbed["other"][0])
    assert jobs.manifest(output)["timings"]["rows_per_s"] is not None


def test_a_clock_that_is_set_back_in_mid_run_makes_no_negative_times(scene, undisturbed, tmp_path):
    output = tmp_path / "out"
    with time_machine.travel(1_800_000_000) as traveller:
        clock = JumpingClock(str(output), traveller, (-1,))
        assert attempt(scene, "job", output, clock, "engine.split_bytes=1MB")[0] == 0
    assert_complete(output, undisturbed["job"][0])
    assert jobs.manifest(output)["timings"]["rows_per_s"] is None
