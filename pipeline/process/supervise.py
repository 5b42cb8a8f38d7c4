"""A parent that survives: it waits for the process that works, and tells what that one cannot tell any more.

The work is done in a child, forked before any thread exists and before anything heavy is imported. The
parent is a few MB of Python that passes signals on to the child, and the child's exit code to the caller.
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
from beam_score.pipeline.process.interrupts import SIGNALS, TEXT, Interrupted, ignore
from beam_score.runners.ended import CRASHES, GOES_ON, models_and_rows, told
from beam_score.transforms.formats.parquet.suspects import ENVIRONMENT, suspects
from beam_score.transforms.model.in_hand import Rows, make_register, open_register, read_register

FAILED = 1
_MOST_SUSPECTS = 100


def supervised(work: Callable[[], int], say: Callable[[str], None], printed: Printed) -> int:
    """Does some work in a process of its own.

    The child is in a process group of its own: what a terminal sends comes to the parent alone, and is
    passed on once. Where the parent ends in whatever way, the child does at once; where the child ends,
    so does all that it has started.

    Args:
      work: gives an exit code; called in the child, which ends with it.
      say: shows a person a sentence; called in the parent, where the child has died of something, and in the child,
        where it was interrupted outside of `work`.
      printed: takes what others than the command print in the child; see `pipeline.printing.printed`.

    Returns:
      the exit code, in the parent. In the child this does not return.
    """
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    register = make_register()
    held, holds = os.pipe()  # the parent alone has the end for writing, so it closes with the parent
    done, finished = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # none may come between
    child = os.fork()
    if child == 0:
        os.close(holds)
        os.close(done)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it may write to the terminal: it is the command's voice
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        threading.Thread(target=_end_with, args=(held,), name="parent", daemon=True).start()
        open_register(register)
        open_printed(printed)
        try:
            code = work()
        except Interrupted as interrupted:  # it came between here and there
            ignore()
            say(TEXT)
            code = interrupted.code
        os.write(finished, b"1")
        # To take the interpreter down with the threads of Arrow and TensorFlow in it takes a while, and can abort.
        os._exit(code)
    os.close(held)
    os.close(finished)
    with contextlib.suppress(OSError):  # whichever of the two is first
        os.setpgid(child, child)
    _pass_on(child)
    printed.watch()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    for number in _PASSED_ON:  # there is no one left to pass it on to, and the child's id is soon another's
        signal.signal(number, signal.SIG_IGN)
    in_hand = read_register(register)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # worker processes, where there are any; the child's id is not free yet
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    printed.close()
    _start_anew_without_suspects(-status, in_hand, nohup, say)
    return _code(status, os.read(done, 1) == b"1", in_hand, say)


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
    """Ends this process, and all that it has started, once nobody holds the other end of the pipe."""
    os.read(held, 1)
    with contextlib.suppress(OSError):
        os.killpg(0, signal.SIGKILL)
    os._exit(FAILED)


def _start_anew_without_suspects(number: int, in_hand: list[Rows], nohup: bool, say: Callable[[str], None]) -> None:
    """Starts the command anew, where a crash has new suspects: files that were being decoded, with nothing in the
    model's hands. Returns where there are none.

    Args:
      number: of the signal that ended the child.
      nohup: whether SIGHUP was ignored before all this.
    """
    files, rows = [], False
    for note in models_and_rows(in_hand)[1]:
        if note.is_file:
            files.append(note.first_source)
        else:
            rows = True
    known = suspects()
    if number not in CRASHES or rows or not set(files) - set(known) or len(known) >= _MOST_SUSPECTS:
        return
    names = [signal.Signals(number).name, ", ".join(files)]
    say("the process was ended by {} while it read {}: it is started anew, and tries them apart first".format(*names))
    for passed_on in _PASSED_ON:
        signal.signal(passed_on, signal.SIG_IGN if nohup and passed_on == signal.SIGHUP else signal.SIG_DFL)
    environment = os.environ | {ENVIRONMENT: json.dumps(sorted({*known, *files}))}
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _code(status: int, finished: bool, in_hand: list[Rows], say: Callable[[str], None]) -> int:
    if finished and status >= 0:
        return status
    if status >= 0:
        # A library, or an op of the model (Abort has it as an option), may call exit(0).
        models, rows = models_and_rows([note for note in in_hand if not note.is_file])
        model = f"the model {', '.join(models)}" if models else "the model"
        at = f" while {model} had {', '.join(map(str, rows))}" if rows else f", with {model} loaded" if models else ""
        say(f"the process ended itself with exit code {status} before the command was done{at}: {GOES_ON}")
        return FAILED
    if -status in SIGNALS:
        say(f"interrupted; {GOES_ON}")
        return 128 - status
    sys.stderr.flush()
    say(told("the process that scores", -status, in_hand))
    return FAILED
