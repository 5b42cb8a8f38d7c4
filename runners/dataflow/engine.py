"""The Dataflow engine: validates settings, submits a job, and waits for its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineResult

from beam_score.runners import beam_options
from beam_score.runners.dataflow import cost as dataflow_cost
from beam_score.runners.dataflow.job import Job, always, submit
from beam_score.runners.dataflow.options import OPTIONS, PROCESSES, Options
from beam_score.runners.elsewhere import Elsewhere
from beam_score.runners.ended import GoesOnElsewhere
from beam_score.runners.engine import Engine, Measured
from beam_score.runners.settings import dataflow_names as names
from beam_score.runners.settings.dataflow import PROBLEMS
from beam_score.runners.settings.engine import EngineSettings
from beam_score.runners.settings.layout import Layout

log = logging.getLogger(__name__)

_OURS = ("DataflowRunner",)

_NEEDED = {
    "project": "the id of the project that pays for the job",
    "region": "for example europe-west4; use the region of the data",
    "temp_location": "a folder for temporary files, for example gs://BUCKET/dataflow",
}
_SECRETS = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "azure_connection_string", "gbek")
"""Beam options that may contain a secret. Options are stored in the job, readable for everyone who can view the job."""


class Dataflow(Engine):
    """The Dataflow engine; see `runners.engine.Engine`. One process per VM, with a thread per vCPU and one model.

    `run` waits for the job, unless `wait` is false or a template is written; then it raises GoesOnElsewhere. If the
    launcher ends first, the job continues, and its last step publishes.
    """

    in_one_process = False

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str] = ()):
        self._settings, self._beam_args = settings, list(beam_args)
        self._options = Options(settings, beam_args)
        self._job: Job | None = None
        self._submitting: str | None = None
        self._stopped = False

    def problems(self) -> list[str]:
        found = beam_options.problems(self._beam_args, "dataflow", _OURS)
        if found:
            return found  # the options do not parse, so their values are unknown
        settings, options = self._settings.dataflow, self._options.of("check")
        given = options.get_all_options()
        found += [f"engine.dataflow.{name} is missing: {what}" for name, what in _NEEDED.items() if not given[name]]
        # Values from the job file were validated when it was read.
        for setting, problem in PROBLEMS.items():
            option = OPTIONS.get(setting, setting)
            value = given[option]
            if setting != "job_name" and value == getattr(settings, setting):
                continue
            if value and (why := problem(value)):
                found.append(f"Beam's options: --{option}: {why}")
        if not self._is_rehearsal(options):
            found += [
                f"engine.dataflow.{name}: {why}"
                for name in ("temp_location", "staging_location", "template_location")
                if given[name] and (why := names.folder_problem(given[name]))
            ]
        if given["num_workers"] and given["num_workers"] > given["max_num_workers"]:
            found.append(
                f"num_workers, the initial number of VMs, is {given['num_workers']}, more than max_workers, "
                f"{given['max_num_workers']}: lower num_workers, or raise max_workers"
            )
        found += _code_problems(options)
        found += [
            f"Beam's options: --{name} would be stored in the job, where everyone who can view the job can read it: "
            "grant the permissions to the workers' service account (engine.dataflow.service_account)"
            for name in _SECRETS
            if given.get(name)
        ]
        if given["template_location"] and not settings.wait:
            found.append(
                "engine.dataflow.wait is false and template_location is set: a template has no job to wait for, "
                "remove wait"
            )
        return found

    def place_problems(self, places: Mapping[str, Sequence[str]]) -> list[str]:
        """Return a message for each path that is not on Cloud Storage.

        Args:
          places: the paths in the job file, by key.
        """
        if self._is_rehearsal(self._options.of("check")):
            return []
        return [
            f"{key}: {path} is not on Cloud Storage, and Dataflow's workers can access no other files: copy it to "
            f"gs://BUCKET/..., and set {key} to that path"
            for key, paths in places.items()
            for path in paths
            if not path.startswith("gs://")
        ]

    def explain(self) -> list[str]:
        options = self._options.of("run")
        cloud, workers = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
        debug, setup = options.view_as(DebugOptions), options.view_as(SetupOptions).setup_file
        machine, threads = names.machine(workers.machine_type), debug.number_of_worker_harness_threads
        if self._processes(options) > 1:
            each = f"{machine.vcpus} processes, {threads} threads each, one copy of the model per process"
        else:
            each = str(Layout(1, threads, machine.vcpus))
        code = [workers.sdk_container_image, setup and f"the package built by {setup}, installed when a VM starts"]
        return [
            f"dataflow: in {cloud.project}, {cloud.region}, on at most {workers.max_num_workers} VMs of "
            f"{machine.name} ({machine.vcpus} vCPUs, {machine.memory_gb:g} GB)",
            f"each VM: {each}",
            f"code: {' and '.join(filter(None, code))}",
            *self._options.conflicts(),
        ]

    def memory_problems(self, model_bytes: int) -> list[str]:
        options = self._options.of("run")
        machine, processes = names.machine(options.view_as(WorkerOptions).machine_type), self._processes(options)
        threads = options.view_as(DebugOptions).number_of_worker_harness_threads
        process_bytes = Layout(1, threads, machine.vcpus).memory_bytes(model_bytes, self._settings.block_bytes)
        if processes * process_bytes <= machine.memory_gb * (1 << 30):
            return []
        they = "a worker process needs" if processes == 1 else f"{processes} worker processes need"
        return [
            f"engine.dataflow.machine_type: {they} about {processes * process_bytes / (1 << 30):.1f} GB (libraries, "
            f"the model's size on disk, blocks in flight), and a VM of {machine.name} has {machine.memory_gb:g} GB: "
            "use a type with more memory (highmem), or lower engine.workers or engine.block_bytes"
        ]

    def estimate(self, measured: Callable[[], Measured]) -> list[str]:
        options, settings = self._options.of("run"), self._settings.dataflow
        workers = options.view_as(WorkerOptions)
        threads = options.view_as(DebugOptions).number_of_worker_harness_threads
        machine, of = names.machine(workers.machine_type), measured()
        if not of.rows:
            return ["estimate: not available, the input has no rows"]
        found = dataflow_cost.estimate(of, machine, threads, workers.max_num_workers)
        return list(dataflow_cost.described(found, of, settings.vcpu_hour_usd, settings.memory_gb_hour_usd))

    def elsewhere(self, name: str) -> Elsewhere | None:
        cloud = self._options.of(name).view_as(GoogleCloudOptions)
        if cloud.template_location:
            return None
        place = {"project": cloud.project, "region": cloud.region}
        if cloud.dataflow_endpoint not in (None, GoogleCloudOptions.DATAFLOW_ENDPOINT):
            place["endpoint"] = cloud.dataflow_endpoint
        return Elsewhere("dataflow", cloud.job_name, place)

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "run") -> PipelineResult:
        """Run a pipeline on Dataflow; see `Engine.run`.

        Args:
          build: puts the transforms into a pipeline.
          name: the run's id.

        Raises:
          GoesOnElsewhere: the job was submitted and shall not be waited for, or a template was written.
          JobFailed: the job has failed or was cancelled.
        """
        for said in self._options.conflicts():
            log.warning("%s", said)
        options = self._options.of(name)
        cloud = options.view_as(GoogleCloudOptions)
        self._submitting = cloud.job_name
        self._job = job = submit(build, options)
        self._submitting = None
        if job is None:
            raise GoesOnElsewhere(
                f"the template of run {name} was written to {cloud.template_location}: a job created from it scores "
                "the splits in this run's plan, and publishes the result"
            )
        if not self._settings.dataflow.wait:
            self._job = None
            raise GoesOnElsewhere(
                f"job {job.id} was submitted, and publishes its result itself. Follow it with beam-score status; the "
                f"same command without engine.dataflow.wait=false waits for it. To cancel it: {job.cancel_command}"
            )
        if self._stopped:
            job.leave()
        try:
            return job.wait()
        finally:
            self._job = None

    def stop(self) -> None:
        """Stop waiting for the job, or cancel it, according to `engine.dataflow.on_interrupt`; log the job's id."""
        job, self._job, self._stopped = self._job, None, True
        if job is None:
            if self._submitting:
                always(
                    f"job {self._submitting} may have been submitted already: if so, the same command waits for it, "
                    "and gcloud dataflow jobs list --status=active shows it"
                )
            return
        job.leave()
        if self._settings.dataflow.on_interrupt == "cancel":
            job.cancel()
        else:
            always(
                f"job {job.id} continues without this command, and publishes its result itself; the same command waits "
                f"for it again. To cancel it: {job.cancel_command}"
            )

    @staticmethod
    def _processes(options: PipelineOptions) -> int:
        """Return the number of worker processes per VM."""
        if options.view_as(DebugOptions).lookup_experiment(PROCESSES):
            return names.machine(options.view_as(WorkerOptions).machine_type).vcpus
        return 1

    def _is_rehearsal(self, options: PipelineOptions) -> bool:
        """Return whether the endpoint is local, so that nothing reaches Google and files may be local."""
        return "localhost" in (options.view_as(GoogleCloudOptions).dataflow_endpoint or "")


def _code_problems(options: PipelineOptions) -> list[str]:
    """Return a message if the workers cannot get the code of this package."""
    setup = options.view_as(SetupOptions).setup_file
    if setup is None and options.view_as(WorkerOptions).sdk_container_image is None:
        return [
            "neither engine.dataflow.image nor engine.dataflow.setup_file is set: set an image that contains "
            "beam-score (docs/dataflow.md), or the setup.py of its source, which each VM installs when it starts"
        ]
    if setup is None:
        return []
    if os.path.basename(setup) != "setup.py":
        return [f"engine.dataflow.setup_file: {setup}: Beam accepts only a file with the name setup.py"]
    if not os.path.isfile(setup):
        return [f"engine.dataflow.setup_file: {setup}: no such file"]
    return []
