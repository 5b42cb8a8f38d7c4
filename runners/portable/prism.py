"""Prism: Beam's newer local runner, a program written in Go. It is never fetched: it is given, or found."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, PortableOptions
from apache_beam.runners.portability.prism_runner import PrismRunner
from apache_beam.runners.runner import PipelineResult

from beam_score.runners import beam_options
from beam_score.runners.engine import Engine
from beam_score.runners.portable import job_service
from beam_score.runners.portable.job_service import Program
from beam_score.runners.settings.engine import EngineSettings

BINARY = "BEAM_SCORE_PRISM"
"""The environment variable that names the program."""

_OURS = ("PrismRunner", "PortableRunner")
_HOW = (
    f"build it (go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam.__version__}) or take it from Beam's "
    f"releases, and name it in engine.prism.binary or {BINARY}, or put it on the path"
)
_FOR_EVER_S = 10_000_000
_CHAINS_AT_ONCE = 8  # Prism's own limit (2.77)
_NO_SPLITS = "--experiments=prism_disable_sdf_split"


class Prism(Engine):
    """See `runners.engine.Engine`. Workers are threads of this process, with one copy of the model."""

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str] = ()):
        self._settings, self._beam_args = settings, beam_args
        self._stopping = threading.Event()
        self._program: Program | None = None
        self._flags, self._conflicts = job_service.with_ours(
            beam_args,
            {
                "environment_type": ("LOOPBACK", None),
                # Prism gives a job the id of its submission, and Beam then ends the wait for it after this time.
                "job_server_timeout": (_FOR_EVER_S, None),
            },
        )

    @property
    def in_one_process(self) -> bool:
        options = PipelineOptions(self._flags)
        apart = options.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker", False)
        return options.view_as(PortableOptions).environment_type == "LOOPBACK" and not apart

    @property
    def chains(self) -> int:
        # Prism makes one bundle of all that waits for a stage, and one thread goes through it. It would split those
        # that seem to make no progress (its README, 2.77), by chance, and into up to 8: more than memory was reckoned
        # for. Stages beside each other it runs at once.
        return self._settings.layout.threads

    def problems(self) -> list[str]:
        found = beam_options.problems(self._beam_args, "prism", _OURS)
        binary = self._binary()
        if binary is None:
            found.append(f"engine.runner is prism, and there is no Prism on this machine: {_HOW}")
        elif not os.access(binary, os.X_OK) or os.path.isdir(binary):
            found.append(f"engine.prism.binary: {binary} is no program that may be run: {_HOW}")
        return found

    def explain(self) -> list[str]:
        lines = [f"prism: {self._binary()}; {self._settings.layout}"]
        if self.chains > _CHAINS_AT_ONCE:
            lines.append(f"Prism works on {_CHAINS_AT_ONCE} splits at once and no more: lower engine.workers")
        return lines

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        with job_service.own_folder("prism") as folder:
            port = job_service.free_port()
            command = [self._binary(), f"--job_port={port}", "--serve_http=false", "--log_level=warn"]
            self._program = Program("Prism", command, f"localhost:{port}", os.environ, folder)
            try:
                self._program.wait_until_ready()
                flags = [_NO_SPLITS, *self._flags, f"--job_endpoint={self._program.endpoint}"]
                pipeline = beam.Pipeline(PrismRunner(), PipelineOptions(flags))
                build(pipeline)
                return job_service.wait_for(pipeline.run(), self._program, self._stopping)
            finally:
                self._program.end()

    def stop(self) -> None:
        """Ends Prism; workers are threads, and stop by `transforms.common.stopping`."""
        self._stopping.set()
        if self._program is not None:
            self._program.end()

    def _binary(self) -> str | None:
        given = self._settings.prism.binary or os.environ.get(BINARY)
        return os.path.abspath(given) if given else shutil.which("prism")
