"""Beam's job server for Flink: its jar, and its command line."""

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
"""The environment variable with the path of the jar."""


class JobServer:
    """A job server to start.

    Args:
      flink: settings of the job file.
      options: Beam options, including those set by beam-score.
      cluster: HOST:PORT of the cluster; None for a cluster in the JVM of the job server.
      version: of Flink, if the user gave one.
    """

    def __init__(self, flink: FlinkSettings, options: PipelineOptions, cluster: str | None, version: str | None):
        self._flink, self._cluster, self._given = flink, cluster, version
        self._options = options.view_as(JobServerOptions)
        self._own = options.view_as(FlinkRunnerOptions)

    def problems(self) -> list[str]:
        """Return a message for each program or file that is missing on this machine."""
        found, java, jar = [], self._options.job_server_java_launcher, self.jar
        if shutil.which(java) is None:
            found.append(
                f"engine.runner is flink, and there is no {java!r} on this machine: install Java 11 or later, or "
                "set engine.flink.job_server to a running job server"
            )
        if jar is not None and "://" not in jar and not os.path.isfile(jar):
            found.append(f"engine.flink.job_server_jar: there is no file {jar}")
        return found

    @property
    def jar(self) -> str | None:
        """The path or URL of the jar; None if Beam shall fetch its own."""
        return self._own.flink_job_server_jar or self._flink.job_server_jar or os.environ.get(JAR)

    def fetched(self) -> str:
        """Return a message that Beam fetches the jar."""
        return (
            f"neither engine.flink.job_server_jar nor {JAR} is set: Beam fetches its own job server for Flink "
            f"{self._version} from the network, or takes it from its cache"
        )

    def start(self, folder: Path) -> Program:
        """Start the job server.

        Args:
          folder: for files of the job server, and of a cluster inside it.

        Raises:
          EngineFailed: the jar could not be fetched.
        """
        jar = self.jar
        if jar is None:
            log.info(self.fetched())
            jar = JavaJarServer.path_to_beam_jar(f":runners:flink:{self._version}:job-server:shadowJar")
        try:
            jar = os.path.abspath(JavaJarServer.local_jar(jar, self._options.jar_cache_dir))
        except (RuntimeError, OSError):
            raise EngineFailed(
                f"Beam could not fetch a job server for Flink {self._version} from the network: download the jar from "
                f"Beam's releases on another machine, and set engine.flink.job_server_jar or {JAR} to its path"
            ) from None
        configuration = folder / "conf"
        configuration.mkdir()
        (configuration / "config.yaml").write_text(self._configuration(folder))
        port = self._options.job_port or job_service.free_port()
        command = [
            self._options.job_server_java_launcher,
            f"-Djava.io.tmpdir={folder}",
            # It handles a few descriptors and no rows: optimizing compilation would take longer than its work.
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
        """Return the Flink configuration of a cluster inside the job server; other clusters have their own."""
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
        """The version of Flink: the cluster's, because a cluster refuses a job server of another version."""
        if self._given is None and self._cluster is not None:
            with contextlib.suppress(flink_cluster.Unreachable):
                version = flink_cluster.overview(self._cluster).version
                if version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS:
                    return version
        return self._own.flink_version
