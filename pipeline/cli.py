"""The commands: thin. They parse, call, and print."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beam_score.pipeline.arguments import (
    BeamOptions,
    Command,
    Group,
    JobFile,
    LaunchArguments,
    LogFormat,
    LogLevel,
    Overrides,
    ServeCommand,
    with_launch_arguments,
)
from beam_score.pipeline.printing.printed import Printed, keep_apart
from beam_score.pipeline.printing.terminal import Console, begun, escape, flush, put, say
from beam_score.pipeline.process import interrupts
from beam_score.pipeline.process.supervise import supervised
from beam_score.runners.ended import GoesOnElsewhere
from beam_score.transforms.formats.registry import FORMATS

if TYPE_CHECKING:
    from beam_score.pipeline.job.job import Job
    from beam_score.pipeline.prepare.row_sources import FromDeadLetters
    from beam_score.pipeline.run.protocol import Outcome

app = typer.Typer(
    cls=Group,
    name="beam-score",
    help="Scores very many rows with a TensorFlow SavedModel: every row is predicted, or accounted for.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

command = functools.partial(app.command, cls=Command)

ModelPath = Annotated[
    str, typer.Argument(metavar="MODEL", help="A SavedModel, or a folder of numbered versions.", show_default=False)
]
Version = Annotated[str, typer.Option("--version", help="A number, or latest.")]


def _print_version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        put(importlib.metadata.version("beam-score"))
        raise typer.Exit


@app.callback()
def beam_score(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


@command(epilog="Example:  beam-score init models/people --data 'data/people-*.csv' -o job.yaml")
def init(
    model: ModelPath,
    data: Annotated[list[str], typer.Option("--data", help="Input files: a pattern, in quotes; may be repeated.")],
    version: Version = "latest",
    signature: Annotated[
        str | None, typer.Option("--signature", help="Of the model; by default serving_default, or the only one.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help=f"{', '.join(FORMATS)}; by default by the suffix."),
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first line of CSV holds names; by default a guess."),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Where to write the job file; - for standard output.")
    ] = "job.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Writes a commented job file from a model's signature and a look at the data."""
    from beam_score.pipeline.draft.draft import draft_job
    from beam_score.pipeline.job.mistakes import JobError
    from beam_score.transforms.formats.first_rows import Hints
    from beam_score.transforms.listing.files import list_files, told_folders

    if output != "-" and Path(output).exists() and not force:
        raise JobError([f"{output} exists: name another with -o, or add --force"])
    folders: list[str] = []
    _, problems = list_files(data, folders=folders)
    if problems:
        raise JobError([p.replace("input.files", "--data") for p in problems])
    if folders:
        message = escape(told_folders(folders).replace("input.files", "--data"))
        Console(stderr=True, soft_wrap=True).print(message)
    text = draft_job(model, data, version, signature, Hints(format_, header=header))
    if output == "-":
        put(text.removesuffix("\n"))
        return
    Path(output).write_text(text, encoding="utf-8")
    out = Console()
    todo = text.count("# TODO: ")
    answer = f"Answer its {todo} TODO{'s' * (todo > 1)}" if todo else "Read it"
    out.print(f"Wrote [bold]{escape(output)}[/]. {answer}, then:  beam-score check {escape(output)}", soft_wrap=True)


@command(epilog="Example:  beam-score inspect models/people --json")
def inspect(
    model: ModelPath,
    version: Version = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Shows a model's versions, signatures, inputs and outputs."""
    from beam_score.pipeline.show.inspect import inspect_model, print_inspection

    found = inspect_model(model, version)
    if as_json:
        put(json.dumps(found, indent=2))
    else:
        print_inspection(found, Console())


@command(epilog="Example:  beam-score check job.yaml --set model.version=3")
def check(
    job: JobFile,
    beam_options: BeamOptions = None,
    overrides: Overrides = None,
    log_level: LogLevel = "warning",
    log_format: LogFormat = "text",
) -> None:
    """Finds everything that is wrong with a job before it costs anything, and scores a few rows."""
    from beam_score.pipeline.job.job import load_job
    from beam_score.pipeline.process import logs

    logs.set_up(log_level, log_format)
    keep_apart(log_level)
    settings = load_job(job, overrides or ())
    _leave_out_extras(settings, beam_options)
    from beam_score.pipeline.show.check import check_job

    raise typer.Exit(check_job(settings, Console(), beam_options or ()).code)


@command(
    epilog="Example:  beam-score run job.yaml --set rejects.budget=5% -- --direct_num_workers=4\n\n"
    "Exit codes: 0 done, 1 the job failed, 2 the job file or command line is wrong, 3 over the error budget, 5 the "
    "input is not there (yet), 6 the input, the model or the job has changed since the run in the output folder."
)
@with_launch_arguments
def run(job: JobFile, launch: LaunchArguments) -> None:
    """Runs a job: predictions and dead letters are published together, or nothing is."""
    from beam_score.pipeline.job.job import load_job
    from beam_score.pipeline.process import logs

    logs.set_up(launch.log_level, launch.log_format)
    keep_apart(launch.log_level)
    raise typer.Exit(_launch(load_job(job, launch.overrides or ()), None, launch).code)


@command(epilog="Example:  beam-score clean out/2026-11-20 --dry-run")
def clean(
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The output folder of a job (its output.path).", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Discard a run that is not finished, too, if nobody is at work on it.")
    ] = False,
    lost_jobs: Annotated[
        bool, typer.Option("--lost-jobs", help="Take a job for ended whose engine (Flink, Dataflow) does not answer.")
    ] = False,
) -> None:
    """Removes leftovers of failed attempts: nothing that is published, and nothing of a run that is at work."""
    from beam_score.pipeline.run.clean import clean as clean_output
    from beam_score.pipeline.show.cleaned import print_cleaned

    print_cleaned(Console(), clean_output(output, dry_run, unfinished, lost_jobs), dry_run)


@command(
    epilog="Example:  beam-score status out/2026-11-20 --watch\n\n"
    "Exit codes: 0 done, 1 nothing is begun or it was interrupted, 2 there is no such folder, 3 over the error budget, "
    "4 still running."
)
def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output folder of a job.", show_default=False)],
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until the run ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; with --watch one object per line.")] = False,
) -> None:
    """Shows how far a run is, from any machine that sees its output folder; changes nothing there."""
    from beam_score.pipeline.show.status_view import show_status

    raise typer.Exit(show_status(output, Console(), watch, as_json))


@command(
    epilog="Example:  beam-score replay out/2026-11-20 --set columns.age.range='[0, 200]'\n\n"
    "Exit codes are those of run."
)
@with_launch_arguments
def replay(
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The output folder of a run that has ended.", show_default=False)
    ],
    launch: LaunchArguments,
    to: Annotated[
        str | None, typer.Option("--output", help="The replay's own folder; by default OUTPUT-replay.")
    ] = None,
    by: Annotated[
        str, typer.Option("--from", metavar="auto|payload|source", help="Where rows are taken from.")
    ] = "auto",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run the model and the preprocess function that the record names, though another user, or another "
            "machine, has launched that run.",
        ),
    ] = False,
) -> None:
    """Scores the dead letters of a run again, with the corrections of --set, into an output folder of its own."""
    from beam_score.pipeline.prepare.replay import accounting, load_replay
    from beam_score.pipeline.process import logs

    logs.set_up(launch.log_level, launch.log_format)
    keep_apart(launch.log_level)
    settings, parent = load_replay(output, launch.overrides or (), to, by, trust)
    outcome = _launch(settings, parent, launch)
    # After what was published: that is valid whatever this finds.
    accounted = accounting(parent, outcome.manifest)
    if not launch.as_json:
        Console().print(f"accounted    {escape(accounted)}", soft_wrap=True)
    raise typer.Exit(outcome.code)


def _launch(settings: Job, parent: FromDeadLetters | None, launch: LaunchArguments) -> Outcome:
    """Launch a job, and print its outcome."""
    _leave_out_extras(settings, launch.beam_options)
    from beam_score.pipeline import commands
    from beam_score.pipeline.show.progress import shown
    from beam_score.pipeline.show.summary import print_summary

    with shown() as show:
        outcome = commands.launch(settings, parent, launch.options() | {"show_progress": show})
    if launch.as_json:
        put(json.dumps({**outcome.manifest, "launch_s": outcome.seconds}, indent=1))
    else:
        print_summary(Console(), settings.output.path, outcome)
    return outcome


def _leave_out_extras(job: Job, beam_options: Sequence[str] | None) -> None:
    """Import no packages that a local job without a function of its user's does not need. Call it before modules that
    make arrays are imported."""
    if job.engine.runner == "local" and job.preprocess is None and not beam_options:
        from beam_score.runners import lean

        lean.leave_out_extras()


@command(epilog="Example:  beam-score bench job.yaml")
def bench(job: JobFile, overrides: Overrides = None) -> None:
    """Shows the sweep over batch sizes that `batch_rows: auto` makes, plain and through XLA."""
    from beam_score.pipeline.job.job import load_job
    from beam_score.pipeline.process import logs
    from beam_score.pipeline.show.check import bench_job

    logs.set_up("warning", "text")
    keep_apart("warning")
    bench_job(load_job(job, overrides or ()), Console())


@app.command(cls=ServeCommand, epilog="Example:  beam-score serve job.yaml --port 8501")
def serve(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB|MODEL]",
            help="The job file, or a model folder; by default that of the container (Vertex AI, SageMaker).",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on; by default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Of HTTP; by default 8501. 0: any that is free.")] = None,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", help="Of gRPC; by default 8500. 0: any that is free.")
    ] = None,
    compat: Annotated[
        str | None,
        typer.Option("--compat", metavar="tfserving", help="Take and give exactly what TensorFlow Serving does."),
    ] = None,
    ready_file: Annotated[
        str | None, typer.Option("--ready-file", help="Written, with HOST:PORT of each, while requests are answered.")
    ] = None,
    only_check: Annotated[bool, typer.Option("--check", help="Find everything that is wrong, and end.")] = False,
    revert: Annotated[
        str | None,
        typer.Option(
            "--revert", metavar="NAME", help="Let the running server go back to the version before of a model."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    drain_delay: Annotated[
        str | None, typer.Option("--drain-delay", help="Time after SIGTERM in which requests are still taken.")
    ] = None,
    log_level: LogLevel = "info",
    log_format: LogFormat = "text",
) -> None:
    """Answers requests with the verdicts of the job's contract, in the protocol of TensorFlow Serving.

    The folder of a model, a SavedModel or numbered versions, is served with its own signatures alone.
    """
    from beam_score.pipeline.job.mistakes import JobError
    from beam_score.pipeline.job.model_folder import given_by, load_served
    from beam_score.pipeline.process import logs
    from beam_score.pipeline.serve.command import revert_model, serve_job

    logs.set_up(log_level, log_format)
    given = {"serve.host": host, "serve.port": port, "serve.grpc_port": grpc_port, "serve.compat": compat}
    given["serve.drain_delay"] = drain_delay
    flags = [f"{key}={value}" for key, value in given.items() if value is not None]
    place, listens = given_by(os.environ)
    if (job := job or place) is None:
        raise JobError(["name the job file, or the folder of a model: beam-score serve job.yaml"])
    read = functools.partial(load_served, job, [*listens, *(overrides or ()), *flags])
    if revert is not None:
        revert_model(read(), Console(), ready_file, revert)
    else:
        serve_job(read, Console(), ready_file, only_check)


_SCORE = ("run", "replay", "check", "bench")
"""Commands that call the model, which may crash the process."""

_COLLECTED_AFTER = 100_000
"""New objects after which Python looks for cycles."""


def main() -> None:
    """The console script. A user's mistake is reported in a sentence, never as a traceback."""
    # Preprocess functions may import modules from the current folder. It comes last, so that no file there replaces a
    # module of this package or of a library; see `transforms.scoring.preprocess.load_function`.
    sys.path.append("")
    interrupts.catch()
    try:
        scores = len(sys.argv) > 1 and sys.argv[1] in _SCORE
        code = supervised(_command, lambda problem: say([problem]), Printed()) if scores else _command()
    except interrupts.Interrupted as interrupted:  # before the command began, or while another is reported
        code = _report(interrupted)
    # Ending the interpreter with the threads of Arrow and TensorFlow takes a while, and can abort.
    os._exit(code)


def _report(interrupted: interrupts.Interrupted) -> int:
    interrupts.ignore()  # a second one now would end the process without a message
    say([interrupts.TEXT if sys.argv[1:2] and sys.argv[1] in _SCORE else "interrupted"])
    return interrupted.code


def _command() -> int:
    # While TensorFlow is imported, in a worker's thread, writes to descriptor 2 are delayed.
    with contextlib.suppress(OSError):
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    # Most objects are of modules, and stay: with Python's own threshold, imports take a tenth longer.
    gc.set_threshold(_COLLECTED_AFTER)
    if sys.argv[1:2] and sys.argv[1] in _SCORE and not {"-h", "--help"} & set(sys.argv):
        begun("checking the job")
    try:
        app()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except interrupts.Interrupted as interrupted:
        code = _report(interrupted)
    except GoesOnElsewhere as elsewhere:
        Console(soft_wrap=True).print(escape(str(elsewhere)), highlight=False)
        code = 0
    except Exception as error:  # reported by kind; an unexpected error keeps its traceback
        from beam_score.pipeline.process.errors import explain

        code, problems = explain(error)
        say(problems)
        _say_how_to_continue(error)
    flush()
    return code


def _say_how_to_continue(error: Exception) -> None:
    """Print the command that continues after an error, if there is one."""
    flag = getattr(error, "flag", None)
    if flag is None or flag in sys.argv:
        return
    own, dashes, beam = sys.argv[1:], [], []
    if "--" in own:
        at = own.index("--")
        own, dashes, beam = own[:at], ["--"], own[at + 1 :]
    command = shlex.join(["beam-score", *own, flag, *dashes, *beam])
    Console(stderr=True, soft_wrap=True).print(f"to continue: [bold]{escape(command)}[/]")


if __name__ == "__main__":
    main()
