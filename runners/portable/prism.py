"""The Prism engine: Beam's newer local runner, a Go program. It is never downloaded; its path is set, or on PATH."""

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
"""The environment variable with the path of Prism."""

_OURS = ("PrismRunner", "PortableRunner")
_HOW = (
    f"build it (go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam.__version__}) or download it from Beam's "
    f"releases, and set engine.prism.binary or {BINARY} to its path, or put it on PATH"
)
_FOR_EVER_S = 10_000_000
_CHAINS_AT_ONCE = 8  # Prism's own limit (2.77)
_NO_SPLITS = "--experiments=prism_disable_sdf_split"


class Prism(Engine):
    """The Prism engine; see `runners.engine.Engine`. Workers are threads of this process and share one model."""

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str] = ()):
        self._settings, self._beam_args = settings, beam_args
        self._stopping = threading.Event()
        self._program: Program | None = None
        self._flags, self._conflicts = job_service.with_ours(
            beam_args,
            {
                "environment_type": ("LOOPBACK", None),
                # With Prism, Beam ends the wait for a job after this time.
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
        # Prism makes one bundle of all elements that wait for a stage, and one thread processes it. It would split
        # bundles that seem to make no progress (its README, 2.77), at random and into up to 8: more than the memory
        # estimate allows for. Independent stages run at the same time.
        return self._settings.layout.threads

    def problems(self) -> list[str]:
        found = beam_options.problems(self._beam_args, "prism", _OURS)
        binary = self._binary()
        if binary is None:
            found.append(f"engine.runner is prism, and there is no Prism on this machine: {_HOW}")
        elif not os.access(binary, os.X_OK) or os.path.isdir(binary):
            found.append(f"engine.prism.binary: {binary} is not an executable file: {_HOW}")
        return found

    def explain(self) -> list[str]:
        lines = [f"prism: {self._binary()}; {self._settings.layout}"]
        if self.chains > _CHAINS_AT_ONCE:
            lines.append(f"Prism works on at most {_CHAINS_AT_ONCE} splits at once: lower engine.workers")
        return lines

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        with job_service.own_folder("prism") as folder:
            port = job_service.free_port()
            binary = self._binary()
            assert binary is not None  # see `problems`
            command = [binary, f"--job_port={port}", "--serve_http=false", "--log_level=warn"]
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
        """End Prism; workers are threads, and stop by `transforms.common.stopping`."""
        self._stopping.set()
        if self._program is not None:
            self._program.end()

    def _binary(self) -> str | None:
        given = self._settings.prism.binary or os.environ.get(BINARY)
        return os.path.abspath(given) if given else shutil.which("prism")
