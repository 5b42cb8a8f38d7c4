"""Launcher of a Dataflow Flex Template: turns the template's parameters into a command line of `beam-score run`.

Dataflow's launcher runs `docker/launch.py` with each parameter as `--name=value`, and with Beam options: the project,
the region, and the path to write the job to (`--template_location`), which Dataflow then submits.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

KEYS = {
    "input_files": "input.files",
    "model_path": "model.path",
    "model_version": "model.version",
    "output_path": "output.path",
}
"""Parameters that set a key of the job file."""

FLAGS = ("replace", "restart", "replace_if_changed", "keep_replaced")
"""Parameters that set an option of `run` without a value: `true` or `false`."""

_BETWEEN = ";"


def command(arguments: Sequence[str], job: str) -> list[str]:
    """Return the arguments to call `beam-score` with.

    Args:
      arguments: from Dataflow's launcher.
      job: path of the job file on this machine.

    Raises:
      SystemExit: if a parameter has an invalid value.
    """
    given, beam_options = _parser().parse_known_args(arguments)
    line = ["run", job]
    for name, key in KEYS.items():
        if (value := getattr(given, name)) is not None:
            line += ["--set", f"{key}={value}"]
    for override in filter(None, (given.set or "").split(_BETWEEN)):
        line += ["--set", override.strip()]
    line += [f"--{name.replace('_', '-')}" for name in FLAGS if getattr(given, name) == "true"]
    return [*line, "--set", "engine.runner=dataflow", "--set", "engine.dataflow.wait=true", "--", *beam_options]


def main() -> None:
    """Fetch the job file and run it as `beam-score run` would."""
    given, _ = _parser().parse_known_args()
    job = given.job
    if "://" in job:
        descriptor, local = tempfile.mkstemp(suffix=".yaml")
        with FileSystems.open(job) as content, os.fdopen(descriptor, "wb") as file:
            file.write(content.read())
        job = local
    from beam_score.pipeline.cli import main as beam_score

    sys.argv = ["beam-score", *command(sys.argv[1:], job)]
    beam_score()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="beam-score flex", allow_abbrev=False)
    parser.add_argument("--job", required=True)
    for name in (*KEYS, "set"):
        parser.add_argument(f"--{name}")
    for name in FLAGS:
        parser.add_argument(f"--{name}", choices=("true", "false"), default="false")
    return parser
