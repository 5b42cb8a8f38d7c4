"""Google Cloud Dataflow: settings into Beam's options, a job that is submitted, and waiting for its end."""

from __future__ import annotations

import dataclasses
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
    "region": "as europe-west4; take the one that the data is in",
    "temp_location": "a folder for what the job needs on its way, as gs://BUCKET/dataflow",
}
_SECRETS = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "azure_connection_string", "gbek")
"""Beam's options that may hold a secret. Options are part of a job, for all to read who may see the job."""


class Dataflow(Engine):
    """See `runners.engine.Engine`. One process a VM, as many threads as it has vCPUs, one copy of the model.

    `run` waits for the job, unless `wait` is false or a template is written; then it raises GoesOnElsewhere. A
    launcher that ends before leaves the job to itself: its last step publishes.
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
            return found  # what is set could not be told from options that do not parse
        settings, options = self._settings.dataflow, self._options.of("check")
        given = options.get_all_options()
        found += [f"engine.dataflow.{name} is missing: {what}" for name, what in _NEEDED.items() if not given[name]]
        # What the job file says has been judged when it was read.
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
                f"{given['num_workers']} VMs to begin with (num_workers), and at most {given['max_num_workers']} "
                "(max_workers): raise the one, or lower the other"
            )
        found += _code_problems(options)
        found += [
            f"Beam's options: --{name} would be stored in the job, where all who may see the job may read it: give "
            "the workers their rights by engine.dataflow.service_account"
            for name in _SECRETS
            if given.get(name)
        ]
        if given["template_location"] and not settings.wait:
            found.append("engine.dataflow.wait: false, and a template is written: there is no job to wait for")
        return found

    def place_problems(self, places: Mapping[str, Sequence[str]]) -> list[str]:
        """What of a job's files the workers cannot see.

        Args:
          places: by key of the job file, the paths that it names.
        """
        if self._is_rehearsal(self._options.of("check")):
            return []
        return [
            f"{key}: {path} is not on Cloud Storage, and Dataflow's workers see nothing else: copy it to "
            "gs://BUCKET/..., and name it so"
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
            each = f"{machine.vcpus} processes, each with {threads} threads and a copy of the model"
        else:
            each = str(Layout(1, threads, machine.vcpus))
        code = [workers.sdk_container_image, setup and f"what {setup} builds, which each VM installs as it starts"]
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
        they = "a worker process takes" if processes == 1 else f"{processes} worker processes take"
        return [
            f"engine.dataflow.machine_type: {they} about {processes * process_bytes / (1 << 30):.1f} GB (libraries, "
            f"the model as it is on disk, blocks in flight), and a VM of {machine.name} has {machine.memory_gb:g} GB: "
            "take one with more memory (highmem), or lower engine.workers or engine.block_bytes"
        ]

    def estimate(self, measured: Callable[[], Measured]) -> list[str]:
        options, settings = self._options.of("run"), self._settings.dataflow
        workers = options.view_as(WorkerOptions)
        threads = options.view_as(DebugOptions).number_of_worker_harness_threads
        machine, of = names.machine(workers.machine_type), measured()
        if not of.rows:
            return ["estimate: none, there are no rows to go by"]
        own = {n: v for n in ("vcpu_hour_usd", "memory_gb_hour_usd") if (v := getattr(settings, n)) is not None}
        prices = dataclasses.replace(dataflow_cost.LIST, **own)
        found = dataflow_cost.estimate(of, machine, threads, workers.max_num_workers, prices)
        region = options.view_as(GoogleCloudOptions).region
        return list(dataflow_cost.told(found, of, prices, region, len(own) == 2))

    def elsewhere(self, name: str) -> Elsewhere | None:
        cloud = self._options.of(name).view_as(GoogleCloudOptions)
        if cloud.template_location:
            return None
        place = {"project": cloud.project, "region": cloud.region}
        if cloud.dataflow_endpoint not in (None, GoogleCloudOptions.DATAFLOW_ENDPOINT):
            place["endpoint"] = cloud.dataflow_endpoint
        return Elsewhere("dataflow", cloud.job_name, place)

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "run") -> PipelineResult:
        """See `Engine.run`.

        Args:
          build: puts the transforms into a pipeline.
          name: the run's id.

        Raises:
          GoesOnElsewhere: it is submitted, or a template is written, and there is nothing to wait for.
          JobFailed: the job has ended otherwise than well.
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
                f"the template of run {name} is written to {cloud.template_location}: a job that is made from it "
                "scores what the plan of this run holds, and publishes it"
            )
        if not self._settings.dataflow.wait:
            self._job = None
            raise GoesOnElsewhere(
                f"job {job.id} is submitted, and publishes by itself. Follow it with beam-score status; the same "
                f"command without engine.dataflow.wait=false waits for it. To cancel it: {job.cancel_command}"
            )
        if self._stopped:
            job.leave()
        try:
            return job.wait()
        finally:
            self._job = None

    def stop(self) -> None:
        """Leaves the job, or cancels it, as `engine.dataflow.on_interrupt` says; tells its id."""
        job, self._job, self._stopped = self._job, None, True
        if job is None:
            if self._submitting:
                always(
                    f"job {self._submitting} may have been submitted meanwhile: the same command waits for it then, "
                    "and gcloud dataflow jobs list --status=active shows it"
                )
            return
        job.leave()
        if self._settings.dataflow.on_interrupt == "cancel":
            job.cancel()
        else:
            always(
                f"job {job.id} goes on without this command, and publishes by itself; the same command waits for it "
                f"again. To cancel it: {job.cancel_command}"
            )

    @staticmethod
    def _processes(options: PipelineOptions) -> int:
        """Worker processes of a VM."""
        if options.view_as(DebugOptions).lookup_experiment(PROCESSES):
            return names.machine(options.view_as(WorkerOptions).machine_type).vcpus
        return 1

    def _is_rehearsal(self, options: PipelineOptions) -> bool:
        """Whether nothing of this can reach Google: then files may be local."""
        return "localhost" in (options.view_as(GoogleCloudOptions).dataflow_endpoint or "")


def _code_problems(options: PipelineOptions) -> list[str]:
    """How the workers come by the code of this package."""
    setup = options.view_as(SetupOptions).setup_file
    if setup is None and options.view_as(WorkerOptions).sdk_container_image is None:
        return [
            "neither engine.dataflow.image nor engine.dataflow.setup_file is set: name an image that holds "
            "beam-score (docs/dataflow.md), or the setup.py of its source, which each VM then installs as it starts"
        ]
    if setup is None:
        return []
    if os.path.basename(setup) != "setup.py":
        return [f"engine.dataflow.setup_file: {setup}: Beam takes a file by the name of setup.py only"]
    if not os.path.isfile(setup):
        return [f"engine.dataflow.setup_file: {setup}: there is no such file"]
    return []
