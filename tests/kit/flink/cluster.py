"""A standalone Flink cluster for tests: a JobManager, TaskManagers and a pool of Python workers, each a process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jobs
from flink.forking import MODULE, ForkedWorkers
from flink.jars import OPENED

from beam_score.runners.flink import cluster as flink_cluster

_READY_WITHIN_S = 120
_JVM = [
    *(part for package in OPENED for part in ("--add-opens", f"{package}=ALL-UNNAMED")),
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
]
_CONFIGURATION = """\
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
rest.address: localhost
rest.bind-address: 127.0.0.1
rest.port: {rest}
taskmanager.bind-host: 127.0.0.1
taskmanager.host: localhost
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: 2.0
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 0b
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
io.tmp.dirs: {folder}
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 5
restart-strategy.fixed-delay.delay: 1 s
heartbeat.interval: 1000
heartbeat.timeout: 5000
cluster.registration.error-delay: 500
"""


_CLIENT = Path(__file__).parent / "forked_worker.py"
_WORKER = """\
#!/bin/sh
mkdir {folder}/first 2>/dev/null && exec {python} -m {module} "$@"
exec {python} -I -S {client} {folder}/forked "$@"
"""
"""The command of a worker. The first one is a new Python, as everywhere else; the others are forked: see `forks`."""


class Cluster:
    """A running cluster; see `standing`.

    Attributes:
      master: HOST:PORT of its REST service.
      pool: HOST:PORT of its worker pool.
      slots: of each TaskManager.
      folder: for its files.
    """

    def __init__(self, jars: Path, folder: Path, slots: int, environment: Mapping[str, str]):
        self._environment = environment
        self._jars, self.folder, self.slots = jars, folder, slots
        self._processes: list[subprocess.Popen] = []
        rest, rpc, pool = _free_ports(3)
        self.master, self.pool, self._pool_port = f"localhost:{rest}", f"localhost:{pool}", pool
        (folder / "conf").mkdir(parents=True)
        (folder / "tmp").mkdir()
        text = _CONFIGURATION.format(rpc=rpc, rest=rest, slots=slots, folder=folder / "tmp")
        (folder / "conf" / "config.yaml").write_text(text)
        self._task_manager: subprocess.Popen | None = None
        self._forked = ForkedWorkers(folder / "forked")

    def start(self) -> None:
        """Start all processes, and wait until they are ready."""
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self._java("job-manager", "-Xmx400m", entry)
        self.start_task_manager()
        self._start_pool()
        self.wait_for_slots(self.slots)
        self._wait_for_pool()

    def start_task_manager(self) -> None:
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._task_manager = self._java("task-manager", "-Xmx384m", "-XX:MaxDirectMemorySize=320m", main)

    def kill_task_manager(self) -> None:
        """Kill a TaskManager with SIGKILL, like the loss of a machine."""
        self._task_manager.kill()
        self._task_manager.wait()

    def ask(self, path: str) -> Any:
        return flink_cluster.ask(self.master, path)

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs that the cluster has run, the latest last."""
        return sorted(self.ask("/jobs/overview")["jobs"], key=lambda job: job["start-time"])

    def wait_for_slots(self, slots: int) -> None:
        until = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < until:
            with contextlib.suppress(flink_cluster.Unreachable):
                if flink_cluster.overview(self.master).free >= slots:
                    return
            for process in self._processes:
                if process.poll() is not None and process is not self._task_manager:
                    raise AssertionError(f"{process.args[0]} has ended: {self.said()}")
            time.sleep(0.1)
        raise AssertionError(f"no {slots} free slots after {_READY_WITHIN_S} s: {self.said()}")

    def _wait_for_pool(self) -> None:
        until = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", self._pool_port), 1):
                return
            assert self._pool_process.poll() is None, self.said()
            time.sleep(0.1)
        raise AssertionError(f"the pool does not answer after {_READY_WITHIN_S} s: {self.said()}")

    def said(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("*.err")]
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-2000:]}" for p in logs)

    def end(self) -> None:
        self._forked.close()
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start_pool(self) -> None:
        worker = self.folder / "worker"
        worker.write_text(_WORKER.format(folder=self.folder, python=sys.executable, module=MODULE, client=_CLIENT))
        worker.chmod(0o755)
        arguments = [f"--service_port={self._pool_port}", f"--container_executable={worker}"]
        self._pool_process = self._process(
            "pool", [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", *arguments]
        )

    def _java(self, name: str, *arguments: str) -> subprocess.Popen:
        command = ["java", *_JVM, "-cp", f"{self._jars}/lib/*", *arguments, "-c", str(self.folder / "conf")]
        return self._process(name, command)

    def _process(self, name: str, command: list[str]) -> subprocess.Popen:
        (self.folder / "plugins").mkdir(exist_ok=True)
        environment = jobs.environment(
            FLINK_CONF_DIR=str(self.folder / "conf"),
            FLINK_LIB_DIR=str(self._jars / "lib"),
            FLINK_PLUGINS_DIR=str(self.folder / "plugins"),
            TMPDIR=str(self.folder / "tmp"),
            **self._environment,
        )
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
            )
        self._processes.append(process)
        return process


@contextlib.contextmanager
def standing(jars: Path, folder: Path, slots: int = 2, **environment: str) -> Iterator[Cluster]:
    """Yield a cluster that is ready: one TaskManager, and a pool of workers that load this checkout's code.

    Args:
      jars: see `flink.jars.fetched`.
      folder: for its files; a fresh one.
      slots: of the TaskManager.
      environment: additional variables of all its processes.
    """
    cluster = Cluster(jars, folder, slots, environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("localhost", 0))
        return [probe.getsockname()[1] for probe in probes]
