"""Beam options for Dataflow, from the job file and from the user's options after `--`, which take precedence."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, SetupOptions, WorkerOptions

from beam_score.runners.settings import dataflow_names as names
from beam_score.runners.settings.engine import EngineSettings

OPTIONS = {
    "project": "project",
    "region": "region",
    "staging_location": "staging_location",
    "temp_location": "temp_location",
    "machine_type": "machine_type",
    "num_workers": "num_workers",
    "max_workers": "max_num_workers",
    "disk_gb": "disk_size_gb",
    "service_account": "service_account_email",
    "network": "network",
    "subnetwork": "subnetwork",
    "image": "sdk_container_image",
    "template_location": "template_location",
}
"""Beam's option names by setting, for settings whose value is passed on unchanged."""

_RUN_LABEL = "beam-score-run"

_ONE_PROCESS, PROCESSES = "no_use_multiple_sdk_containers", "use_multiple_sdk_containers"

_EXPERIMENTS = (
    "use_runner_v2",
    # One process per VM, with threads: TensorFlow and Arrow release the GIL, and the model is loaded once.
    _ONE_PROCESS,
    # Beam would stage the output of `pip freeze`: its URLs may contain tokens, and the manifest has the relevant
    # versions.
    "disable_logging_submission_environment",
)


class Options:
    """Builds Beam options.

    Args:
      settings: of the job file.
      beam_args: the user's options after `--`.
    """

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str]):
        self._settings, self._beam_args = settings, list(beam_args)

    def of(self, run: str) -> PipelineOptions:
        """Return the Beam options for a run, given its id."""
        theirs = PipelineOptions(self._beam_args).get_all_options(drop_default=True)
        refused = {_other(e) for e in theirs.get("experiments") or ()}
        experiments = [f"--experiments={e}" for e in _EXPERIMENTS if e not in refused]
        name = names.job_name(self._settings.dataflow.job_name, run)
        ours = [f"--job_name={name}", f"--labels={_RUN_LABEL}={run.lower()}", *self._flags(), *experiments]
        # If an option is given twice, the last one counts; lists are concatenated.
        options = PipelineOptions([*ours, *self._beam_args])
        options.view_as(SetupOptions).save_main_session = theirs.get("save_main_session", False)
        if "number_of_worker_harness_threads" not in theirs:
            threads = self._threads(options.view_as(WorkerOptions).machine_type)
            options.view_as(DebugOptions).number_of_worker_harness_threads = threads
        return options

    def _flags(self, only: Collection[str] | None = None) -> list[str]:
        """Return the settings of the job file that have a value as Beam options, restricted to `only` if given."""
        settings = self._settings.dataflow
        values = {option: getattr(settings, name) for name, option in OPTIONS.items() if only is None or name in only}
        flags = [f"--{option}={value}" for option, value in values.items() if value is not None]
        if settings.setup_file is not None and (only is None or "setup_file" in only):
            flags.append(f"--setup_file={os.path.abspath(settings.setup_file)}")
        if settings.public_ips is not None and (only is None or "public_ips" in only):
            flags.append("--use_public_ips" if settings.public_ips else "--no_use_public_ips")
        if only is None:
            flags += ["--runner=DataflowRunner", *(f"--labels={k}={v}" for k, v in settings.labels.items())]
        return flags

    def _threads(self, machine_type: str) -> int | None:
        if isinstance(self._settings.workers, int):
            return self._settings.workers
        try:
            return names.machine(machine_type).vcpus
        except ValueError:
            return None  # reported by `problems`

    def conflicts(self) -> list[str]:
        """Return a message for each Beam option that overrides the job file."""
        theirs = PipelineOptions(self._beam_args).get_all_options(drop_default=True)
        ours = PipelineOptions(self._flags(self._settings.dataflow.model_fields_set)).get_all_options(drop_default=True)
        keys = {option: f"engine.dataflow.{name}" for name, option in OPTIONS.items()}
        keys |= {"setup_file": "engine.dataflow.setup_file", "use_public_ips": "engine.dataflow.public_ips"}
        if isinstance(self._settings.workers, int):
            ours["number_of_worker_harness_threads"] = self._settings.workers
            keys["number_of_worker_harness_threads"] = "engine.workers"
        found = [
            f"--{name}={theirs[name]} after -- overrides {keys[name]} of the job file, which is {value}"
            for name, value in ours.items()
            if theirs.get(name, value) != value
        ]
        refused = {_other(e) for e in theirs.get("experiments") or ()}
        found += [
            f"--experiments={_other(e)} after -- overrides {e}, which beam-score sets"
            for e in _EXPERIMENTS
            if e in refused
        ]
        return found


def _other(experiment: str) -> str:
    """Return the opposite experiment."""
    return {_ONE_PROCESS: PROCESSES, PROCESSES: _ONE_PROCESS}.get(experiment, "")
