"""`engine.flink` of a job file."""

from __future__ import annotations

import re
from typing import Literal

import pydantic

from beam_score.runners.settings.layout import Layout, one_process
from beam_score.transforms.common.settings import Strict

EMBEDDED = "[local]"

_ADDRESS = re.compile(r"^(?:https?://)?([\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})/?$")


class FlinkSettings(Strict):
    """`engine.flink` of a job file.

    Attributes:
      master: `[local]`, a cluster inside the job server's JVM; or HOST:PORT of a cluster's REST service.
      job_server: HOST:PORT of a running Beam job server; by default one is started, and ended with the job.
      job_server_jar: path of a job server to start; by default from the environment variable, or fetched by Beam.
      environment: where Python workers run. LOOPBACK: threads of this process. EXTERNAL: started by a worker pool.
        PROCESS: started by each TaskManager.
      worker_pool: for EXTERNAL, HOST:PORT of the pool from the machines of the TaskManagers.
      worker_command: for PROCESS, path of the program on the machines of the TaskManagers.
      task_managers: number of TaskManagers that run the job; each has one worker process.
      restarts: for `[local]`, how often a job is restarted after a failure before it fails. Other clusters have this
        in their own configuration.
    """

    master: str = EMBEDDED
    job_server: str | None = None
    job_server_jar: str | None = None
    environment: Literal["auto", "LOOPBACK", "EXTERNAL", "PROCESS"] = "auto"
    worker_pool: str | None = None
    worker_command: str | None = None
    task_managers: int = pydantic.Field(default=1, ge=1)
    restarts: int | None = pydantic.Field(default=None, ge=0)

    @pydantic.field_validator("master", "job_server", "worker_pool")
    @classmethod
    def _addresses(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        if value is None or (info.field_name == "master" and value == EMBEDDED):
            return value
        found = _ADDRESS.match(value.strip())
        if found is None or not 0 < int(found[2]) < 65536:
            also = f"{EMBEDDED}, or " if info.field_name == "master" else ""
            raise ValueError(f"found {value!r}, expected {also}HOST:PORT")
        return value.strip()

    @pydantic.model_validator(mode="after")
    def _fit(self) -> FlinkSettings:
        kind = self.environment_type
        if kind == "EXTERNAL" and self.worker_pool is None:
            raise ValueError(
                "flink: a worker pool starts the workers of a cluster: set worker_pool to its HOST:PORT (or "
                "environment to PROCESS, or to LOOPBACK if the cluster is on this machine)"
            )
        if kind == "PROCESS" and self.worker_command is None:
            raise ValueError(
                "flink.environment is PROCESS: set worker_command to the path of beam-score-worker on the machines of "
                "the TaskManagers"
            )
        if kind != "EXTERNAL" and self.worker_pool is not None:
            raise ValueError(f"flink.worker_pool requires the environment EXTERNAL, found {kind}")
        if kind != "PROCESS" and self.worker_command is not None:
            raise ValueError(f"flink.worker_command requires the environment PROCESS, found {kind}")
        if self.job_server is not None and self.job_server_jar is not None:
            raise ValueError(
                "flink: job_server is a running job server, and job_server_jar is one to start: remove one of them"
            )
        return self

    @property
    def embedded(self) -> bool:
        return self.master == EMBEDDED

    @property
    def environment_type(self) -> str:
        """LOOPBACK, EXTERNAL or PROCESS, with `auto` resolved."""
        if self.environment != "auto":
            return self.environment
        if self.worker_command is not None:
            return "PROCESS"
        return "LOOPBACK" if self.embedded and self.worker_pool is None else "EXTERNAL"

    def layout(self, workers: int | Literal["auto"]) -> Layout:
        """Return the layout: one worker process per TaskManager, with a thread per slot. A slot counts as a core."""
        if self.environment_type == "LOOPBACK":
            return one_process(workers)
        slots = one_process(workers).threads
        threads = -(-slots // self.task_managers)
        return Layout(-(-slots // threads), threads, threads)


def host_and_port(address: str) -> tuple[str, int]:
    """Split an address into host and port. Raises ValueError if it is not HOST:PORT."""
    found = _ADDRESS.match(address)
    if found is None:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return found[1].strip("[]"), int(found[2])
