"""Validation of the Beam options that the user gives after `--`."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions

from beam_score.transforms.common.names import near_miss


class _Wrong(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Wrong(message)


def problems(
    beam_args: Sequence[str], runner: str, classes: Collection[str], further: Collection[str] = ()
) -> list[str]:
    """Return a message for each invalid option. Beam itself only logs options that it does not know, such as
    misspelt ones, and ignores them.

    Args:
      runner: `engine.runner` of the job file.
      classes: the names of Beam's runners that `runner` may mean.
      further: names of options that only the engine itself knows.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        try:
            kind._add_argparse_args(parser)  # type: ignore[arg-type]  # any parser will do
        except argparse.ArgumentError:  # two kinds share an option
            continue
    try:
        given, unknown = parser.parse_known_args(list(beam_args))
    except _Wrong as error:
        return [f"Beam's options: {error}"]
    known = [*further, *(o.lstrip("-") for o in parser._option_string_actions)]
    found = []
    for option in unknown:
        name = option.partition("=")[0]
        if name.startswith("--") and name.removeprefix("--") in further:
            continue
        if name.startswith("-"):
            found.append(f"Beam's options: unknown option {name}{near_miss(name.lstrip('-'), known)}")
        else:
            found.append(f"Beam's options: {option!r} is not an option: write --name=value")
    if given.runner is not None and given.runner.rpartition(".")[2] not in classes:
        found.append(
            f"Beam's options: --runner={given.runner}: the runner is set in the job file (engine.runner), "
            f"and is {runner}"
        )
    return found
