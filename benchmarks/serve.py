"""Compare `beam-score serve` with the services that people write, on the demo's model: Flask and FastAPI.

    python benchmarks/serve.py --rounds 5                 # all cases
    python benchmarks/serve.py --rounds 3 --seconds 2 "1 row, 16 connections"

Each service validates every row, keeps metrics, and logs a line a request (`benchmarks/serve/`); of Flask and FastAPI,
the fastest kind and number of workers is chosen first. All run at the same time, on the same cores as the load, but one
is asked at a time, in the opposite order every other round; a result is the ratio within a round, with its median and
range. Answers are compared once. The load is made by wrk in a closed loop; that of gRPC, and the open loop, by scripts.
CPU time is that of all processes of a service.

Needs wrk. Makes the demo's model, and an environment for each peer, under --folder.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from compare import conclude, spread
from machine import describe
from peer_environments import python_of
from processes import cpu_s

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parent / "examples" / "demo"
START_S = 240

OURS = "beam-score"
WORKERS: dict[str, dict[str, tuple[str, ...]]] = {
    "flask": {
        "sync, 2 workers": ("gunicorn", "--workers", "2", "--bind", "127.0.0.1:{port}", "service:app"),
        "gthread, 2 x 8": ("gunicorn", "--workers", "2", "--threads", "8", "--bind", "127.0.0.1:{port}", "service:app"),
        "gthread, 1 x 16": ("gunicorn", "--threads", "16", "--bind", "127.0.0.1:{port}", "service:app"),
    },
    "fastapi": {
        "1 worker": ("uvicorn", "--port", "{port}", "--no-access-log", "service:app"),
        "2 workers": ("uvicorn", "--port", "{port}", "--no-access-log", "--workers", "2", "service:app"),
    },
}
"""The commands that were tried, by peer."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
      name: of it.
      address: `HOST:PORT` of HTTP.
      process: its first process.
      rpc: `HOST:PORT` of gRPC; of ours only.
    """

    name: str
    address: str
    process: int
    rpc: str = ""


@dataclasses.dataclass(frozen=True)
class Load:
    """A load on a service.

    Attributes:
      connections: at the same time.
      rows: of a request.
      bad: share of the rows that break the contract.
      goals: peer to the ratio of requests/s that is wanted.
    """

    connections: int
    rows: int
    bad: float = 0.0
    goals: dict[str, float] = dataclasses.field(default_factory=dict)


CASES = {
    "1 row, 1 connection": Load(1, 1),
    "1 row, 16 connections": Load(16, 1, goals={"flask": 5, "fastapi": 4}),
    "1 row, 64 connections": Load(64, 1, goals={"flask": 8, "fastapi": 7}),
    "64 rows, 16 connections": Load(16, 64, goals={"flask": 4, "fastapi": 4}),
}
OTHERS = ("1% bad rows", "raw signature", "one idle connection", "three times saturation", "version switch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join((*CASES, *OTHERS))}; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of a load")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data/serve"))
    arguments = parser.parse_args()
    cases = arguments.cases or [*CASES, *OTHERS]
    if unknown := set(cases) - {*CASES, *OTHERS}:
        parser.error(f"no case {unknown.pop()!r}; there are: {', '.join((*CASES, *OTHERS))}")
    bench = Bench(arguments.folder.resolve(), arguments.rounds, arguments.seconds)
    print(describe(), flush=True)
    bench.prepare()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(bench.ours())
        services = [ours]
        if any(case in CASES for case in cases):
            services += [stack.enter_context(bench.best(peer)) for peer in WORKERS]
            compare_answers(services)
        for case in cases:
            print(f"\n{case}, rounds: {bench.rounds}\n", flush=True)
            if case in CASES:
                bench.compare(services, CASES[case])
            else:
                tests = (bench.bad_rows, bench.raw, bench.idle, bench.saturated, bench.switched)
                dict(zip(OTHERS, tests, strict=True))[case](ours)
            print(end="", flush=True)


@dataclasses.dataclass(frozen=True)
class Bench:
    """The measurements.

    Attributes:
      folder: the demo's model, environments and logs.
      rounds: of each comparison.
      seconds: of a load.
    """

    folder: pathlib.Path
    rounds: int
    seconds: float

    def prepare(self) -> None:
        """Make the model and a job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob("people/*"):
            if left != self.model:  # by the case of versions
                shutil.rmtree(left)
        if not (self.model / "saved_model.pb").exists():
            subprocess.run([sys.executable, DEMO / "make_model.py", self.model], check=True)
        job = (DEMO / "job.yaml").read_text().replace("demo/models/people", str(self.model.parent))
        (self.folder / "job.yaml").write_text(job)

    @property
    def model(self) -> pathlib.Path:
        return self.folder / "people" / "1"

    @contextlib.contextmanager
    def ours(self) -> Iterator[Service]:
        """Serve the demo's job."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        ports = ("--port", "0", "--grpc-port", "0", "--ready-file", ready)
        command = [sys.executable, "-m", "beam_score.pipeline.cli", "serve", self.folder / "job.yaml", *ports]
        with self._running(OURS, command, lambda: ready.exists()) as process:
            http, rpc = ready.read_text().split()
            yield Service(OURS, http, process, rpc)

    @contextlib.contextmanager
    def peer(self, peer: str, workers: str) -> Iterator[Service]:
        """Serve the model by a peer."""
        python = python_of(HERE / "serve" / peer / "requirements.txt", self.folder / "environments" / peer)
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        program, *options = (part.format(port=address.rpartition(":")[2]) for part in WORKERS[peer][workers])
        counts = self.folder / "counts" / peer
        counts.mkdir(parents=True, exist_ok=True)
        environment = {"MODEL": str(self.model), "PROMETHEUS_MULTIPROC_DIR": str(counts), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if peer == "fastapi":
            del environment["PROMETHEUS_MULTIPROC_DIR"]

        def ready() -> bool:
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"http://{address}/healthz", timeout=5).status == 200
            return False

        with self._running(
            peer, [python, "-m", program, *options], ready, environment, HERE / "serve" / peer
        ) as process:
            for _ in range(20):  # each worker
                post(address, {"instances": [{"age": 1, "income": 1, "score": 1}]})
            yield Service(f"{peer} ({workers})", address, process)

    @contextlib.contextmanager
    def best(self, peer: str) -> Iterator[Service]:
        """Serve by the kind and number of workers of a peer with the most requests/s."""
        found = {}
        for workers in WORKERS[peer]:
            with self.peer(peer, workers) as service:
                found[workers] = self.closed(service, Load(16, 1))["answers_per_s"]
                print(f"{service.name}: {found[workers]:,.0f} requests/s", file=sys.stderr)
        with self.peer(peer, max(found, key=lambda workers: found[workers])) as service:
            yield service

    @contextlib.contextmanager
    def _running(
        self,
        name: str,
        command: Sequence[object],
        ready: Callable[[], bool],
        environment: dict[str, str] | None = None,
        folder: pathlib.Path | None = None,
    ) -> Iterator[int]:
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )
        try:
            late = time.monotonic() + START_S
            while not ready():
                if process.poll() is not None or time.monotonic() > late:
                    raise RuntimeError(f"{name} does not start: see {self.folder / name}.log")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            process.wait()

    def closed(self, service: Service, load: Load) -> dict[str, float]:
        """Put a load on a service; return answers/s, CPU microseconds a request and the rest of what wrk found."""
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{self.seconds:g}", "-s", HERE / "serve" / "rows.lua"]
        environment = {**os.environ, "ROWS": str(load.rows), "BAD": str(load.bad)}
        before = cpu_s(service.process)
        done = subprocess.run(
            [*command, f"http://{service.address}/predict"], env=environment, check=True, capture_output=True, text=True
        )
        used = cpu_s(service.process) - before
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        if (found["refused"] and not load.bad) or (found["errors"] and service.name == OURS):
            raise RuntimeError(f"{service.name}: {found}")
        if found["errors"]:
            print(f"{service.name}: {found['errors']} requests without an answer within 2 s", file=sys.stderr)
        found["answers_per_s"] = found["requests"] / found["us"] * 1e6
        return found | {"cpu_us": 1e6 * used / found["requests"]}

    def compare(self, services: Sequence[Service], load: Load) -> None:
        """Print two tables: the services under a load, and the ratios of the first to the others."""
        runs: dict[str, list[dict[str, float]]] = {service.name: [] for service in services}
        for round_ in range(self.rounds):
            for service in services if round_ % 2 == 0 else reversed(services):
                runs[service.name].append(self.closed(service, load))
        print("| service | rows/s | CPU µs a request | p50, ms | p99, ms |\n| --- | --- | --- | --- | --- |")
        for name, own in runs.items():
            cells = [
                spread([load.rows * run["answers_per_s"] for run in own]),
                spread([run["cpu_us"] for run in own]),
                *(spread([run[key] / 1000 for run in own]) for key in ("p50_us", "p99_us")),
            ]
            print(f"| {name} | {' | '.join(cells)} |")
        print("\n| ratio | rows/s | CPU a request | goal |\n| --- | --- | --- | --- |")
        first, *rest = runs
        for name in rest:
            speed, cpu = (
                [ours[key] / peer[key] for ours, peer in zip(runs[first], runs[name], strict=True)]
                for key in ("answers_per_s", "cpu_us")
            )
            goal = load.goals.get(name.partition(" ")[0])
            verdicts = conclude(speed, "faster", "slower"), conclude(cpu, "more", "less"), judged(speed, goal)
            print(f"| {first} / {name} | {' | '.join(verdicts)} |")

    def bad_rows(self, ours: Service) -> None:
        """Print the rows/s with 1% bad rows, as a share of those with none."""
        for connections, rows in ((16, 1), (16, 64)):
            shares = []
            for _ in range(self.rounds):
                clean, bad = (self.closed(ours, Load(connections, rows, share)) for share in (0.0, 0.01))
                shares.append(bad["answers_per_s"] / clean["answers_per_s"])
            load = f"{rows} rows a request, {connections} connections"
            print(f"- {load}: {spread(shares)} of clean{judged(shares, 0.9, ', ')}")

    def raw(self, ours: Service) -> None:
        """Print the rows/s of the server as shares of those of the signature in a loop over ready arrays."""
        for by in ("python", "c_api"):
            rest, rpc = [], []
            for _ in range(self.rounds):
                command = [
                    sys.executable,
                    HERE / "serve" / "raw_loop.py",
                    self.model,
                    "--by",
                    by,
                    "--seconds",
                    self.seconds,
                ]
                raw = {rows: scripted(*command, "--rows", rows)["rows_per_s"] for rows in (64, 1024)}
                rest.append(64 * self.closed(ours, Load(16, 64))["answers_per_s"] / raw[64])
                script = (sys.executable, HERE / "serve" / "rpc_loop.py", ours.rpc, "--seconds", self.seconds)
                rpc.append(scripted(*script)["rows_per_s"] / raw[1024])
            print(f"- of the signature by {by}: REST, 64 rows: {spread(rest)}{judged(rest, 0.35, ', ')}")
            print(f"- of the signature by {by}: gRPC, 1,024 rows: {spread(rpc)}{judged(rpc, 0.5, ', ')}")

    def idle(self, ours: Service) -> None:
        """Print the time of a request on one connection, above that of the bare call."""
        above = []
        for _ in range(self.rounds):
            script = (sys.executable, HERE / "serve" / "raw_loop.py", self.model, "--by", "c_api")
            bare = scripted(*script, "--rows", 1, "--seconds", self.seconds)["us_a_call"]
            above.append((self.closed(ours, Load(1, 1))["p50_us"] - bare) / 1000)
        print(f"- p50 above the bare call: {spread(above)} ms; goal at most 1")

    def saturated(self, ours: Service) -> None:
        """Print the good answers/s at three times the rate that saturates the server, as a share of that rate."""
        shares, p99 = [], []
        for _ in range(self.rounds):
            most = self.closed(ours, Load(64, 1))["answers_per_s"]
            script = (sys.executable, HERE / "serve" / "open_loop.py", ours.address, "--seconds", self.seconds)
            found = scripted(*script, "--rate", 3 * most)
            print(f"  {found}", file=sys.stderr)
            shares.append(found["good_per_s"] / most)
            p99.append(found["p99_ms"])
        print(f"- goodput: {spread(shares)} of saturation{judged(shares, 0.9, ', ')}; p99 of the good {spread(p99)} ms")

    def switched(self, ours: Service) -> None:
        """Print the 99th percentile of the time of a request while a version is loaded and takes over, as a multiple
        of the usual one, at a third of the rate that saturates the server."""
        ratios, usual, failed = [], [], 0
        for round_ in range(self.rounds):
            rate = self.closed(ours, Load(64, 1))["answers_per_s"] / 3
            script = (sys.executable, HERE / "serve" / "open_loop.py", ours.address, "--rate", rate)
            runs = [scripted(*script, "--seconds", 2 * self.seconds)]
            publish = threading.Timer(1.0, self._publish, [2 + round_])
            publish.start()
            runs.append(scripted(*script, "--seconds", 2 * self.seconds))
            publish.join()
            print(f"  {runs}", file=sys.stderr)
            with urllib.request.urlopen(f"http://{ours.address}/v1/models/people/versions/{2 + round_}") as answer:
                if b"AVAILABLE" not in answer.read():
                    raise RuntimeError(f"version {2 + round_} has not taken over: take more --seconds")
            ratios.append(runs[1]["p99_ms"] / runs[0]["p99_ms"])
            usual.append(runs[0]["p99_ms"])
            failed += runs[1]["refused"] + runs[1]["failed"]
        print(f"- p99 during a switch: {spread(ratios)} of the usual {spread(usual)} ms; goal at most 2")
        print(f"- requests that failed: {failed}; goal 0")

    def _publish(self, number: int) -> None:
        """Add a version, and remove those before it but one."""
        shutil.copytree(self.model, beside := self.folder / f"version-{number}")
        beside.rename(self.model.parent / str(number))
        if number > 3:
            shutil.rmtree(self.model.parent / str(number - 2))


def judged(ratios: Sequence[float], goal: float | None, before: str = "") -> str:
    """Return whether the median of ratios meets a goal."""
    if goal is None:
        return ""
    met = statistics.median(ratios) >= goal
    sure = min(ratios) >= goal if met else max(ratios) < goal
    return f"{before}{goal:g}: {'met' if met else 'missed'}{'' if sure else ', not in all rounds'}"


def scripted(*command: object) -> dict[str, Any]:
    """Run a script, and return what it prints."""
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def post(address: str, body: object) -> tuple[int, Any]:
    """Return the status and the answer to rows."""
    request = urllib.request.Request(f"http://{address}/predict", json.dumps(body).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def compare_answers(services: Sequence[Service]) -> None:
    """Raise RuntimeError if a service answers otherwise than the first."""
    rows = [{"age": 20 + n, "income": 999.5 * n, "score": n / 64} for n in range(63)] + [{"age": 5, "income": 0}]
    bodies = [rows, rows[:1], [*rows, {"age": 300, "income": 1, "score": 1}], [{"age": "x", "income": 1}], [{"age": 1}]]
    for body in bodies:
        (expected, first), *others = (post(service.address, {"instances": body}) for service in services)
        for service, (status, answer) in zip(services[1:], others, strict=True):
            same = status == expected and (status != 200 or is_close(answer["predictions"], first["predictions"]))
            if not same:
                raise RuntimeError(f"{service.name} answers {status}, {OURS} {expected}, or other predictions")


def is_close(found: Any, expected: Any) -> bool:
    """Return whether two JSON values are the same, and their numbers nearly so."""
    if isinstance(expected, float):
        return abs(found - expected) < 1e-5
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(is_close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_close, found, expected))
    return bool(found == expected)


if __name__ == "__main__":
    main()
