"""The Flink engine: a cluster inside a JVM on this machine, or an existing cluster."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.runner import PipelineResult

from beam_score.runners import beam_options
from beam_score.runners.elsewhere import Elsewhere
from beam_score.runners.ended import EngineFailed
from beam_score.runners.engine import Engine
from beam_score.runners.flink import cluster as flink_cluster
from beam_score.runners.flink.job_server import JobServer
from beam_score.runners.portable import job_service
from beam_score.runners.portable.job_service import Program
from beam_score.runners.settings.engine import EngineSettings
from beam_score.runners.settings.flink import EMBEDDED, host_and_port

log = logging.getLogger(__name__)

_OURS = ("FlinkRunner", "PortableRunner")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_LOGIN = re.compile(r"(?<=//)[^/@]*@|^[^/@]*@")
_REACHED_WITHIN_S = 3

# Options of Flink's own runner (`FlinkPipelineOptions.java`), which Beam's Python SDK does not know.
_JAVA_OPTIONS = [
    "execution_mode_for_batch",
    "object_reuse",
    "operator_chaining",
    "flink_conf_dir",
    "disable_metrics",
    "max_bundle_size",
    "max_bundle_time_mills",
    "job_check_interval_in_secs",
    "attached_mode",
    "auto_balance_write_files_sharding_enabled",
    "re_iterable_group_by_key_result",
    "faster_copy",
    "file_input_split_max_size_m_b",
    "force_slot_sharing_group",
    "use_data_stream_for_batch",
]


class Flink(Engine):
    """The Flink engine; see `runners.engine.Engine`."""

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str] = ()):
        self._settings, self._flink = settings, settings.flink
        self._beam_args = beam_args
        self._stopping = threading.Event()
        self._program: Program | None = None
        self._token, self._job_name = secrets.token_hex(4), ""
        self._flags, self._conflicts = job_service.with_ours(beam_args, self._ours())

    @functools.cached_property
    def _server(self) -> JobServer | None:
        """The job server to start; None if the user gave the address of a running one."""
        given = job_service.given_names(self._beam_args)
        if self._flink.job_server is not None or "job_endpoint" in given:
            return None
        options = self._options()
        version = options.view_as(FlinkRunnerOptions).flink_version if "flink_version" in given else None
        return JobServer(self._flink, options, None if self._embedded else self._master, version)

    @property
    def in_one_process(self) -> bool:
        options = self._options()
        in_process = not options.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker", False)
        return options.view_as(PortableOptions).environment_type == "LOOPBACK" and in_process

    @property
    def _master(self) -> str:
        return self._options().view_as(FlinkRunnerOptions).flink_master

    @property
    def _embedded(self) -> bool:
        return self._master in (EMBEDDED, "[auto]")

    @property
    def _parallelism(self) -> int:
        return self._options().view_as(FlinkRunnerOptions).parallelism

    def problems(self) -> list[str]:
        found = beam_options.problems(self._beam_args, "flink", _OURS, _JAVA_OPTIONS)
        if found:
            return found
        options = self._options()
        if self._server is not None:
            found += self._server.problems()
        else:
            found += _reach("engine.flink.job_server", options.view_as(PortableOptions).job_endpoint)
        if self._flink.restarts is not None and not (self._embedded and self._server is not None):
            found.append(
                "engine.flink.restarts only applies to the cluster that a launch starts itself ([local]): for an "
                "existing cluster or job server, set restart-strategy in the cluster's own configuration"
            )
        if not self._embedded:
            found += self._cluster_problems()
        return found + self._pool_problems(options)

    def _cluster_problems(self) -> list[str]:
        try:
            cluster = flink_cluster.overview(self._master)
        except flink_cluster.Unreachable as error:
            return [
                f"engine.flink.master: no Flink cluster answers at {self._master} ({error}): start the cluster, or "
                "correct its address"
            ]
        waves = "execution_mode_for_batch" in job_service.given_names(self._beam_args)
        if self._parallelism > cluster.slots and not waves:
            return [
                f"engine.workers is {self._parallelism}, and the Flink cluster at {self._master} has "
                f"{cluster.slots} slots: the job would wait forever; lower engine.workers, or add TaskManagers"
            ]
        return []

    def _pool_problems(self, options: PipelineOptions) -> list[str]:
        portable = options.view_as(PortableOptions)
        pool = portable.environment_config
        if portable.environment_type != "EXTERNAL" or pool is None or not _is_here(self._master, pool):
            return []
        return _reach("engine.flink.worker_pool", pool)

    def explain(self) -> list[str]:
        layout = self._settings.layout
        kind = self._options().view_as(PortableOptions).environment_type
        if self._embedded:
            lines = [f"flink: a cluster in a separate JVM, about 1 GB; {kind}: {layout}"]
        else:
            try:
                cluster = flink_cluster.overview(self._master)
                managers = "1 TaskManager" if cluster.task_managers == 1 else f"{cluster.task_managers} TaskManagers"
                has = f"{managers}, {cluster.free} of {cluster.slots} slots free"
            except flink_cluster.Unreachable as error:
                has = str(error)
            lines = [f"flink: the cluster at {self._master} ({has}); {kind}: {layout}"]
            lines += self._shared_pool()
        if self._server is not None and self._server.jar is None:
            lines.append(self._server.fetched())
        return lines

    def _shared_pool(self) -> list[str]:
        """Return a message if several TaskManagers share one worker pool."""
        portable = self._options().view_as(PortableOptions)
        if portable.environment_type != "EXTERNAL" or self._embedded:
            return []
        try:
            pool, hosts = host_and_port(portable.environment_config)[0], flink_cluster.hosts(self._master)
        except (flink_cluster.Unreachable, ValueError, TypeError):
            return []
        if len(hosts) == (len(set(hosts)) if pool in _LOCAL else 1):
            return []
        # The pool identifies workers by numbers that are unique per TaskManager only (`worker_pool_main.py`, 2.77).
        return [
            f"{len(hosts)} TaskManagers share the worker pool at {portable.environment_config}, and the pool confuses "
            "their workers and ends them while they work. Start one pool per TaskManager, or let TaskManagers start "
            "workers themselves (engine.flink.worker_command)"
        ]

    def elsewhere(self, name: str) -> Elsewhere | None:
        # A job whose workers end with this process does not continue without it.
        if self._embedded or self._options().view_as(PortableOptions).environment_type == "LOOPBACK":
            return None
        return Elsewhere("flink", self._name(name), {"address": _LOGIN.sub("", self._master)})

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        for conflict in self._conflicts:
            log.warning(conflict)
        for shared in self._shared_pool():
            log.warning(shared)
        self._job_name = self._name(name)
        with job_service.own_folder("flink") as folder, self._served(folder) as program:
            # If an option is given twice, the last one counts.
            flags = [*self._flags, f"--job_name={self._job_name}"]
            if program is not None:
                flags.append(f"--job_endpoint={program.endpoint}")
            pipeline = beam.Pipeline(FlinkRunner(), PipelineOptions(flags))
            build(pipeline)
            try:
                return job_service.wait_for(pipeline.run(), program, self._stopping)
            except EngineFailed as error:
                # Flink reports this in many ways: a missing file, a dead process, a class that cannot be initialized.
                if self._flink.worker_command is not None and "failed in state FAILED" in str(error):
                    raise EngineFailed(
                        f"{error}. If TaskManagers cannot start {self._flink.worker_command} "
                        "(engine.flink.worker_command): run it with --help on a TaskManager's machine, because its "
                        "output is not shown here"
                    ) from None
                raise

    def stop(self) -> None:
        """End the job server, if this process started it, and cancel the job on a cluster."""
        self._stopping.set()
        if self._program is not None:
            self._program.end()
        if not self._embedded and self._job_name:
            try:
                flink_cluster.cancel(self._master, self._job_name)
            except flink_cluster.Unreachable as error:
                log.warning("the job may still run on %s, which does not answer: %s", self._master, error)

    @contextlib.contextmanager
    def _served(self, folder: Path) -> Iterator[Program | None]:
        """Start the job server, if this process has to, and yield it when it is ready."""
        if self._server is None:
            yield None
            return
        self._program = self._server.start(folder)
        try:
            self._program.wait_until_ready()
            yield self._program
        finally:
            self._program.end()

    def _ours(self) -> dict[str, tuple[object, str | None]]:
        """Return the Beam options of the job file, for `runners.portable.job_service.with_ours`."""
        flink, workers = self._flink, self._settings.layout.workers
        set_ = self._settings.model_fields_set
        own = flink.model_fields_set

        def key(name: str) -> str | None:
            return f"engine.flink.{name}" if name in own else None

        ours = {
            "flink_master": (flink.master, key("master")),
            "parallelism": (workers, "engine.workers" if "workers" in set_ else None),
            "environment_type": (flink.environment_type, key("environment")),
        }
        if flink.worker_pool is not None:
            ours["environment_config"] = (flink.worker_pool, key("worker_pool"))
        if flink.worker_command is not None:
            ours["environment_config"] = (json.dumps({"command": flink.worker_command}), key("worker_command"))
        if flink.job_server is not None:
            ours["job_endpoint"] = (flink.job_server, key("job_server"))
        return ours

    def _name(self, run: str) -> str:
        """Return the name of the job: different for each launch, so that each launch cancels only its own job."""
        given = self._options().view_as(GoogleCloudOptions).job_name
        return "-".join(filter(None, [given or "beam-score", run, self._token]))

    def _options(self) -> PipelineOptions:
        return PipelineOptions(self._flags)


def _reach(key: str, address: str) -> list[str]:
    try:
        with socket.create_connection(host_and_port(address), _REACHED_WITHIN_S):
            return []
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return [f"{key}: nothing answers at {address} ({why}): start it, or correct the address"]


def _is_here(master: str, address: str) -> bool:
    """Return whether an address means the same here and on a TaskManager's machine, unlike `localhost`."""
    try:
        host = host_and_port(address)[0]
        return host not in _LOCAL or master in (EMBEDDED, "[auto]") or host_and_port(master)[0] in _LOCAL
    except ValueError:
        return False
