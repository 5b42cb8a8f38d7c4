"""Versions come, go, break and are reverted while clients ask by every protocol: no request fails, and each answer is
from a version that was available when it was asked."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import requests
import serving
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import predict_pb2
from versioned import ROW, Versions, answers, available, factor, states, until

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.versions.admin import revert_over

STEPS = int(os.environ.get("BEAM_SCORE_STEPS", "25"))
"""Random steps; 200 take a quarter of an hour."""

SWITCHES = int(os.environ.get("BEAM_SCORE_SWITCHES", "4"))

V2 = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}

DIED = "the process of the model has ended"


@dataclasses.dataclass
class Asked:
    """What clients have seen.

    Attributes:
      answers: by protocol.
      died: requests whose process was killed, by protocol.
      failures: others that were not answered, and answers of versions that were not available.
      versions: that have answered.
    """

    answers: Counter[str]
    died: Counter[str]
    failures: list[str]
    versions: set[int]


@contextlib.contextmanager
def clients(server: serving.Server) -> Iterator[Asked]:
    """Ask by every protocol while the body runs."""
    seen, ending = Asked(Counter(), Counter(), [], set()), threading.Event()

    def loop(protocol: str, ask: Callable[[], tuple[int, int]]) -> None:
        session = requests.Session()

        def now() -> set[int]:
            found = session.get(f"{server.address}/v1/models/m", timeout=30).json()["model_version_status"]
            return {int(one["version"]) for one in found if one["state"] == "AVAILABLE"}

        before = now()
        while not ending.is_set():
            try:
                version, by = ask()
            except (AssertionError, grpc.RpcError) as error:
                if DIED in str(error):
                    seen.died[protocol] += 1
                else:
                    seen.failures.append(f"{protocol}: {error}")
                continue
            after = now()
            if by != factor(version) or version not in before | after:
                seen.failures.append(f"{protocol}: version {version} * {by}, available {before}, then {after}")
            before = after
            seen.versions.add(version)
            seen.answers[protocol] += 1

    with grpc.insecure_channel(server.rpc) as channel:
        asks = {
            "rest": rest(server, "/predict"),
            "label": rest(server, "/v1/models/m/labels/stable:predict"),
            "v2": v2(server),
            "grpc": lambda: rpc(channel),
        }
        threads = [threading.Thread(target=loop, args=one) for one in asks.items()]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            ending.set()
            for thread in threads:
                thread.join()


def rest(server: serving.Server, path: str) -> Callable[[], tuple[int, int]]:
    session = requests.Session()

    def ask() -> tuple[int, int]:
        answer = session.post(server.address + path, json=ROW, timeout=60)
        assert answer.status_code == 200, answer.text
        return int(answer.headers["x-model-version"]), round(answer.json()["predictions"][0])

    return ask


def v2(server: serving.Server) -> Callable[[], tuple[int, int]]:
    session = requests.Session()

    def ask() -> tuple[int, int]:
        answer = session.post(server.address + "/v2/models/m/infer", json=V2, timeout=60)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["model_version"]), round(answer.json()["outputs"][0]["data"][0])

    return ask


def rpc(channel: grpc.Channel) -> tuple[int, int]:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    call = channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        request_serializer=predict_pb2.PredictRequest.SerializeToString,
        response_deserializer=predict_pb2.PredictResponse.FromString,
    )
    answer = call(request, timeout=60)
    return answer.model_spec.version.value, round(answer.outputs["y"].float_val[0])


class Steps:
    """Random changes of a folder of versions, and of what the server makes of it."""

    def __init__(self, server: serving.Server, versions: Versions, seed: int):
        self.server, self.versions, self.random = server, versions, random.Random(seed)
        self.next, self.kills, self.policy, self.label = 2, 0, {"latest": 1}, 1
        self.begun: int | None = None
        self.done = Counter[str]()

    def step(self) -> str:
        steps = ("add", "add", "copy", "remove", "corrupt", "half", "revert", "relabel", "aspire", "kill", "vanish")
        name = self.random.choice(steps)
        getattr(self, name)()
        self.done[name] += 1
        return name

    def _new(self) -> int:
        self.next += 1
        for number in self.versions.numbers[:-3]:  # memory: no more than a few are loaded
            self._remove(number)
        return self.next

    def add(self) -> None:
        self.versions.publish(self._new())

    def copy(self) -> None:
        self.versions.copy(self._new(), 0.02)

    def remove(self) -> None:
        """Remove a version, unless it is the last that works."""
        working = [n for n in self.versions.numbers if n in available(self.server)]
        if len(working) > 1:
            self._remove(self.random.choice(working))

    def _remove(self, number: int) -> None:
        """Remove a version, unless a label names it: if its process was killed, it could not be loaded again."""
        if number != self.label:
            self.versions.remove(number)

    def corrupt(self) -> None:
        """Add a version that does not load."""
        number = self._new()
        with self.versions.half(number) as beside:
            file = self.random.choice(["saved_model.pb", "variables/variables.data-00000-of-00001"])
            size = (beside / file).stat().st_size
            (beside / file).write_bytes(b"\x99" * size)

    def half(self) -> None:
        """Begin a copy, or complete one."""
        left, self.begun = self.begun, None
        if left is None:
            self.begun = self._new()
            self.versions.copy(self.begun, 0.01, but=self.random.choice(["saved_model.pb", "variables.index"]))
        elif left in self.versions.numbers:
            self.versions.copy(left, 0.01)

    def revert(self) -> None:
        with contextlib.suppress(JobError):  # no other version is loaded
            revert_over(str(self.versions.folder / "ready.admin"), "m")

    def relabel(self) -> None:
        numbers = [n for n in self.versions.numbers if n in available(self.server)]
        before = self.label
        if numbers:
            self.label = self.random.choice(numbers)
        if not self._reload():
            self.label = before

    def aspire(self) -> None:
        """Change the policy."""
        numbers = sorted(available(self.server)) or [self.label]
        policies = [{"latest": 1}, {"latest": 2}, "all", {"specific": [self.random.choice(numbers)]}]
        self.policy = self.random.choice(policies)
        self._reload()

    def _reload(self) -> bool:
        labels = {"stable": self.label}
        self.versions.reload(self.server, wait=False, rollout=KEPT, policy=self.policy, labels=labels)
        until(lambda: "is reloaded" in self.versions.log or "is not reloaded" in self.versions.log)
        return "is reloaded" in self.versions.log

    def kill(self) -> None:
        """Kill the process of a model, if another version is available."""
        if len(available(self.server)) > 1:
            children = Path(f"/proc/{self.server.process.pid}/task/{self.server.process.pid}/children")
            self.kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.random.choice(children.read_text().split())), signal.SIGKILL)

    def vanish(self) -> None:
        elsewhere = self.versions.folder / "elsewhere"
        self.versions.base.rename(elsewhere)
        time.sleep(0.3)
        elsewhere.rename(self.versions.base)


KEPT = {"keep_previous": 1}


@pytest.mark.parametrize("seed", [int(os.environ.get("BEAM_SCORE_SEED", "1"))])
def test_no_request_fails_while_versions_change_at_random(tmp_path, seed):
    versions = Versions(tmp_path / "of")
    versions.publish(1)
    options = {"rollout": KEPT, "versions": {"labels": {"stable": 1}}}
    with versions.served(**options) as server:
        steps = Steps(server, versions, seed)
        began = time.monotonic()
        versions.publish(steps.next)
        until(lambda: answers(server, steps.next))
        switch_s = time.monotonic() - began  # faster steps than versions can be loaded would try little
        with clients(server) as seen:
            for _ in range(STEPS):
                done = steps.step()
                time.sleep(steps.random.uniform(0.1, 1.0) * switch_s)
                assert not seen.failures, (done, seen, states(server), versions.log[-4000:])
            last = steps.next + 1
            versions.publish(last)
            steps.policy = {"latest": 1}
            steps._reload()
            until(lambda: answers(server, last))
        print(seen, steps.done)
        assert not seen.failures, seen
        # Requests for the label wait for its version to be loaded again; others go to another version at once.
        assert sum(seen.died[protocol] for protocol in ("rest", "v2", "grpc")) <= 6 * steps.kills, seen
        assert len(seen.versions) > STEPS // 20
        assert set(seen.answers) == {"rest", "label", "v2", "grpc"} and min(seen.answers.values()) > STEPS
        assert_closed(server)
        assert server.end() == 0


def assert_closed(server: serving.Server) -> None:
    """Of each version, the rows received are those with an outcome."""
    families = {f.name: f.samples for f in text_string_to_metric_families(server.get("/metrics").text)}
    sums: dict[str, float] = {}
    for sample in families["beam_score_rows"]:
        sign = 1 if sample.labels["outcome"] == "received" else -1
        sums[sample.labels["version"]] = sums.get(sample.labels["version"], 0) + sign * sample.value
    assert set(sums.values()) == {0}


def test_a_copy_with_pauses_takes_over_without_a_failed_request(tmp_path):
    versions = Versions(tmp_path / "of")
    versions.publish(1)
    with versions.served(versions={"labels": {"stable": 1}}) as server:
        with clients(server) as seen:
            versions.copy(2, 0.4)
            until(lambda: answers(server, 2))
        assert not seen.failures and not seen.died, seen


def test_memory_after_many_switches_is_that_after_one(tmp_path):
    versions = Versions(tmp_path / "of")
    versions.publish(1)
    with versions.served(versions={"labels": {"stable": 1}}) as server:
        sizes = []
        for number in range(2, 2 + SWITCHES):
            versions.publish(number)
            versions.reload(server, labels={"stable": number})
            until(lambda number=number: answers(server, number))
            versions.remove(number - 1)
            until(lambda number=number: available(server) == {number})
            until(lambda: len(processes(server)) == 2)
            sizes.append(sum(map(resident, processes(server))))
        print([size >> 20 for size in sizes])
        assert sizes[-1] < 1.1 * sizes[0]


def processes(server: serving.Server) -> list[int]:
    """Return the process ids of the server and of its models."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def resident(pid: int) -> int:
    """Return the bytes of memory of a process that are its own."""
    found = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) << 10 for line in found.splitlines() if line.startswith("Private_"))
