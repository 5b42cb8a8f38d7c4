"""One machine: Beam's FnApiRunner by name, with threads. `DirectRunner` would choose between three
engines by itself, one of them fetched from the network."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from runners import processes
from transforms.names import near_miss

_OURS = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner")


def run(build: Callable[[beam.Pipeline], object], workers: int, beam_args: Sequence[str] = ()):
    """Runs a pipeline to its end, in this process.

    Args:
      build: puts the transforms into a pipeline.
      workers: threads, each with its own copy of the steps, all with one copy of the model.
      beam_args: Beam's own options, which win over ours.

    Returns:
      Beam's result, for its metrics.
    """
    options = PipelineOptions(list(beam_args))
    direct = options.view_as(DirectOptions)
    given = options.get_all_options(drop_default=True)
    if "direct_num_workers" not in given:
        direct.direct_num_workers = workers
    if "direct_running_mode" not in given:
        direct.direct_running_mode = "multi_threading" if direct.direct_num_workers > 1 else "in_memory"
    pipeline = beam.Pipeline(FnApiRunner(), options)
    build(pipeline)
    with processes.watched():
        result = pipeline.run()
        result.wait_until_finish()
    return result


def in_one_process(beam_args: Sequence[str]) -> bool:
    """Whether the workers are threads of this process, which see its flags."""
    direct = PipelineOptions(list(beam_args)).view_as(DirectOptions)
    return direct.direct_running_mode != "multi_processing"


def stop() -> None:
    """Ends worker processes, where there are any; threads stop by `transforms.read.STOP`."""
    processes.kill_all()


class _Wrong(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise _Wrong(message)


def check_options(beam_args: Sequence[str]) -> list[str]:
    """What is wrong with Beam's own options, a sentence each. Beam itself drops those it does not know
    with no more than a line in the log, and a typing mistake with them."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        try:
            kind._add_argparse_args(parser)
        except argparse.ArgumentError:  # two kinds share an option
            continue
    try:
        given, unknown = parser.parse_known_args(list(beam_args))
    except _Wrong as error:
        return [f"Beam's options: {error}"]
    known = [o.lstrip("-") for o in parser._option_string_actions]
    problems = []
    for option in unknown:
        name = option.partition("=")[0]
        if name.startswith("-"):
            problems.append(f"Beam's options: there is no {name}{near_miss(name.lstrip('-'), known)}")
        else:
            problems.append(f"Beam's options: {option!r} belongs to no option: write --name=value")
    if given.runner is not None and given.runner.rpartition(".")[2] not in _OURS:
        problems.append(
            f"Beam's options: --runner={given.runner}: the runner is set in the job file (engine.runner), and is local"
        )
    return problems
