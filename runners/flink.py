"""Flink: a cluster inside a JVM on this machine, or one that runs elsewhere."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.runner import PipelineResult
from apache_beam.utils.subprocess_server import JavaJarServer

from runners import beam_options, flink_cluster, job_service
from runners.elsewhere import Elsewhere
from runners.ended import EngineFailed
from runners.engine import Engine
from runners.flink_settings import EMBEDDED, host_and_port
from runners.job_service import Program
from runners.settings import EngineSettings

log = logging.getLogger(__name__)

JAR = "BEAM_SCORE_FLINK_JAR"
"""The environment variable that names a job server's jar."""

_OURS = ("FlinkRunner", "PortableRunner")
_LOGIN = re.compile(r"(?<=//)[^/@]*@|^[^/@]*@")
_REACHED_WITHIN_S = 3
_FETCHED = (
    "no engine.flink.job_server_jar is set, nor {JAR}: Beam fetches its own job server for Flink {version} "
    "from the network, or takes it from its cache"
)

# Options of Flink's own runner (`FlinkPipelineOptions.java`), which Beam's Python does not know.
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
    """See `runners.engine.Engine`."""

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str] = ()):
        self._settings, self._flink = settings, settings.flink
        self._beam_args = beam_args
        self._stopping = threading.Event()
        self._program: Program | None = None
        self._token, self._job_name = secrets.token_hex(4), ""
        self._flags, self._conflicts = job_service.with_ours(beam_args, self._ours())

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
        if self._flink.job_server is None and "job_endpoint" not in job_service.given_names(self._beam_args):
            java = options.view_as(JobServerOptions).job_server_java_launcher
            if shutil.which(java) is None:
                found.append(
                    f"engine.runner is flink, and there is no {java!r} on this machine: install Java 11 or later, or "
                    "name a job server that runs in engine.flink.job_server"
                )
            jar = self._jar()
            if jar is not None and "://" not in jar and not os.path.isfile(jar):
                found.append(f"engine.flink.job_server_jar: there is no file {jar}")
        else:
            found += _reach("engine.flink.job_server", options.view_as(PortableOptions).job_endpoint)
        if not self._embedded:
            found += self._cluster_problems()
        return found + self._pool_problems(options)

    def _cluster_problems(self) -> list[str]:
        try:
            cluster = flink_cluster.overview(self._master)
        except flink_cluster.Unreachable as error:
            return [f"engine.flink.master: no Flink cluster answers at {self._master} ({error}): start it, or mend it"]
        waves = "execution_mode_for_batch" in job_service.given_names(self._beam_args)
        if self._parallelism > cluster.slots and not waves:
            return [
                f"engine.workers is {self._parallelism}, and the Flink cluster at {self._master} has "
                f"{cluster.slots} slots: the job would wait for ever; lower engine.workers, or add TaskManagers"
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
            lines = [f"flink: a cluster in a JVM of its own, about 1 GB; {kind}: {layout}"]
        else:
            try:
                cluster = flink_cluster.overview(self._master)
                has = f"{cluster.task_managers} TaskManagers, {cluster.free} of {cluster.slots} slots free"
            except flink_cluster.Unreachable as error:
                has = str(error)
            lines = [f"flink: the cluster at {self._master} ({has}); {kind}: {layout}"]
        if self._fetches():
            lines.append(self._fetch_told())
        return lines

    def elsewhere(self, name: str) -> Elsewhere | None:
        # Without its workers a job does nothing.
        if self._embedded or self.in_one_process:
            return None
        return Elsewhere("flink", self._name(name), {"address": _LOGIN.sub("", self._master)})

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        for conflict in self._conflicts:
            log.warning(conflict)
        self._job_name = self._name(name)
        with job_service.own_folder("flink") as folder, self._served(folder) as (endpoint, program):
            # Of an option that is given twice the last counts.
            flags = [
                *self._flags,
                f"--job_name={self._job_name}",
                *([] if endpoint is None else [f"--job_endpoint={endpoint}"]),
            ]
            pipeline = beam.Pipeline(FlinkRunner(), PipelineOptions(flags))
            build(pipeline)
            return job_service.wait_for(pipeline.run(), program, self._stopping)

    def stop(self) -> None:
        """Ends the job server, if it is ours; cancels the job on a cluster."""
        self._stopping.set()
        if self._program is not None:
            self._program.end()
        if not self._embedded and self._job_name:
            try:
                flink_cluster.cancel(self._master, self._job_name)
            except flink_cluster.Unreachable as error:
                log.warning("the job may still run on %s, which does not answer: %s", self._master, error)

    @contextlib.contextmanager
    def _served(self, folder: Path) -> Iterator[tuple[str | None, Program | None]]:
        """(where the job service is, if it has to be told; the program, if it is ours)."""
        if self._flink.job_server is not None or "job_endpoint" in job_service.given_names(self._beam_args):
            yield None, None
            return
        self._program = self._start(folder)
        try:
            self._program.wait_until_ready()
            yield self._program.endpoint, self._program
        finally:
            self._program.end()

    def _start(self, folder: Path) -> Program:
        options = self._options().view_as(JobServerOptions)
        jar = self._jar()
        if jar is None:
            log.info(self._fetch_told())
            jar = JavaJarServer.path_to_beam_jar(f":runners:flink:{self._version()}:job-server:shadowJar")
        try:
            jar = os.path.abspath(JavaJarServer.local_jar(jar, options.jar_cache_dir))
        except (RuntimeError, OSError):
            raise EngineFailed(
                f"Beam could not fetch a job server for Flink {self._version()} from the network: take one from Beam's "
                f"releases on a machine that can, and name it in engine.flink.job_server_jar or {JAR}"
            ) from None
        configuration = folder / "conf"
        configuration.mkdir()
        (configuration / "config.yaml").write_text(self._configuration(folder))
        port = options.job_port or job_service.free_port()
        command = [
            options.job_server_java_launcher,
            f"-Djava.io.tmpdir={folder}",
            # It moves a few descriptors and no row: to compile it well would take longer than the job server works.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            *options.job_server_jvm_properties,
            "-jar",
            jar,
            f"--flink-master={self._master}",
            f"--flink-conf-dir={configuration}",
            f"--artifacts-dir={options.artifacts_dir or folder / 'artifacts'}",
            f"--job-port={port}",
            f"--artifact-port={options.artifact_port}",
            "--expansion-port=-1",
        ]
        environment = {**os.environ, "TMPDIR": str(folder)}
        return Program("the Flink job server", command, f"localhost:{port}", environment, folder)

    def _configuration(self, folder: Path) -> str:
        """Of jobs; of the embedded cluster too."""
        lines = [f"io.tmp.dirs: {folder}"]
        restarts = self._flink.restarts
        if restarts is None and self._embedded:
            restarts = 0
        if restarts is not None:
            lines += [
                f"restart-strategy.type: {'fixed-delay' if restarts else 'none'}",
                f"restart-strategy.fixed-delay.attempts: {max(restarts, 1)}",
                "restart-strategy.fixed-delay.delay: 1 s",
            ]
        return "".join(f"{line}\n" for line in lines)

    def _ours(self) -> dict[str, tuple[object, str | None]]:
        """Our options, as `runners.job_service.with_ours` has them."""
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
        """Of the job: another one for each launch, so that each cancels its own."""
        given = self._options().view_as(GoogleCloudOptions).job_name
        return "-".join(filter(None, [given or "beam-score", run, self._token]))

    def _options(self) -> PipelineOptions:
        return PipelineOptions(self._flags)

    def _jar(self) -> str | None:
        return (
            self._options().view_as(FlinkRunnerOptions).flink_job_server_jar
            or self._flink.job_server_jar
            or os.environ.get(JAR)
        )

    def _fetches(self) -> bool:
        return self._jar() is None and self._flink.job_server is None

    def _fetch_told(self) -> str:
        return _FETCHED.format(JAR=JAR, version=self._version())

    def _version(self) -> str:
        """Of Flink: that of the cluster, since a job server of another one is refused."""
        if "flink_version" not in job_service.given_names(self._beam_args) and not self._embedded:
            with contextlib.suppress(flink_cluster.Unreachable):
                version = flink_cluster.overview(self._master).version
                if version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS:
                    return version
        return self._options().view_as(FlinkRunnerOptions).flink_version


def _reach(key: str, address: str) -> list[str]:
    try:
        with socket.create_connection(host_and_port(address), _REACHED_WITHIN_S):
            return []
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return [f"{key}: nothing answers at {address} ({why}): start it, or mend the address"]


def _is_here(master: str, address: str) -> bool:
    """Whether an address means the same from here as from a TaskManager: `localhost` may be another machine there."""
    local = ("localhost", "127.0.0.1", "::1")
    try:
        host = host_and_port(address)[0]
        return host not in local or master in (EMBEDDED, "[auto]") or host_and_port(master)[0] in local
    except ValueError:
        return False
