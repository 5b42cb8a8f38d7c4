"""A parent process that waits for the working process and reports how it died.

The work is done in a child, forked before any thread exists and before any large import. The parent is a few MB of
Python that passes signals to the child, and the child's exit code to the caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable

from beam_score.pipeline.printing.printed import Printed, open_printed
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.process.interrupts import SIGNALS, TEXT, Interrupted, ignore
from beam_score.runners.ended import CRASHES, GOES_ON, models_and_rows, told
from beam_score.transforms.formats.typed.suspects import ENVIRONMENT, suspects
from beam_score.transforms.model.in_flight import Rows, make_register, open_register, read_register

_MOST_SUSPECTS = 100


def supervised(work: Callable[[], int], say: Callable[[str], None], printed: Printed) -> int:
    """Do work in a child process.

    The child has its own process group: signals from a terminal reach only the parent, which passes them to the child
    once. If the parent ends for any reason, the child ends at once; if the child ends, so do all its descendants.

    Args:
      work: returns an exit code; called in the child, which ends with it.
      say: shows a message to the user; called in the parent if the child has died, and in the child if it was
        interrupted outside of `work`.
      printed: collects output in the child that is not the command's; see `pipeline.printing.printed`.

    Returns:
      the exit code, in the parent. In the child this does not return.
    """
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    register = make_register()
    held, holds = os.pipe()  # only the parent has the end for writing, so it closes when the parent ends
    done, finished = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until the handlers are set
    child = os.fork()
    if child == 0:
        os.close(holds)
        os.close(done)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # the child may write to the terminal, from the background too
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        threading.Thread(target=_end_with, args=(held,), name="parent", daemon=True).start()
        open_register(register)
        open_printed(printed)
        try:
            code = work()
        except Interrupted as interrupted:  # the signal came before or after the handling inside `work`
            ignore()
            say(TEXT)
            code = interrupted.code
        os.write(finished, b"1")
        # Shutting the interpreter down with the threads of Arrow and TensorFlow in it is slow, and can abort.
        os._exit(code)
    os.close(held)
    os.close(finished)
    with contextlib.suppress(OSError):  # the child sets it too: either may be first
        os.setpgid(child, child)
    _pass_on(child)
    printed.watch()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    for number in _PASSED_ON:  # the child is gone, and its process id may be reused
        signal.signal(number, signal.SIG_IGN)
    in_flight = read_register(register)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # worker processes, if any; the child's id is not free yet
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    printed.close()
    _start_anew_without_suspects(-status, in_flight, nohup, say)
    return _code(status, os.read(done, 1) == b"1", in_flight, say)


_PASSED_ON = {*SIGNALS, signal.SIGTSTP, signal.SIGCONT}


def _pass_on(child: int) -> None:
    def send(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    def suspend(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)

    def resume(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGCONT)

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, send)
    signal.signal(signal.SIGTSTP, suspend)
    signal.signal(signal.SIGCONT, resume)


def _end_with(held: int) -> None:
    """End this process and its descendants as soon as the other end of the pipe is closed."""
    os.read(held, 1)
    with contextlib.suppress(OSError):
        os.killpg(0, signal.SIGKILL)
    os._exit(ExitCode.FAILED)


def _start_anew_without_suspects(number: int, in_flight: list[Rows], nohup: bool, say: Callable[[str], None]) -> None:
    """Restart the command if a crash has new suspects: files that were being decoded while no row was in a model call.
    Return if there are no new suspects.

    Args:
      number: of the signal that ended the child.
      nohup: whether SIGHUP was ignored when the command started.
    """
    files, rows = [], False
    for note in models_and_rows(in_flight)[1]:
        if note.is_file:
            files.append(note.first_source)
        else:
            rows = True
    known = suspects()
    if number not in CRASHES or rows or not set(files) - set(known) or len(known) >= _MOST_SUSPECTS:
        return
    names = [signal.Signals(number).name, ", ".join(files)]
    say("the process was ended by {} while it read {}: it restarts, and reads them separately first".format(*names))
    for passed_on in _PASSED_ON:
        signal.signal(passed_on, signal.SIG_IGN if nohup and passed_on == signal.SIGHUP else signal.SIG_DFL)
    environment = os.environ | {ENVIRONMENT: json.dumps(sorted({*known, *files}))}
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _code(status: int, finished: bool, in_flight: list[Rows], say: Callable[[str], None]) -> int:
    if finished and status >= 0:
        return status
    if status >= 0:
        # A library, or an op of the model (Abort has an option for it), may call exit(0).
        models, rows = models_and_rows([note for note in in_flight if not note.is_file])
        model = f"the model {', '.join(models)}" if models else "the model"
        at = f" while {model} had {', '.join(map(str, rows))}" if rows else f", with {model} loaded" if models else ""
        say(f"the process ended itself with exit code {status} before the command had finished{at}: {GOES_ON}")
        return ExitCode.FAILED
    if -status in SIGNALS:
        say(f"interrupted; {GOES_ON}")
        return 128 - status
    sys.stderr.flush()
    say(told("the scoring process", -status, in_flight))
    return ExitCode.FAILED
