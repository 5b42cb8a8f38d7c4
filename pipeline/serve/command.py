"""The command `serve`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.printing.terminal import Console, escape

_MOST_SOCKET_PATH = 107  # bytes, of Linux


def serve_job(
    read: Callable[[], Job | ModelFolder], console: Console, ready_file: str | None, only_check: bool
) -> None:
    """Serve a job, or a model folder, until SIGTERM or SIGINT.

    Args:
      read: reads the job, at the start and at SIGHUP.
      ready_file: written once requests are answered, and removed at the end.
      only_check: whether to end once everything is checked.

    Raises:
      JobError: with every problem that would prevent it.
    """
    # A fork here only starts another program; with its support for forks gRPC warns of each.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    # Its own lines, of a port that is taken or a client that speaks no TLS, are not JSON; errors are raised anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import uvloop

        from beam_score.pipeline.serve.service import Service, write_ready_file
    except ModuleNotFoundError as error:
        raise JobError([f"serve needs the package {error.name}: pip install 'beam-score[serve]'"]) from None
    job = read()
    service = Service(job, read)
    if only_check:
        console.print("Ready to serve.")
        return

    def ready(host: str, port: int, grpc_port: int | None) -> None:
        rpc = "" if grpc_port is None else f", gRPC on {escape(host)}:{grpc_port}"
        console.print(f"Serving [bold]{escape(service.name)}[/] on http://{escape(host)}:{port}{rpc}", highlight=False)
        if ready_file is not None:
            write_ready_file(ready_file, host, [port, *([] if grpc_port is None else [grpc_port])])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(service.run(ready, _admin(job, ready_file), ready_file))


def revert_model(job: Job | ModelFolder, console: Console, ready_file: str | None, model: str) -> None:
    """Let the running server of a job go back to the version before of a model.

    Args:
      ready_file: that the server was given.

    Raises:
      JobError: there is no such server, or no version to go back to.
    """
    from beam_score.pipeline.serve.versions.admin import revert_over

    path = _admin(job, ready_file)
    if path is None:
        raise JobError(["--revert: set serve.admin, or pass the --ready-file that the server was given"])
    console.print(escape(revert_over(path, model)), highlight=False)


def _admin(job: Job | ModelFolder, ready_file: str | None) -> str | None:
    """Return the path of the server's socket for an operator; None for none."""
    beside = None if ready_file is None else f"{ready_file}.admin"
    if beside is not None and len(os.fsencode(beside)) > _MOST_SOCKET_PATH:
        beside = None
    return job.serve.admin or beside
