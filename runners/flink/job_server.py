"""Beam's job server for Flink: which jar it is, and how it is started."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from apache_beam.options.pipeline_options import FlinkRunnerOptions, JobServerOptions, PipelineOptions
from apache_beam.utils.subprocess_server import JavaJarServer

from beam_score.runners.ended import EngineFailed
from beam_score.runners.flink import cluster as flink_cluster
from beam_score.runners.portable import job_service
from beam_score.runners.portable.job_service import Program
from beam_score.runners.settings.flink import FlinkSettings

log = logging.getLogger(__name__)

JAR = "BEAM_SCORE_FLINK_JAR"
"""The environment variable that names its jar."""


class JobServer:
    """Args:
    flink: what the job file says.
    options: Beam's, and ours among them.
    cluster: HOST:PORT of the cluster that it serves; None where that is to be in the same JVM.
    version: of Flink, where a person has named one.
    """

    def __init__(self, flink: FlinkSettings, options: PipelineOptions, cluster: str | None, version: str | None):
        self._flink, self._cluster, self._given = flink, cluster, version
        self._options = options.view_as(JobServerOptions)
        self._own = options.view_as(FlinkRunnerOptions)

    def problems(self) -> list[str]:
        """What is not on this machine, a sentence each."""
        found, java, jar = [], self._options.job_server_java_launcher, self.jar
        if shutil.which(java) is None:
            found.append(
                f"engine.runner is flink, and there is no {java!r} on this machine: install Java 11 or later, or "
                "name a job server that runs in engine.flink.job_server"
            )
        if jar is not None and "://" not in jar and not os.path.isfile(jar):
            found.append(f"engine.flink.job_server_jar: there is no file {jar}")
        return found

    @property
    def jar(self) -> str | None:
        """Its path, or its address; None where Beam fetches its own."""
        return self._own.flink_job_server_jar or self._flink.job_server_jar or os.environ.get(JAR)

    def fetched(self) -> str:
        """A sentence, where Beam fetches it."""
        return (
            f"no engine.flink.job_server_jar is set, nor {JAR}: Beam fetches its own job server for Flink "
            f"{self._version} from the network, or takes it from its cache"
        )

    def start(self, folder: Path) -> Program:
        """Starts it.

        Args:
          folder: for its files, and those of a cluster inside it.

        Raises:
          EngineFailed: its jar could not be fetched.
        """
        jar = self.jar
        if jar is None:
            log.info(self.fetched())
            jar = JavaJarServer.path_to_beam_jar(f":runners:flink:{self._version}:job-server:shadowJar")
        try:
            jar = os.path.abspath(JavaJarServer.local_jar(jar, self._options.jar_cache_dir))
        except (RuntimeError, OSError):
            raise EngineFailed(
                f"Beam could not fetch a job server for Flink {self._version} from the network: take one from Beam's "
                f"releases on a machine that can, and name it in engine.flink.job_server_jar or {JAR}"
            ) from None
        configuration = folder / "conf"
        configuration.mkdir()
        (configuration / "config.yaml").write_text(self._configuration(folder))
        port = self._options.job_port or job_service.free_port()
        command = [
            self._options.job_server_java_launcher,
            f"-Djava.io.tmpdir={folder}",
            # It moves a few descriptors and no row: to compile it well would take longer than the job server works.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            *self._options.job_server_jvm_properties,
            "-jar",
            jar,
            f"--flink-master={self._own.flink_master}",
            f"--flink-conf-dir={configuration}",
            f"--artifacts-dir={self._options.artifacts_dir or folder / 'artifacts'}",
            f"--job-port={port}",
            f"--artifact-port={self._options.artifact_port}",
            "--expansion-port=-1",
        ]
        environment = {**os.environ, "TMPDIR": str(folder)}
        return Program("the Flink job server", command, f"localhost:{port}", environment, folder)

    def _configuration(self, folder: Path) -> str:
        """Of a cluster inside it; one elsewhere has its own."""
        lines = [f"io.tmp.dirs: {folder}"]
        if self._cluster is None:
            restarts = self._flink.restarts or 0
            lines += [
                f"restart-strategy.type: {'fixed-delay' if restarts else 'none'}",
                f"restart-strategy.fixed-delay.attempts: {max(restarts, 1)}",
                "restart-strategy.fixed-delay.delay: 1 s",
            ]
        return "".join(f"{line}\n" for line in lines)

    @property
    def _version(self) -> str:
        """Of Flink: that of the cluster, since a job server of another one is refused."""
        if self._given is None and self._cluster is not None:
            with contextlib.suppress(flink_cluster.Unreachable):
                version = flink_cluster.overview(self._cluster).version
                if version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS:
                    return version
        return self._own.flink_version
