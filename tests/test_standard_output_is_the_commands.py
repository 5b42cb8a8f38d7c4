"""What a model, a library or a function of the user's prints, in whatever way and amount, is neither on standard output
nor on standard error, unless it is asked for."""

from __future__ import annotations

import json
import os
import sys
import textwrap

import jobs
import pytest

from beam_score.pipeline.printing import printed, terminal
from beam_score.pipeline.process.supervise import supervised

VALUE = "8812345"

FUNCTION = f"""
    import logging, os, sys, warnings

    def talk(rows):
        print("print {VALUE}")
        print("error {VALUE}", file=sys.stderr)
        warnings.warn("warning {VALUE}")
        logging.getLogger("mine").warning("log {VALUE}")
        os.write(1, b"descriptor 1 {VALUE}\\n")
        os.write(2, b"descriptor 2 {VALUE}\\n")
        os.system("echo child {VALUE}")
        os.write(1, int(os.environ["FLOOD"]) * b"many ")
        return rows
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("talk")
    (folder / "talks.py").write_text(textwrap.dedent(FUNCTION))
    (folder / "data").mkdir()
    (folder / "data" / "a.csv").write_text(f"id,x\na,{VALUE}\nb,1\n")
    columns, rest = {"x": {"dtype": "float32"}}, {"preprocess": "talks:talk", "inputs": {}, "outputs": {"y": {}}}
    return folder, jobs.write_job(
        folder, model("prints"), columns=columns, output={"path": str(folder / "out")}, **rest
    )


def run(job, flood, *arguments):
    folder, path = job
    return jobs.cli(*arguments[:1], path, *arguments[1:], PYTHONPATH=str(folder), FLOOD=str(flood))


def test_standard_output_is_json_and_nothing_of_a_row_is_shown(job):
    done = run(job, 600_000, "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["predicted"] == 2
    assert VALUE not in done.stderr and "many" not in done.stderr
    note = done.stderr.splitlines()[-1]
    assert note.startswith("note: the model, libraries or your own functions printed ") and "--log-level debug" in note
    assert int(note.split("printed ")[1].split(" bytes")[0].replace(",", "")) > 3_000_000


def test_it_is_shown_where_it_is_asked_for(job):
    done = run(job, 0, "check", "--log-level", "debug")
    assert done.returncode == 0 and "ready" in done.stdout and "print " not in done.stdout
    for way in ("print", "error", "warning", "descriptor 1", "descriptor 2", "child"):
        assert f"{way} {VALUE}" in done.stderr, way
    assert f"{VALUE}.000000" in done.stderr  # what the model prints
    assert "note: " not in done.stderr


def quiet(tmp_path, work):
    """The code of some supervised work, and what came out on standard output and error."""
    streams = [open(tmp_path / name, "w+") for name in ("out", "err")]  # noqa: SIM115
    parent = os.fork()
    if parent == 0:
        for number, stream in enumerate(streams, 1):
            os.dup2(stream.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))  # pytest has its own
        os._exit(supervised(work, lambda problem: terminal.say([problem]), printed.Printed()))
    code = os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1])
    return code, *((tmp_path / name).read_text() for name in ("out", "err"))


def test_a_process_that_is_ended_leaves_nobody_waiting(tmp_path):
    def work():
        printed.keep_apart("info")
        terminal.put("mine")
        terminal.flush()
        os.write(1, b"theirs\n")
        if os.fork() == 0:  # it goes on, out of reach, with the pipes in its hands
            os.setsid()
            os.execlp("sleep", "sleep", "5")
        os.kill(os.getpid(), 9)

    code, out, err = quiet(tmp_path, work)
    assert code == 1 and out == "mine\n" and "SIGKILL" in err and "theirs" not in err
    assert "printed 7 bytes" in err


def test_what_is_shown_has_a_limit(tmp_path):
    def work():
        printed.keep_apart("debug")
        for _ in range(5):
            os.write(2, 500_000 * b"x")
        return 0

    code, out, err = quiet(tmp_path, work)
    shown, _, note = err.partition("note: ")
    assert (code, out, shown.strip("\n")) == (0, "", printed.MOST_BYTES * "x")
    assert f"printed {2_500_000 - printed.MOST_BYTES:,} bytes" in note


def test_what_is_shown_moves_no_cursor(tmp_path):
    def work():
        printed.keep_apart("debug")
        os.write(2, b"\x1b[2Jred\n")
        return 0

    assert quiet(tmp_path, work) == (0, "", "\\x1b[2Jred\n")
