"""Runs that are killed and continued until they are done.

A case consists of its kind, `first` or `replace` (over a finished run of another model), and the point at which each
attempt is killed: STEP/OCCURRENCE/before or after (see `disks`), or a share of the time of an undisturbed run.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from forks import Ended, Forks
from outcomes import COUNT_FILE, Result, Scene, assert_all_listed_is_there, assert_complete, rows_counted

# The steps of a first run in its folder, by role, with the number of occurrences; first the roles of the files that are
# written under a hidden name.
_DRAFTED = {"current": 1, "shard": 1, "plan": 1, "receipt": 8, "verdict": 1, "manifest": 1}
_DONE_TO_A_DRAFT = ("draft.open", "draft.write", "draft.fsync")
FIRST_RUN = {
    "launch draft.open": 1,
    "launch draft.write": 1,
    "launch draft.fsync": 1,
    "launch.link": 1,
    "launch draft.unlink": 1,
    "launch.unlink": 1,
    "launches folder.mkdir": 1,
    "launches folder.fsync": 1,
    "launches folder.rmdir": 2,
    "probe.open": 1,
    "probe.link": 1,
    "probe.unlink": 2,
    "output.mkdir": 2,
    "output.rmdir": 1,
    "elsewhere.fsync": 2,
    "output.fsync": 5,
    "staging.mkdir": 2,
    "staging.fsync": 4,
    "run folder.mkdir": 1,
    "run folder.fsync": 5,
    "plan folder.mkdir": 1,
    "plan folder.fsync": 1,
    "parts folder.mkdir": 1,
    "receipts folder.mkdir": 1,
    **{f"{name} {call}": times for name, times in _DRAFTED.items() for call in _DONE_TO_A_DRAFT},
    **{f"{name}.link": times for name, times in _DRAFTED.items()},
    **{f"{name} draft.unlink": times for name, times in _DRAFTED.items()},
    "part.open": 16,
    "part.write": 16,
    "part.fsync": 16,
    "parts folder.fsync": 8,
    "receipts folder.fsync": 8,
    "predictions folder.mkdir": 1,
    "predictions.link": 8,
    "predictions folder.fsync": 1,
    "rejected folder.mkdir": 1,
    "rejected.link": 8,
    "rejected folder.fsync": 1,
    "current.unlink": 1,
    "doomed run folder.rename": 1,
    "doomed verdict.unlink": 1,
    "doomed part.unlink": 16,
    "doomed parts folder.rmdir": 1,
    "doomed shard.unlink": 1,
    "doomed plan folder.rmdir": 1,
    "doomed plan.unlink": 1,
    "doomed receipt.unlink": 8,
    "doomed receipts folder.rmdir": 1,
    "doomed run folder.rmdir": 1,
    "staging.rmdir": 2,
}
REPLACEMENT = {
    "current.link": 1,
    "plan.link": 1,
    "receipt.link": 8,
    "verdict.link": 1,
    "predictions.link": 8,
    "manifest draft.fsync": 1,
    "manifest.rename": 1,
    "output.fsync": 5,
    "current.unlink": 1,
    "doomed run folder.rename": 1,
    "predictions.unlink": 8,
    "rejected.unlink": 8,
    "staging.rmdir": 3,
}
"""The steps of a run that replaces a finished one: those that differ, and those that decide."""

STEPS = {"first": FIRST_RUN, "replace": REPLACEMENT}


@dataclasses.dataclass(frozen=True)
class Kill:
    """The point at which an attempt is killed.

    Attributes:
      share: of the time of an undisturbed run; None if `step`, `occurrence` and `when` are set.
    """

    share: float | None = None
    step: str = ""
    occurrence: int = 1
    when: str = "before"

    @classmethod
    def parse(cls, text: str) -> Kill:
        step, slash, rest = text.partition("/")
        if not slash:
            return cls(float(text))
        occurrence, _, when = rest.partition("/")
        return cls(None, step, int(occurrence), when)

    def __str__(self) -> str:
        return f"{self.share:.3f}" if self.share is not None else f"{self.step}/{self.occurrence}/{self.when}"


@dataclasses.dataclass(frozen=True)
class Case:
    """A sequence of attempts at a run.

    Attributes:
      kind: `first`, or `replace` over a finished run.
      kills: of consecutive attempts; another attempt runs to the end.
    """

    kind: str
    kills: tuple[Kill, ...]

    @classmethod
    def parse(cls, text: str) -> Case:
        kind, _, kills = text.partition(":")
        return cls(kind, tuple(Kill.parse(kill) for kill in kills.split(",")))

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.kills))}"


def named_cases(rng: random.Random, kind: str) -> list[Case]:
    """Return one case per step: an attempt killed before the step, at a random occurrence, and the next attempt after
    it."""
    return [
        Case(kind, (Kill(None, step, rng.randint(1, times), "before"), Kill(None, step, 1, "after")))
        for step, times in STEPS[kind].items()
    ]


def drawn_case(rng: random.Random) -> Case:
    """Return a case with up to four kills at random times or steps."""

    def drawn(kind: str) -> Kill:
        if rng.random() < 0.5:
            return Kill(round(rng.random(), 3))
        step, times = rng.choice(list(STEPS[kind].items()))
        return Kill(None, step, rng.randint(1, times), rng.choice(("before", "after")))

    kind = rng.choice(list(STEPS))
    return Case(kind, tuple(drawn(kind) for _ in range(rng.randint(1, 4))))


@dataclasses.dataclass(frozen=True)
class Stage:
    """The input and the expected results of cases.

    Attributes:
      expected: the result of each of the scene's jobs.
      finished: an output folder with a finished run of the scene's `job`.
      rows: number of rows that an undisturbed run scores, including its trial rows.
      seconds: duration of an undisturbed run.
    """

    scene: Scene
    forks: Forks
    expected: dict[str, Result]
    finished: Path
    rows: int
    seconds: float

    @classmethod
    def set(cls, scene: Scene, forks: Forks) -> Stage:
        """Run both jobs, undisturbed."""
        count, expected = scene.folder / "rows", {}
        for name, job in scene.jobs.items():
            output, began = scene.folder / f"finished-{name}", time.monotonic()
            environment = {COUNT_FILE: str(count)} if name == "job" else {}
            ended = forks.run("run", job, "--set", f"output.path={output}", **environment)
            assert ended.code == 0, ended.said
            expected[name] = Result.of(output)
        return cls(scene, forks, expected, scene.folder / "finished-job", rows_counted(count), time.monotonic() - began)

    def command(self, name: str, output: Path, *more: str) -> tuple[str, ...]:
        """Return the command line that runs one of the scene's jobs into a folder."""
        return ("run", self.scene.jobs[name], "--set", f"output.path={output}", *more)


@dataclasses.dataclass(frozen=True)
class Played:
    """The result of a case.

    Attributes:
      kills: number of attempts killed: a random kill may come too late.
      rows: number of rows scored by all attempts.
    """

    kills: int
    rows: int


def play(case: Case, stage: Stage, folder: Path) -> Played:
    """Run a case, and check the output after each attempt.

    Args:
      folder: an empty folder for this case only.

    Raises:
      AssertionError: rows or files are lost, files are left over, or a failure is reported badly.
    """
    output, count, kills = folder / "out", folder / "rows", 0
    if case.kind == "replace":
        shutil.copytree(stage.finished, output)
        command, allowed = stage.command("other", output, "--replace"), list(stage.expected.values())
    else:
        command, allowed = stage.command("job", output), [stage.expected["job"]]
    for number, kill in enumerate(case.kills):
        ended = _attempt(kill, stage, command, folder / f"killed-{number}", output, count)
        kills += ended.code != 0
        assert kill.share is not None or number > 0 or ended.code != 0, f"{kill} is not reached:\n{ended.said}"
        assert_all_listed_is_there(output)
        if (output / "manifest.json").exists():
            assert Result.of(output) in allowed
    ended = stage.forks.run(*command, **{COUNT_FILE: str(count)})
    assert ended.code == 0, f"exit code {ended.code}:\n{ended.said}"
    assert_complete(output, allowed[-1])
    return Played(kills, rows_counted(count))


def _attempt(kill: Kill, stage: Stage, command: tuple[str, ...], marker: Path, output: Path, count: Path) -> Ended:
    counted = {COUNT_FILE: str(count)}
    if kill.share is None:
        at = {"step": kill.step, "occurrence": kill.occurrence, "when": kill.when, "number": int(signal.SIGKILL)}
        disk = {"kind": "SignalAt", "output": str(output), "marker": str(marker), **at}
        ended = stage.forks.run(*command, disk=disk, **counted)
        assert (ended.code != 0) == marker.exists(), f"exit code {ended.code}, not killed:\n{ended.said}"
        return ended
    running = stage.forks.start(*command, **counted)
    time.sleep(kill.share * stage.seconds)
    return running.kill()


def how_to_repeat(case: Case) -> str:
    return f"to repeat it: {sys.executable} tests/kit/kill_runs.py --case '{case}'"


def work_done(kills: int, rows: int, undisturbed: int) -> str:
    """Return a line on the cost of the kills."""
    return (
        f"{kills} kills; {rows:,} rows scored where {undisturbed:,} would do: {rows / undisturbed:.2f} times the work"
    )
